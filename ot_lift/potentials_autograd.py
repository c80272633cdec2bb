"""Any torch module as a convex potential, with derivatives by autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ot_lift.potentials_contract import Potential, check_positive, check_strong_convexity


class AutogradPotential(Potential):
    """Any torch module f: (n, features) → (n,) that is convex, plus ½μ‖x‖², with derivatives by autograd.

    Slower than a closed form: a Hessian costs ``features`` backward passes. The module is used as it is, so marks on
    its parameters count.

    Args:
        module: a convex function of each row; a trailing dimension of one is dropped.
        features: dimension d.
        strong_convexity: μ ≥ 0.

    Example:
        >>> quartic = AutogradPotential(_Quartic(), 2)
        >>> quartic.hessian(torch.tensor([[1.0, 2.0]])).tolist()
        [[[12.0, 0.0], [0.0, 48.0]]]
    """

    def __init__(self, module: nn.Module, features: int, *, strong_convexity: float = 0.0) -> None:
        super().__init__()
        check_positive("features", features)
        check_strong_convexity(strong_convexity)
        self.features, self.module = int(features), module
        self._strong_convexity = float(strong_convexity)

    @property
    def strong_convexity(self) -> float:
        return self._strong_convexity

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.module(x)
        return value.reshape(len(x)) + 0.5 * self._strong_convexity * x.square().sum(1)

    def _value_gradient(self, x: Tensor, *, graph: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Leaf, value and gradient with their graph, whatever the caller's autograd mode."""
        with torch.enable_grad():
            leaf = x if x.requires_grad else x.detach().requires_grad_()
            value = self(leaf)
            (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=graph)
        return leaf, value, gradient

    def gradient(self, x: Tensor) -> Tensor:
        return self.value_gradient(x)[1]

    def value_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        keep = torch.is_grad_enabled()
        _, value, gradient = self._value_gradient(x, graph=keep)
        return (value, gradient) if keep else (value.detach(), gradient.detach())

    def linearise(self, x: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        keep = torch.is_grad_enabled()
        leaf, value, gradient = self._value_gradient(x, graph=True)

        def product(v: Tensor) -> Tensor:
            if not gradient.requires_grad:
                return torch.zeros_like(v)
            with torch.enable_grad():
                (image,) = torch.autograd.grad(
                    gradient, leaf, v, retain_graph=True, create_graph=keep, materialize_grads=True
                )
            return image if keep else image.detach()

        return (value, gradient, product) if keep else (value.detach(), gradient.detach(), product)

    def value_gradient_hessian(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, gradient, product = self.linearise(x)
        basis = torch.eye(self.features, dtype=x.dtype, device=x.device)
        columns = [product(direction.expand_as(x)) for direction in basis]
        return value, gradient, torch.stack(columns, 2)


class _Quartic(nn.Module):
    """Σ xᵢ⁴, for the doctest above."""

    def forward(self, x: Tensor) -> Tensor:
        return x.pow(4).sum(1)
