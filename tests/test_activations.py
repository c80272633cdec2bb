"""Activations are convex, non-decreasing and smooth, and their derivatives are the closed forms."""

from __future__ import annotations

import pytest
import torch
from instances import normal
from torch import Tensor
from torch.testing import assert_close

from ot_lift.activations import Activation, activation_names

NAMES = activation_names()
SHARPNESSES = [0.5, 1.0, 8.0, torch.tensor(3.0, dtype=torch.float64)]


def grid(dtype: torch.dtype) -> Tensor:
    """Arguments near 0 and in both tails, 0 itself among them."""
    near = torch.linspace(-6, 6, 241, dtype=torch.float64)
    far = torch.logspace(0.8, 5, 60, dtype=torch.float64)
    return torch.cat([-far.flip(0), near, far]).to(dtype)


@pytest.mark.parametrize("sharpness", SHARPNESSES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_slope_curvature_and_third_are_the_derivatives(name: str, sharpness: Tensor | float) -> None:
    activation = Activation(name)
    u = grid(torch.float64).requires_grad_()
    value = activation.value(u, sharpness)
    (slope,) = torch.autograd.grad(value.sum(), u, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), u, create_graph=True)
    (third,) = torch.autograd.grad(curvature.sum(), u)
    found = activation.slope(u, sharpness)
    assert_close(found, slope, rtol=1e-12, atol=1e-14)
    smooth = u.detach() != 0 if name == "celu" else slice(None)  # its second derivative jumps there
    expected = activation.curvature(u, found, sharpness)
    assert_close(expected[smooth], curvature[smooth], rtol=1e-10, atol=1e-12)
    assert_close(activation.third(u, found, expected, sharpness)[smooth], third[smooth], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sharpness", [0.5, 8.0, 100.0])
@pytest.mark.parametrize("name", NAMES)
def test_is_convex_and_non_decreasing_into_the_tails(name: str, sharpness: float, dtype: torch.dtype) -> None:
    activation, u = Activation(name), grid(dtype)
    value, slope = activation.value(u, sharpness), activation.slope(u, sharpness)
    curvature = activation.curvature(u, slope, sharpness)
    eps = torch.finfo(dtype).eps
    assert value.dtype == slope.dtype == curvature.dtype == dtype
    assert bool((value.diff() >= 0).all())
    assert bool((slope.diff() >= -4 * eps).all())
    assert bool(((slope >= 0) & (slope <= 1 + 4 * eps)).all())
    assert bool((curvature >= 0).all())
    assert all(bool(torch.isfinite(part).all()) for part in (value, slope, curvature))


@pytest.mark.parametrize("name", NAMES)
def test_sharpness_scales_the_argument_and_tends_to_relu(name: str) -> None:
    activation, u = Activation(name), grid(torch.float64)
    for sharpness in (0.3, 5.0):
        scaled = activation.value(sharpness * u, 1.0) / sharpness
        assert_close(activation.value(u, sharpness), scaled, rtol=1e-12, atol=1e-12)
    assert float((activation.value(u, 1e6) - u.clamp_min(0)).abs().max()) <= 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_everything_differentiates_in_the_sharpness(name: str) -> None:
    activation = Activation(name)
    u = normal(20, seed=1).requires_grad_()
    sharpness = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)

    def parts(u: Tensor, sharpness: Tensor) -> tuple[Tensor, ...]:
        slope = activation.slope(u, sharpness)
        return activation.value(u, sharpness), slope, activation.curvature(u, slope, sharpness)

    assert torch.autograd.gradcheck(parts, (u, sharpness))


def test_small_values_keep_their_digits() -> None:
    u = torch.tensor([-1e3, -1e4], dtype=torch.float32)
    tail = Activation("squareplus").value(u, 2.0)  # 1/(4β²|u|) to first order
    assert_close(tail, torch.tensor([1 / 16e3, 1 / 16e4]), rtol=1e-6, atol=0.0)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"one of \['celu', 'softplus', 'squareplus'\], got 'relu'"):
        Activation("relu")
    assert repr(Activation("celu")) == "Activation('celu')"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sharpness", [0.5, 4.0])
@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_has_the_same_functions(name: str, sharpness: float, dtype: torch.dtype) -> None:
    activation, u = Activation(name), grid(dtype)
    p = normal(len(u), dtype=dtype, seed=1)
    slope = activation.slope(u, sharpness)
    expected = activation.value(u, sharpness), slope, p * activation.curvature(u, slope, sharpness)

    kind = activation.in_sweep(sharpness)
    scaled, value, found, bend, spare = u * kind.into, *(torch.empty_like(u) for _ in range(4))
    kind.fill(scaled, value, found, spare=spare, ones=torch.ones_like(u))
    kind.fill_bend(p, scaled, found, bend)
    for ours, theirs in zip((value * kind.out, found, bend * kind.bend), expected, strict=True):
        assert_close(ours, theirs, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-6)
