"""Flows by every positivity: one start, an exact likelihood, and a page that tells the gap whichever way it goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import benchmark_records
import pytest
import torch
from torch.distributions import MultivariateNormal

from benchmarks.experiments import experiment_cells, find_experiment
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod
from benchmarks.experiments.dimension import DimensionTask
from benchmarks.experiments.energies import Trial
from benchmarks.experiments.flows import (
    GAUSSIAN,
    MODELS,
    WIDE,
    FlowData,
    Scaled,
    log_density_of,
    negative_log_likelihood,
)
from benchmarks.experiments.flows2d import TITLES, PlanarTask
from benchmarks.experiments.training import HalvedRecipe, Recipe, fit
from benchmarks.planar import PLANAR
from benchmarks.site import write_site
from benchmarks.tasks import Options
from ot_lift import ICNN
from ot_lift.positivity import ADMM, Projection, Softplus

TINY: dict[str, Any] = {"iterations": 3, "points": 500}
NARROW = [name for name in MODELS if name != WIDE]
MEAN, COVARIANCE = torch.tensor([1.0, -2.0]).double(), torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double()


class Normal:
    def sample(self, count: int, generator: torch.Generator) -> torch.Tensor:
        root = torch.linalg.cholesky(COVARIANCE)
        return MEAN + torch.randn(count, 2, generator=generator, dtype=torch.float64) @ root.T

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return MultivariateNormal(MEAN, COVARIANCE).log_prob(x)


@pytest.fixture(scope="module")
def moon() -> FlowData:
    return FlowData.drawn(PLANAR["one_moon"], 0, points=3_000, fresh=1_000)


def trial(name: str, data: FlowData, seed: int = 0) -> Trial:
    return PlanarTask("one-moon", "paper").trial(name, seed, data)


# ------------------------------------------------------------------------------------------ positivity
@pytest.mark.parametrize("inner", [Softplus(), Projection(), ADMM(2.0)])
def test_a_scaled_weight_is_the_other_one_times_a_number(inner: Any) -> None:
    scaled, raw = Scaled(inner, 0.25), torch.tensor([-1.0, 0.5, 3.0])
    scaled.attach(raw)
    torch.testing.assert_close(scaled.weight(raw), inner.weight(raw) / 4)
    torch.testing.assert_close(scaled.final(raw), inner.final(raw) / 4)
    torch.testing.assert_close(scaled.weight(scaled.right_inverse(raw.abs())), raw.abs())
    assert torch.equal(scaled.penalty(raw), inner.penalty(raw))
    assert (scaled.emittable, scaled.keeps_convex) == (inner.emittable, inner.keeps_convex)


def test_a_scaled_projection_projects() -> None:
    raw = torch.tensor([-1.0, 2.0])
    Scaled(Projection(), 0.5).after_step(raw)
    assert raw.tolist() == [0.0, 2.0]


# ------------------------------------------------------------------------------------------ likelihood
def test_the_likelihood_is_that_of_the_network_by_autograd() -> None:
    network, x = ICNN(2, (5, 5)).double(), torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double()

    def one(point: torch.Tensor) -> torch.Tensor:
        return network(point[None])[0]

    expected = []
    for point in x:
        latent, hessian = torch.func.grad(one)(point), torch.func.hessian(one)(point)
        standard = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
        expected.append(standard.log_prob(latent) + torch.linalg.slogdet(hessian).logabsdet)
    torch.testing.assert_close(log_density_of(network, x), torch.stack(expected))
    assert negative_log_likelihood(network, x).item() == pytest.approx(-torch.stack(expected).mean().item())


def test_the_gaussian_is_the_truth_of_a_gaussian_in_the_units_of_the_data() -> None:
    data = FlowData.drawn(Normal(), 0, points=50_000, fresh=2_000)
    figures = data.gaussian()
    points = data.units.coordinates.source_inverse(data.fresh)
    own = MultivariateNormal(MEAN, COVARIANCE).log_prob(points)
    assert figures["excess_nll"] == pytest.approx(0, abs=2e-3)  # 5 numbers fitted to 50,000 points: 5·10⁻⁵ on average
    assert figures["nll"] == pytest.approx(-float(own.mean()), abs=2e-3)
    torch.testing.assert_close(data.truth + data.units.log_volume, own)
    assert torch.cov(data.training.T).sub(torch.eye(2)).abs().max() < 1e-4


def test_a_potential_that_has_gone_wrong_is_a_training_that_diverges() -> None:
    network = ICNN(2, (4, 4))
    with torch.no_grad():
        network.biases[0].fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="positive definite"):
        negative_log_likelihood(network, torch.zeros(2, 2))


# -------------------------------------------------------------------------------------------- methods
def test_all_start_at_the_same_weights_and_the_lift_near_them(moon: FlowData) -> None:
    start = {name: trial(name, moon).model.bake(moon.training) for name in NARROW}
    for name in ("projection", "unscaled softplus"):
        for one, two in zip(start["softplus"].parameters(), start[name].parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    values = {name: log_density_of(network, moon.training[:200]) for name, network in start.items()}
    assert (values["lift"] - values["softplus"]).abs().mean().item() < 0.1


def test_scaled_softplus_starts_off_its_shoulder_and_the_unscaled_one_on_it(moon: FlowData) -> None:
    task = PlanarTask("one-moon", "paper")
    shares = {name: task.look(own.model, own, moon)[1] for name in NARROW for own in (trial(name, moon),)}
    assert max(shares["softplus"], shares["projection"], shares["lift"]) < 0.1 and shares["unscaled softplus"] > 0.9


@pytest.mark.parametrize("name", NARROW)
def test_every_method_learns(name: str, moon: FlowData) -> None:
    own = trial(name, moon)
    before = moon.held_out(own.model, own.reference)
    after, _ = fit(own.model, moon.loss, moon.batches(0), Recipe(iterations=12, learning_rate=2e-2))
    assert moon.held_out(after, own.reference) < before


def test_wide_softplus_has_as_many_trained_numbers_as_the_lift() -> None:
    data = FlowData.drawn(PLANAR["one_moon"], 0, points=300, fresh=10)
    task = DimensionTask("ridge", "paper", features=2)
    counts = [
        sum(one.numel() for one in task.trial(name, 0, data).model.parameters() if one.requires_grad)
        for name in (WIDE, "lift")
    ]
    assert counts[0] == pytest.approx(counts[1], rel=2e-3)


def test_the_papers_recipe_halves_its_step_size() -> None:
    recipe = PlanarTask("rings", "paper").recipe
    assert isinstance(recipe, HalvedRecipe)
    assert [recipe.rate(step) for step in (0, 1_999, 2_000)] == [5e-3, 5e-3, 2.5e-3]
    assert PlanarTask("rings", "tuned").recipe.cosine and PlanarTask("rings", "tuning").recipe.iterations == 1_000
    assert PlanarTask("rings", "paper").settings()["recipe"]["period"] == 2_000


# ------------------------------------------------------------------------------------- cells and pages
def test_cells_are_of_every_density_protocol_and_method() -> None:
    found, _ = experiment_cells(["flows2d"], Options(), seeds=None, threads=None)
    assert len({one.path for one in found}) == len(found) == len(TITLES) * ((len(MODELS) - 1) * (3 + 3 + 1) + 3)
    assert {name.replace("-", "_") for name in TITLES} == set(PLANAR)
    quick, _ = experiment_cells(["flows2d"], Options(quick=True), seeds=None, threads=None)
    assert {one.task.target for one in quick} == {"eight-gaussians", "one-moon"}  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    made = []
    for name in ("softplus", "lift", GAUSSIAN):
        task = PlanarTask("one-moon", "paper", **TINY)
        outcome = task.run(ExperimentMethod(name, {}), 0, None)
        cell = ExperimentCell(task, ExperimentMethod(name, {}), 0, 1)
        record = benchmark_records.record(task.name, name, 0, details=outcome.details)
        made.append({**record, "settings": cell.settings, "figures": dict(outcome.figures)})
    return made


def test_a_record_has_its_figures_and_the_page_shows_them(records: list[dict[str, Any]], tmp_path: Path) -> None:
    made = records
    json.dumps(made)
    assert set(made[0]["figures"]) == {
        *("excess_nll", "standard_error", "nll", "validation_loss", "shoulder_share"),
        *("learning_rate", "parameters", "fit_seconds"),
    }
    assert len(made[1]["details"]["density"]) == 60**2 and len(made[1]["details"]["curve"]) == 4
    page = find_experiment("flows2d").page(made)
    assert page.sentences[0].startswith("Protocol paper: softplus' NLL less the lift's, nats: One moon ")
    assert "of the weights of softplus, at most" in page.sentences[1]
    assert [row.name for row in page.tables[0][2].rows] == ["lift", "softplus", "Gaussian"]
    write_site(made, tmp_path)
    text = (tmp_path / "flows2d.html").read_text(encoding="utf-8")
    assert text.count("<img") == 4 and "Fitted densities, paper" in text


def test_the_density_of_a_record_is_one(records: list[dict[str, Any]]) -> None:
    details = records[0]["details"]
    (left, low), (right, high) = details["box"]
    area = (right - left) * (high - low) / (60 - 1) ** 2
    assert sum(details["density"]) * area == pytest.approx(1, abs=0.25)  # the start is wider than the box of the points
