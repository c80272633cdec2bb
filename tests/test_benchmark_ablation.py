"""The ablation: variants start at one place, and the covariance is exactly zero where theory says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import benchmark_records
import pytest
import torch

from benchmarks.experiments import experiment_cells, find_experiment
from benchmarks.experiments.ablation import VARIANTS, AblationTask
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod
from benchmarks.experiments.covariance import Covariance, probe
from benchmarks.experiments.densities1d import TARGETS
from benchmarks.experiments.energies import Data
from benchmarks.experiments.training import Recipe, fit
from benchmarks.site import write_site
from benchmarks.tasks import Options

NO_BATCH = ("constant code", "direct + bias", "direct")


@pytest.fixture(scope="module")
def data() -> Data:
    return Data.drawn(TARGETS["gumbel"], 0, points=600, validation=100)


def test_the_norm_is_that_of_the_whole_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    b = a @ torch.randn(5, 5, generator=generator, dtype=torch.float64)
    found = Covariance.of(a, b)
    matrix = (a - a.mean(0)).T @ (b - b.mean(0)) / 8
    assert found.norm == pytest.approx(float(matrix.norm()))
    assert found.trace == pytest.approx(float(matrix.trace()))
    assert found.norm > found.null > 0


def test_what_does_not_depend_on_the_batch_has_exactly_no_covariance() -> None:
    same = torch.rand(1, 7, generator=torch.Generator().manual_seed(0)).expand(5, 7)
    found = Covariance.of(same, torch.randn(5, 7, generator=torch.Generator().manual_seed(1)))
    assert (found.norm, found.null, found.trace) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_covariance_is_exactly_zero_where_no_batch_is_emitted_from(name: str, data: Data) -> None:
    trial = VARIANTS[name](0, data)
    model, _ = fit(trial.model, data.loss, data.batches(0), Recipe(iterations=3), condition=trial.condition)
    found = probe(model, data, data.batches(1), trial.condition, probes=6)
    if name in NO_BATCH:
        assert (found.norm, found.trace) == (0.0, 0.0)
    else:
        assert found.norm > 0


def test_the_probe_pulls_as_the_slack_is_pulled(data: Data) -> None:
    trial = VARIANTS["direct"](0, data)
    batch = data.training[:64]
    model = trial.model
    model.zero_grad()
    torch.autograd.backward(data.loss(model.bind(), batch))
    raw = [parameter for name, parameter in model.named_parameters() if name.startswith("raw.")]
    expected = torch.cat([one.grad.reshape(-1) for one in raw if one.grad is not None])
    # One batch against one whose gradient is known: the trace of two rows is half the product of their differences.
    other = data.training[64:128]
    model.zero_grad()
    torch.autograd.backward(data.loss(model.bind(), other))
    second = torch.cat([one.grad.reshape(-1) for one in raw if one.grad is not None])
    batches = iter((batch, other))
    rows: list[torch.Tensor] = []

    def kept(theta: torch.Tensor, gradients: torch.Tensor) -> Covariance:
        rows.append(gradients)
        return Covariance(0.0, 0.0, 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Covariance, "of", kept)
        probe(model, data, lambda: next(batches), trial.condition, probes=2)
    torch.testing.assert_close(rows[0], torch.stack([expected, second]), rtol=1e-3, atol=1e-6)


def test_all_start_at_the_same_weights_and_some_share_them_exactly(data: Data) -> None:
    start = {name: VARIANTS[name](3, data) for name in VARIANTS}
    first = start["lift"].model.bake(start["lift"].reference)
    for name in ("independent batch", "no slack", "direct + bias", "direct"):
        other = start[name].model.bake(start[name].reference)
        for one, two in zip(first.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_a_slack_that_is_not_trained_stays(data: Data) -> None:
    trial = VARIANTS["no slack"](0, data)
    before = trial.model.slack.clone()
    fit(trial.model, data.loss, data.batches(0), Recipe(iterations=2))
    assert torch.equal(trial.model.slack, before)


def test_cells_are_of_two_targets_both_protocols_and_every_variant() -> None:
    found, _ = experiment_cells(["ablation"], Options(), seeds=None, threads=None)
    assert len({one.path for one in found}) == len(found) == 2 * len(VARIANTS) * (3 + 3 + 1)
    quick, _ = experiment_cells(["ablation"], Options(quick=True), seeds=None, threads=None)
    assert [one.task.name for one in quick] == ["ablation-gumbel-paper"] * len(VARIANTS)


def records() -> list[dict[str, Any]]:
    """Outcomes of three steps, as records."""
    task = AblationTask("gumbel", "paper", iterations=3, points=300, probes=3)
    made = []
    for name in ("lift", "direct"):
        outcome = task.run(ExperimentMethod(name, {}), 0, None)
        cell = ExperimentCell(task, ExperimentMethod(name, {}), 0, 1)
        record = benchmark_records.record(task.name, name, 0, details=outcome.details)
        made.append({**record, "settings": cell.settings, "figures": dict(outcome.figures)})
    return made


def test_a_record_has_covariances_and_escapes_and_the_page_tells_them(tmp_path: Path) -> None:
    made = records()
    for record in made:
        assert [row["step"] for row in record["details"]["covariance"]] == [0, 1, 3]
        assert record["details"]["escaped"][0] == (0, 0.0) and len(record["details"]["escaped"]) == 4
    page = find_experiment("ablation").page(made)
    assert "The covariance of slack and gradient is exactly zero in every record of direct." in page.sentences
    assert "It is not zero for lift." in page.sentences
    covariances = page.tables[1][2]
    assert [cell.text for cell in covariances.rows[1].cells] == ["0", "0", "0"]
    write_site(made, tmp_path)
    text = (tmp_path / "ablation.html").read_text(encoding="utf-8")
    assert text.count("<img") == 3 and "Escape from the shoulder, paper" in text
