"""Conjugation: it converges everywhere, says how well, and differentiates as the implicit function theorem does."""

from __future__ import annotations

import pytest
import torch
from instances import make_icnn, make_quadratic, normal
from torch import Tensor, nn
from torch.testing import assert_close

import ot_lift.conjugate
import ot_lift.hessians
from ot_lift.conjugate import NEWTON_CG_FROM, Method, conjugate, conjugate_gradients, factor_hessian
from ot_lift.constrained import ConstrainedPotential
from ot_lift.errors import ConvergenceError
from ot_lift.lift import Lift
from ot_lift.potentials import ICNN, AutogradPotential, Quadratic

METHODS: tuple[Method, ...] = ("newton", "newton-cg")


@torch.no_grad()
def trained_like(features: int, *, sharpness: float, activation: str = "softplus") -> ICNN:
    """A network as training leaves one: uneven weights, sharp kinks, a map of unit size and no help from Q."""
    generator = torch.Generator().manual_seed(1)
    options = {"activation": activation, "sharpness": sharpness, "generator": generator}
    network = ICNN(features, (64, 64, 64), dtype=torch.float64, **options)  # type: ignore[arg-type]

    def noise(parameter: Tensor) -> Tensor:
        return torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)

    for weight in (*network.inputs, *network.squares, *network.weights, network.readout):
        weight.mul_(torch.exp(0.5 * noise(weight)))
    for bias in network.biases:
        bias.add_(noise(bias))
    network.quadratic.factor.zero_()
    curvature = network.hessian(normal(256, features, seed=2)).diagonal(dim1=1, dim2=2).mean()
    network.readout.div_(curvature)
    return network


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("features", "rows", "options"),
    [
        pytest.param(2, 300, {"sharpness": 32.0}, id="d2"),
        pytest.param(8, 300, {"sharpness": 32.0}, id="d8"),
        pytest.param(8, 200, {"sharpness": 32.0, "activation": "celu"}, id="d8-celu"),
        pytest.param(32, 60, {"sharpness": 16.0}, id="d32"),
        pytest.param(128, 6, {"sharpness": 8.0}, id="d128"),
    ],
)
def test_points_far_out_converge_for_sharp_networks(
    features: int, rows: int, options: dict[str, object], method: Method
) -> None:
    potential = trained_like(features, **options)  # type: ignore[arg-type]
    y = 3 * normal(rows, features, seed=3)
    with torch.no_grad():
        solved = conjugate(potential, y, method=method)
        residual = (potential.gradient(solved.argmax) - y).abs().amax(1)
        value = (solved.argmax * y).sum(1) - potential(solved.argmax)
    assert bool(solved.converged.all())
    assert float(residual.max()) <= 1e-8
    assert_close(solved.residual, residual, rtol=0.0, atol=1e-12)
    assert_close(solved.value, value)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_kinks_have_shortened_is_not_tried_in_full_again(method: Method) -> None:
    potential = trained_like(32, sharpness=64.0)
    with torch.no_grad():
        solved = conjugate(potential, 3 * normal(60, 32, seed=3), method=method, max_steps=50, throw=False)
    assert bool(solved.converged.all())  # 60 evaluations with a full step tried every time, 40 without


def test_a_quadratic_has_its_closed_form() -> None:
    quadratic = make_quadratic(5, torch.float64)
    y = 10 * normal(20, 5, seed=1)
    shifted = y - quadratic.linear
    expected = torch.linalg.solve(quadratic.matrix(), shifted.T).T
    for method in METHODS:
        solved = conjugate(quadratic, y, method=method)
        assert_close(solved.argmax, expected)
        assert_close(solved.value, 0.5 * (shifted * expected).sum(1) - quadratic.offset)


def test_the_method_follows_from_the_dimension(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Method] = []
    search = ot_lift.conjugate._search

    def spy(*args: object, method: Method, **options: object) -> object:
        used.append(method)
        return search(*args, method=method, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ot_lift.conjugate, "_search", spy)
    for features in (2, NEWTON_CG_FROM):
        conjugate(Quadratic(features), torch.zeros(1, features))
    assert used == ["newton", "newton-cg"]


def test_the_residual_bounds_the_distance_to_the_solution() -> None:
    potential = make_icnn(3, (8, 8), torch.float64)
    y = 3 * normal(50, 3, seed=1)
    with torch.no_grad():
        exact = conjugate(potential, y, tol=0.0).argmax
        rough = conjugate(potential, y, tol=1e-2)
    far = (rough.argmax - exact).norm(dim=1)
    assert bool((far <= 3**0.5 * rough.residual / potential.strong_convexity + 1e-12).all())
    assert 1e-6 < float(rough.residual.max()) <= 1e-2


