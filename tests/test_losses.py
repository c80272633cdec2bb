"""Losses are their formulas, and the semi-dual's gradient is that of the dual it stands for."""

from __future__ import annotations

import pytest
import torch
from instances import make_icnn, make_quadratic, normal
from torch import Tensor
from torch.testing import assert_close

from ot_lift.conjugate import conjugate
from ot_lift.losses import plan_regression, semi_dual
from ot_lift.potentials import Quadratic


def test_the_semi_dual_is_a_difference_of_means() -> None:
    potential = make_icnn(2, (6, 5), torch.float64)
    x, argmax = normal(7, 2, seed=1), normal(4, 2, seed=2)  # the sides may differ in size
    found = semi_dual(potential, x, argmax)
    assert found.shape == ()
    assert_close(found, potential(x).mean() - potential(argmax).mean())


def test_the_semi_dual_has_the_gradient_of_the_dual() -> None:
    potential = make_icnn(3, (6, 5), torch.float64, learn_sharpness=True)
    x, y = normal(9, 3, seed=1), 2 * normal(8, 3, seed=2)
    parameters = list(potential.parameters())
    with torch.no_grad():
        argmax = conjugate(potential, y, tol=1e-12).argmax
    found = torch.autograd.grad(semi_dual(potential, x, argmax), parameters)

    def dual() -> Tensor:
        return potential(x).mean() + conjugate(potential, y, tol=1e-12).value.mean()

    for index, (slope, parameter) in enumerate(zip(found, parameters, strict=True)):
        direction, ends = normal(*parameter.shape, seed=index), []
        with torch.no_grad():
            for shift in (1e-5, -2e-5, 1e-5):
                parameter.add_(shift * direction)
                ends.append(dual())
        assert_close((slope * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-7)


def test_the_maximisers_are_constants_of_the_semi_dual() -> None:
    potential = make_icnn(2, (6,), torch.float64)
    y = normal(4, 2, seed=1).requires_grad_()
    loss = semi_dual(potential, normal(4, 2, seed=2), conjugate(potential, y).argmax)
    assert torch.autograd.grad(loss, y, allow_unused=True) == (None,)


def test_the_semi_dual_is_stationary_at_the_optimal_map_and_nowhere_lower() -> None:
    potential = make_quadratic(3, torch.float64)
    x = normal(50, 3, seed=1)
    y = potential.gradient(x).detach()
    slopes = torch.autograd.grad(semi_dual(potential, x, conjugate(potential, y).argmax), potential.parameters())
    assert all(float(slope.abs().max()) <= 1e-7 for slope in slopes)

    def dual(other: Quadratic) -> float:
        return float((other(x).mean() + conjugate(other, y).value.mean()).detach())

    for seed in range(3):
        other = make_quadratic(3, torch.float64)
        with torch.no_grad():
            other.factor.add_(0.1 * normal(3, 3, seed=seed))
        assert dual(other) > dual(potential) + 1e-6


def test_plan_regression_is_a_mean_of_squared_distances() -> None:
    potential = make_icnn(2, (6, 5), torch.float64)
    x, image = normal(7, 2, seed=1), normal(7, 2, seed=2)
    residual = potential.gradient(x) - image
    assert_close(plan_regression(potential, x, image), (residual * residual).sum() / 7)
    exact = plan_regression(potential, x, potential.gradient(x).detach())
    assert exact.item() == 0.0


@pytest.mark.parametrize("name", ["readout", "inputs.0", "weights.0", "squares.1", "biases.0"])
def test_plan_regression_differentiates_in_the_weights(name: str) -> None:
    potential = make_icnn(2, (6, 5), torch.float64)
    x, image = normal(7, 2, seed=1), normal(7, 2, seed=2)
    weight = dict(potential.named_parameters())[name]

    def loss(value: Tensor) -> Tensor:
        return torch.func.functional_call(_Regression(potential, x, image), {f"potential.{name}": value}, ())

    assert torch.autograd.gradcheck(loss, (weight.detach().clone().requires_grad_(),), fast_mode=True)


class _Regression(torch.nn.Module):
    def __init__(self, potential: torch.nn.Module, x: Tensor, image: Tensor) -> None:
        super().__init__()
        self.potential, self.x, self.image = potential, x, image

    def forward(self) -> Tensor:
        return plan_regression(self.potential, self.x, self.image)  # type: ignore[arg-type]
