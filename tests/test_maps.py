"""Gradient maps behave as torch's transforms do, and standardised potentials keep their digits in any units."""

from __future__ import annotations

import math

import pytest
import torch
from instances import make_coordinates, make_icnn, make_quadratic, normal
from torch import Tensor
from torch.distributions import MultivariateNormal, TransformedDistribution
from torch.testing import assert_close

from ot_lift.constrained import Constrained
from ot_lift.errors import ConvergenceError
from ot_lift.maps import GradientMap, StandardisedPotential, in_blocks
from ot_lift.potentials import Quadratic
from ot_lift.standardizer import Standardizer


def gaussian(features: int) -> MultivariateNormal:
    return MultivariateNormal(torch.zeros(features).double(), torch.eye(features).double())


# ---------------------------------------------------------------------------------------- the transform
def test_a_quadratic_pushes_a_gaussian_to_a_gaussian() -> None:
    quadratic = make_quadratic(3, torch.float64)
    pushed = TransformedDistribution(gaussian(3), [GradientMap(quadratic)])
    matrix = quadratic.matrix().detach()
    expected = MultivariateNormal(quadratic.linear.detach(), matrix @ matrix)
    y = 2 * normal(20, 3, seed=1)
    assert_close(pushed.log_prob(y).detach(), expected.log_prob(y))


def test_a_pushed_density_integrates_to_one() -> None:
    pushed = TransformedDistribution(gaussian(1), [GradientMap(make_icnn(1, (8, 6), torch.float64))])
    y = torch.linspace(-40, 60, 20001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        assert_close(torch.trapezoid(pushed.log_prob(y).exp(), y[:, 0]).item(), 1.0, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 4, 2), (0, 2)])
def test_any_batch_shape_goes_through(shape: tuple[int, ...]) -> None:
    potential = make_icnn(2, (6, 5), torch.float64)
    transform = GradientMap(potential)
    x = normal(*shape, seed=1)
    with torch.no_grad():
        y = transform(x)
        logarithm = transform.log_abs_det_jacobian(x, y)
        assert y.shape == x.shape and logarithm.shape == x.shape[:-1]
        assert_close(y.reshape(-1, 2), potential.gradient(x.reshape(-1, 2)))
        assert_close(transform.inv(y), x, rtol=0.0, atol=1e-7)
    assert transform.forward_shape(torch.Size(shape)) == shape


def test_points_of_another_dimension_are_refused() -> None:
    transform = GradientMap(Quadratic(2))
    for call in (transform, transform.inv):
        with pytest.raises(ValueError, match=r"expected points of shape \(\.\.\., 2\), got \(4, 3\)"):
            call(torch.zeros(4, 3))


def test_a_cache_gives_back_the_very_points() -> None:
    transform = GradientMap(make_icnn(2, (6,), torch.float64)).with_cache()
    x = normal(4, 2, seed=1)
    assert transform.inv(transform(x)) is x
    assert transform.with_cache() is transform


def test_maps_are_equal_when_their_potential_is_the_same() -> None:
    potential = Quadratic(2)
    assert GradientMap(potential) == GradientMap(potential)
    assert GradientMap(potential) != GradientMap(Quadratic(2))
    assert len({GradientMap(potential), "other"}) == 2


def test_gradients_flow_through_the_inverse_to_the_weights() -> None:
    potential = make_icnn(2, (6, 5), torch.float64)
    x = normal(5, 2, seed=1)
    pushed = TransformedDistribution(gaussian(2), [GradientMap(potential)])
    y = GradientMap(potential)(x).detach()

    def loss() -> Tensor:
        back = pushed.transforms[0].inv(y)
        return back.square().sum()

    (found,) = torch.autograd.grad(loss(), potential.readout)
    direction, ends = normal(*potential.readout.shape, seed=2), []
    with torch.no_grad():
        for shift in (1e-5, -2e-5, 1e-5):
            potential.readout.add_(shift * direction)
            ends.append(loss())
    assert_close((found * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------ units of the data
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e12, 0.0), (1e-12, 0.0), (1.0, 1e6), (1e-3, 1e3)], ids=str)
def test_the_gaussian_map_and_its_conjugate_come_out_in_any_units(scale: float, offset: float) -> None:
    coordinates = make_coordinates(3, scale=scale, offset=offset)
    potential = StandardisedPotential(Quadratic(3, strong_convexity=0.01), coordinates)
    x = coordinates.shift_x + scale * normal(40, 3, seed=1)
    linear = coordinates.scale * coordinates.matrix.T @ coordinates.matrix  # of the map between the Gaussians
    expected = coordinates.shift_y + (x - coordinates.shift_x) @ linear
    with torch.no_grad():
        y = potential.gradient(x)
        solved = potential.conjugate(y)
        gap = potential(x) + solved.value - (x * y).sum(1)
        by_map = GradientMap(potential).inv(y)
    rounding = 64 * torch.finfo(torch.float64).eps * (1 + abs(offset) / scale)
    assert_close(y, expected, rtol=0.0, atol=scale * max(1e-6, rounding))  # the factor is in single precision
    assert_close(solved.argmax, x, rtol=0.0, atol=scale * max(1e-6, rounding))
    assert_close(by_map, solved.argmax, rtol=0.0, atol=1e-9 * scale)
    assert float(gap.abs().max()) <= 1e-9 * max(scale * scale, abs(offset) ** 2 * 1e-4)
    eigenvalues = torch.linalg.eigvalsh(potential.hessian(x[:1]).detach())
    assert potential.strong_convexity <= float(eigenvalues.min()) * (1 + 1e-9)


