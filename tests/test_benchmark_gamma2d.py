"""A Gamma density in the plane: quadrature and distances where the answer is known, and what the page says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import benchmark_records
import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.experiments import experiment_cells, find_experiment
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod
from benchmarks.experiments.densities1d import Target
from benchmarks.experiments.densities2d import PLANE_TARGETS, PlaneTarget
from benchmarks.experiments.energies import MODELS
from benchmarks.experiments.gamma2d import METHODS, PICTURE_SIDE, PlaneData, PlaneTask
from benchmarks.experiments.training import Recipe, fit
from benchmarks.site import write_site
from benchmarks.tasks import Options
from ot_lift.positivity import marked_parameters

GAMMA = PLANE_TARGETS["gamma"]
NORMAL = PlaneTarget("normal", "", Target("a", "", stats.norm()), Target("b", "", stats.norm()))
TINY: dict[str, Any] = {"iterations": 3, "points": 300}


@pytest.fixture(scope="module")
def data() -> PlaneData:
    return PlaneData.drawn(GAMMA, 0, points=5_000, validation=1_000)


def test_the_density_is_the_product_of_its_coordinates_and_its_points_are_from_it() -> None:
    x = np.array([[0.5, 2.0], [3.0, 0.1]])
    np.testing.assert_allclose(GAMMA.density(x), x.prod(1) * np.exp(-x.sum(1)))
    points = GAMMA.sample(5_000, np.random.default_rng(0))
    assert all(stats.kstest(points[:, k], stats.gamma(2.0).cdf).pvalue > 1e-3 for k in range(2))
    assert abs(np.corrcoef(points.T)[0, 1]) < 4 / np.sqrt(5_000)


@pytest.mark.parametrize(("fine", "count"), [(False, 900), (True, 4096)])
def test_both_quadratures_integrate_it_to_one(fine: bool, count: int) -> None:
    nodes, log_weights = GAMMA.quadrature(fine=fine)
    assert nodes.shape == (count, 2)
    assert float(np.exp(log_weights) @ GAMMA.density(nodes)) == pytest.approx(1, abs=1e-5)


def test_the_quadrature_knows_the_normaliser_of_a_trained_network(data: PlaneData) -> None:
    model, _ = fit(MODELS["softplus"](0, 2), data.loss, data.batches(0), Recipe(iterations=15, learning_rate=2e-2))
    plain = model.bake().double()
    with torch.no_grad():
        values = []
        for nodes, log_weights in (GAMMA.quadrature(), GAMMA.quadrature(fine=True)):
            energies = plain(torch.from_numpy(nodes))
            values.append(float(torch.logsumexp(torch.from_numpy(log_weights) - energies, 0)))
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_the_distance_of_two_normals_is_known() -> None:
    data = PlaneData.drawn(NORMAL, 0, points=10, validation=10)
    found = data.divergences(lambda x: ((x[:, 0] - 0.5) ** 2 + x[:, 1] ** 2) / 2)
    assert found["total_variation"] == pytest.approx(2 * stats.norm.cdf(0.25) - 1, abs=2e-3)
    assert found["kullback_leibler"] == pytest.approx(0.125, abs=1e-4)


def test_the_target_has_no_distance_to_itself_and_its_picture_is_its_density(data: PlaneData) -> None:
    def energy(x: torch.Tensor) -> torch.Tensor:
        return x.sum(1) - x.log().sum(1)

    assert data.divergences(energy)["total_variation"] < 1e-12
    np.testing.assert_allclose(data.picture(energy), GAMMA.density(GAMMA.window(PICTURE_SIDE)), rtol=1e-3, atol=1e-12)


def test_the_gaussian_fits_a_gaussian() -> None:
    data = PlaneData.drawn(NORMAL, 0, points=20_000, validation=10)
    assert data.divergences(data.gaussian())["total_variation"] < 0.02


@pytest.mark.parametrize("name", ["lift", "softplus", "projection", "ADMM fixed", "ADMM balanced", "ADMM doubling"])
def test_every_method_learns(name: str, data: PlaneData) -> None:
    model, small = MODELS[name](0, 2), data.training[:500]
    before = data.held_out(model, small)
    after, _ = fit(model, data.loss, data.batches(0), Recipe(iterations=8, learning_rate=3e-3))
    assert data.held_out(after, small) < before
    assert all(weight.min().item() >= 0 for weight in marked_parameters(after.bake(small)).values())


def test_cells_are_of_both_protocols_and_every_method() -> None:
    found, _ = experiment_cells(["gamma2d"], Options(), seeds=None, threads=None)
    trained = len(METHODS) - 1
    assert len({one.path for one in found}) == len(found) == trained * (3 + 3 + 1) + 3
    quick, _ = experiment_cells(["gamma2d"], Options(quick=True), seeds=None, threads=None)
    assert {one.method.name for one in quick} == {"lift", "softplus", "projection", "Gaussian"}
    assert {one.task.name for one in quick} == {f"gamma2d-gamma-{name}" for name in ("paper", "tuned", "tuning")}


def records() -> list[dict[str, Any]]:
    made = []
    for name in ("softplus", "lift", "Gaussian"):
        task = PlaneTask("gamma", "paper", **TINY)
        outcome = task.run(ExperimentMethod(name, {}), 0, None)
        cell = ExperimentCell(task, ExperimentMethod(name, {}), 0, 1)
        record = benchmark_records.record(task.name, name, 0, details=outcome.details)
        made.append({**record, "settings": cell.settings, "figures": dict(outcome.figures)})
    return made


def test_a_record_has_its_figures_and_the_page_shows_them(tmp_path: Path) -> None:
    made = records()
    json.dumps(made)
    assert set(made[0]["figures"]) == {
        *("total_variation", "kullback_leibler", "validation_loss", "shoulder_share"),
        *("learning_rate", "parameters", "fit_seconds"),
    }
    assert len(made[1]["details"]["density"]) == PICTURE_SIDE**2 and len(made[1]["details"]["curve"]) == 4
    page = find_experiment("gamma2d").page(made)
    assert page.sentences[0].startswith("Protocol paper: the median total variation of the lift is")
    assert [row.name for row in page.tables[0][2].rows] == ["lift", "softplus", "Gaussian"]
    write_site(made, tmp_path)
    text = (tmp_path / "gamma2d.html").read_text(encoding="utf-8")
    assert text.count("<img") == 4 and "Densities, protocol paper" in text
