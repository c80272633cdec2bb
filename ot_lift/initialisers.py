"""Initial values for the non-negative weights of input-convex networks and for their biases.

Both functions write *effective* weights (what the network multiplies by) in place; a positivity then starts
at their `right_inverse`, so that every positivity begins at the same network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Moments:
    """E f(s), E f(s)² and E f(s)f(t) for s, t ~ N(0, 1) with a given correlation."""

    mean: float
    square: float
    product: float

    @property
    def variance(self) -> float:
        return self.square - self.mean**2

    @property
    def covariance(self) -> float:
        return self.product - self.mean**2


def activation_moments(activation: Activation | None, correlation: float, *, nodes: int = 128) -> Moments:
    """Return the moments of an activation of two correlated standard normal pre-activations.

    ReLU (``None``) is exact: E f = 1/√(2π), E f² = ½, E f f′ = (√(1−ρ²) + ρ arccos(−ρ))/(2π). Any other
    function is integrated by Gauss–Hermite quadrature.

    Args:
        activation: an elementwise function of a tensor, or None for ReLU.
        correlation: ρ in [0, 1).
        nodes: number of quadrature nodes per axis.

    Returns:
        The three moments.

    Example:
        >>> round(activation_moments(None, 0.0).product * 2 * math.pi, 12)
        1.0
        >>> round(activation_moments(lambda s: s, 0.25).product, 10)
        0.25
    """
    rho = correlation
    orthogonal = math.sqrt(1.0 - rho * rho)
    if activation is None:
        product = (orthogonal + rho * math.acos(-rho)) / (2.0 * math.pi)
        return Moments(1.0 / math.sqrt(2.0 * math.pi), 0.5, product)
    points, mass = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(nodes))
    mass = mass / mass.sum()
    with torch.no_grad():
        first = activation(points)
        second = activation(rho * points[:, None] + orthogonal * points[None, :])
    product = float(mass @ (first[:, None] * second) @ mass)
    return Moments(float(mass @ first), float(mass @ first.square()), product)


def _fan_in(weight: Tensor) -> int:
    """Number of inputs that one output unit sums over: (out, in, *kernel), or (in,) for a single output."""
    if weight.ndim == 0 or weight.numel() == 0:
        raise ValueError(f"expected a weight of shape (out, in, ...) or (in,), got {tuple(weight.shape)}")
    return weight.numel() if weight.ndim == 1 else weight[0].numel()


@torch.no_grad()
def principled_(
    weight: Tensor,
    bias: Tensor | None = None,
    generator: torch.Generator | None = None,
    *,
    correlation: float = 0.5,
    skip_variance: float = 0.0,
    activation: Activation | None = None,
) -> Tensor:
    """Fill a non-negative weight and its bias so that signals keep their statistics from layer to layer.

    With pre-activations s ~ N(0, 1) of pairwise correlation ρ, the next layer's Wf(s) + b has again mean 0,
    variance 1 and correlation ρ (over the draw of the weights and of the data) when its n·m weights are
    log-normal with

        E[w]² = ρ / (n Var f + n(n−1) Cov f f′),    Var w = (1 − ρ − v) / (n E f²),    b = −n E[w] E f,

    v being the variance that other, independent terms of the layer (input skips) add. Non-negative weights
    have a positive mean, so correlation cannot vanish as in ordinary networks: ρ = ½ is the paper's value.

    The fixed point assumes Gaussian pre-activations, which the log-normal weights of wide layers (E[w²]/E[w]²
    ∝ n) give only roughly: on independent inputs, five ReLU layers of width 256 take the variance from 1 to
    about 0.05. Where input skips carry v ≈ 0.45 of the variance it stays between ½ and 1.

    Args:
        weight: (out, in, *kernel), or (in,) for one output; overwritten with effective weights > 0.
        bias: (out,), overwritten with the constant that centres the pre-activations; None to leave it out.
        generator: source of randomness on the weight's device; None for torch's global one.
        correlation: ρ, strictly between 0 and 1.
        skip_variance: v in [0, 1 − ρ); for skips A x with E‖x‖² = d, entries of A have variance v/d.
        activation: f; None for ReLU.

    Returns:
        The weight.

    Raises:
        ValueError: if ρ or v is out of range or the weight has no inputs.

    References:
        Hoedt and Klambauer (2023), "Principled Weight Initialisation for Input-Convex Neural Networks",
        arXiv 2312.12474 (log-normal weights, constant negative biases; ReLU with ρ = ½).

    Example:
        >>> weight, bias = torch.empty(1, 1), torch.empty(1)
        >>> _ = principled_(weight, bias, torch.Generator().manual_seed(0), correlation=0.5)
        >>> bool(weight.item() > 0), round(bias.item(), 4)  # one input: −√(ρ/(π − 1))
        (True, -0.4832)
    """
    if not 0.0 < correlation < 1.0:
        raise ValueError(f"expected correlation strictly between 0 and 1, got {correlation}")
    if not 0.0 <= skip_variance < 1.0 - correlation:
        raise ValueError(f"expected 0 <= skip_variance < 1 - correlation, got {skip_variance} at {correlation}")
    fan_in = _fan_in(weight)
    moments = activation_moments(activation, correlation)
    mean_square = correlation / (fan_in * (moments.variance + (fan_in - 1) * moments.covariance))
    weight_variance = (1.0 - correlation - skip_variance) / (fan_in * moments.square)
    log_ratio = math.log1p(weight_variance / mean_square)
    weight.log_normal_(0.5 * (math.log(mean_square) - log_ratio), math.sqrt(log_ratio), generator=generator)
    if bias is not None:
        bias.fill_(-fan_in * math.sqrt(mean_square) * moments.mean)
    return weight


@torch.no_grad()
def folded_normal_(weight: Tensor, generator: torch.Generator | None = None, *, std: float | None = None) -> Tensor:
    """Fill a weight with |N(0, std²)|.

    The default std = √(π/2)/n, n the fan-in, gives E Σⱼ wᵢⱼ = 1: a layer averages the one before it and its
    mean neither grows nor dies with depth.

    Args:
        weight: (out, in, *kernel), or (in,) for one output; overwritten with effective weights ≥ 0.
        generator: source of randomness on the weight's device; None for torch's global one.
        std: standard deviation before folding, > 0; None for the default.

    Returns:
        The weight.

    Raises:
        ValueError: if std is not positive or the weight has no inputs.

    Example:
        >>> weight = folded_normal_(torch.empty(4, 10_000), torch.Generator().manual_seed(0))
        >>> bool((weight >= 0).all()), bool((weight.sum(1) - 1).abs().max() < 0.05)
        (True, True)
    """
    scale = math.sqrt(math.pi / 2.0) / _fan_in(weight) if std is None else std
    if not scale > 0.0:
        raise ValueError(f"expected std > 0, got {std}")
    return weight.normal_(0.0, scale, generator=generator).abs_()
