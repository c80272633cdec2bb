"""Objectives are the losses they name, remember what they solved, and resume where they were."""

from __future__ import annotations

import copy

import pytest
import torch
from instances import make_icnn, make_quadratic, normal
from torch import Tensor
from torch.testing import assert_close

import ot_lift.batches
import ot_lift.objectives
from ot_lift.batches import FiniteBatches, StreamBatches
from ot_lift.conjugate import conjugate
from ot_lift.constrained import ConstrainedPotential
from ot_lift.losses import plan_regression
from ot_lift.objectives import PlanRegression, SemiDual
from ot_lift.potentials import Quadratic
from ot_lift.rows import open_rows

ROWS = 40


def as_float(x: Tensor) -> Tensor:
    return x.float()


def finite(points: Tensor, seed: int, batch_size: int = 10) -> FiniteBatches:
    rows = open_rows(points, name="X")
    generator = torch.Generator().manual_seed(seed)
    return FiniteBatches(rows, torch.arange(len(points)), as_float, batch_size=batch_size, generator=generator)


def semi_dual(**options: Tensor) -> SemiDual:
    held_out = normal(15, 2, seed=3).float(), 2 * normal(12, 2, seed=4).float() + 1
    batches = finite(normal(ROWS, 2, seed=1), 0), finite(2 * normal(ROWS, 2, seed=2) + 1, 1)
    return SemiDual(*batches, *held_out, **options)


def model(dtype: torch.dtype = torch.float32) -> ConstrainedPotential:
    wrapper = ConstrainedPotential(make_icnn(2, (8, 6), dtype), "softplus")
    assert isinstance(wrapper, ConstrainedPotential)
    return wrapper


# ------------------------------------------------------------------------------------------- SemiDual
def test_the_loss_is_the_semi_dual_at_the_solved_maximisers() -> None:
    objective, bound = semi_dual(), model().bind()
    x = objective.next_batch()
    assert x.shape == (10, 2)
    loss = objective.loss(bound)
    with torch.no_grad():
        argmax = conjugate(bound, objective._y, tol=1e-3, throw=False).argmax
    expected = bound(x).mean() - bound(argmax).mean()
    assert_close(loss, expected, rtol=1e-3, atol=1e-4)
    assert loss.requires_grad


def test_a_point_is_solved_from_where_it_was_solved_before() -> None:
    objective, bound = semi_dual(), model().bind()
    for _ in range(4):  # one epoch
        objective.next_batch()
        objective.loss(bound)
    first = objective.report()
    assert not objective._memory.isnan().any()
    for _ in range(4):
        objective.next_batch()
        objective.loss(bound)
    second = objective.report()
    assert first["newton_steps"] > 1.0 and first["unsolved"] == 0.0
    assert second == {"newton_steps": 0.0, "unsolved": 0.0}
    assert objective.report() == {}


def test_too_many_points_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ot_lift.objectives, "_MEMORY_BYTES", 0)
    forgetful, bound = semi_dual(), model().bind()
    assert len(forgetful._memory) == 0
    monkeypatch.undo()
    remembering = semi_dual()
    for _ in range(2):
        forgetful.next_batch()
        remembering.next_batch()
        assert_close(forgetful.loss(bound), remembering.loss(bound), rtol=1e-4, atol=1e-4)
    remembering.load_state(copy.deepcopy(remembering.state()))
    forgetful.load_state(copy.deepcopy(forgetful.state()))


def test_what_was_solved_for_a_point_is_forgotten_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ot_lift.batches, "_POOL_BATCHES", 8)

    def sampler(count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, 2, generator=generator)

    def stream(seed: int) -> StreamBatches:
        generator = torch.Generator().manual_seed(seed)
        return StreamBatches(open_rows(sampler, name="X"), as_float, batch_size=4, generator=generator)

    held_out = normal(5, 2, seed=1).float()
    objective, bound = SemiDual(stream(0), stream(1), held_out, held_out), model().bind()
    for step in range(25):
        objective.next_batch()
        if objective.target.renewed is not None:
            assert step % 8 == 0
            assert objective._memory[objective.target.renewed].isnan().all()
        objective.loss(bound)
    assert objective._memory.isnan().any(1).sum() <= 4


def test_the_held_out_value_of_a_gaussian_map_has_its_closed_form() -> None:
    objective = semi_dual()
    quadratic = make_quadratic(2, torch.float32)
    matrix, linear = quadratic.matrix().double(), quadratic.linear.double()
    shifted = objective.held_out_y.double() - linear
    star = 0.5 * (shifted * torch.linalg.solve(matrix, shifted.T).T).sum(1) - quadratic.offset
    expected = quadratic(objective.held_out_x).double().mean() + star.mean()
    found = objective.held_out(quadratic)
    assert_close(found, float(expected.detach()), rtol=1e-5, atol=1e-5)
    assert_close(objective.held_out(quadratic), found, rtol=1e-6, atol=0.0)