def test_single_precision_points_lose_no_digits_to_a_far_offset() -> None:
    inner = make_icnn(2, (6, 5), torch.float64)
    shift = torch.tensor([1024.0, -2048.0]).double()
    near, far = (
        StandardisedPotential(inner, Standardizer.scalar(origin, 3 * origin, 1.0))
        for origin in (torch.zeros(2).double(), shift)
    )
    x = torch.linspace(-1, 1, 9)[:, None].repeat(1, 2)
    x = (x * 64).round() / 64  # so that adding the offset is exact in single precision
    with torch.no_grad():
        found = far.gradient(x + shift.float()).double() - 3 * shift
        assert_close(found, near.gradient(x).double(), rtol=0.0, atol=2048 * 3 * 2.0**-23)


def test_answers_come_in_the_precision_of_the_points_and_inverses_in_double() -> None:
    potential = StandardisedPotential(make_icnn(2, (6, 5), torch.float32), make_coordinates(2))
    for dtype in (torch.float32, torch.float64):
        x = normal(4, 2, seed=1, dtype=dtype)
        y = potential.gradient(x)
        assert {part.dtype for part in (y, *potential.value_gradient_hessian(x))} == {dtype}
        assert potential.conjugate(y).argmax.dtype == torch.float64
        assert GradientMap(potential).inv(y).dtype == dtype


def test_single_precision_follows_a_change_of_the_weights() -> None:
    potential = StandardisedPotential(make_icnn(2, (6, 5), torch.float64), make_coordinates(2))
    x = normal(4, 2, seed=1)
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.mul_(1.5)
        assert_close(potential.gradient(x.float()).double(), potential.gradient(x), rtol=1e-4, atol=1e-4)


def test_any_potential_can_be_standardised() -> None:
    wrapped = Constrained(make_icnn(2, (6,), torch.float64), "softplus")
    potential = StandardisedPotential(wrapped, make_coordinates(2))  # type: ignore[arg-type]
    x = normal(4, 2, seed=1)
    assert_close(potential.conjugate(potential.gradient(x)).argmax, x, rtol=0.0, atol=1e-6)
    assert_close(potential.gradient(x.float()).double(), potential.gradient(x), rtol=1e-4, atol=1e-4)


def test_a_conjugate_of_a_point_that_does_not_converge_raises_or_is_told() -> None:
    potential = StandardisedPotential(make_icnn(2, (6, 5), torch.float64), make_coordinates(2))
    y = torch.tensor([[0.0, 0.0], [math.nan, 0.0]]).double()
    with pytest.raises(ConvergenceError, match="1 of 2 points"):
        potential.conjugate(y)
    assert potential.conjugate(y, throw=False).converged.tolist() == [True, False]


def test_the_conjugate_differentiates_in_the_points() -> None:
    potential = StandardisedPotential(make_icnn(2, (6, 5), torch.float64), make_coordinates(2))
    y = normal(4, 2, seed=1).requires_grad_()
    solved = potential.conjugate(y, tol=1e-12)
    (slope,) = torch.autograd.grad(solved.value.sum(), y)
    assert_close(slope, solved.argmax.detach())


# ---------------------------------------------------------------------------------------------- blocks
@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_blocks_cover_every_row_without_autograd(rows: int) -> None:
    x = normal(7, 2, seed=1).requires_grad_()
    sizes: list[int] = []

    def function(block: Tensor) -> Tensor:
        sizes.append(len(block))
        return 2 * block

    found = in_blocks(function, x, rows)
    assert torch.equal(found, 2 * x.detach()) and not found.requires_grad
    assert max(sizes) <= rows and sum(sizes) == 7


def test_no_rows_are_one_empty_block() -> None:
    assert in_blocks(lambda block: block.sum(1), torch.empty(0, 3)).shape == (0,)
