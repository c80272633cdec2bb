"""Every task: data of the shapes it says, the same for equal seeds, and a true map that is one."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from benchmark_records import record, seeds_of
from scipy.stats import norm

from benchmarks.cells_judging import Judge, misread
from benchmarks.methods import find_methods
from benchmarks.metrics import quality_of
from benchmarks.runner import chosen_cells
from benchmarks.site_words import verdict
from benchmarks.tasks import Options, Problem, Task, find_tasks, scaling
from benchmarks.tasks.colours import Colours
from benchmarks.tasks.couplings import SHAPES
from benchmarks.tasks.digits import rotated
from benchmarks.tasks.disconnected import transport
from benchmarks.tasks.gaussian import GaussianPair
from benchmarks.tasks.quantiles import Quantile
from benchmarks.tasks.scaling import Scaling

TASKS = find_tasks(Options(quick=True))[0]
POINTS = ("source", "target", "test_source", "test_target")


def test_names_are_unique_and_of_small_letters() -> None:
    names = [task.name for task in TASKS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) for name in names)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_problem_is_what_its_task_says(task: Task) -> None:
    problem = task.problem(0)
    for name, rows in zip(POINTS, (task.rows, task.rows, task.test_rows, task.test_rows), strict=True):
        points = getattr(problem, name)
        assert len(points) == rows or (task.name.startswith("singlecell") and len(points) > rows), name
        assert points.shape[1] == task.features and points.dtype == np.float64, name
        assert np.isfinite(points).all(), name
    same, other = task.problem(0), task.problem(1)
    assert all(np.array_equal(getattr(problem, name), getattr(same, name)) for name in POINTS)
    assert not any(np.array_equal(getattr(problem, name), getattr(other, name)) for name in POINTS)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_true_map_is_monotone_and_sends_the_source_to_the_target(task: Task) -> None:
    problem = task.problem(0)
    if problem.truth is None:
        return
    figures = Judge.of(problem, 0).figures(problem.truth)
    assert figures["l2_uvp"] == figures["monotonicity_violations"] == 0
    assert figures["energy"] < 3 * figures["energy_null"]
    moved = Judge.of(problem, 0).figures(problem.test_source)
    assert moved["energy"] > figures["energy"]


def test_a_quick_task_is_small() -> None:
    assert all(task.quick and task.rows <= 1000 and task.budget_seconds < 2 for task in TASKS)
    full = find_tasks(Options())[0]
    assert not any(task.quick for task in full) and max(task.rows for task in full) > 10_000


def test_a_quick_look_covers_every_method() -> None:
    tasks = find_tasks(Options())[0]
    tasks.append(dataclasses.replace(tasks[0], spend_budget=True))  # as those that need files are
    quick, full = ({m.name for task in some for m in find_methods(task)[0]} for some in (TASKS, tasks))
    assert quick == full - {"OTT neural dual, amortised"}
    assert all({"EMD", "linear", "ot-lift"} <= {method.name for method in find_methods(task)[0]} for task in TASKS)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_the_size_of_the_others(shape: str, rng: np.random.Generator) -> None:
    points = SHAPES[shape](4000, rng)
    assert 1 < np.sqrt(points.var(0).sum()) < 5


def test_a_checkerboard_has_no_points_on_light_squares(rng: np.random.Generator) -> None:
    squares = np.floor(SHAPES["checkerboard"](2000, rng) + 2).astype(int)
    assert (squares.sum(1) % 2 == 0).all()
    assert len(np.unique(squares, axis=0)) == 8


def test_a_quantile_map_keeps_its_digits_in_both_tails() -> None:
    task = Quantile(features=1, rows=1, test_rows=1, budget_seconds=1.0, law="laplace")
    left, right = task.transport(np.array([[-12.0], [12.0]]))[:, 0]
    assert right == pytest.approx(-left) == pytest.approx(-np.log(2 * norm.sf(12)))


def test_the_cut_map_is_the_gradient_of_a_convex_function(rng: np.random.Generator) -> None:
    x = rng.normal(size=(200, 3))
    products = ((transport(x[:100]) - transport(x[100:])) * (x[:100] - x[100:])).sum(1)
    assert (products > 0).all()


def test_large_arrays_are_files_and_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def problem() -> Problem:
        return Scaling(features=3, rows=1000, test_rows=20, budget_seconds=1.0, uncapped=True).problem(0)

    small = problem()
    monkeypatch.setattr(scaling, "_MAPPED_BYTES", 1000)
    monkeypatch.setattr(scaling, "_CHUNK", 64)
    mapped = problem()
    assert isinstance(mapped.target, np.memmap) and not isinstance(mapped.test_target, np.memmap)
    assert all(np.array_equal(getattr(mapped, name), getattr(small, name)) for name in POINTS)


def test_tasks_on_threads_have_them_in_name_settings_and_cells() -> None:
    cells, _ = chosen_cells(["scaling", "linear"], Options(quick=True), seeds=[0], threads=7)
    threads = {cell.task.name: cell.threads for cell in cells}
    assert threads["scaling-n250-d8-t1"] == 1 and threads["scaling-n250-d8"] == 7
    settings = {cell.task.name: cell.task.settings() for cell in cells}
    assert settings["scaling-n250-d8-t1"]["threads"] == 1 and "threads" not in settings["scaling-n250-d8"]


def test_pixels_that_judge_are_not_fitted_on() -> None:
    problem = Colours(features=3, rows=2000, test_rows=500, budget_seconds=1.0).problem(0)
    fitted = {tuple(point) for point in problem.source}
    assert not any(tuple(point) in fitted for point in problem.test_source)
    assert problem.source.min() >= 0 and problem.source.max() <= 1


def test_a_digit_turns_and_stays_an_image(rng: np.random.Generator) -> None:
    image = np.zeros((1, 8, 8))
    image[0, 3:5, 6] = 1  # right of the middle
    turned = rotated(image, rng)[0]
    rows, columns = np.indices((8, 8)) - 3.5
    angle = np.degrees(np.arctan2((turned * rows).sum(), (turned * columns).sum()))
    assert abs(angle) == pytest.approx(30, abs=3)
    assert turned.min() >= 0 and turned.max() <= 1


def test_sides_need_a_sampler_or_a_map(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="got neither"):
        Problem.drawn(lambda rows, rng: rng.normal(size=(rows, 1)), rng, rows=1, test_rows=1)


def test_classes_are_judged_where_there_are_some(rng: np.random.Generator) -> None:
    x, labels = rng.normal(size=(40, 2)), np.arange(40) % 2
    x[:, 0] += 20 * labels
    problem = Problem(x, x, x, x + 5, labels=(labels, labels))
    assert Judge.of(problem, 0).figures(x + 5)["misread"] == 0
    assert misread(x, x, labels, 1 - labels) == 1


def test_misread_classes_decide_before_the_energy_distance() -> None:
    found = [
        *seeds_of("digits", "EMD", [1.0, 1.0, 1.0]),
        *(record("digits", "ot-lift", seed, misread=0.05, energy=9.0) for seed in range(3)),
        *(record("digits", "linear", seed, misread=0.3 + seed / 100, energy=1.0) for seed in range(3)),
    ]
    found = [one for one in found if "l2_uvp" not in one["figures"]]
    assert quality_of(found).key == "misread"
    told = verdict(found)
    assert told[0].startswith("ot-lift wins with misread 5.00%")
    assert told[1] == "Next is linear with 31.0%, 6.2 times as much: 26 more of 100 points, which matters."


def test_a_fit_is_ended_from_outside_after_its_budget_or_well_after_one_it_keeps() -> None:
    full = GaussianPair(features=2, rows=10, test_rows=10, budget_seconds=20.0)
    assert full.fit_limit(keeps_budget=False) == 20 and full.fit_limit(keeps_budget=True) == 100
    assert dataclasses.replace(full, budget_seconds=0.5, quick=True).fit_limit(keeps_budget=False) == 10
