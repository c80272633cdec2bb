"""Step times of positivities: both sides of a ratio are timed in one process, and the page says so."""

from __future__ import annotations

from typing import Any

import benchmark_records
import pytest
import torch

from benchmarks.experiments import experiment_cells, find_experiment, overhead
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod
from benchmarks.experiments.flows import FLOW_LIFT, negative_log_likelihood
from benchmarks.experiments.overhead import METHODS, PLACES, OverheadTask
from benchmarks.tasks import Options
from ot_lift import ICNN


@pytest.mark.parametrize(("place", "name"), [("energy", "lift"), ("flow-d2", "ADMM balanced")])
def test_a_cell_times_both_sides(place: str, name: str) -> None:
    outcome = OverheadTask(place, blocks=1).run(ExperimentMethod(name, {}), 0, None)
    figures = outcome.figures
    assert figures["step_ratio"] == pytest.approx(figures["step_seconds"] / figures["softplus_step_seconds"])
    assert len(outcome.details["ratios"]) == 1


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_a_step_of_a_flow(name: str) -> None:
    model = overhead._model(name, ICNN(2, (8, 8)), FLOW_LIFT)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    batch = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    overhead._training(model, lambda: batch, negative_log_likelihood)()
    moved = [not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
    assert any(moved) and all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_cells_run_alone() -> None:
    found, _ = experiment_cells(["overhead"], Options(), seeds=[0], threads=None)
    assert len(found) == len(PLACES) * len(METHODS) and all(one.alone for one in found)


def record(name: str, seed: int, ratio: float, *, contended: bool = False) -> dict[str, Any]:
    cell = ExperimentCell(OverheadTask("energy"), ExperimentMethod(name, {}), seed, 1)
    figures = {"step_ratio": ratio, "step_seconds": 0.01 * ratio}
    made = benchmark_records.record(cell.task.name, name, seed, contended=contended)
    return {**made, "settings": cell.settings, "figures": figures}


def test_the_page_tells_what_the_lift_costs_and_what_ran_beside_it() -> None:
    made = [record("softplus", 0, 1.0), record("lift", 0, 2.5), record("lift", 1, 2.7, contended=True)]
    page = find_experiment("overhead").page(made)
    assert page.sentences[0] == "energy: a step with the lift takes 2.60 times as long as with softplus."
    assert page.sentences[1].startswith("Other work shared the machine in 1 of 3 cells")
    rows = {row.name: [cell.text for cell in row.cells] for row in page.tables[0][2].rows}
    assert rows == {"softplus": ["1.00", "10.0 ms"], "lift": ["2.60", "26.0 ms"]}
