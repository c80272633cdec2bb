"""Densities in many dimensions: log-concave, with the entropy that is stated; the page says whether gaps grow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import benchmark_records
import numpy as np
import pytest
import torch
from scipy import integrate, stats

from benchmarks.experiments import experiment_cells, find_experiment
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod
from benchmarks.experiments.densities_nd import FAMILIES, Product, Ridge, Rotated
from benchmarks.experiments.dimension import DIMENSIONS, DimensionTask
from benchmarks.experiments.flows import GAUSSIAN, MODELS, WIDE
from benchmarks.site import write_site
from benchmarks.tasks import Options


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# ------------------------------------------------------------------------------------------ densities
@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_log_density_of_its_points_is_minus_the_entropy(family: str) -> None:
    law = FAMILIES[family](5)
    values = law.log_prob(law.sample(20_000, seeded()))
    assert float(values.mean()) == pytest.approx(-law.entropy, abs=4 * float(values.std()) / math.sqrt(len(values)))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_log_concave_along_chords(family: str) -> None:
    law = FAMILIES[family](6)
    x, y = law.sample(1_000, seeded()).split(500)
    ends, middle = (law.log_prob(x) + law.log_prob(y)) / 2, law.log_prob((x + y) / 2)
    assert bool((middle >= ends - 1e-9).all())


def test_in_the_plane_a_density_integrates_to_one() -> None:
    for law in (Product(2), Ridge(2)):
        side = torch.linspace(-14, 26, 400).double()
        grid = torch.cartesian_prod(side, side)
        values = law.log_prob(grid).exp().reshape(400, 400).numpy()
        assert float(integrate.trapezoid(integrate.trapezoid(values, side), side)) == pytest.approx(1, abs=2e-3)


def test_coordinates_of_a_product_are_standard_and_a_rotation_keeps_them_so() -> None:
    for law in (Product(4), Rotated(4)):
        x = law.sample(40_000, seeded())
        assert float(x.mean(0).abs().max()) < 0.03 and float((torch.cov(x.T) - torch.eye(4)).abs().max()) < 0.06
    rotation = Rotated(4).rotation
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(4).double())
    assert torch.equal(rotation, Rotated(4).rotation)
    assert (
        stats.kstest(Product(1).sample(3_000, seeded())[:, 0], Product(4).sample(3_000, seeded())[:, 3]).pvalue > 1e-3
    )


def test_a_rotation_changes_no_density_but_turns_it() -> None:
    x, law = Product(3).sample(50, seeded()), Rotated(3)
    torch.testing.assert_close(law.log_prob(x @ law.rotation.T), Product(3).log_prob(x))


def test_the_ridge_has_logistic_coordinates_and_one_density_for_all_orders() -> None:
    x = Ridge(3).sample(4_000, seeded())
    assert stats.kstest(x[:, 1], stats.logistic().cdf).pvalue > 1e-3
    torch.testing.assert_close(Ridge(3).log_prob(x.flip(1)), Ridge(3).log_prob(x))
    line = torch.linspace(-5, 5, 11).double()[:, None]
    np.testing.assert_allclose(Ridge(1).log_prob(line), stats.logistic().logpdf(line[:, 0]), rtol=1e-12)


def test_why_no_energies_in_32_dimensions() -> None:
    wide = 1.3**2
    share = (math.sqrt(2 / wide - 1) * wide) ** 32  # 1/∫q²/p: the effective size, of all
    assert 1 / share == pytest.approx(31_000, rel=0.01)
    assert 32 * (math.log(wide) / 2 + 1 / (2 * wide) - 0.5) == pytest.approx(1.9, abs=0.05)


# ------------------------------------------------------------------------------------- cells and pages
def test_cells_are_of_every_family_and_dimension_and_of_both_protocols_on_the_ridge() -> None:
    found, _ = experiment_cells(["dimension"], Options(), seeds=None, threads=None)
    assert len({one.path for one in found}) == len(found)
    places, gaussian, ridge = 3 * len(DIMENSIONS) - 1, 3, len(DIMENSIONS)  # nothing to rotate on the line
    tuned = (len(MODELS) - 2) * (3 + 1) * (places - ridge)  # without the wide and the unscaled softplus
    both = (len(MODELS) - 1) * (3 + 3 + 1) * ridge + (3 + 3 + 1)
    assert len(found) == tuned + both + gaussian * places
    wide = {one.task.name for one in found if one.method.name == WIDE}
    assert wide == {f"dimension-ridge-d2-{protocol}" for protocol in ("paper", "tuned", "tuning")}
    chosen, _ = experiment_cells(["dimension-ridge-d6-tuned", "lift"], Options(), seeds=[0], threads=None)
    assert {one.task.name for one in chosen} == {"dimension-ridge-d6-tuned", "dimension-ridge-d6-tuning"}
    quick, _ = experiment_cells(["dimension"], Options(quick=True), seeds=None, threads=None)
    assert {one.task.title for one in quick} == {"Ridge, d = 1", "Ridge, d = 6"}  # type: ignore[attr-defined]


def as_record(task: DimensionTask, name: str, figures: dict[str, float], seed: int = 0) -> dict[str, Any]:
    cell = ExperimentCell(task, ExperimentMethod(name, {}), seed, 1)
    made = benchmark_records.record(task.name, name, seed)
    return {**made, "settings": cell.settings, "figures": figures}


def test_a_record_has_its_figures() -> None:
    task = DimensionTask("ridge", "paper", iterations=3, points=400, features=3)
    figures = task.run(ExperimentMethod("lift", {}), 0, None).figures
    gaussian = task.run(ExperimentMethod(GAUSSIAN, {}), 0, None).figures
    assert 0 < gaussian["excess_nll"] < 1 and gaussian.keys() < figures.keys()
    assert figures["excess_nll"] == pytest.approx(
        figures["nll"] - figures["entropy"],
        abs=4 * math.sqrt(4 / 10_000),  # the density's own NLL, less its mean
    )
    assert figures["entropy"] == Ridge(3).entropy


def test_the_page_says_whether_the_advantage_grows(tmp_path: Path) -> None:
    made = []
    for features, ours, theirs in ((1, 0.01, 0.02), (6, 0.05, 0.1), (21, 0.4, 0.6)):
        task = DimensionTask("ridge", "tuned", features=features)
        for name, value in (("lift", ours), ("softplus", theirs), ("projection", 0.3)):
            made += [as_record(task, name, {"excess_nll": value + 0.001 * seed}, seed) for seed in range(2)]
        made.append(as_record(DimensionTask("ridge", "tuning", features=features), "lift", {"learning_rate": 0.03}, 99))
        made.append(as_record(DimensionTask("ridge", "paper", features=features), GAUSSIAN, {"excess_nll": 0.5}))
    page = find_experiment("dimension").page(made)
    assert page.sentences[:2] == [
        "Protocol tuned: of its seeds above one dimension the lift wins 4 of 4 against softplus (on the line 2 of 2) "
        "and 2 of 4 against projection (on the line 2 of 2).",
        "Protocol tuned, the advantage over softplus with dimension, in nats: on ridge it grows throughout. As a share "
        "of the rival's figure it is largest with 50% at d = 6 on ridge.",
    ]
    assert "over projection with dimension, in nats: on ridge it is largest at d = 1." in page.sentences[2]
    titles = [title for title, *_ in page.tables]
    assert "Ridge, paper" not in titles  # nothing trained
    advantages = page.tables[titles.index("The lift's advantage")][2]
    assert [(cell.text, cell.small) for cell in advantages.rows[0].cells] == [
        ("0.0100", "49%"),
        ("0.0500", "50%"),
        ("0.200", "33%"),
    ]
    table = page.tables[0][2]
    assert [row.name for row in table.rows] == ["lift", "softplus", "projection", "Gaussian"]
    assert [column.title for column in table.columns] == ["method", "d = 1", "d = 6", "d = 21"]
    write_site(made, tmp_path)
    assert "Above the entropy against dimension, tuned" in (tmp_path / "dimension.html").read_text(encoding="utf-8")
