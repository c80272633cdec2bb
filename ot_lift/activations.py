"""Smooth, convex, non-decreasing activations with their first three derivatives in closed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def _softplus(u: Tensor, sharpness: Tensor | float) -> Tensor:
    # log(1 + eᶻ) = −log σ(−z): accurate at every z, without torch.softplus's threshold, and faster.
    return functional.logsigmoid(u * -sharpness) * (-1.0 / sharpness)


def _softplus_slope(u: Tensor, sharpness: Tensor | float) -> Tensor:
    return torch.sigmoid(u * sharpness)


def _softplus_curvature(u: Tensor, slope: Tensor, sharpness: Tensor | float) -> Tensor:
    return torch.addcmul(slope, slope, slope, value=-1) * sharpness


def _softplus_third(u: Tensor, slope: Tensor, curvature: Tensor, sharpness: Tensor | float) -> Tensor:
    return curvature * (1 - 2 * slope) * sharpness


def _celu(u: Tensor, sharpness: Tensor | float) -> Tensor:
    return u.clamp_min(0) + torch.expm1(u.clamp_max(0) * sharpness) / sharpness


def _celu_slope(u: Tensor, sharpness: Tensor | float) -> Tensor:
    return torch.exp(u.clamp_max(0) * sharpness)


def _celu_curvature(u: Tensor, slope: Tensor, sharpness: Tensor | float) -> Tensor:
    return torch.where(u < 0, slope * sharpness, 0.0)


def _celu_third(u: Tensor, slope: Tensor, curvature: Tensor, sharpness: Tensor | float) -> Tensor:
    return curvature * sharpness


def _squareplus(u: Tensor, sharpness: Tensor | float) -> Tensor:
    square = (1.0 / sharpness) ** 2
    below = u.clamp_max(0)
    # u + √(u² + β⁻²) cancels for u < 0: there it is taken as β⁻²/(√(u² + β⁻²) − u).
    falling = 0.5 * square / (torch.sqrt(below * below + square) - below)
    return torch.where(u < 0, falling, 0.5 * (u + torch.sqrt(u * u + square)))


def _squareplus_slope(u: Tensor, sharpness: Tensor | float) -> Tensor:
    return _squareplus(u, sharpness) * torch.rsqrt(u * u + (1.0 / sharpness) ** 2)


def _squareplus_curvature(u: Tensor, slope: Tensor, sharpness: Tensor | float) -> Tensor:
    root = torch.rsqrt(u * u + (1.0 / sharpness) ** 2)
    return 0.5 * (1.0 / sharpness) ** 2 * root * root * root


def _squareplus_third(u: Tensor, slope: Tensor, curvature: Tensor, sharpness: Tensor | float) -> Tensor:
    return -3 * curvature * u / (u * u + (1.0 / sharpness) ** 2)


_Function = Callable[..., Tensor]
_TABLE: dict[str, tuple[_Function, _Function, _Function, _Function]] = {
    "softplus": (_softplus, _softplus_slope, _softplus_curvature, _softplus_third),
    "celu": (_celu, _celu_slope, _celu_curvature, _celu_third),
    "squareplus": (_squareplus, _squareplus_slope, _squareplus_curvature, _squareplus_third),
}


class InSweep:
    """An activation of one sharpness as a sweep without autograd computes it, written to buffers.

    Attributes:
        into: pre-activations are given times this.
        out: σ(u) is what is written, times this.
        bend: pσ″(u) is what is written, times this.
    """

    into, out, bend = 1.0, 1.0, 1.0

    def __init__(self, activation: Activation, sharpness: float) -> None:
        self.activation, self.sharpness = activation, sharpness

    def fill(self, u: Tensor, value: Tensor, slope: Tensor, *, spare: Tensor, ones: Tensor) -> None:
        """Write σ(u) and σ′(u); ``spare`` is memory to write to, ``ones`` is full of them."""
        value.copy_(self.activation.value(u, self.sharpness))
        slope.copy_(self.activation.slope(u, self.sharpness))

    def fill_bend(self, p: Tensor, u: Tensor, slope: Tensor, bend: Tensor) -> None:
        """Write pσ″(u)."""
        torch.mul(p, self.activation.curvature(u, slope, self.sharpness), out=bend)


class _SoftplusInSweep(InSweep):
    """By the kernels of log σ(−βu): one exponential for value and slope, one pass for the curvature."""

    def __init__(self, activation: Activation, sharpness: float) -> None:
        super().__init__(activation, sharpness)
        self.into, self.out, self.bend = -sharpness, -1.0 / sharpness, sharpness

    def fill(self, u: Tensor, value: Tensor, slope: Tensor, *, spare: Tensor, ones: Tensor) -> None:
        torch.ops.aten.log_sigmoid_forward.output(u, output=value, buffer=spare)
        torch.ops.aten.log_sigmoid_backward.grad_input(ones, u, spare, grad_input=slope)

    def fill_bend(self, p: Tensor, u: Tensor, slope: Tensor, bend: Tensor) -> None:
        torch.ops.aten.sigmoid_backward.grad_input(p, slope, grad_input=bend)


class Activation:
    r"""A convex, non-decreasing function :math:`\sigma_\beta(u) = \sigma(\beta u)/\beta` and its derivatives.

    The *sharpness* :math:`\beta` interpolates between a linear function (0) and ``relu`` (infinity).
    ``celu`` is once continuously differentiable; its second derivative jumps at 0.

    Args:
        name: ``"softplus"``, ``"celu"`` or ``"squareplus"``
            (Barron 2021, "Squareplus: A softplus-like algebraic rectifier", arXiv 2112.11687).

    Raises:
        ValueError: for an unknown name.

    Example:
        >>> softplus = Activation("softplus")
        >>> round(float(softplus.value(torch.zeros(()), 1.0)), 6), float(softplus.slope(torch.zeros(()), 1.0))
        (0.693147, 0.5)
    """

    def __init__(self, name: str) -> None:
        if name not in _TABLE:
            raise ValueError(f"expected activation to be one of {sorted(_TABLE)}, got {name!r}")
        self.name = name
        self.value, self.slope, self.curvature, self.third = _TABLE[name]

    def in_sweep(self, sharpness: float) -> InSweep:
        """The function of that sharpness for a sweep without autograd."""
        return (_SoftplusInSweep if self.name == "softplus" else InSweep)(self, sharpness)

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"


def activation_names() -> list[str]:
    """Names that :class:`Activation` accepts."""
    return sorted(_TABLE)