def test_held_out_weights_count_points_as_often_as_copies_would() -> None:
    counts = torch.tensor([1, 3, 2, 0, 1])
    x, y = normal(5, 2, seed=1).float(), normal(5, 2, seed=2).float()
    batches = finite(x.double(), 0), finite(y.double(), 1)
    weighted = SemiDual(*batches, x, y, counts.double(), counts.double())
    copies = SemiDual(*batches, x.repeat_interleave(counts, 0), y.repeat_interleave(counts, 0))
    potential = make_icnn(2, (6,), torch.float32)
    assert_close(weighted.held_out(potential), copies.held_out(potential), rtol=1e-5, atol=1e-6)
    gains = [one.improvement(potential, Quadratic(2))[0] for one in (weighted, copies)]
    assert_close(gains[0], gains[1], rtol=1e-4, atol=1e-5)


def test_improvement_is_the_paired_difference_with_its_standard_error() -> None:
    x, y = normal(400, 2, seed=1).float(), normal(300, 2, seed=2).float()
    objective = SemiDual(finite(x.double(), 0), finite(y.double(), 1), x, y)
    worse = Quadratic(2)
    worse.set_quadratic_(2 * torch.eye(2))
    gain, error = objective.improvement(Quadratic(2), worse)
    assert_close(gain, objective.held_out(worse) - objective.held_out(Quadratic(2)), rtol=1e-4, atol=1e-5)
    # φ − φ' = −½‖x‖² and φ* − φ'* = ¼‖y‖²: the variance of a mean of squares over each side
    parts = [(-0.5 * x.square().sum(1)).double(), (0.25 * y.square().sum(1)).double()]
    expected = sum(float(part.var()) / len(part) for part in parts) ** 0.5
    assert_close(error, expected, rtol=1e-3, atol=0.0)
    assert objective.improvement(worse, Quadratic(2))[0] < -error
    same, zero = objective.improvement(Quadratic(2), Quadratic(2))
    assert abs(same) < 1e-6 and zero < 1e-6


def test_a_restored_objective_continues_bit_for_bit() -> None:
    first, second = semi_dual(), semi_dual()
    bound = model().bind()
    for _ in range(7):
        first.next_batch()
        first.loss(bound)
    first.held_out(make_icnn(2, (6,), torch.float32))
    state = first.state()
    assert all(isinstance(value, Tensor) for value in state.values())
    kept = copy.deepcopy(state)
    second.next_batch()
    second.load_state(state)
    for _ in range(9):
        assert torch.equal(first.next_batch(), second.next_batch())
        assert torch.equal(first.loss(bound), second.loss(bound))
    potential = make_icnn(2, (6,), torch.float32)
    assert first.held_out(potential) == second.held_out(potential)
    assert all(torch.equal(state[name], value) for name, value in kept.items())


def test_a_model_that_is_not_a_number_gives_a_loss_that_is_not() -> None:
    objective, wrapper = semi_dual(), model()
    with torch.no_grad():
        wrapper.raw[0].fill_(float("nan"))
    objective.next_batch()
    assert not torch.isfinite(objective.loss(wrapper.bind()))
    assert objective.report()["unsolved"] == 1.0


# -------------------------------------------------------------------------------------- PlanRegression
def plan(size: int = 30, seed: int = 0) -> PlanRegression:
    generator = torch.Generator().manual_seed(seed)
    x, image = normal(size, 2, seed=1).float(), normal(size, 2, seed=2).float()
    return PlanRegression(x, image, batch_size=8, generator=generator)


def test_the_plan_is_regressed_on_pairs_that_stay_together_and_a_tenth_is_held_out() -> None:
    objective, bound = plan(), model().bind()
    x, image = normal(30, 2, seed=1).float(), normal(30, 2, seed=2).float()
    seen = set()
    for _ in range(40):
        batch = objective.next_batch()
        rows = [int((x == point).all(1).nonzero()) for point in batch]
        seen |= set(rows)
        assert_close(objective.loss(bound), plan_regression(bound, batch, image[rows]))
    assert seen == set(range(3, 30))
    potential = make_icnn(2, (6,), torch.float32)
    expected = plan_regression(potential, x[:3], image[:3]).detach()
    assert_close(objective.held_out(potential), float(expected))
    assert objective.report() == {}


def test_a_plan_of_two_points_still_has_one_to_train_on() -> None:
    objective = plan(size=2)
    assert objective.next_batch().shape == (1, 2)


def test_a_restored_plan_draws_the_same_pairs() -> None:
    first, second = plan(), plan(seed=1)
    first.next_batch()
    second.load_state(copy.deepcopy(first.state()))
    for _ in range(5):
        assert torch.equal(first.next_batch(), second.next_batch())
