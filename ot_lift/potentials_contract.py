"""What a convex potential must offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Potential(nn.Module, ABC):
    """A convex function φ: ℝᵈ → ℝ with its first two derivatives, batched over rows.

    Every method maps ``x`` of shape ``(n, features)`` to one value per row and keeps dtype and device.
    ``strong_convexity`` is a structural μ ≥ 0 with ∇²φ ⪰ μI everywhere. ``depends_on_batch`` says that a row's value
    hangs on the other rows, as an unbound lift's does: then there is no one φ to conjugate.
    """

    features: int
    depends_on_batch: bool = False

    @property
    @abstractmethod
    def strong_convexity(self) -> float:
        """A μ ≥ 0 with ∇²φ(x) ⪰ μI for every x."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """φ(x), shape ``(n,)``."""

    @abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """∇φ(x), shape ``(n, features)``."""

    def value_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """φ(x) ``(n,)`` and ∇φ(x) ``(n, features)`` in one sweep."""
        return self(x), self.gradient(x)

    @abstractmethod
    def linearise(self, x: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """φ(x), ∇φ(x) and the product v ↦ ∇²φ(x)·v with one forward sweep shared by all products."""

    @abstractmethod
    def value_gradient_hessian(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """φ(x) ``(n,)``, ∇φ(x) ``(n, features)`` and ∇²φ(x) ``(n, features, features)`` in one sweep."""

    def at_rows(self, rows: Tensor | slice) -> Potential:
        """The potential for these rows of the points alone: itself, unless every row has a φ of its own."""
        return self

    def hessian(self, x: Tensor) -> Tensor:
        """∇²φ(x), shape ``(n, features, features)``, symmetric."""
        return self.value_gradient_hessian(x)[2]

    def hessian_with_slope(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """∇²φ(x), and M ↦ ∇ₓ⟨M, ∇²φ(x)⟩ ``(n, features)`` of symmetric M in the Hessian's shape; without a graph."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            hessian = self.hessian(leaf)

        def slope(matrix: Tensor) -> Tensor:
            if not hessian.requires_grad:
                return torch.zeros_like(leaf)
            return torch.autograd.grad(hessian, leaf, matrix, retain_graph=True, materialize_grads=True)[0]

        return hessian.detach(), slope

    def hessian_product(self, x: Tensor, v: Tensor) -> Tensor:
        """∇²φ(x)·v row by row, ``v`` and result of shape ``(n, features)``."""
        return self.linearise(x)[2](v)


def check_positive(name: str, value: float) -> None:
    """Raise a ValueError that names the value unless it is finite and > 0."""
    if not 0 < value < float("inf"):
        raise ValueError(f"expected {name} to be finite and > 0, got {value!r}")


def check_strong_convexity(value: float) -> None:
    """Raise a ValueError unless μ is finite and ≥ 0."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"expected strong_convexity to be finite and >= 0, got {value!r}")
