"""Density tasks, methods and cells of the benchmarks: closed forms, one grid of step sizes, pages of who wins."""

from __future__ import annotations

import math
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from benchmark_records import record
from scipy.stats import norm
from sklearn.neighbors import KernelDensity

from benchmarks.compare_records import verdict as change
from benchmarks.density import BaseDensityMethod, DensityProblem, DensityTask, find_methods, find_tasks
from benchmarks.density.cells import DensityCell, judged, measure, pictured
from benchmarks.density.methods.gaussian import GaussianMethod
from benchmarks.density.methods.kernel import KernelDensityMethod
from benchmarks.density.methods.mixture import GaussianMixtureMethod
from benchmarks.density.methods.ours import OursMethod
from benchmarks.density.methods.zuko_flows import ZukoMethod
from benchmarks.density.tasks.gaussian import GaussianDensity
from benchmarks.density.tasks.planar import PlanarDensity
from benchmarks.density.tasks.scaling import ScalingDensity
from benchmarks.density.tasks.tables import TABLES
from benchmarks.density.whitened import Whitened
from benchmarks.metrics import BY_KEY
from benchmarks.runner import chosen_cells
from benchmarks.site import write_site
from benchmarks.site_densities import values_of
from benchmarks.site_words import verdict
from benchmarks.step_sizes import GRID, choose_step_size
from benchmarks.tasks import Options

Array = np.ndarray[Any, np.dtype[Any]]

QUICK = find_tasks(Options(quick=True))[0]
ROUND = GaussianDensity(features=2, rows=400, test_rows=200, budget_seconds=1.0, condition=4.0)
FAST = {"hidden_features": (8,), "batch_size": 64, "max_steps": 5}


def silent(phase: str) -> None:
    """A cell's phases, unheard."""


# ---------------------------------------------------------------------------------------- tasks
def test_names_are_unique_and_of_small_letters() -> None:
    names = [task.name for task in QUICK]
    assert len(set(names)) == len(names) >= 11
    assert all(re.fullmatch(r"density(-[a-z0-9]+)+", name) for name in names)


@pytest.mark.parametrize("task", QUICK, ids=lambda task: task.name)
def test_a_problem_is_what_its_task_says(task: DensityTask) -> None:
    problem, same, other = task.problem(0), task.problem(0), task.problem(1)
    assert problem.train.shape == (task.rows, task.features) and problem.test.shape == (task.test_rows, task.features)
    assert np.array_equal(problem.train, same.train) and np.array_equal(problem.test, same.test)
    assert not np.array_equal(problem.train, other.train)
    fitted = {tuple(point) for point in problem.train}
    assert not any(tuple(point) in fitted for point in problem.test)
    assert np.isfinite(problem.train).all() and problem.train.dtype == np.float64
    assert task.settings()["kind"] == "density" and task.quick and task.rows <= 1000


def test_the_truth_of_a_gaussian_is_its_density() -> None:
    problem = GaussianDensity(features=1, rows=5, test_rows=400, budget_seconds=1.0, condition=1.0).problem(3)
    assert problem.truth is not None
    mean = problem.test.mean()
    assert problem.truth == pytest.approx(norm(mean, 1).logpdf(problem.test[:, 0]), abs=0.6)
    assert -problem.truth.mean() == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=0.15)


def test_the_stretched_gaussian_has_a_density_of_total_one(rng: np.random.Generator) -> None:
    task = ScalingDensity(features=1, rows=10, test_rows=20_000, budget_seconds=1.0)
    problem = task.problem(0)
    assert problem.truth is not None
    inside = np.abs(problem.test[:, 0]) < 2  # over a set, the mean of 1/p under p is its length
    lengths = inside * np.exp(-problem.truth)
    assert lengths.mean() == pytest.approx(4, abs=5 * lengths.std() / len(lengths) ** 0.5)


def test_a_table_has_no_ties_and_every_row_once() -> None:
    for task in find_tasks(Options())[0]:
        name = task.name.removeprefix("density-")
        if name not in TABLES:
            continue
        problem = task.problem(0)
        values = np.concatenate([problem.train, problem.test])
        assert len(values) == len(TABLES[name][0]())
        assert all(len(np.unique(column)) == len(values) for column in values.T)
        assert values.std(0) == pytest.approx(1)


