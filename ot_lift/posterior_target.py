"""A user's target, checked: an unnormalised log density with its derivatives, float64 in and float64 out."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ot_lift.errors import DataError
from ot_lift.maps import in_blocks

# Points of one call to a target: memory stays flat however many draws are asked for. A likelihood of thousands of rows
# takes half the time in blocks of 256 as in blocks of 512, whose temporaries malloc maps anew at every call.
_ROWS = 1 << 8


class Target:
    """What the fit and the diagnosis use of a target.

    A target is anything with ``dim`` and ``log_density(x: (n, dim)) -> (n,)`` in torch. It may also have
    ``value_gradient``, ``hessian``, ``constrain``, ``log_likelihood`` and ``names``.

    Args:
        source: the user's target.

    Raises:
        DataError: without ``dim`` or a callable ``log_density``.

    Example:
        >>> class Normal:
        ...     dim = 2
        ...     def log_density(self, x):
        ...         return -0.5 * x.square().sum(-1)
        >>> target = Target(Normal())
        >>> value, gradient = target.value_gradient(torch.ones(1, 2))
        >>> value.item(), gradient.tolist(), target.hessian(torch.ones(1, 2)).tolist()
        (-1.0, [[-1.0, -1.0]], [[[-1.0, -0.0], [-0.0, -1.0]]])
    """

    def __init__(self, source: Any) -> None:
        dim = getattr(source, "dim", None)
        if not (isinstance(dim, numbers.Integral) and int(dim) > 0):
            raise DataError(f"expected a target with dim, a whole number > 0, got {dim!r} from {type(source).__name__}")
        if not callable(getattr(source, "log_density", None)):
            raise DataError(f"expected a target with log_density(x), got {type(source).__name__} without one")
        self.source, self.dim = source, int(dim)
        names = getattr(source, "names", None)
        self.names = tuple(names) if names is not None else tuple(f"theta[{i}]" for i in range(self.dim))

    def log_density(self, x: Tensor) -> Tensor:
        """Log density ``(n,)`` in float64 at ``x`` ``(n, dim)``, with its graph."""
        value: Tensor = self.source.log_density(x.double())
        if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise DataError(f"expected log_density to map {tuple(x.shape)} to a tensor of shape ({len(x)},), got {got}")
        return value.double()

    def value(self, x: Tensor) -> Tensor:
        """Log density ``(n,)`` without a graph; where it is NaN or +inf, −inf: no draw belongs there."""
        value = in_blocks(self.log_density, x, _ROWS)
        return value.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)

    def value_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log density ``(n,)`` and gradient ``(n, dim)`` without a graph, as the target gives them."""
        blocks = [self._value_gradient(block) for block in x.split(_ROWS)]
        return torch.cat([value for value, _ in blocks]), torch.cat([gradient for _, gradient in blocks])

    def _value_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if hasattr(self.source, "value_gradient"):
            value, gradient = self.source.value_gradient(x.double())
            return value.double(), gradient.double()
        with torch.enable_grad():
            leaf = x.detach().double().requires_grad_()
            value = self.log_density(leaf)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient

    def hessian(self, x: Tensor) -> Tensor:
        """Hessian of the log density, ``(n, dim, dim)``: the target's own, else by autograd, a column at a time."""
        if hasattr(self.source, "hessian"):
            own: Callable[[Tensor], Tensor] = self.source.hessian
            return own(x.double()).double()
        with torch.enable_grad():
            leaf = x.detach().double().requires_grad_()
            (gradient,) = torch.autograd.grad(self.log_density(leaf).sum(), leaf, create_graph=True)
            columns = [self._column(gradient, leaf, i) for i in range(self.dim)]
        hessian = torch.stack(columns, 2)
        return 0.5 * (hessian + hessian.mT)

    @staticmethod
    def _column(gradient: Tensor, leaf: Tensor, index: int) -> Tensor:
        if not gradient.requires_grad:  # a log density whose gradient does not depend on x
            return torch.zeros_like(leaf)
        (column,) = torch.autograd.grad(gradient[:, index].sum(), leaf, retain_graph=True, materialize_grads=True)
        return column
