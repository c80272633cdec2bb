"""Log-determinants: exact ones and their derivatives agree with autograd, stochastic ones are unbiased and say so."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from instances import BOUND, POTENTIALS, WRAPPERS, make_icnn, make_quadratic, normal, points
from laws import trained_tensors
from torch import Tensor, nn
from torch.func import functional_call, hessian, vmap
from torch.testing import assert_close

from benchmarks.log_determinant import BRUTE, OURS, autograd_conjugate_gradients, loss
from ot_lift import hessians, logdet, logdet_stochastic
from ot_lift.constrained import BoundPotential
from ot_lift.errors import ConvergenceError
from ot_lift.logdet import (
    LogDetMethod,
    exact_log_det,
    log_det_for_training,
    log_det_surrogate,
    stochastic_log_det,
    value_gradient_log_det,
)
from ot_lift.logdet_stochastic import Lanczos, rademacher
from ot_lift.potentials import AutogradPotential, Potential, Quadratic


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spread_quadratic(features: int, condition: float, dtype: torch.dtype = torch.float64) -> Quadratic:
    """A quadratic whose eigenvalues run from 1/condition to 1 in directions of no axis."""
    rotation = torch.linalg.qr(normal(features, features, seed=3)).Q
    eigenvalues = torch.logspace(-math.log10(condition), 0, features, dtype=torch.float64)
    quadratic = Quadratic(features, dtype=torch.float64)
    quadratic.set_quadratic_((rotation * eigenvalues) @ rotation.T)
    return quadratic.to(dtype)


def derivatives(output: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output, inputs, allow_unused=True, materialize_grads=True)


# ------------------------------------------------------------------------------------------------- exact
@pytest.mark.parametrize("name", POTENTIALS)
def test_value_and_derivatives_agree_with_autograd(name: str, generator: torch.Generator) -> None:
    potential = POTENTIALS[name](torch.float64)
    x = points(potential, generator).requires_grad_()
    inputs = [x, *trained_tensors(potential)]
    (gradient,) = torch.autograd.grad(potential(x).sum(), x, create_graph=True)
    columns = [torch.autograd.grad(column.sum(), x, create_graph=True)[0] for column in gradient.T]
    expected = torch.linalg.slogdet(torch.stack(columns, 2)).logabsdet
    value, slope, found = value_gradient_log_det(potential, x)
    assert_close(value, potential(x), rtol=1e-12, atol=1e-12)
    assert_close(slope, gradient, rtol=1e-11, atol=1e-11)
    assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weights = normal(len(x), seed=1)
    pairs = zip(derivatives(weights @ found, inputs), derivatives(weights @ expected, inputs), strict=True)
    for one, other in pairs:
        assert_close(one, other, rtol=1e-9, atol=1e-10 * (1 + float(other.abs().max())))


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized:UserWarning")
def test_value_and_parameter_gradients_agree_with_torch_func() -> None:
    potential, x = make_icnn(3, (7, 6), torch.float64), normal(6, 3, seed=1)
    parameters = dict(potential.named_parameters())
    hessians = vmap(hessian(lambda row: functional_call(potential, parameters, (row[None],))[0]))(x)
    expected, found = torch.linalg.slogdet(hessians).logabsdet, exact_log_det(potential, x)
    assert_close(found, expected, rtol=1e-11, atol=1e-11)
    inputs = list(parameters.values())
    for one, other in zip(derivatives(found.sum(), inputs), derivatives(expected.sum(), inputs), strict=True):
        assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_quadratic_has_its_closed_form() -> None:
    quadratic = make_quadratic(4, torch.float64)
    found = exact_log_det(quadratic, normal(3, 4, seed=1))
    matrix = quadratic.matrix().detach()
    assert_close(found.detach(), torch.logdet(matrix).expand(3))
    (slope,) = torch.autograd.grad(found.mean(), quadratic.factor)
    assert_close(slope, 2 * torch.linalg.solve(matrix, quadratic.factor.detach()))


def test_second_derivatives_are_right_too() -> None:
    potential, x = make_icnn(2, (5, 4), torch.float64), normal(3, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda at: exact_log_det(potential, at), (x,))
    assert torch.autograd.gradgradcheck(lambda at: exact_log_det(potential, at), (x,), normal(3, seed=2))


def test_blocks_without_autograd_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    potential, x = make_icnn(2, (5, 4), torch.float64), normal(7, 2, seed=1)
    with torch.no_grad():
        whole = value_gradient_log_det(potential, x)
        monkeypatch.setattr(hessians, "_BLOCK_BYTES", 2 * 2 * 8 * 3)
        parts = value_gradient_log_det(potential, x)
    for one, other in zip(whole, parts, strict=True):
        assert_close(one, other, rtol=1e-13, atol=1e-13)


def test_a_lift_is_evaluated_at_the_weights_of_all_its_points(monkeypatch: pytest.MonkeyPatch) -> None:
    lift, x = WRAPPERS["lift-constrained"](torch.float64), normal(7, 2, seed=1)
    assert isinstance(lift, Potential)
    with torch.no_grad():
        whole = exact_log_det(lift, x)
        monkeypatch.setattr(hessians, "_BLOCK_BYTES", 2 * 2 * 8 * 3)
        assert_close(exact_log_det(lift, x), whole, rtol=1e-13, atol=1e-13)


# ------------------------------------------------------------------------------------- rows that fail
class Rounded(Quadratic):
    """A quadratic whose Hessian is spoilt in single precision where the first coordinate is positive."""

    def __init__(self) -> None:
        super().__init__(2)
        self.evaluated: list[tuple[torch.dtype, int]] = []
        self.set_quadratic_(torch.diag(torch.tensor([2.0, 3.0])))

    def value_gradient_hessian(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, gradient, matrix = super().value_gradient_hessian(x)
        self.evaluated.append((x.dtype, len(x)))
        spoilt = (x[:, 0] > 0) & torch.tensor(x.dtype == torch.float32)
        return value, gradient, matrix - 2.5 * spoilt[:, None, None] * torch.eye(2, dtype=x.dtype)


def test_rows_that_fail_in_single_precision_and_they_alone_are_redone_in_double() -> None:
    potential = Rounded()
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [2.0, 1.0]])
    found = exact_log_det(potential, x)
    assert found.dtype == torch.float32
    assert_close(found.detach(), torch.full((3,), math.log(6.0)))
    assert potential.evaluated == [(torch.float32, 3), (torch.float64, 2)]
    assert potential.factor.dtype == torch.float32


@pytest.mark.parametrize("way", ["plain", "bound"])
def test_a_hessian_that_single_precision_rounds_to_a_singular_one_has_its_log_det(way: str) -> None:
    small = 1e-4
    factor = torch.tensor([[1.0, 0.0], [1.0, small]])  # LL′ is [[1, 1], [1, 1 + 1e-8]]: its rounding is singular
    quadratic = Quadratic(2)
    if way == "plain":
        leaf = quadratic.factor
        leaf.data.copy_(factor)
        potential: Potential = quadratic
    else:  # the bound weights count, not those of the module
        leaf = nn.Parameter(factor)
        potential = BoundPotential(quadratic, {"factor": leaf})
    log_det = exact_log_det(potential, torch.zeros(1, 2))
    assert_close(log_det.item(), 2 * math.log(small), rtol=1e-6, atol=0.0)
    (slope,) = torch.autograd.grad(log_det.sum(), leaf)
    assert_close(slope, 2 * torch.linalg.inv(factor).T, rtol=0.0, atol=1e-3 / small)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", ["exact", "stochastic"])
def test_rows_that_fail_in_double_too_are_counted(dtype: torch.dtype, method: LogDetMethod) -> None:
    potential, x = make_icnn(4, (6,), dtype), normal(5, 4, seed=1, dtype=dtype)
    x[1, 0], x[3, 2] = math.nan, math.inf
    with pytest.raises(ConvergenceError, match=r"got 2 of [25] that are not"):
        log_det_for_training(potential, x, method=method, generator=seeded())


@pytest.mark.parametrize("method", ["exact", "stochastic"])
def test_a_function_that_is_not_convex_is_told(method: LogDetMethod) -> None:
    class Saddle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 0] ** 2 - x[:, 1] ** 2

    with pytest.raises(ConvergenceError, match="got 3 of 3 that are not"):
        log_det_for_training(AutogradPotential(Saddle(), 2), torch.zeros(3, 2), method=method, generator=seeded())


# --------------------------------------------------------------------------------------------- Lanczos
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e6])
def test_an_exhausted_lanczos_run_gives_the_quadratic_form_of_the_logarithm(scale: float, condition: float) -> None:
    matrix = scale * spread_quadratic(6, condition).matrix().detach()
    values, vectors = torch.linalg.eigh(matrix)
    start = rademacher(normal(4, 6, seed=1), seeded())
    lanczos = Lanczos(lambda v: v @ matrix, start, 6, passes=2)
    lanczos.run()
    expected = ((start @ vectors).square() * values.log()).sum(1)
    tolerance = 1e-12 * condition * (1 + float(values.log().abs().max()))
    assert_close(lanczos.bracket(0.0)[0], expected, rtol=0.0, atol=tolerance)
    tolerance += 6 * 8 * math.pi * math.exp(-2 * math.pi**2)  # of the coarse rule, times ‖start‖²
    assert_close(lanczos.log_quadrature(0.0), expected, rtol=0.0, atol=tolerance)
    assert_close(lanczos.solution() @ matrix, start, rtol=0.0, atol=1e-13 * condition)


def test_residuals_of_the_recurrence_are_those_of_conjugate_gradients() -> None:
    matrix, start = spread_quadratic(8, 50.0).matrix().detach(), rademacher(normal(3, 8, seed=1), seeded())
    lanczos = Lanczos(lambda v: v @ matrix, start, 8)
    for _ in range(6):
        lanczos.step()
        solution = lanczos.solution()
        residual = (start - solution @ matrix).norm(dim=1) / math.sqrt(8)
        assert_close(lanczos.residual, residual, rtol=1e-8, atol=1e-12)
        basis = lanczos.basis[:, : lanczos.steps]
        small = torch.linalg.solve(basis @ matrix @ basis.mT, basis @ start[:, :, None])  # least energy norm of error
        assert_close(solution, (basis.mT @ small).squeeze(2), rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------- stochastic values
@pytest.mark.parametrize("features", [1, 4, 9])
def test_the_lanczos_value_is_within_four_standard_errors(features: int) -> None:
    potential, x = make_icnn(features, (8, 6), torch.float64), normal(8, features, seed=1)
    found = stochastic_log_det(potential, x, probes=300, steps=features, generator=seeded())
    error = (found.value - exact_log_det(potential, x).detach()).abs()
    assert bool((error <= 4 * found.standard_error + 1e-10).all())
    assert float(found.residual.max()) <= 1e-8
    assert (found.probes, found.steps) == (300, features)


def test_standard_errors_are_those_of_repeated_estimates() -> None:
    potential, x = make_icnn(4, (8, 6), torch.float64), normal(1, 4, seed=1).repeat(400, 1)
    found = stochastic_log_det(potential, x, probes=8, steps=4, generator=seeded())
    spread = float(found.value.std())
    assert abs(spread / float(found.standard_error.square().mean().sqrt()) - 1) <= 4 / math.sqrt(2 * 400)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_residuals_bound_the_bias_of_truncation(steps: int) -> None:
    potential, x = make_icnn(7, (8, 6), torch.float64), normal(6, 7, seed=1)
    short, whole = (stochastic_log_det(potential, x, steps=k, generator=seeded()) for k in (steps, 7))  # same probes
    assert bool((short.value >= whole.value - 1e-9).all())
    assert bool((short.value - short.residual <= whole.value + 1e-9).all())
    assert bool((short.residual > 0).all())


def test_without_strong_convexity_truncation_has_no_bound() -> None:
    quadratic, x = spread_quadratic(5, 10.0), torch.zeros(1, 5, dtype=torch.float64)
    assert stochastic_log_det(quadratic, x, steps=2, generator=seeded()).residual.item() == math.inf
    assert stochastic_log_det(quadratic, x, steps=5, generator=seeded()).residual.item() == 0.0


def test_blocks_of_probes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    potential, x = make_icnn(3, (8, 6), torch.float64), normal(5, 3, seed=1)
    whole = stochastic_log_det(potential, x, probes=6, generator=seeded())
    monkeypatch.setattr(logdet_stochastic, "_BLOCK_ROWS", 4)
    parts = stochastic_log_det(potential, x, probes=6, generator=seeded())
    assert_close(parts.value, whole.value, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------- stochastic gradients
def test_the_gradient_in_the_points_is_unbiased() -> None:
    potential, point = make_icnn(4, (8, 6), torch.float64), normal(1, 4, seed=1).requires_grad_()
    (expected,) = torch.autograd.grad(exact_log_det(potential, point).sum(), point)
    x = point.detach().repeat(3000, 1).requires_grad_()
    record = log_det_surrogate(potential, x, generator=seeded())
    (draws,) = torch.autograd.grad(record.surrogate.sum(), x)
    assert bool(record.converged.all())
    error = (draws.mean(0) - expected[0]).abs()
    assert bool((error <= 4 * draws.std(0) / math.sqrt(len(x))).all())


@pytest.mark.parametrize("way", ["surrogate", "training"])
def test_the_gradient_in_the_parameters_is_unbiased(way: str) -> None:
    potential, x = make_icnn(3, (4, 3), torch.float64), normal(6, 3, seed=1)
    inputs = list(potential.parameters())
    generator = seeded()

    def draw() -> Tensor:
        if way == "surrogate":
            log_det = log_det_surrogate(potential, x, generator=generator).surrogate
        else:
            log_det = log_det_for_training(potential, x, method="stochastic", generator=generator)[2]
        return torch.cat([slope.flatten() for slope in derivatives(log_det.sum(), inputs)])

    expected = torch.cat([slope.flatten() for slope in derivatives(exact_log_det(potential, x).sum(), inputs)])
    draws = torch.stack([draw() for _ in range(200)])
    error = (draws.mean(0) - expected).abs()
    assert bool((error <= 4 * draws.std(0) / math.sqrt(len(draws)) + 1e-12).all())


def test_a_surrogate_shares_its_sweep_and_reports_the_solve() -> None:
    quadratic, x = spread_quadratic(6, 1e3), normal(3, 6, seed=1)
    full = log_det_surrogate(quadratic, x, generator=seeded())
    assert_close(full.value, quadratic(x))
    assert_close(full.gradient, quadratic.gradient(x))
    assert bool(full.converged.all()) and full.steps == 6 and float(full.residual.max()) <= 1e-8
    probe, matrix = rademacher(x, seeded()), quadratic.matrix().detach()
    expected = torch.linalg.solve(matrix, probe.T) @ probe @ quadratic.factor.detach()  # of v′H⁻¹(dL L′ + L dL′)v
    expected = expected + probe.T @ torch.linalg.solve(matrix, probe.T).T @ quadratic.factor.detach()
    (slope,) = torch.autograd.grad(full.surrogate.sum(), quadratic.factor)
    assert_close(slope, expected, rtol=1e-7, atol=1e-7)
    short = log_det_surrogate(quadratic, x, generator=seeded(), max_steps=2)
    assert short.steps == 2 and not bool(short.converged.any()) and float(short.residual.min()) > 1e-3


@pytest.mark.parametrize("name", BOUND)
def test_estimates_reach_the_raw_weights_of_every_wrapper(name: str, generator: torch.Generator) -> None:
    potential = BOUND[name](torch.float64)
    x = points(potential, generator)
    inputs = trained_tensors(potential)
    for method in ("exact", "stochastic"):
        slopes = derivatives(loss(OURS[method], potential, x, generator), inputs)
        assert all(bool(slope.isfinite().all()) for slope in slopes)
        assert sum(float(slope.abs().sum()) for slope in slopes) > 0


# ------------------------------------------------------------------------------------------- training
def test_the_default_switches_at_the_measured_dimension(monkeypatch: pytest.MonkeyPatch) -> None:
    potential, x = make_icnn(3, (4,), torch.float64), normal(5, 3, seed=1)
    generator = seeded()
    exact = log_det_for_training(potential, x, generator=generator)[2]
    assert_close(exact, exact_log_det(potential, x))
    assert torch.equal(generator.get_state(), seeded().get_state())
    monkeypatch.setattr(logdet, "STOCHASTIC_FROM", 3)
    log_det_for_training(potential, x, generator=generator)
    assert not torch.equal(generator.get_state(), seeded().get_state())


@pytest.mark.parametrize("condition", [2.0, 1e3, 1e5])
def test_single_precision_steps_are_those_of_double_however_ill_conditioned(condition: float) -> None:
    slopes, numbers = [], []
    for dtype in (torch.float32, torch.float64):
        quadratic = spread_quadratic(16, condition, dtype)
        x = torch.zeros(8, 16, dtype=dtype)
        log_det = log_det_for_training(quadratic, x, method="stochastic", generator=seeded())[2]
        slopes.append(torch.autograd.grad(log_det.sum(), quadratic.factor)[0].double())
        numbers.append(log_det.detach().double())
    scale = float(slopes[1].abs().max())
    assert_close(slopes[0], slopes[1], rtol=0.0, atol=4e-3 * scale)
    if condition > 1e2:  # solved by factorisation: the number is exact
        assert_close(numbers[0], exact_log_det(spread_quadratic(16, condition), x.double()).detach(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("name", [*BRUTE, "CG"])
@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized:UserWarning")
def test_the_references_of_the_benchmark_compute_the_same_step(name: str) -> None:
    potential, x = make_icnn(3, (7, 6), torch.float64), normal(6, 3, seed=1)
    inputs = list(potential.parameters())
    steps = (autograd_conjugate_gradients, OURS["stochastic"]) if name == "CG" else (BRUTE[name], OURS["exact"])
    found, expected = (derivatives(loss(step, potential, x, seeded()), inputs) for step in steps)
    tolerance = 1e-2 if name == "CG" else 1e-9  # the reference's CG stops at 1e-3
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, rtol=0.0, atol=tolerance * (1 + float(other.abs().max())))


# ------------------------------------------------------------------------------------------ edges
@pytest.mark.parametrize("features", [1, 2])
def test_no_rows_give_no_rows(features: int) -> None:
    potential, x = make_icnn(features, (4,), torch.float64), torch.zeros(0, features, dtype=torch.float64)
    for method in ("exact", "stochastic"):
        value, gradient, log_det = log_det_for_training(potential, x, method=method, generator=seeded())
        assert value.shape == log_det.shape == (0,) and gradient.shape == (0, features)
    assert stochastic_log_det(potential, x, generator=seeded()).value.shape == (0,)
    assert log_det_surrogate(potential, x, generator=seeded()).surrogate.shape == (0,)


def test_wrong_arguments_are_refused() -> None:
    potential, x = Quadratic(2), torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"expected x of shape \(n, 2\), got \(3, 4\)"):
        exact_log_det(potential, torch.zeros(3, 4))
    with pytest.raises(ValueError, match="'auto', 'exact' or 'stochastic', got 'quick'"):
        log_det_for_training(potential, x, method="quick", generator=seeded())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="probes >= 2 and steps >= 1, got probes=1, steps=4"):
        stochastic_log_det(potential, x, probes=1, steps=4, generator=seeded())
    with pytest.raises(ValueError, match="max_steps >= 1, got 0"):
        log_det_surrogate(potential, x, generator=seeded(), max_steps=0)
    with pytest.raises(ValueError, match="tol between 0 and 1"):
        log_det_surrogate(potential, x, generator=seeded(), tol=0.0)