def test_a_quick_look_covers_every_method() -> None:
    found = [{method.name for method in find_methods(task)[0]} for task in QUICK]
    assert set.union(*found) == {method.name for method in find_methods(find_tasks(Options())[0][0])[0]}
    assert all({"Gaussian", "kernel density", "Gaussian mixture", "ot-lift"} <= names for names in found)


# -------------------------------------------------------------------------------------- methods
def test_whitened_points_have_no_units(rng: np.random.Generator) -> None:
    points = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 3)) * [1e-3, 1, 1e4] + 7
    units = Whitened.of(points)
    latent = units.to_latent(points)
    assert np.cov(latent, rowvar=False, bias=True) == pytest.approx(np.eye(3), abs=1e-8)
    assert units.to_data(latent) == pytest.approx(points)
    assert units.log_volume == pytest.approx(np.linalg.slogdet(np.cov(points, rowvar=False, bias=True))[1] / 2)


def test_the_kernel_density_is_scikit_learns_in_whitened_coordinates(rng: np.random.Generator) -> None:
    points, fresh = rng.normal(size=(80, 2)), rng.normal(size=(30, 2))
    method = KernelDensityMethod(widths=(0.3,)).fit(points, random_state=0, max_seconds=1.0)
    units = Whitened.of(points)
    width = 0.3 * 80 ** (-1 / 6)
    theirs = KernelDensity(bandwidth=width).fit(units.to_latent(points)).score_samples(units.to_latent(fresh))
    assert method.log_prob(fresh) == pytest.approx(theirs - units.log_volume)


def test_held_out_points_choose_a_narrow_kernel_where_points_are_many_and_far_apart(rng: np.random.Generator) -> None:
    points = rng.choice([-50.0, 0.0, 50.0], size=(600, 1)) + rng.normal(size=(600, 1))
    method = KernelDensityMethod().fit(points, random_state=0, max_seconds=1.0)
    assert method.notes == ["kernel 0.05 times Scott's wide, by validation (an end of the grid)"]
    wide = KernelDensityMethod(widths=(1.0,)).fit(points, random_state=0, max_seconds=1.0)
    assert method.log_prob(points).mean() > wide.log_prob(points).mean() + 0.5


def test_bic_finds_two_clouds(rng: np.random.Generator) -> None:
    points = rng.choice([-5.0, 5.0], size=(300, 1)) + rng.normal(size=(300, 1))
    method = GaussianMixtureMethod(components=(1, 2, 4)).fit(points, random_state=0, max_seconds=60.0)
    assert method.notes[0].startswith("2 components, by BIC; tried: 1 (")
    exact = np.log(0.5 * norm(-5).pdf(points[:, 0]) + 0.5 * norm(5).pdf(points[:, 0]))
    assert method.log_prob(points).mean() == pytest.approx(exact.mean(), abs=0.05)
    with_no_time = GaussianMixtureMethod(components=(1, 2, 4)).fit(points, random_state=0, max_seconds=0.0)
    assert with_no_time.notes[0].startswith("1 components")


def methods() -> list[BaseDensityMethod]:
    """One of each, with little to do."""
    found = [GaussianMethod(), GaussianMixtureMethod(components=(1, 2)), KernelDensityMethod()]
    return [*found, OursMethod("ot-lift", "flow", **FAST), OursMethod("log-concave", "log-concave", **FAST)]


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)
def test_a_density_is_near_the_truth_of_a_gaussian_and_equal_for_equal_seeds(method: Any) -> None:
    outcome = measure(ROUND, method, 0, silent)
    assert -0.02 < outcome.figures["excess"] < 0.15
    assert outcome.figures["nll"] > 0 and outcome.figures["nll_error"] < 0.2
    draws = [method.sample(50, random_state=seed) for seed in (3, 3, 4)]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])
    assert {"fit_seconds", "fit_cpu_seconds", "score_seconds", "sample_seconds"} <= outcome.figures.keys()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("zuko") is None, reason="zuko is not installed")
