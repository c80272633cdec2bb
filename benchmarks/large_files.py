"""Memory of a map on files larger than what it may hold: `python -m benchmarks.large_files`.

`ot-lift transport` streams the rows of a memory-mapped .npy file into another one. Its process' highest resident memory
counts libraries, the map, and every page of either file that the system keeps mapped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.quality import defaults
from benchmarks.record import RESULTS, figure, write_record
from benchmarks.throughput import trained_map
from ot_lift.isolation import high_water_mark

_FEATURES, _CHUNK = 8, 1 << 18
_MIB = 1024**2
_GOAL_ROWS, _GOAL_MIB = 10_000_000, 1024.0


def write_points(path: Path, rows: int) -> None:
    """Standard normal points, float32, `(rows, 8)`, a chunk at a time."""
    rng = np.random.default_rng(0)
    points = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, _FEATURES))
    for start in range(0, rows, _CHUNK):
        points[start : start + _CHUNK] = rng.standard_normal((min(_CHUNK, rows - start), _FEATURES), dtype=np.float32)
    points.flush()


def transport_in_fresh_process(fitted: Path, points: Path, out: Path) -> tuple[float, float]:
    """Seconds of `ot-lift transport` with its start, and its process' highest resident memory in MiB."""
    command = [sys.executable, "-m", "benchmarks.large_files", "--worker", *map(str, (fitted, points, out))]
    began = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.monotonic() - began, float(result.stdout.split()[-1])


def worker(fitted: str, points: str, out: str) -> None:
    """Run the command and print MiB."""
    from ot_lift.cli import app

    app(["transport", fitted, points, "--out", out], standalone_mode=False)
    highest = high_water_mark()
    if highest is None:
        raise RuntimeError("expected a system that tells a process' highest resident memory")
    print(highest / _MIB)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    parser.add_argument("--busy", action="store_true", help="say in the record that other work shared the machine")
    parser.add_argument("--worker", nargs=3, metavar=("MAP", "POINTS", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker is not None:
        worker(*options.worker)
        return
    figures = []
    with tempfile.TemporaryDirectory() as name:
        fitted, points, out = (Path(name) / part for part in ("map", "points.npy", "moved.npy"))
        trained_map(np.random.default_rng(1), steps=300).save(fitted)
        for rows in options.rows:
            write_points(points, rows)
            seconds, memory = transport_in_fresh_process(fitted, points, out)
            moved = np.load(out, mmap_mode="r")
            if moved.shape != (rows, _FEATURES):
                raise RuntimeError(f"expected {rows:,} transported points, got {len(moved):,}")
            goal = _GOAL_MIB if rows >= _GOAL_ROWS else None
            told = f"ot-lift transport of {rows:,} points of a .npy file, d = {_FEATURES}"
            figures.append(figure(f"{told}: highest memory of the process (MiB)", memory, at_most=goal))
            figures.append(figure("  the same: seconds, with its start", seconds))
            print(f"{told}: {memory:.0f} MiB, {seconds:.0f} s", flush=True)
    settings = {"defaults": defaults(), "dtype": "float32", "alone": not options.busy}
    write_record("large_files", settings=settings, seeds=[0], figures=figures, directory=options.results)


if __name__ == "__main__":
    main()
