"""L2-UVP against wall time on the Wasserstein-2 benchmark: `python -m benchmarks.wasserstein2 --data FOLDER`.

Source and target points are fresh throughout; the map under test has the estimator's default settings and only a
budget of time. Identity and linear map stand beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.quality import EVALUATION_SEED, Curve, defaults, l2_uvp, timed_fit
from benchmarks.record import figure, write_record
from benchmarks.w2_truth import Wasserstein2Benchmark, available_dimensions
from ot_lift import BrenierMap

_BUDGETS = {2: (180.0, 0.2), 8: (600.0, 1.5), 32: (1200.0, 6.0)}  # seconds and L2-UVP in percent
_EVALUATION_ROWS = 1 << 15
_MARGIN, _MARGIN_SHARE = 12.0, 0.03  # of the budget, seconds or a share, kept for data and the certificate


def run(pair: Wasserstein2Benchmark, seconds: float, seed: int) -> dict[str, Any]:
    """One fit under a budget of wall-clock time: the final L2-UVP, the seconds it took and the curve."""
    x = pair.source(_EVALUATION_ROWS, torch.Generator().manual_seed(EVALUATION_SEED))
    truth = pair.transport(x)
    curve = Curve(x, truth)
    training = seconds - max(_MARGIN, _MARGIN_SHARE * seconds)
    model = BrenierMap(max_steps=10_000_000, max_seconds=training, patience=None, callbacks=[curve], random_state=seed)
    fitted, took = timed_fit(lambda: model.fit(pair.source, pair.target))
    final = l2_uvp(fitted.transport(x), truth)
    steps = int(fitted.history_[-1]["step"])
    return {"seed": seed, "l2_uvp": final, "seconds": took, "steps": steps, "curve": curve.rows}


def baselines(pair: Wasserstein2Benchmark) -> dict[str, float]:
    """L2-UVP of the identity and of the linear map between Gaussians, from as many points as a fit's own start has."""
    x = pair.source(1 << 17, torch.Generator().manual_seed(EVALUATION_SEED))
    truth = pair.transport(x)
    linear = BrenierMap(max_steps=1, random_state=0, hidden_features=(4,)).fit(x, truth)
    if linear.used_network_:
        raise RuntimeError("expected one step to leave the linear start in place")
    return {"identity": l2_uvp(x, truth), "linear": l2_uvp(linear.transport(x), truth)}


def main() -> None:
    """Run and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark's weights (D_v1.pt, D_v2.pt)")
    parser.add_argument("--dimensions", type=int, nargs="*", help="default: every one found that has a target")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="default: 0")
    parser.add_argument("--seconds", type=float, help="another budget than the targets' own")
    parser.add_argument("--busy", action="store_true", help="say in the record that other work shared the machine")
    options = parser.parse_args()
    found = options.dimensions or [d for d in available_dimensions(options.data) if d in _BUDGETS]
    for d in found:
        budget, target = _BUDGETS[d]
        seconds = options.seconds or budget
        pair = Wasserstein2Benchmark.load(options.data, d)
        runs = [run(pair, seconds, seed) for seed in options.seeds]
        known = baselines(pair)
        values = [one["l2_uvp"] for one in runs]
        print(f"d = {d}: {values} in {[round(one['seconds']) for one in runs]} s; {known}", flush=True)
        name = f"Wasserstein-2 benchmark, d = {d}, {seconds / 60:g} min: L2-UVP (%)"
        figures = [figure(name, median(values), at_most=target if seconds == budget else None, spread=values)]
        figures += [figure(f"  the same, {which} map", value) for which, value in known.items()]
        settings = {"defaults": defaults(), "patience": None, "seconds": seconds, "alone": not options.busy}
        name = f"wasserstein2-d{d}" if seconds == budget else f"wasserstein2-d{d}-{seconds:g}s"
        details = {"runs": runs, "baselines": known}
        write_record(name, settings=settings, seeds=options.seeds, figures=figures, details=details)


if __name__ == "__main__":
    main()
