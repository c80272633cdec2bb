"""Rates and times of the closed forms and of a fitted map: `python -m benchmarks.throughput`.

Value + gradient + Hessian against the rate of a large matrix product on the same threads, transport of a million points
with its memory, inversion of a hundred thousand.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.quality import defaults
from benchmarks.record import figure, write_record
from ot_lift import ICNN, BrenierMap
from ot_lift.isolation import PeakMemory

_REPEATS, _BATCH = 15, 4096
_TRANSPORT_ROWS, _INVERT_ROWS, _FEATURES = 1_000_000, 100_000, 8


def seconds(function: Callable[[], object], repeats: int = _REPEATS) -> list[float]:
    """Wall-clock seconds of repeated calls after three for warm-up."""
    for _ in range(3):
        function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return times


def sweep_operations(d: int, h: int, layers: int) -> int:
    """Multiply-adds times two of one point's value + gradient + Hessian, matrix products only."""
    first_order = 2 * (2 * 2 * d * h * layers + 2 * h * h * (layers - 1) + 4 * d * d)
    jacobians = 2 * d * h * h * (layers - 1)
    return first_order + jacobians + 4 * d * d * h * layers


def product_rate() -> float:
    """Operations a second of a 2,048 × 2,048 float32 matrix product."""
    left, right = (torch.randn(2048, 2048, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    return 2 * 2048**3 / median(seconds(lambda: left @ right))


def sweep_figures() -> list[dict[str, object]]:
    """Each sweep's rate over the product's, both measured in turn."""
    figures = []
    for d in (8, 32):
        for h in (64, 128):
            network = ICNN(d, (h, h, h))
            x = torch.randn(_BATCH, d, generator=torch.Generator().manual_seed(2))
            with torch.no_grad():
                ratios = []
                for _ in range(3):
                    peak = product_rate()
                    took = median(seconds(lambda: network.value_gradient_hessian(x)))  # noqa: B023
                    ratios.append(sweep_operations(d, h, 3) * _BATCH / took / peak)
            name = f"value + gradient + Hessian, d = {d}, 3×{h}: rate over matrix product"
            figures.append(figure(name, median(ratios), at_least=0.5, spread=ratios))
            print(f"{name}: {ratios}, product at {peak / 1e9:.1f} Gflop/s", flush=True)
    return figures


def transport_in_fresh_process(folder: Path) -> tuple[float, float]:
    """Seconds to transport a million points, and the growth of its peak memory over what it held before (MiB)."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--worker", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    took, memory = result.stdout.split()[-2:]
    return float(took), float(memory)


def worker(folder: Path) -> None:
    """Transport and print seconds and MiB; run in a process of its own so that peak memory means something."""
    fitted = BrenierMap.load(folder / "map")
    x = np.random.default_rng(0).normal(size=(_TRANSPORT_ROWS, _FEATURES)).astype(np.float32)
    fitted.transport(x[:1000])
    memory = PeakMemory()
    memory.start()
    began = time.perf_counter()
    fitted.transport(x)
    took = time.perf_counter() - began
    print(took, (memory.grown() or 0) / 2**20)


def trained_map(rng: np.random.Generator, *, steps: int = 500, rows: int = 20_000) -> BrenierMap:
    """A map between eight-dimensional data that no linear map joins."""
    x = rng.normal(size=(rows, _FEATURES))
    y = np.sinh(rng.normal(size=(rows, _FEATURES))) @ rng.normal(size=(_FEATURES, _FEATURES))
    fitted = BrenierMap(max_steps=steps, patience=None, random_state=0).fit(x, y)
    if not fitted.used_network_:
        raise RuntimeError("expected the network to be better than the linear start on this pair")
    return fitted


def map_figures() -> list[dict[str, object]]:
    """Transport and inversion by a map that was trained on a non-Gaussian pair."""
    rng = np.random.default_rng(1)
    fitted = trained_map(rng)
    with tempfile.TemporaryDirectory() as name:
        fitted.save(Path(name) / "map")
        runs = [transport_in_fresh_process(Path(name)) for _ in range(3)]
    targets = fitted.transport(rng.normal(size=(_INVERT_ROWS, _FEATURES)))
    inversions = seconds(lambda: fitted.invert(targets), repeats=3)
    times, memory = ([one[k] for one in runs] for k in (0, 1))
    print(f"transport {times} s, {memory} MiB; invert {inversions} s", flush=True)
    return [
        figure("transport of 1,000,000 points, d = 8 (s)", median(times), at_most=10, spread=times),
        figure("  the same: memory above the input's (MiB)", median(memory), at_most=512, spread=memory),
        figure("inversion of 100,000 points, d = 8 (s)", median(inversions), at_most=60, spread=inversions),
    ]


def main() -> None:
    """Run and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        worker(options.worker)
        return
    figures = [*sweep_figures(), *map_figures()]
    settings = {"defaults": defaults(), "batch": _BATCH, "repeats": _REPEATS, "dtype": "float32"}
    write_record("throughput", settings=settings, seeds=[0], figures=figures)


if __name__ == "__main__":
    main()