def test_the_solution_as_start_takes_no_step_and_inputs_stay_as_they_are() -> None:
    potential = make_icnn(3, (8, 8), torch.float64)
    y = normal(20, 3, seed=1)
    solved = conjugate(potential, y)
    again = conjugate(potential, y, solved.argmax)
    assert solved.steps.max() > 0 and again.steps.eq(0).all()
    assert again.steps.dtype == torch.int64 and again.converged.dtype == torch.bool
    y, start = normal(20, 3, seed=1), normal(20, 3, seed=2)
    conjugate(potential, y, start)
    assert torch.equal(y, normal(20, 3, seed=1)) and torch.equal(start, normal(20, 3, seed=2))


def test_a_start_that_is_not_finite_is_replaced_by_the_point() -> None:
    potential = make_icnn(2, (8,), torch.float64)
    y = normal(3, 2, seed=1)
    start = y.clone()
    start[0, 1], start[2] = float("nan"), float("inf")
    with torch.no_grad():
        assert torch.equal(conjugate(potential, y, start).argmax, conjugate(potential, y).argmax)


class Counting(Quadratic):
    """Counts the rows whose gradient is asked for; its points converge one after the other."""

    rows = 0

    def value_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.rows += len(x)
        quartic = x.pow(4).sum(1)
        value, gradient = super().value_gradient(x)
        return value + quartic, gradient + 4 * x.pow(3)

    def hessian(self, x: Tensor) -> Tensor:
        return super().hessian(x) + torch.diag_embed(12 * x.square())


def test_converged_points_leave_the_batch() -> None:
    potential = Counting(2, dtype=torch.float64)
    y = torch.cat([torch.zeros(99, 2), torch.full((1, 2), 1e6)]).double()
    with torch.no_grad():
        solved = conjugate(potential, y)
    assert solved.steps[:99].eq(0).all() and solved.steps[99] > 5
    assert potential.rows < 100 + 60


