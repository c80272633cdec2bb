"""Maximum likelihood of a flow: the density of points whose images should be N(0, I), as a training objective."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ot_lift.batches import Batches
from ot_lift.constrained import Bound
from ot_lift.errors import ConvergenceError
from ot_lift.io import joined, part
from ot_lift.training import Objective

_BLOCK_NUMBERS = 1 << 24  # of Hessians at a time


def log_density(latent: Tensor, log_det: Tensor) -> Tensor:
    """Log-density of points from their images under a map to N(0, I), by the change of variables.

    Args:
        latent: images ``(n, features)``.
        log_det: log |det| of the map's Jacobian at the points, ``(n,)``.

    Returns:
        log N(latent; 0, I) + log_det, ``(n,)``, nats.

    Example:
        >>> log_density(torch.zeros(1, 2), torch.zeros(1)).item()  # −log 2π
        -1.8378770351409912
    """
    return log_det - 0.5 * latent.square().sum(1) - 0.5 * math.log(2 * math.pi) * latent.shape[1]


def block_rows(features: int) -> int:
    """Rows whose Hessians are held in memory at a time when a density is evaluated.

    Example:
        >>> block_rows(2), block_rows(128)
        (32768, 1024)
    """
    return max(1, min(1 << 15, _BLOCK_NUMBERS // features**2))


class MaximumLikelihood(Objective):
    """Mean negative log-likelihood of a map to N(0, I), in nats a point.

    The model takes points ``(n, features)`` to their images ``(n, features)`` and log |det| of its Jacobian ``(n,)``.
    In a training step it is also given ``generator``, and may then answer with a log |det| whose derivative is an
    unbiased estimate. A model that has diverged has a loss of NaN: that is for the training loop to see.

    Args:
        batches: of the training points.
        held_out: ``(m, features)``.
        held_out_weight: ``(m,)`` or None.
        generator: source of noise and of the model's probes; its state belongs to a checkpoint.
        blur: root ``(features, features)`` of the covariance of normal noise that every batch gets, or None.
        log_volume: log |det| of the coordinates that the points are in, so that values are in the units of the data.
    """

    def __init__(
        self,
        batches: Batches,
        held_out: Tensor,
        held_out_weight: Tensor | None = None,
        *,
        generator: torch.Generator,
        blur: Tensor | None = None,
        log_volume: float = 0.0,
    ) -> None:
        self.batches, self.held_out_x, self.held_out_weight = batches, held_out, held_out_weight
        self._generator, self._blur, self._log_volume = generator, blur, log_volume

    def next_batch(self) -> Tensor:
        self._x = blurred(self.batches.next()[1], self._blur, self._generator)
        return self._x

    def loss(self, model: Bound) -> Tensor:
        try:
            return -log_density(*model(self._x, generator=self._generator)).mean() - self._log_volume
        except ConvergenceError:
            return math.nan * torch.stack([weight.sum() for weight in model.weights.values()]).sum()

    @torch.no_grad()
    def held_out(self, model: nn.Module) -> float:
        try:
            values = self.log_likelihood(model, self.held_out_x)
        except ConvergenceError:
            return math.nan
        return -weighted_mean(values, self.held_out_weight)

    @torch.no_grad()
    def log_likelihood(self, model: nn.Module, x: Tensor) -> Tensor:
        """Log-density ``(n,)`` at points ``(n, features)`` in the units of the data, float64."""
        parts = [log_density(*model(block)) for block in x.split(block_rows(x.shape[1]))]
        return torch.cat(parts).double() + self._log_volume

    def report(self) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {"generator": self._generator.get_state()} | joined({"batches": self.batches.state()})

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._generator.set_state(state["generator"])
        self.batches.load_state(part(state, "batches"))


def weighted_mean(values: Tensor, weight: Tensor | None) -> float:
    """Mean of ``values`` ``(n,)`` under weights ``(n,)`` of any sum; None: all are equal.

    Example:
        >>> weighted_mean(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0]))
        2.0
    """
    if weight is None:
        return float(values.mean())
    weight = weight.to(values)
    return float((values * weight).sum() / weight.sum())


def blurred(x: Tensor, blur: Tensor | None, generator: torch.Generator) -> Tensor:
    """Points ``(n, features)`` with normal noise of covariance blur·blurᵀ; as they are if ``blur`` is None.

    Example:
        >>> points = torch.ones(2, 1)
        >>> blurred(points, None, torch.Generator()) is points
        True
    """
    if blur is None:
        return x
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    return x + noise @ blur.to(x).T