@pytest.mark.parametrize("kind", ["NSF", "MAF"])
def test_a_peer_chooses_its_step_size_within_the_budget(kind: str) -> None:
    problem = ROUND.problem(0)
    method = ZukoMethod(kind).fit(problem.train, random_state=0, max_seconds=4.0)
    assert method.notes[0].startswith("step size") and method.notes[1].endswith("steps within the budget")
    loss = problem.truth - method.log_prob(problem.test)
    assert loss.mean() < 1.0
    assert method.sample(7, random_state=0).shape == (7, 2)


def test_a_peer_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.density.methods.zuko_flows.zuko_is_there", lambda: False)
    found, missing = find_methods(ROUND)
    assert not any(method.name.startswith("zuko") for method in found)
    assert any("pip install 'ot-lift[peers]'" in line for line in missing)


def test_other_positivities_choose_from_the_grid_of_the_peers() -> None:
    method = OursMethod("ot-lift softplus", "flow", tuned=True, positivity="softplus", **FAST)
    assert method.settings["learning_rate"].startswith("the best of 0.001, 0.003, 0.01, 0.03 after 5%")
    method.fit(ROUND.problem(0).train, random_state=0, max_seconds=20.0)
    assert method.notes[0].startswith("step size") and method.notes[0].count("with") == len(GRID)


def test_a_step_size_that_fails_is_not_chosen() -> None:
    def trial(rate: float, seconds: float) -> float:
        if rate == GRID[0]:
            raise FloatingPointError("overflow")
        return math.nan if rate == GRID[1] else -rate

    choice = choose_step_size(trial, max_seconds=1.0)
    assert choice.rate == GRID[-1]
    assert choice.values[GRID[0]] == choice.values[GRID[1]] == math.inf


# ---------------------------------------------------------------------------------------- cells
class Wrong(BaseDensityMethod):
    """Its log-densities are what it is told."""

    name = "wrong"

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def fit(self, X: Array, *, random_state: int, max_seconds: float) -> Self:
        return self

    def log_prob(self, X: Array) -> Array:
        return np.full(len(X), self.value)

    def sample(self, count: int, *, random_state: int) -> Array:
        return np.zeros((count, 2))


def test_a_density_of_zero_at_a_point_fails_and_the_record_says_so(tmp_path: Path) -> None:
    found = DensityCell(ROUND, Wrong(-math.inf), 0, 1).run(tmp_path)
    assert found["status"] == "failed"
    assert found["reason"] == "DataError: 200 of 200 log-densities of test points are not finite"


def test_a_cell_gives_a_record_with_its_settings_and_figures(tmp_path: Path) -> None:
    found = DensityCell(ROUND, GaussianMethod(), 0, 1).run(tmp_path)
    assert (found["status"], found["reason"]) == ("ok", "")
    assert found["settings"]["task"]["kind"] == "density"
    assert found["figures"]["excess"] == pytest.approx(0, abs=0.05)
    assert found["figures"]["peak_memory_bytes"] >= 0
    assert values_of(found["details"]["density"]).max() == found["details"]["density"]["peak"]


def test_a_classifier_tells_wrong_draws_from_points_of_the_law(rng: np.random.Generator) -> None:
    points = rng.normal(size=(400, 2))
    problem = DensityProblem(points, points, truth=np.full(400, -1.5))
    figures = judged(problem, np.full(400, -2.0), rng.normal(size=(400, 2)) + 3, 0)
    assert figures["two_sample"] > 0.9 > 0.6 > figures["two_sample_null"] > 0.5
    assert (figures["nll"], figures["excess"], figures["excess_error"]) == (2.0, 0.5, 0.0)


