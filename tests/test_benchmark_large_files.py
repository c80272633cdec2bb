"""The memory of a map on large files is measured in a process of its own, and written into a record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.large_files import main, write_points
from benchmarks.record import read_record
from benchmarks.throughput import trained_map


def test_points_are_written_a_chunk_at_a_time_and_are_normal(tmp_path: Path) -> None:
    write_points(tmp_path / "points.npy", 300_000)
    points = np.load(tmp_path / "points.npy")
    assert points.shape == (300_000, 8) and points.dtype == np.float32
    assert np.abs(points.mean(0)).max() < 5 / np.sqrt(300_000)
    assert points.var(0) == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_the_record_has_a_row_for_each_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The process' memory is that of a map of this size, whatever its quality.
    monkeypatch.setattr("benchmarks.large_files.trained_map", lambda rng, steps: trained_map(rng, steps=60, rows=4000))
    main(["--rows", "500", "70000", "--results", str(tmp_path), "--busy"])
    record = read_record("large_files", directory=tmp_path)
    memory = [row for row in record["figures"] if "MiB" in row["figure"]]
    assert [row["figure"].split(" points")[0] for row in memory] == [
        "ot-lift transport of 500",
        "ot-lift transport of 70,000",
    ]
    assert all(100 < row["value"] < 1024 and row["target"] is None for row in memory)  # the goal is for more rows
    assert record["settings"]["alone"] is False
