"""The best Gaussian approximation of a posterior: a far better place to start a map at than the Laplace one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ot_lift.posterior_mode import Laplace
from ot_lift.posterior_target import Target

_LATENTS, _LATENTS_PER_DIMENSION = 1024, 16
_ITERATIONS = 20
_ENOUGH = 1e-3  # nats: what a step must gain, and what a last one would
_STEP = 0.65  # of the step to the fixed point: a skewed density answers a whole one by more than it asks for
_SHORTEST = 0.05
_STRETCH = 10.0  # of a precision in one step, either way


def best_gaussian(target: Target, units: Laplace, generator: torch.Generator) -> Laplace:
    r"""Coordinates in which the Gaussian N(c, RRᵀ) closest to the target in reverse KL divergence is N(0, I).

    At the best Gaussian the mean of the gradient vanishes and the precision is the mean of −∇² log π, which Stein's
    identity gives from gradients alone. The steps go to this fixed point, on the same antithetic latents, with ∇ log π
    regressed on the latents, and each has to raise the ELBO.

    Args:
        target: the log density.
        units: the mode and its Laplace coordinates, where the search begins.
        generator: source of the latents.

    Returns:
        The same search, with the new ``centre`` and ``root``. If fresh latents do not confirm a gain, or some gradient
        is not finite, they are those of ``units``.

    References:
        Opper & Archambeau 2009, The variational Gaussian approximation revisited; Khan & Rue 2023 (arXiv 2107.04562).

    Example:
        >>> from ot_lift.posterior_mode import find_mode
        >>> class LogGamma:  # of the log of a Gamma(3, 1) variable
        ...     dim = 1
        ...     def log_density(self, x):
        ...         return (3 * x - x.exp()).sum(-1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> units = find_mode(Target(LogGamma()), generator)
        >>> best = best_gaussian(Target(LogGamma()), units, generator)
        >>> mean, variance = best.centre.item(), best.root.item() ** 2
        >>> abs(mean + variance / 2 - math.log(3)) < 0.03, abs(variance - 1 / 3) < 0.03  # E eˣ = 3 = 1/variance
        (True, True)
    """
    count = max(_LATENTS, _LATENTS_PER_DIMENSION * target.dim) // 2
    half, fresh = torch.randn(2, count, target.dim, generator=generator, dtype=torch.float64)
    z = torch.cat([half, -half])
    scatter = torch.linalg.inv(z.T @ z)
    here, length = _Gaussian.at(target, units.centre, units.root, z), 1.0
    if not here.finite:
        return units
    for _ in range(_ITERATIONS):
        found = _better(target, here, z, scatter, length)
        if found is None:
            break
        (there, used), before = found, here
        here, length = there, min(_STEP, 2 * used)
        if here.elbo - before.elbo < _ENOUGH:
            break
    fresh = torch.cat([fresh, -fresh])
    first, last = (_elbo(target.value(one.centre + fresh @ one.root.T), one.root) for one in (units, here))
    if not last > first:
        return units
    return replace(units, centre=here.centre, root=here.root, inverse_root=torch.linalg.inv(here.root))


@dataclass(frozen=True)
class _Gaussian:
    """N(c, RRᵀ), the ELBO over its draws c + Rz, and the gradients of log π there in its own coordinates."""

    centre: Tensor
    root: Tensor
    gradient: Tensor
    elbo: float  # without the entropy of N(0, I)

    @classmethod
    def at(cls, target: Target, centre: Tensor, root: Tensor, z: Tensor) -> _Gaussian:
        value, gradient = target.value_gradient(centre + z @ root.T)
        return cls(centre, root, gradient @ root, _elbo(value, root))

    @property
    def finite(self) -> bool:
        return math.isfinite(self.elbo) and bool(torch.isfinite(self.gradient).all())


def _elbo(value: Tensor, root: Tensor) -> float:
    """Without the entropy of N(0, I), from log densities of draws."""
    return float(value.mean() + torch.linalg.slogdet(root)[1])


def _better(
    target: Target, here: _Gaussian, z: Tensor, scatter: Tensor, length: float
) -> tuple[_Gaussian, float] | None:
    """A Gaussian nearer to the fixed point with a higher ELBO, and the share of the way to it; None at the end."""
    slope = here.gradient.mean(0)
    precision = -(here.gradient.T @ z) @ scatter
    values, vectors = torch.linalg.eigh(0.5 * (precision + precision.T))
    if float(0.5 * slope.square().sum() + 0.25 * (values - 1.0).square().sum()) < _ENOUGH:
        return None
    while length > _SHORTEST:
        mixed = 1.0 - length + length * values.clamp(1.0 / _STRETCH, _STRETCH)
        move = length * (vectors / mixed) @ (vectors.T @ slope)
        root = here.root @ (vectors * mixed.rsqrt()) @ vectors.T
        there = _Gaussian.at(target, here.centre + here.root @ move, root, z)
        if there.finite and there.elbo > here.elbo:
            return there, length
        length *= 0.5
    return None
