"""What a log-concave density is drawn from before a correction, and what its normaliser is estimated under."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from ot_lift.densities_normalizer import Energy, place
from ot_lift.flows_map import FlowMap
from ot_lift.likelihood import block_rows, log_density
from ot_lift.maps import in_blocks

# A tenth of the draws have heavy tails, so that no weight is far above what that tenth allows (Hesterberg 1995).
_HEAVY_SHARE, _HEAVY_DEGREES = 0.1, 5.0
_CELLS = {1: 1 << 13, 2: 384}  # of a side


class Proposal(Protocol):
    """A density that is easy to draw from, in whitened coordinates."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent points ``(count, features)``, float64."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density ``(n,)`` of points ``(n, features)``; −inf where it has none."""


class StandardNormal(Proposal):
    """N(0, I).

    Args:
        features: dimension.

    Example:
        >>> StandardNormal(2).log_prob(torch.zeros(1, 2).double()).item()  # −log 2π
        -1.8378770664093453
    """

    def __init__(self, features: int) -> None:
        self.features = features

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.features, generator=generator, dtype=torch.float64)

    def log_prob(self, x: Tensor) -> Tensor:
        return log_density(x, x.new_zeros(len(x)))


class Cells(Proposal):
    """A density in one or two dimensions, constant on each cell of a grid: about proportional to exp(−E).

    Args:
        energy: convex, ``(n, features)`` → ``(n,)``.
        features: 1 or 2.

    Example:
        >>> cells = Cells(lambda x: 0.5 * x.square().sum(1), 1)
        >>> abs(cells.log_prob(torch.zeros(1, 1).double()).item() + 0.5 * math.log(2 * math.pi)) < 1e-4
        True
    """

    def __init__(self, energy: Energy, features: int) -> None:
        self._box, self._count = place(energy, features), _CELLS[features]
        self._step = (self._box[1] - self._box[0]) / self._count
        sides = [torch.arange(self._count, dtype=torch.float64) for _ in range(features)]
        centres = torch.cartesian_prod(*sides).reshape(-1, features) + 0.5
        log_mass = -in_blocks(energy, self._box[0] + centres * self._step)
        self._log_mass = log_mass - torch.logsumexp(log_mass, 0)
        self._cumulative = self._log_mass.exp().cumsum(0)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(count, generator=generator, dtype=torch.float64) * self._cumulative[-1]
        chosen = torch.searchsorted(self._cumulative, uniform, right=True).clamp_max(len(self._cumulative) - 1)
        features = len(self._step)
        cell = torch.stack([chosen // self._count**k % self._count for k in reversed(range(features))], 1)
        within = torch.rand(count, features, generator=generator, dtype=torch.float64)
        return self._box[0] + (cell + within) * self._step

    def log_prob(self, x: Tensor) -> Tensor:
        cell = ((x.double() - self._box[0]) / self._step).floor()
        outside = ((cell < 0) | (cell >= self._count)).any(1)
        index = torch.zeros(len(x), dtype=torch.int64)
        for column in cell.clamp(0, self._count - 1).long().T:
            index = index * self._count + column
        log_prob = self._log_mass[index] - self._step.log().sum()
        return log_prob.masked_fill(outside, -math.inf)


class FlowProposal(Proposal):
    """A fitted flow, mixed with a share of a multivariate t: weights stay bounded where the flow's tails are too light.

    Args:
        map_: of the flow, from whitened coordinates to N(0, I).

    References:
        Hesterberg 1995, "Weighted Average Importance Sampling and Defensive Mixture Distributions".

    Example:
        >>> from ot_lift.flows_start import identity_blocks
        >>> from ot_lift.flows_whitening import Whitening
        >>> units = Whitening.of_moments(torch.zeros(3), torch.eye(3)).coordinates
        >>> proposal = FlowProposal(FlowMap(identity_blocks(3), units))
        >>> drawn = proposal.draw(1000, torch.Generator().manual_seed(0))
        >>> weight = (StandardNormal(3).log_prob(drawn) - proposal.log_prob(drawn)).exp()  # N(0, I) over the mixture
        >>> abs(weight.mean().item() - 1) < 0.03, bool(weight.max() < 1 / 0.9)
        (True, True)
    """

    def __init__(self, map_: FlowMap) -> None:
        self.map_ = map_

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        features = self.map_.features
        latent = torch.randn(count, features, generator=generator, dtype=torch.float64)
        heavy = torch.rand(count, generator=generator) < _HEAVY_SHARE
        # χ² with an odd or even number of degrees is a sum of squares: torch's own sampler takes no generator.
        squares = torch.randn(count, int(_HEAVY_DEGREES), generator=generator, dtype=torch.float64).square().sum(1)
        points = latent * (_HEAVY_DEGREES / squares).sqrt()[:, None]
        points[~heavy] = in_blocks(lambda z: self.map_.inv(z), latent[~heavy], block_rows(features))
        return points

    def log_prob(self, x: Tensor) -> Tensor:
        rows = block_rows(self.map_.features)
        flow = in_blocks(lambda points: log_density(*self.map_.image_and_log_det(points)), x.double(), rows)
        return torch.logaddexp(
            flow + math.log1p(-_HEAVY_SHARE), multivariate_t_log_prob(x.double()) + math.log(_HEAVY_SHARE)
        )


def multivariate_t_log_prob(x: Tensor, degrees: float = _HEAVY_DEGREES) -> Tensor:
    """Log-density ``(n,)`` of the standard multivariate t distribution at ``(n, features)``.

    Example:
        >>> round(multivariate_t_log_prob(torch.zeros(1, 1), 1.0).item(), 5)  # Cauchy: −log π
        -1.14473
    """
    features = x.shape[1]
    constant = math.lgamma(0.5 * (degrees + features)) - math.lgamma(0.5 * degrees)
    constant -= 0.5 * features * math.log(degrees * math.pi)
    return constant - 0.5 * (degrees + features) * torch.log1p(x.square().sum(1) / degrees)
