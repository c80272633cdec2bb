"""Gradient maps as torch transforms, and potentials in the units of the data."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, constraints

from ot_lift.conjugate import Conjugate, conjugate
from ot_lift.constrained import BoundPotential
from ot_lift.logdet import exact_log_det
from ot_lift.potentials import Potential
from ot_lift.standardizer import Standardizer

ROWS = 1 << 15  # rows of a block when a map is applied to many points: memory stays flat


class StandardisedPotential(Potential):
    """φ(x) = κ φ̃(M(x − m_x)) + ⟨m_y, x⟩: a potential fitted in standardised coordinates, in data units.

    Shifts happen in float64. For float32 points the network then runs in float32; everything else, and every inverse,
    is float64.

    Args:
        inner: φ̃; kept in float64.
        coordinates: M, m_x, m_y and κ.

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> one, zero = torch.eye(1), torch.zeros(1)
        >>> units = Standardizer.bures(zero, one, zero + 3, 4 * one)
        >>> phi = StandardisedPotential(Quadratic(1), units)  # N(0, 1) to N(3, 4): φ(x) = x² + 3x
        >>> x = torch.tensor([[2.0]], dtype=torch.float64)
        >>> phi(x).item(), phi.gradient(x).item(), phi.conjugate(phi.gradient(x)).argmax.item()
        (10.0, 7.0, 2.0)
    """

    def __init__(self, inner: Potential, coordinates: Standardizer) -> None:
        super().__init__()
        self.features = inner.features
        self.inner, self.coordinates = inner.double(), coordinates

    def _inner(self, dtype: torch.dtype) -> Potential:
        """φ̃ in a dtype. Its tensors are cast at every call, so they cannot be older than those of `inner`."""
        if dtype != torch.float32:
            return self.inner
        kinds = (self.inner.named_parameters, self.inner.named_buffers)
        tensors = itertools.chain.from_iterable(kind(remove_duplicate=False) for kind in kinds)
        return BoundPotential(self.inner, {n: t.to(dtype) for n, t in tensors if t.is_floating_point()})

    @property
    def strong_convexity(self) -> float:
        return self.coordinates.strong_convexity(self.inner.strong_convexity)

    def forward(self, x: Tensor) -> Tensor:
        inner = self._inner(x.dtype)(self.coordinates.source(x, dtype=x.dtype))
        return self.coordinates.potential(x, inner).to(x.dtype)

    def gradient(self, x: Tensor) -> Tensor:
        inner = self._inner(x.dtype).gradient(self.coordinates.source(x, dtype=x.dtype))
        return self.coordinates.target_inverse(inner, dtype=x.dtype)

    def linearise(self, x: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        value, gradient, product = self._inner(x.dtype).linearise(self.coordinates.source(x, dtype=x.dtype))
        matrix, scale = self.coordinates.matrix.to(x.dtype), self.coordinates.scale.to(x.dtype)

        def outer(v: Tensor) -> Tensor:
            return scale * product(v @ matrix.T) @ matrix

        return *self._in_data_units(x, value, gradient), outer

    def value_gradient_hessian(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inner, standardised = self._inner(x.dtype), self.coordinates.source(x, dtype=x.dtype)
        value, gradient, hessian = inner.value_gradient_hessian(standardised)
        matrix, scale = self.coordinates.matrix.to(x.dtype), self.coordinates.scale.to(x.dtype)
        return *self._in_data_units(x, value, gradient), scale * matrix.T @ hessian @ matrix

    def _in_data_units(self, x: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        value = self.coordinates.potential(x, value).to(x.dtype)
        return value, self.coordinates.target_inverse(gradient, dtype=x.dtype)

    def conjugate(self, y: Tensor, *, tol: float | None = None, throw: bool = True) -> Conjugate:
        """φ* and ∇φ* at ``y`` ``(m, features)``; ``residual`` and ``tol`` are in standardised units.

        Raises:
            ConvergenceError: if ``throw`` and a point did not converge.
        """
        target = self.coordinates.target(y)
        with torch.no_grad():  # most of the way in float32, which is twice as fast; float64 then verifies
            rough = conjugate(self._inner(torch.float32), target.float(), throw=False).argmax.double()
        inner = conjugate(self.inner, target, rough, tol=tol, throw=throw)
        value = self.coordinates.conjugate(y, inner.value)
        argmax = self.coordinates.source_inverse(inner.argmax)
        return Conjugate(value, argmax, inner.residual, inner.steps, inner.converged)


class GradientMap(Transform):
    """x ↦ ∇φ(x) as a bijective :class:`torch.distributions.Transform` of ℝᵈ.

    Args:
        potential: strongly convex φ.
        cache_size: as in torch.

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> double = Quadratic(2)
        >>> double.set_quadratic_(2 * torch.eye(2))
        >>> T = GradientMap(double)
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> bool(torch.allclose(T(x), 2 * x)), bool(torch.allclose(T.inv(T(x)), x))
        (True, True)
        >>> round(T.log_abs_det_jacobian(x, T(x)).item(), 5)  # 2 log 2
        1.38629
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, potential: Potential, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.potential = potential

    def with_cache(self, cache_size: int = 1) -> GradientMap:
        return self if self._cache_size == cache_size else GradientMap(self.potential, cache_size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GradientMap) and other.potential is self.potential

    def __hash__(self) -> int:
        return hash(self.potential)

    def _rows(self, x: Tensor) -> Tensor:
        if x.shape[-1:] != (self.potential.features,):
            raise ValueError(f"expected points of shape (..., {self.potential.features}), got {tuple(x.shape)}")
        return x.reshape(-1, self.potential.features)

    def _call(self, x: Tensor) -> Tensor:
        return self.potential.gradient(self._rows(x)).reshape(x.shape)

    def _inverse(self, y: Tensor) -> Tensor:
        rows = self._rows(y)
        if isinstance(self.potential, StandardisedPotential):  # its tolerance is in standardised units
            return self.potential.conjugate(rows).argmax.to(y.dtype).reshape(y.shape)
        return conjugate(self.potential, rows).argmax.reshape(y.shape)

    def log_abs_det_jacobian(self, x: Tensor, y: Any) -> Tensor:
        """Log-determinant of ∇²φ(x), of the batch shape of ``x``: :func:`~ot_lift.logdet.exact_log_det`."""
        return exact_log_det(self.potential, self._rows(x)).reshape(x.shape[:-1])


def in_blocks(function: Callable[[Tensor], Tensor], x: Tensor, rows: int = ROWS) -> Tensor:
    """``function`` applied to blocks of rows without autograd, put together again."""
    with torch.no_grad():
        return torch.cat([function(block) for block in x.split(rows)])
