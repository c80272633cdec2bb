"""The paper's experiments: true densities, a loop that does what its recipe says, cells and pages like all others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import benchmark_records
import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from typer.testing import CliRunner

from benchmarks import cells, runner
from benchmarks.cli import app
from benchmarks.compare_records import compare_records
from benchmarks.experiments import EXPERIMENTS, experiment_cells, find_experiment
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod, Outcome
from benchmarks.experiments.densities1d import TARGETS, Target, kullback_leibler, normalised, total_variation
from benchmarks.experiments.energies import MODELS, Data, gaussian_density
from benchmarks.experiments.gallery1d import GalleryTask
from benchmarks.experiments.protocols import LINE_RATES, TUNING_SEED
from benchmarks.experiments.training import SHOULDER, Recipe, fit, shoulder_share
from benchmarks.findings import DOCS
from benchmarks.site import write_site
from benchmarks.tasks import Options
from ot_lift import mark_nonnegative
from ot_lift.constrained import Constrained

CLOSED_FORMS = {
    "gumbel": lambda x: np.exp(-x - np.exp(-x)),
    "laplace": lambda x: np.exp(-np.abs(x)) / 2,
    "gamma": lambda x: x * np.exp(-x),
    "beta": lambda x: 30 * x * (1 - x) ** 4,
    "half-normal": lambda x: np.sqrt(2 / np.pi) * np.exp(-x * x / 2),
    "skew-normal": lambda x: 2 * stats.norm.pdf(x) * stats.norm.cdf(4 * x),
}


@pytest.fixture(params=TARGETS, scope="module")
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


# ------------------------------------------------------------------------------------------ densities
def test_a_density_is_the_one_it_is_called(target: Target) -> None:
    grid = target.grid()
    np.testing.assert_allclose(target.density(grid), CLOSED_FORMS[target.name](grid), rtol=1e-10, atol=1e-300)
    assert float(np.trapezoid(target.density(grid), grid)) == pytest.approx(1, abs=1e-5)
    curvature = np.diff(np.log(target.density(grid)[1:-1]), 2)
    assert curvature.max() < 1e-9  # log-concave


def test_its_points_are_drawn_from_it(target: Target) -> None:
    points = target.sample(5_000, np.random.default_rng(0))
    assert stats.kstest(points, target.law.cdf).pvalue > 1e-3
    assert points.min() >= target.interval[0] and points.max() <= target.interval[1]


def test_quadrature_integrates_it_to_one(target: Target) -> None:
    nodes, log_weights = target.quadrature()
    assert nodes.shape == log_weights.shape == (256,)
    assert float(np.exp(log_weights) @ target.density(nodes)) == pytest.approx(1, abs=1e-5)
    assert float(np.exp(log_weights).sum()) == pytest.approx(np.diff(target.interval)[0])


def test_the_target_has_no_distance_to_itself(target: Target) -> None:
    grid = target.grid()
    own = target.density(grid)
    assert total_variation(3 * own, target, grid) == pytest.approx(0, abs=1e-12)
    assert kullback_leibler(3 * own, target, grid) == pytest.approx(0, abs=1e-12)


def test_the_distance_of_two_normals_is_known() -> None:
    normal = Target("normal", "", stats.norm())
    grid = normal.grid()
    shifted = normalised(-((grid - 1) ** 2) / 2, grid)
    beyond = float(stats.norm(1.0).sf(grid[-1]))  # of the shifted law, not on the grid: about 10⁻⁴
    assert total_variation(shifted, normal, grid) == pytest.approx(2 * stats.norm.cdf(0.5) - 1, abs=beyond)
    assert kullback_leibler(shifted, normal, grid) == pytest.approx(0.5, abs=2 * beyond)


def test_the_gaussian_fits_a_gaussian() -> None:
    data = Data.drawn(Target("normal", "", stats.norm(3.0, 2.0)), 0, points=20_000, validation=10)
    grid, density = gaussian_density(data)
    assert total_variation(density, data.target, grid) < 0.02


# ------------------------------------------------------------------------------------------- training
class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))
        mark_nonnegative(self.slope)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.slope * x[:, 0]


def slope_after(recipe: Recipe, **options: Any) -> float:
    model, _ = fit(
        Constrained(Line(), "projection"),
        lambda line, x: 100 * line(x).mean(),
        lambda: torch.ones(2, 1),
        recipe,
        **options,
    )
    return model.bake().slope.item()


class Parabola(nn.Module):
    """((x − centre)/width)²/2."""

    def __init__(self, centre: float, width: float) -> None:
        super().__init__()
        self.centre, self.width = centre, nn.Parameter(torch.tensor([width], dtype=torch.float64))
        mark_nonnegative(self.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x[:, 0] - self.centre) / self.width).square() / 2


def test_standardised_coordinates_change_no_figure(target: Target) -> None:
    plain = Data.drawn(target, 0, points=4_000, validation=1_000)
    moved = plain.standardised()
    assert moved.training.mean().abs() < 1e-5 and abs(float(moved.training.std()) - 1) < 1e-5
    centre, width = float(moved.location), float(moved.scale)
    here, there = (Constrained(Parabola(*of)) for of in ((centre, width), (0.0, 1.0)))
    assert plain.held_out(here, plain.training) == pytest.approx(moved.held_out(there, moved.training), abs=1e-5)
    _, density, _ = plain.density(here, plain.training)
    np.testing.assert_allclose(moved.density(there, moved.training)[1], density, rtol=1e-5)
    np.testing.assert_allclose(gaussian_density(moved)[1], density, rtol=1e-4)
    np.testing.assert_allclose(gaussian_density(plain)[1], density, rtol=1e-4)


def test_a_recipe_is_kept() -> None:
    # Adam's step on a constant gradient is the step size
    assert slope_after(Recipe(iterations=10, learning_rate=0.01)) == pytest.approx(0.9, abs=1e-5)
    cosine = slope_after(Recipe(iterations=10, learning_rate=0.01, cosine=True))
    assert cosine == pytest.approx(1 - 0.01 * 5.5, abs=1e-5)  # Σ ½(1 + cos(πk/10)), k = 0 … 9, is 5.5
    averaged = slope_after(Recipe(iterations=10, learning_rate=0.01, averaging=1.0))
    assert averaged == pytest.approx(1 - 0.01 * 5.5, abs=1e-5)  # the plain mean of 0.99, 0.98, …, 0.90


def test_looks_are_spread_over_the_run_and_see_what_would_be_returned() -> None:
    seen: list[tuple[int, float]] = []

    def watch(step: int, loss: float, model: Constrained) -> None:
        seen.append((step, round(model.bake().slope.item(), 4)))

    slope_after(Recipe(iterations=10, learning_rate=0.01), watch=watch, looks=2)
    assert seen == [(0, 1.0), (5, 0.95), (10, 0.9)]


def test_a_diverging_fit_says_so() -> None:
    with pytest.raises(FloatingPointError, match="not finite after 2 steps"):
        fit(
            Constrained(Line()),
            lambda line, x: line(x).mean() * torch.inf,
            lambda: torch.ones(2, 1),
            Recipe(iterations=2),
            looks=1,
        )


def test_weights_that_are_lost_in_the_last_step_are_a_fit_that_diverges() -> None:
    with pytest.raises(FloatingPointError, match="weights are not finite after 1 steps"):
        fit(
            Constrained(Line()),
            lambda line, x: (0 * line(x)).sqrt().mean(),  # 0, with a derivative of 0·∞
            lambda: torch.ones(2, 1),
            Recipe(iterations=1),
            looks=1,
        )


def test_the_shoulder_is_where_softplus_passes_on_a_twentieth() -> None:
    raw = torch.tensor(-2.944438979, dtype=torch.float64)  # σ(raw) = 0.05
    assert float(torch.nn.functional.softplus(raw)) == pytest.approx(SHOULDER)
    assert shoulder_share([torch.tensor([SHOULDER - 1e-6, SHOULDER + 1e-6])]) == 0.5


@pytest.mark.parametrize("name", [name for name in MODELS if name != "wide softplus"])
def test_every_method_learns_the_same_density(name: str) -> None:
    data = Data.drawn(TARGETS["gamma"], 0, points=2_000, validation=500)
    before, (after, _) = (
        data.held_out(MODELS[name](0), data.training),
        fit(MODELS[name](0), data.loss, data.batches(0), Recipe(iterations=25, learning_rate=3e-3)),
    )
    assert data.held_out(after, data.training) < before
    grid, density, weights = data.density(after, data.training)
    assert float(np.trapezoid(density, grid)) == pytest.approx(1)
    assert all(float(weight.min()) >= 0 for weight in weights)


# --------------------------------------------------------------------------------------------- cells
TINY: Mapping[str, Any] = {"iterations": 3, "points": 200}


def tiny(protocol: str, method: str, seed: int = 0, needs: ExperimentCell | None = None) -> ExperimentCell:
    return ExperimentCell(GalleryTask("beta", protocol, **TINY), ExperimentMethod(method, {}), seed, 1, needs)


def test_cells_run_by_the_runner_are_skipped_once_they_have_ended(tmp_path: Path) -> None:
    tuning = tiny("tuning", "softplus", TUNING_SEED)
    tuned = tiny("tuned", "softplus", needs=tuning)
    wanted = [tuned, tiny("paper", "softplus"), tuning]
    records = runner.run(runner.Plan.of(wanted, tmp_path), tmp_path)
    assert [record["status"] for record in records] == ["ok"] * 3, records
    assert [record["task"] for record in records][-1] == "gallery1d-beta-tuned"  # after the one that it needs
    by_task = {record["task"].rpartition("-")[2]: record for record in records}
    assert by_task["tuned"]["figures"]["learning_rate"] == by_task["tuning"]["figures"]["learning_rate"]
    assert by_task["tuning"]["figures"]["learning_rate"] in LINE_RATES
    assert by_task["paper"]["figures"]["learning_rate"] == 1e-3
    assert all(set(record) == set(cells.RECORD_KEYS) for record in records)
    assert runner.Plan.of(wanted, tmp_path).waiting == ()
    assert len(runner.read_cells(tmp_path)) == 3
    assert len(compare_records(records, records).of("same")) >= 2


def test_a_record_has_its_figures_and_curves() -> None:
    outcome = GalleryTask("beta", "paper", **TINY).run(ExperimentMethod("softplus", {}), 0, None)
    assert set(outcome.figures) == {
        *("total_variation", "kullback_leibler", "validation_loss", "shoulder_share"),
        *("learning_rate", "parameters", "fit_seconds"),
    }
    assert outcome.figures["parameters"] == 33667 and 0 < outcome.figures["total_variation"] < 1
    steps = [row[0] for row in outcome.details["curve"]]
    assert steps == [0, 1, 2, 3] and len(outcome.details["density"]) == 2
    json.dumps(outcome.details)


def test_equal_seeds_give_equal_figures() -> None:
    first, second = (GalleryTask("beta", "paper", **TINY).run(ExperimentMethod("lift", {}), 1, None) for _ in "ab")
    assert first.figures["total_variation"] == second.figures["total_variation"]


def test_a_cell_without_the_record_it_needs_fails_in_words(tmp_path: Path) -> None:
    record = tiny("tuned", "softplus", needs=tiny("tuning", "softplus", 99)).run(tmp_path)
    assert record["status"] == "failed" and "has ended well before, it has not" in record["reason"]


def test_names_choose_experiments_their_parts_and_their_methods() -> None:
    def chosen(*names: str, **options: Any) -> tuple[set[str], set[str], list[str]]:
        found, rest = experiment_cells(names, Options(**options), seeds=[0], threads=None)
        return {one.task.name for one in found}, {one.method.name for one in found}, rest

    tasks, methods, rest = chosen("gallery1d")
    assert len(tasks) == 18 and methods == {*MODELS, "Gaussian"} and rest == []
    assert chosen("gallery1d-half-normal-tuned", "lift", "emd") == (
        {"gallery1d-half-normal-tuned", "gallery1d-half-normal-tuning"},
        {"lift"},
        ["emd"],
    )
    assert chosen("gaussian") == (set(), set(), ["gaussian"])
    assert chosen("gallery1d", quick=True)[1] == {"lift", "softplus", "projection", "Gaussian"}


def test_the_widened_network_is_run_on_two_targets_and_every_method_on_five_seeds() -> None:
    found, _ = experiment_cells(["gallery1d"], Options(), seeds=None, threads=None)
    assert {one.task.name for one in found if one.method.name == "wide softplus"} == {
        f"gallery1d-{target}-{protocol}" for target in ("gumbel", "beta") for protocol in ("paper", "tuned", "tuning")
    }
    assert {one.seed for one in found} == {0, 1, 2, 3, 4, 99}
    assert len({one.path for one in found}) == len(found) and {one.threads for one in found} == {1}


def test_the_command_lists_experiments() -> None:
    listed = CliRunner().invoke(app, ["list", "--quick"])
    assert all(f"  {name}: " in listed.output for name in EXPERIMENTS)
    unknown = CliRunner().invoke(app, ["run", "galery1d"])
    assert unknown.exit_code == 2 and "gallery1d" in unknown.output


# --------------------------------------------------------------------------------------------- pages
def as_record(cell: ExperimentCell, outcome: Outcome) -> dict[str, Any]:
    made = benchmark_records.record(cell.task.name, cell.method.name, cell.seed, details=outcome.details)
    return {**made, "settings": cell.settings, "figures": {**outcome.figures}}


def gallery_records() -> list[dict[str, Any]]:
    """Two targets and seeds, of which softplus wins one on Beta."""
    found = []
    for target, ours, theirs in (("beta", 0.02, 0.01), ("gumbel", 0.004, 0.1)):
        for protocol in ("paper", "tuned"):
            task = GalleryTask(target, protocol, **TINY)
            for method, value in (("lift", ours), ("softplus", theirs)):
                for seed in range(2):
                    figures = {"total_variation": value + 0.001 * seed, "parameters": 10.0, "fit_seconds": 2.0}
                    figures |= {"shoulder_share": 0.5, "learning_rate": 1e-3}
                    details = {"curve": [[0, None, 0.5, 1.0], [3, 1.0, value, 0.5]], "density": [[0, 1], [1, 1]]}
                    cell = ExperimentCell(task, ExperimentMethod(method, {}), seed, 1)
                    found.append(as_record(cell, Outcome(figures, details)))
        cell = ExperimentCell(GalleryTask(target, "paper", **TINY), ExperimentMethod("Gaussian", {}), 0, 1)
        found.append(as_record(cell, Outcome({"total_variation": 0.2}, {"density": [[0, 1], [1, 1]]})))
        cell = ExperimentCell(GalleryTask(target, "tuning", **TINY), ExperimentMethod("lift", {}), 99, 1)
        found.append(as_record(cell, Outcome({"learning_rate": 5e-3, "validation_loss": 1.0})))
    return found


def test_a_page_says_what_was_lost_and_shows_every_seed() -> None:
    page = find_experiment("gallery1d").page([one for one in gallery_records() if "paper" not in one["task"]])
    assert page.sentences[0] == (
        "Protocol tuned: the lift has the least median total variation on 1 of 2 targets; not on beta "
        "(least: softplus 0.0105, lift 0.0205)."
    )
    assert page.sentences[1] == (
        "The lift's goal in the tuned protocol is reached on 1 of 2 targets; missed on beta 0.0205 (≤ 0.005)."
    )
    table = page.tables[0][2]
    assert [row.name for row in table.rows] == ["lift", "softplus"]
    assert [column.title for column in table.columns] == ["method", "Gumbel(0, 1)", "Beta(2, 5)"]
    assert (table.rows[1].cells[1].small, table.rows[1].cells[1].best) == ("0.0100 · 0.0110", True)
    wins = {row.name: [cell.text for cell in row.cells] for row in page.tables[1][2].rows}
    assert wins == {"softplus, tuned": ["2 of 2", "0 of 2"]}


def test_the_site_has_a_page_an_experiment(tmp_path: Path) -> None:
    tasks = benchmark_records.seeds_of("gaussian-d2", "EMD", [1.0])
    own = [one for one in gallery_records() if "tuned" not in one["task"]]
    overview = write_site([*own, *tasks], tmp_path).read_text(encoding="utf-8")
    assert 'href="gallery1d.html"' in overview and "gaussian-d2.html" in overview and "gallery1d-beta" not in overview
    text = (tmp_path / "gallery1d.html").read_text(encoding="utf-8")
    assert text.count("<img") == 4 and 'src="http' not in text
    assert all(part in text for part in ("Protocol paper", "Seeds that the lift wins", "0.0100 · 0.0110"))


# -------------------------------------------------------------------------------------------- claims
def test_a_claim_is_answered_by_a_record_that_is_there_or_not_at_all() -> None:
    claims = Path(runner.__file__).parent / "CLAIMS.md"
    rows = [line.strip("|").split("|") for line in claims.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert len(rows) > 12 and {len(row) for row in rows} == {4}
    for _, _, answer, record in rows[2:]:
        links = re.findall(r"\]\(([^)]+)\)", record)
        assert links or "not measured yet" in answer
        assert all((claims.parent / link).exists() for link in links)


def test_the_figures_of_a_claim_are_those_of_the_docs() -> None:
    """Those of three decimals and more; docs are written from the records."""
    sections = (DOCS / "experiments.md").read_text(encoding="utf-8").split("\n## ")
    written = {section.partition("benchmarks run ")[2].partition("`")[0]: section for section in sections}
    claims = (Path(runner.__file__).parent / "CLAIMS.md").read_text(encoding="utf-8")
    checked = 0
    for row in (line.strip("|").split("|") for line in claims.splitlines() if line[:1] == "|"):
        names = [name for name in re.findall(r"`run (\w+)", row[1]) if name in written]
        known = [float(text) for name in names for text in re.findall(r"\d+\.\d+", written[name])]
        for text in re.findall(r"\d+\.\d{3,}", row[2]):
            places = len(text.partition(".")[2])
            assert any(f"{value:.{places}f}" == text for value in known), f"{text} is not in the docs: {row[0]}"
            checked += 1
    assert checked > 10
