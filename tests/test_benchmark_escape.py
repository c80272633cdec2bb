"""The diffusion on the shoulder: simulated and exact times agree, and the page says which way the rate goes."""

from __future__ import annotations

from pathlib import Path

import benchmark_records
import numpy as np
import pytest

from benchmarks.experiments.cells import ExperimentCell
from benchmarks.experiments.escape import LEAVE, NOISES, EscapeTask, cells, escape_times, exact_time, methods, page
from benchmarks.experiments.training import SHOULDER
from benchmarks.site import write_site
from benchmarks.tasks import Options


def test_the_shoulder_ends_where_the_weight_is_its_limit() -> None:
    assert np.logaddexp(0.0, LEAVE) == pytest.approx(SHOULDER)


def test_simulated_times_agree_with_the_exact_mean() -> None:
    times = escape_times(0.4, 300, np.random.default_rng(0))
    error = times.std() / np.sqrt(len(times))
    assert times.mean() == pytest.approx(exact_time(0.4), abs=4 * error)


def test_a_little_noise_is_nearly_none() -> None:
    assert exact_time(0.005) == pytest.approx(exact_time(0.0), rel=0.02)


def test_much_noise_leaves_sooner_and_a_little_later() -> None:
    # A little noise carries as many paths deeper into the shoulder, where the pull is weaker still.
    assert exact_time(0.05) > exact_time(0.0) > exact_time(0.2) > exact_time(0.4)


def test_the_page_tells_the_rates(tmp_path: Path) -> None:
    made = []
    task = EscapeTask(20, True)
    for method in (methods()[0], methods()[-1]):
        outcome = task.run(method, 0, None)
        cell = ExperimentCell(task, method, 0, 1)
        record = benchmark_records.record(task.name, method.name, 0, details=outcome.details)
        made.append({**record, "settings": cell.settings, "figures": dict(outcome.figures)})
    assert page(made).sentences[0] == "The rate of escape rises with the noise in the slack."
    write_site(made, tmp_path)
    assert "Rate of escape against noise" in (tmp_path / "escape.html").read_text(encoding="utf-8")


def test_cells_are_of_every_noise_and_seed() -> None:
    assert len(cells(Options(), (0, 1), 1)) == 2 * len(NOISES)