@pytest.mark.parametrize("method", METHODS)
def test_blocks_change_nothing(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    potential = make_icnn(3, (8, 8), torch.float64)
    y = 3 * normal(20, 3, seed=1)
    with torch.no_grad():
        whole = conjugate(potential, y, method=method)
        monkeypatch.setattr(ot_lift.hessians, "_BLOCK_BYTES", 7 * 9 * 8)
        parts = conjugate(potential, y, method=method)
    assert_close(parts.argmax, whole.argmax, rtol=0.0, atol=1e-12)
    assert parts.steps.tolist() == whole.steps.tolist()


def test_single_precision_has_a_tolerance_it_can_reach() -> None:
    potential = make_icnn(8, (32, 32), torch.float32, sharpness=8.0)
    y = torch.cat([normal(50, 8, seed=1), 1e4 * normal(5, 8, seed=2)]).float()
    with torch.no_grad():
        solved = conjugate(potential, y)
    assert solved.argmax.dtype == solved.value.dtype == solved.residual.dtype == torch.float32
    assert float(solved.residual[:50].max()) <= 1e-4


def test_far_points_are_held_to_their_rounding() -> None:
    potential = make_icnn(2, (8, 8), torch.float64)
    y = 1e9 * normal(30, 2, seed=1)
    with torch.no_grad():
        solved = conjugate(potential, y, tol=1e-12)
    assert bool(solved.converged.all())
    assert float((solved.residual / y.abs().amax(1)).max()) <= 64 * torch.finfo(torch.float64).eps


# -------------------------------------------------------------------------------------- derivatives
def dense_jacobian(output: Tensor, y: Tensor) -> Tensor:
    """∂output/∂y row by row, (m, d, d)."""
    columns = [torch.autograd.grad(output[:, i].sum(), y, retain_graph=True)[0] for i in range(y.shape[1])]
    return torch.stack(columns, 1)


@pytest.mark.parametrize("method", METHODS)
def test_argmax_differentiates_in_the_points(method: Method) -> None:
    potential = make_icnn(6, (16, 16), torch.float64, strong_convexity=0.01)
    y = (2 * normal(5, 6, seed=1)).requires_grad_()
    solved = conjugate(potential, y, method=method, tol=1e-12)
    found = dense_jacobian(solved.argmax, y)
    expected = torch.linalg.inv(potential.hessian(solved.argmax.detach())).detach()
    assert_close(found, expected, rtol=1e-9, atol=1e-9)
    (slope,) = torch.autograd.grad(solved.value.sum(), y)
    assert_close(slope, solved.argmax.detach())

    def argmax(points: Tensor) -> Tensor:
        return conjugate(potential, points, method=method, tol=1e-12).argmax

    assert torch.autograd.gradcheck(argmax, (y,), eps=1e-5, atol=1e-5, fast_mode=True)


@pytest.mark.parametrize("method", METHODS)
def test_implicit_gradients_are_exact_for_an_ill_conditioned_hessian(method: Method) -> None:
    vectors, _ = torch.linalg.qr(normal(40, 40, seed=1))
    matrix = (vectors * torch.logspace(0, 6, 40, dtype=torch.float64)) @ vectors.T
    quadratic = Quadratic(40, dtype=torch.float64)
    quadratic.set_quadratic_(matrix)
    y, mixing = normal(3, 40, seed=2).requires_grad_(), normal(3, 40, seed=3)
    argmax = conjugate(quadratic, y, (y @ torch.linalg.inv(matrix)).detach(), method=method, throw=False).argmax
    (found,) = torch.autograd.grad((argmax * mixing).sum(), y)
    expected = torch.linalg.solve(quadratic.matrix(), mixing.T).T
    assert_close(found, expected.detach(), rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_argmax_and_value_differentiate_in_the_parameters(method: Method) -> None:
    potential = make_icnn(4, (7, 6), torch.float64, learn_sharpness=True)
    parameters = list(potential.parameters())
    y, mixing = 2 * normal(5, 4, seed=1), normal(5, 4, seed=2)

    def answers() -> tuple[Tensor, Tensor]:
        solved = conjugate(potential, y, method=method, tol=1e-12)
        return (solved.argmax * mixing).sum(), solved.value.sum()

    found = [torch.autograd.grad(answer, parameters, materialize_grads=True) for answer in answers()]
    for index, parameter in enumerate(parameters):
        direction, step = normal(*parameter.shape, seed=index), 1e-5
        ends = []
        with torch.no_grad():
            for shift in (step, -2 * step, step):  # the last one comes back
                parameter.add_(shift * direction)
                ends.append(answers())
        for ours, forward, backward in zip(found, ends[0], ends[1], strict=True):
            expected = (forward - backward) / (2 * step)
            assert_close((ours[index] * direction).sum(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_the_raw_weights_of_a_constrained_potential(method: Method) -> None:
    constrained = ConstrainedPotential(make_icnn(2, (6, 5), torch.float64), "softplus")
    y = 2 * normal(5, 2, seed=1)
    solved = conjugate(constrained, y, tol=1e-12, method=method)
    found = torch.autograd.grad(solved.argmax.sum(), list(constrained.raw))
    for index, raw in enumerate(constrained.raw):
        direction, ends = normal(*raw.shape, seed=index), []
        with torch.no_grad():
            for shift in (1e-5, -2e-5, 1e-5):
                raw.add_(shift * direction)
                ends.append(conjugate(constrained, y, tol=1e-12).argmax.sum())
        assert_close((found[index] * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-6)


def test_nothing_is_tracked_without_autograd_and_no_second_derivative_is_given() -> None:
    potential = make_icnn(2, (6,), torch.float64)
    y = normal(3, 2, seed=1).requires_grad_()
    with torch.no_grad():
        solved = conjugate(potential, y)
    assert not solved.argmax.requires_grad and not solved.value.requires_grad
    argmax = conjugate(potential, y).argmax
    (slope,) = torch.autograd.grad(argmax.sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        slope.sum().backward()


# ------------------------------------------------------------------------------- what can go wrong
def test_a_point_that_does_not_converge_raises_or_is_told() -> None:
    potential = trained_like(8, sharpness=32.0)
    y = 3 * normal(20, 8, seed=1)
    with torch.no_grad():
        with pytest.raises(ConvergenceError, match=r"of 20 points: expected residual <= .*max_steps"):
            conjugate(potential, y, max_steps=3)
        told = conjugate(potential, y, max_steps=3, throw=False)
        assert not told.converged.all()
        assert torch.equal(told.converged, told.residual <= 1e-9)
        residual = (potential.gradient(told.argmax) - y).abs().amax(1)
        assert_close(told.residual, residual, rtol=0.0, atol=1e-12)
        start = conjugate(potential, y, max_steps=0, throw=False)
        assert torch.equal(start.argmax, y) and start.steps.eq(0).all()


def test_a_point_that_is_not_a_number_does_not_converge() -> None:
    y = torch.tensor([[1.0, float("nan")], [1.0, 2.0]], dtype=torch.float64)
    told = conjugate(make_icnn(2, (6,), torch.float64), y, throw=False)
    assert told.converged.tolist() == [False, True]


class Quartic(nn.Module):
    """Σ xᵢ⁴: its Hessian vanishes at 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x.pow(4).sum(1)


class Exponential(nn.Module):
    """Σ exp(xᵢ), which overflows where a full Newton step goes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp().sum(1)


@pytest.mark.parametrize("method", METHODS)
def test_a_singular_hessian_and_an_overflow_on_the_way_do_no_harm(method: Method) -> None:
    y = torch.tensor([[4.0, -32.0], [0.0, 4e3]], dtype=torch.float64)
    quartic = AutogradPotential(Quartic(), 2)
    solved = conjugate(quartic, y, torch.zeros_like(y), method=method)
    assert_close(solved.argmax, torch.tensor([[1.0, -2.0], [0.0, 10.0]]).double(), rtol=1e-6, atol=1e-3)
    exponential = AutogradPotential(Exponential(), 2)
    y = torch.tensor([[1.0, 1e3]], dtype=torch.float64)
    solved = conjugate(exponential, y, torch.full_like(y, -5.0), method=method)
    assert_close(solved.argmax, y.log(), rtol=0.0, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.zeros(3, 4),), {}, r"expected y of shape \(m, 2\), got \(3, 4\)"),
        ((torch.zeros(2),), {}, r"expected y of shape \(m, 2\), got \(2,\)"),
        ((torch.zeros(3, 2), torch.zeros(4, 2)), {}, r"expected x0 of the shape of y, \(3, 2\), got \(4, 2\)"),
        ((torch.zeros(3, 2),), {"method": "bfgs"}, "'newton', 'newton-cg'.*got 'bfgs'|got 'bfgs'"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[Tensor, ...], options: dict[str, Method], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conjugate(Quadratic(2), *arguments, **options)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------- linear algebra
def test_conjugate_gradients_solve_and_leave_solved_rows_alone() -> None:
    factor = normal(4, 6, 6, seed=1)
    matrix = factor @ factor.mT + 0.1 * torch.eye(6).double()
    right = normal(4, 6, seed=2)
    right[1] = 0.0

    def product(v: Tensor) -> Tensor:
        return (matrix @ v[..., None]).squeeze(-1)

    solution = conjugate_gradients(product, right, tol=1e-10 * right.norm(dim=1), max_steps=100)
    assert_close(product(solution), right, rtol=0.0, atol=1e-8)
    assert torch.equal(solution[1], torch.zeros(6).double())
    rough = conjugate_gradients(product, right, tol=0.5 * right.norm(dim=1))
    assert bool(((product(rough) - right).norm(dim=1) <= 0.5 * right.norm(dim=1) + 1e-12).all())
    assert bool(((rough * right).sum(1) >= 0).all())  # every iterate is a direction of descent


def test_factors_that_rounding_breaks_are_redone() -> None:
    vector = normal(1, 5, seed=1, dtype=torch.float32)
    singular = vector.T @ vector - 1e-8 * torch.eye(5)
    assert torch.linalg.cholesky_ex(singular).info > 0
    factor = factor_hessian(torch.stack([torch.eye(5), singular]))
    assert factor.dtype == torch.float32 and bool(torch.isfinite(factor).all())
    assert_close(factor @ factor.mT, torch.stack([torch.eye(5), singular]), rtol=0.0, atol=1e-4)
    assert not torch.isfinite(factor_hessian(torch.full((1, 2, 2), float("nan")))).any()


def test_a_lift_that_is_not_bound_has_no_conjugate() -> None:
    lift, y = Lift(make_icnn(2, (6, 5), torch.float64), features=2).double(), normal(4, 2, seed=1)
    with pytest.raises(ValueError, match=r"fixed weights, got a LiftPotential.*bake"):
        conjugate(lift, y)
    batch = normal(32, 2, seed=2)
    baked = lift.bake(batch)
    assert isinstance(baked, ICNN)
    with torch.no_grad():
        bound = conjugate(lift.bind(batch=batch), y)
    assert_close(bound.argmax, conjugate(baked, y).argmax.detach())
