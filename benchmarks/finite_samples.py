"""Generalisation from 10,000 points a side: `python -m benchmarks.finite_samples --data FOLDER`.

Dimension 8 of the Wasserstein-2 benchmark. Ours and POT's out-of-sample maps see the same points; L2-UVP is on fresh
ones. POT's Sinkhorn gets several regularisations and its best one counts.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import ot
import torch

from benchmarks.quality import EVALUATION_SEED, defaults, l2_uvp, timed_fit
from benchmarks.record import figure, write_record
from benchmarks.w2_truth import Wasserstein2Benchmark
from ot_lift import BrenierMap

_FEATURES, _ROWS, _EVALUATION_ROWS = 8, 10_000, 4096
_REGULARISATIONS = (0.3, 1.0, 3.0)  # times ‖x − y‖²'s natural unit: the benchmark's coordinates have variance 1


def peers() -> dict[str, ot.da.BaseTransport]:
    """POT's discrete solvers with their own out-of-sample extension."""
    methods: dict[str, ot.da.BaseTransport] = {"POT EMD": ot.da.EMDTransport(max_iter=10_000_000)}
    for strength in _REGULARISATIONS:
        methods[f"POT Sinkhorn, reg {strength:g}"] = ot.da.SinkhornTransport(reg_e=strength, max_iter=2000, tol=1e-6)
    return methods


def main() -> None:
    """Run and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark's weights (D_v1.pt, D_v2.pt)")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of our fits; the points are fixed")
    options = parser.parse_args()
    pair = Wasserstein2Benchmark.load(options.data, _FEATURES)
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    x, y = pair.source(_ROWS, generator), pair.target(_ROWS, generator)
    fresh = pair.source(_EVALUATION_ROWS, generator)
    truth = pair.transport(fresh)
    ours, seconds = [], []
    for seed in options.seeds:
        fitted, took = timed_fit(lambda seed=seed: BrenierMap(random_state=seed).fit(x, y))  # type: ignore[misc]
        ours.append(l2_uvp(fitted.transport(fresh), truth))
        seconds.append(took)
        print(f"ours, seed {seed}: {ours[-1]:.3f}% in {took:.0f} s ({fitted.stop_reason_})", flush=True)
    rows = [figure("  the same, identity map", l2_uvp(fresh, truth))]
    discrete = {}
    for name, method in peers().items():
        began = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            method.fit(Xs=x.numpy(), Xt=y.numpy())
        took = time.monotonic() - began
        value = l2_uvp(torch.from_numpy(np.asarray(method.transform(Xs=fresh.numpy()))), truth)
        discrete[name] = value
        rows += [figure(f"  the same, {name}", value), figure(f"  the same, {name}: fit (s)", took)]
        print(f"{name}: {value:.3f}% in {took:.0f} s", flush=True)
    best = min(discrete.values())
    title = f"10,000 points a side, d = {_FEATURES}: L2-UVP over that of POT's better map"
    figures = [
        figure(title, median(ours) / best, at_most=0.5, spread=[value / best for value in ours]),
        figure("  the same: L2-UVP (%)", median(ours), spread=ours),
        figure("  the same: fit (s)", median(seconds), spread=seconds),
        *rows,
    ]
    settings = {"defaults": defaults(), "rows": _ROWS, "regularisations": list(_REGULARISATIONS)}
    write_record("finite_samples", settings=settings, seeds=options.seeds, figures=figures)


if __name__ == "__main__":
    main()