def test_a_picture_has_the_density_where_the_points_are() -> None:
    problem = ROUND.problem(0)
    method = GaussianMethod().fit(problem.train, random_state=0, max_seconds=1.0)
    picture = pictured(method, problem)
    values = values_of(picture)
    place = np.unravel_index(values.argmax(), values.shape)
    axes = [np.linspace(*ends, picture["pixels"]) for ends in zip(picture["low"], picture["high"], strict=True)]
    peak = np.array([axes[0][place[1]], axes[1][place[0]]])
    assert np.abs(peak - problem.train.mean(0)).max() < 0.2 * problem.train.std(0).max()


def test_names_choose_densities_among_all_kinds() -> None:
    options = Options(quick=True)
    cells, _ = chosen_cells(["density-rings", "Gaussian", "EMD"], options, seeds=[0], threads=1)
    assert [cell.label for cell in cells] == ["density-rings × Gaussian, seed 0"]
    both, _ = chosen_cells(["density", "gaussian-d2", "Gaussian", "linear"], options, seeds=[0], threads=1)
    assert len(both) == len(QUICK) + 1
    every, _ = chosen_cells([], options, seeds=[0], threads=1)
    assert {cell.task.name for cell in every} > {task.name for task in QUICK} | {"gaussian-d2"}


# ----------------------------------------------------------------------------------------- pages
def seeds_of(task: str, method: str, values: list[float], **more: float) -> list[dict[str, Any]]:
    """Records of a density with these held-out NLLs."""
    found = []
    for seed, value in enumerate(values):
        one = record(task, method, seed, nll=value, nll_error=0.01, fit_seconds=1.0, **more)
        one["settings"]["task"] |= {"kind": "density", "features": 2}
        found.append(one)
    return found


def test_negative_log_likelihoods_are_told_apart_by_their_difference() -> None:
    found = [
        *seeds_of("density-x", "Gaussian", [-1.0, 0.5, 1.0]),
        *seeds_of("density-x", "ot-lift", [-1.3, 0.2, 0.7]),
    ]
    told = verdict(found)
    assert told[0].startswith("ot-lift wins with held-out NLL -0.133, the mean of 3 seeds")
    assert told[1].startswith(
        "Next is Gaussian with 0.167, 0.300 nats a point more, which matters (more than 0.02 does"
    )


def test_a_negative_log_likelihood_got_worse_by_its_difference() -> None:
    nll = BY_KEY["nll"]
    assert change({0: -3.0, 1: 0.0}, {0: -2.9, 1: 0.1}, nll) == "worse"
    assert change({0: -3.0, 1: 0.0}, {0: -2.99, 1: 0.01}, nll) == "same"
    assert change({0: -3.0}, {0: -3.1}, nll) == "better"


def test_a_hundredth_of_a_nat_makes_no_difference() -> None:
    found = [*seeds_of("t", "a", [5.0, 6.0]), *seeds_of("t", "ot-lift", [5.01, 6.01])]
    assert "which makes no difference in use" in verdict(found)[1]


def test_where_the_truth_is_known_what_is_above_it_decides() -> None:
    found = [
        *seeds_of("t", "a", [5.0, 6.0], excess=0.5),
        *seeds_of("t", "ot-lift", [5.5, 6.5], excess=-1e-4),
    ]
    assert verdict(found)[0].startswith("ot-lift wins with NLL above the truth's -0.000")


def test_the_site_has_a_table_for_each_kind_and_pictures_of_densities(tmp_path: Path) -> None:
    task = PlanarDensity(features=2, rows=300, test_rows=100, budget_seconds=1.0, shape="rings")
    cells = [DensityCell(task, method, 0, 1) for method in (GaussianMethod(), GaussianMixtureMethod(components=(8,)))]
    records = [cell.run(tmp_path) for cell in cells]
    map_ = record("gaussian-d2", "EMD", 0, l2_uvp=1.0, energy=0.1, energy_null=0.2, fit_seconds=1.0)
    overview = write_site([map_, *records], tmp_path / "site").read_text(encoding="utf-8")
    assert overview.index("Maps: every method") < overview.index("Densities: every method")
    assert overview.count("<table") == 2 and 'href="density-rings.html"' in overview
    page = (tmp_path / "site" / "density-rings.html").read_text(encoding="utf-8")
    assert page.count("<img") == 2 and "The densities" in page and "components, by BIC" in page
