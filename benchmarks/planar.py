"""Densities in the plane that are known: a curve, or some centres, blurred by normal noise.

The shapes are those that flows are usually shown on (Grathwohl et al. 2019, arXiv 1810.01367), without their uniform
jitter, so that the density is a mean of normal densities along the curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_ALONG = 4096  # points of the curve that a density is the mean of
_BLOCK = 2048


@dataclass(frozen=True)
class Planar:
    """x = c(u) + σ·ε with u uniform on [0, 1) and ε standard normal.

    Attributes:
        curve: c, ``(n,)`` → ``(n, 2)``.
        noise: σ.

    Example:
        >>> moon = PLANAR["one_moon"]
        >>> x = moon.sample(4, torch.Generator().manual_seed(0))
        >>> x.shape, moon.log_prob(x).shape
        (torch.Size([4, 2]), torch.Size([4]))
    """

    curve: Callable[[Tensor], Tensor]
    noise: float

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Points ``(count, 2)``, float64."""
        along = torch.rand(count, generator=generator, dtype=torch.float64)
        return self.curve(along) + self.noise * torch.randn(count, 2, generator=generator, dtype=torch.float64)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density ``(n,)`` at ``(n, 2)``, nats."""
        centres = self.curve((torch.arange(_ALONG, dtype=torch.float64) + 0.5) / _ALONG)
        blocks = []
        for block in x.double().split(_BLOCK):
            squares = torch.cdist(block, centres).square() / (2 * self.noise**2)
            blocks.append(torch.logsumexp(-squares, 1))
        return torch.cat(blocks) - math.log(_ALONG) - math.log(2 * math.pi * self.noise**2)


def _at_angle(radius: Tensor | float, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


def _eight(u: Tensor) -> Tensor:
    return _at_angle(2 * math.sqrt(2), (8 * u).floor() * math.pi / 4)


def _spirals(u: Tensor) -> Tensor:
    arm, along = (2 * u).floor(), (2 * u).remainder(1.0)
    angle = along.sqrt() * 3 * math.pi
    return (1 - 2 * arm)[:, None] * _at_angle(angle / 3, angle)


def _rings(u: Tensor) -> Tensor:
    ring, along = (4 * u).floor(), (4 * u).remainder(1.0)
    return _at_angle(0.75 * (ring + 1), 2 * math.pi * along)


PLANAR = {
    "eight_gaussians": Planar(_eight, 0.5 / math.sqrt(2)),
    "two_spirals": Planar(_spirals, 0.1),
    "one_moon": Planar(lambda u: _at_angle(1.0, math.pi * u), 0.1),
    "rings": Planar(_rings, 0.08),
}
