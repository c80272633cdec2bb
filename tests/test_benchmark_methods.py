"""Peers that need more than the library: what they share, and each of them where it is installed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import ot
import pytest

from benchmarks.cells import Cell, run_cell
from benchmarks.centred import CentredMethod, in_blocks
from benchmarks.methods import find_methods
from benchmarks.methods.brenier import WatchedBrenierMethod
from benchmarks.methods.nearest_brenier import NearestBrenierMethod
from benchmarks.methods.ott_entropic import OTTEntropicMethod
from benchmarks.methods.ott_neural import OTTNeuralDualMethod
from benchmarks.step_sizes import GRID, RULE
from benchmarks.tasks.gaussian import GaussianPair
from ot_lift.errors import DataError

PAIR = GaussianPair(features=2, rows=300, test_rows=64, budget_seconds=20.0)
Array = np.ndarray[Any, np.dtype[Any]]


class Doubling(CentredMethod):
    """x ↦ 2x between centred points; it keeps what it saw."""

    name = "doubling"

    def _fit(self, x: Array, y: Array, rng: np.random.Generator, max_seconds: float | None) -> None:
        self.seen = x, y

    def _forward(self, x: Array) -> Array:
        return 2 * x

    def _backward(self, y: Array) -> Array:
        return y / 2


def test_a_centred_method_sees_neither_offset_nor_unit(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(50, 2)), rng.normal(size=(40, 2)) + 3
    near, far = (Doubling(max_points=None).fit(x * size + 1, y * size - 5) for size in (1.0, 1e6))
    for first, second in zip(near.seen, far.seen, strict=True):
        assert first == pytest.approx(second) and first.mean(0) == pytest.approx(0, abs=1e-12)


def test_a_centred_method_answers_in_data_units(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(50, 2)) + 7, rng.normal(size=(40, 2))
    method = Doubling(max_points=None).fit(x, y)
    assert method.transport(x) == pytest.approx(2 * (x - x.mean(0)) + y.mean(0))
    assert method.invert(method.transport(x)) == pytest.approx(x)


def test_a_cap_is_kept_and_said(rng: np.random.Generator) -> None:
    method = Doubling(max_points=10).fit(rng.normal(size=(50, 2)), rng.normal(size=(8, 2)))
    assert [len(side) for side in method.seen] == [10, 8]
    assert method.notes == ["fitted on 10 of 50 source points (its cap)"]


def test_blocks_have_one_size_and_rows_keep_their_places(rng: np.random.Generator) -> None:
    sizes: list[int] = []

    def function(block: Array) -> Array:
        sizes.append(len(block))
        return block + 1

    points = rng.normal(size=(7, 3))
    assert np.array_equal(in_blocks(function, points, rows=3), points + 1)
    assert sizes == [3, 3, 3]


def test_a_peer_is_there_where_its_package_is() -> None:
    methods, missing = find_methods(dataclasses.replace(PAIR, spend_budget=True))
    names = {method.name for method in methods}
    neural = ("ott", "flax", "optax")
    for name, packages, file in (("OTT entropic", ("ott",), "ott_entropic"), ("OTT neural dual", neural, "ott_neural")):
        assert (name in names) == all(find_spec(package) is not None for package in packages)
        assert (name in names) != any(line.startswith(f"{file}: ") and "pip install" in line for line in missing)


def test_the_neural_dual_is_quick_on_one_task_alone() -> None:
    pytest.importorskip("ott", reason="OTT-JAX is not installed")
    for features, there in ((2, False), (8, True)):
        quick = GaussianPair(
            features=features, rows=10, test_rows=10, budget_seconds=1.0, quick=True, spend_budget=True
        )
        names = {method.name for method in find_methods(quick)[0]}
        assert ("OTT neural dual" in names) == there and "OTT neural dual, amortised" not in names


def test_the_neural_dual_has_minutes_or_is_left_out() -> None:
    pytest.importorskip("ott", reason="OTT-JAX is not installed")
    for spend in (False, True):
        names = {method.name for method in find_methods(dataclasses.replace(PAIR, spend_budget=spend))[0]}
        assert ("OTT neural dual" in names) == ("OTT neural dual, amortised" in names) == spend


def test_the_neural_dual_wants_a_budget(rng: np.random.Generator) -> None:
    pytest.importorskip("ott", reason="OTT-JAX is not installed")
    with pytest.raises(DataError, match="got None"):
        OTTNeuralDualMethod().fit(rng.normal(size=(9, 2)), rng.normal(size=(9, 2)))


def test_the_neural_dual_is_trained_with_the_step_size_that_held_out_points_like(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, int]] = []

    def trained(self: Any, sides: Any, seed: int, rate: float, seconds: float, **options: Any) -> tuple[Any, int]:
        asked.append((rate, len(sides[0])))
        return lambda x: x * (1 + abs(np.log(rate / 0.01))), 3  # the true map, with this step size

    monkeypatch.setattr(OTTNeuralDualMethod, "_trained", trained)
    x = rng.normal(size=(500, 2))
    method = OTTNeuralDualMethod().fit(x, rng.normal(size=(500, 2)), max_seconds=1.0)
    assert asked == [*((rate, 400) for rate in GRID), (0.01, 500)]
    assert (
        method.notes[0].startswith("step size 0.01, by validation") and method.notes[1] == "3 steps within the budget"
    )
    assert method.settings["learning_rate"] == RULE


def test_the_amortised_neural_dual_keeps_what_does_best_on_held_out_points(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("benchmarks.methods.ott_neural.time", clock)

    class Leaving:
        """Comes to the true map, x, in its second step and leaves it again."""

        def __init__(self) -> None:
            self.state_f = SimpleNamespace(
                params=jnp.array(2.0), potential_gradient_fn=lambda scale: lambda x: scale * x
            )

        def __call__(self, *batches: Any, callback: Callable[[int, Any], None]) -> None:
            for step in itertools.count():
                clock.now += 1.0
                self.state_f.params = jnp.array([2.0, 1.0, 4.0][min(step, 2)])
                callback(step, None)

    monkeypatch.setattr(OTTNeuralDualMethod, "_solver", lambda *_: Leaving())
    x, y = rng.normal(size=(2, 500, 2))
    scales: dict[bool, float] = {}
    for amortised in (False, True):
        method = OTTNeuralDualMethod(amortised=amortised, learning_rate=1e-3).fit(x, y, max_seconds=5.0)
        image = method.transport(np.stack([x.mean(0), x.mean(0) + 1.0]))
        scales[amortised] = float((image[1] - image[0]).mean())
    assert scales[True] == pytest.approx(1.0, rel=1e-5) and scales[False] == pytest.approx(4.0, rel=1e-5)


@pytest.mark.slow
def test_our_other_positivities_choose_from_the_same_grid() -> None:
    found = {method.name: method for method in find_methods(PAIR)[0]}
    assert found["ot-lift softplus"].settings["learning_rate"] == found["ot-lift projection"].settings["learning_rate"]
    assert isinstance(found["ot-lift"].settings["learning_rate"], float)
    few = {"hidden_features": (8,), "batch_size": 64, "max_steps": 10, "positivity": "softplus"}
    method = WatchedBrenierMethod(name="ot-lift softplus", tuned=True, **few)
    times: list[float] = []
    method.watch(lambda seconds, transport: times.append(seconds))
    problem = PAIR.problem(0)
    method.fit(problem.source, problem.target, random_state=0, max_seconds=20.0)
    assert method.notes[0].startswith("step size") and method.settings["learning_rate"] == RULE
    assert times and min(times) > 0.01  # the trials' time is in it


@pytest.mark.slow
def test_otts_entropic_map_is_near_the_map_between_gaussians() -> None:
    pytest.importorskip("ott", reason="OTT-JAX is not installed")
    record = run_cell(Cell(PAIR, OTTEntropicMethod(), 0, 1))
    assert (record["status"], record["reason"]) == ("ok", "")
    assert record["figures"]["l2_uvp"] < 5


@pytest.mark.slow
@pytest.mark.parametrize("amortised", [False, True])
def test_otts_neural_dual_ends_on_its_budget_and_says_how_far_it_came(amortised: bool) -> None:
    pytest.importorskip("ott", reason="OTT-JAX is not installed")
    method = OTTNeuralDualMethod(amortised=amortised, hidden_features=(8,), batch_size=32, learning_rate=1e-3)
    record = run_cell(Cell(PAIR, method, 0, 1))
    assert (record["status"], record["reason"]) == ("ok", "")
    assert record["notes"][-1].endswith("steps within the budget")
    assert 0 < record["figures"]["l2_uvp"] < 10  # it starts near the map, and moves points all of the way
    seconds, errors = zip(*record["details"]["curve"], strict=True)
    assert list(seconds) == sorted(seconds) and seconds[0] > 0 and seconds[-1] < 1.5 * PAIR.budget_seconds
    assert min(errors) > 0 and errors[-1] == pytest.approx(record["figures"]["l2_uvp"], rel=1e-2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_nearest_brenier_potential_is_near_a_linear_map(rng: np.random.Generator) -> None:
    pytest.importorskip("cvxpy", reason="cvxpy is not installed")
    x = rng.normal(size=(40, 2))
    method = NearestBrenierMethod(max_points=15, iterations=1).fit(x, 2 * x + 3)
    assert np.abs(method.transport(x[:5]) - (2 * x[:5] + 3)).mean() < 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_nearest_brenier_potential_moves_points_as_pots_own_programs_do(
    rng: np.random.Generator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cvxpy", reason="cvxpy is not installed")
    found: list[Any] = []
    own = ot.mapping.nearest_brenier_potential_fit

    def noted(*arguments: Any, **options: Any) -> Any:
        found.append((arguments[0], *own(*arguments, **options), options))
        return found[-1][1:3]

    monkeypatch.setattr("ot.mapping.nearest_brenier_potential_fit", noted)
    x, y = rng.normal(size=(12, 3)), np.sinh(rng.normal(size=(12, 3)))
    method = NearestBrenierMethod(max_points=12, iterations=1, least=0.2, greatest=4.0).fit(x, y)
    ((points, values, gradients, options),) = found
    del options["its"]
    fresh = rng.normal(size=(6, 3))
    home, away = (float(np.sqrt(np.square(one - one.mean(0)).sum(1).mean())) for one in (x, y))
    standardised = (fresh - x.mean(0)) / home
    _, both = ot.mapping.nearest_brenier_potential_predict_bounds(points, values, gradients, standardised, **options)
    np.testing.assert_allclose(method.transport(fresh), both[0] * away + y.mean(0), atol=1e-3 * away)
