"""Between the latent space and a posterior: the gradient of a convex potential, both ways."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ot_lift.conjugate import conjugate
from ot_lift.logdet import value_gradient_log_det
from ot_lift.posterior_mode import Laplace
from ot_lift.potentials import Potential

Direction = Literal["forward", "inverse"]
_ROWS = 1 << 12  # Hessians of so many points at a time


def log_normal(z: Tensor) -> Tensor:
    """Log density ``(n,)`` of N(0, I) at ``z`` ``(n, d)``.

    Example:
        >>> round(log_normal(torch.zeros(1, 2)).item(), 6)  # −log 2π
        -1.837877
    """
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


def along(potential: Potential, x: Tensor) -> tuple[Tensor, Tensor]:
    """∇φ(x) ``(n, d)`` and log det ∇²φ(x) ``(n,)``."""
    _, gradient, log_det = value_gradient_log_det(potential, x)
    return gradient, log_det


def against(potential: Potential, y: Tensor, *, tol: float | None = None, throw: bool = True) -> tuple[Tensor, Tensor]:
    """∇φ*(y) ``(n, d)`` and log det ∇²φ*(y) ``(n,)``, with the implicit gradients of the conjugate."""
    x = conjugate(potential, y, tol=tol, throw=throw).argmax
    return x, -value_gradient_log_det(potential, x)[2]


def push(
    potential: Potential, z: Tensor, direction: Direction, *, tol: float | None = None, throw: bool = True
) -> tuple[Tensor, Tensor]:
    """Latent → standardised parameters u ``(n, d)``, and log |det ∂u/∂z| ``(n,)``."""
    return along(potential, z) if direction == "forward" else against(potential, z, tol=tol, throw=throw)


def pull(
    potential: Potential, u: Tensor, direction: Direction, *, tol: float | None = None, throw: bool = True
) -> tuple[Tensor, Tensor]:
    """Standardised parameters → latent z ``(n, d)``, and log |det ∂z/∂u| ``(n,)``."""
    return against(potential, u, tol=tol, throw=throw) if direction == "forward" else along(potential, u)


@dataclass(frozen=True)
class LatentMap:
    """A fitted bijection between latents z ~ N(0, I) and parameters θ = c + Ru, in float64.

    Args:
        potential: φ in standardised coordinates; strongly convex.
        units: c and R.
        direction: ``"forward"``: u = ∇φ(z); ``"inverse"``: z = ∇φ(u).

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> units = Laplace.gaussian(torch.ones(1), torch.tensor([[4.0]]))
        >>> latent = LatentMap(Quadratic(1, dtype=torch.float64), units, "forward")  # N(1, 4)
        >>> theta, log_q = latent.push(torch.zeros(1, 1, dtype=torch.float64))
        >>> theta.item(), round(log_q.item(), 6), round(latent.log_prob(theta).item(), 6)  # −½ log 8π
        (1.0, -1.612086, -1.612086)
    """

    potential: Potential
    units: Laplace
    direction: Direction

    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """θ ``(n, d)`` of latents ``z`` and its log density under the map ``(n,)``.

        Raises:
            ConvergenceError: if a point cannot be inverted to tolerance.
        """

        def block(rows: Tensor) -> tuple[Tensor, Tensor]:
            u, log_det = push(self.potential, rows, self.direction)
            return self.units.to_user(u), log_normal(rows) - log_det - self.units.log_det

        return _blocks(block, z)

    def pull(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Latents ``(n, d)`` of ``theta`` and the log density of ``theta`` under the map ``(n,)``.

        Raises:
            ConvergenceError: if a point cannot be inverted to tolerance.
        """

        def block(rows: Tensor) -> tuple[Tensor, Tensor]:
            z, log_det = pull(self.potential, self.units.from_user(rows), self.direction)
            return z, log_normal(z) + log_det - self.units.log_det

        return _blocks(block, theta)

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log density under the map ``(n,)``."""
        return self.pull(theta)[1]

    def parameters(self, z: Tensor) -> Tensor:
        """θ ``(n, d)`` of latents ``z`` alone: forward, a gradient and no Hessian."""
        if self.direction == "forward":
            return _blocks(lambda rows: (self.units.to_user(self.potential.gradient(rows)), rows), z)[0]
        return self.units.to_user(_blocks(lambda rows: (conjugate(self.potential, rows).argmax, rows), z)[0])

    def latents(self, theta: Tensor) -> Tensor:
        """Latents ``(n, d)`` of ``theta`` alone."""
        u = self.units.from_user(theta)
        if self.direction == "inverse":
            return _blocks(lambda rows: (self.potential.gradient(rows), rows), u)[0]
        return _blocks(lambda rows: (conjugate(self.potential, rows).argmax, rows), u)[0]


def _blocks(function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> tuple[Tensor, Tensor]:
    """A function of rows in float64 and blocks, without autograd."""
    with torch.no_grad():
        parts = [function(rows) for rows in x.double().split(_ROWS)]
    first, second = zip(*parts, strict=True)
    return torch.cat(first), torch.cat(second)
