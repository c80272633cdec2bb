"""Inversion of trained maps far outside their data, and where Newton-CG overtakes Newton.

`python -m benchmarks.conjugation`: maps trained on bent Gaussians are inverted at points of N(0, 9·I) in standardised
coordinates, in float64; then both methods are timed against each other by dimension.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from torch import Tensor

from benchmarks.quality import defaults
from benchmarks.record import figure, write_record
from ot_lift import BrenierMap
from ot_lift.conjugate import NEWTON_CG_FROM, Method, conjugate
from ot_lift.potentials import Potential

_POINTS, _TIMED_POINTS, _REPEATS = 10_000, 512, 3
_STEPS = {2: 500, 8: 500, 16: 200, 32: 200, 64: 100, 128: 100}
_RESIDUAL = 1e-8


def train(d: int) -> Potential:
    """The potential of a map from a Gaussian to a bent, mixed one, in standardised coordinates, float64."""

    def source(count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, d, generator=generator)

    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(d)) / d**0.5

    def target(count: int, generator: torch.Generator) -> Tensor:
        return torch.sinh(1.2 * source(count, generator)) @ mixing.T

    potentials: list[Potential] = []  # of every evaluation: the last is trained, whether or not it beat its start
    BrenierMap(
        max_steps=_STEPS[d],
        patience=None,
        batch_size=256,
        random_state=0,
        callbacks=[lambda record, potential: potentials.append(potential.inner)],
    ).fit(source, target)
    return potentials[-1]


def seconds(potential: Potential, y: Tensor, method: Method) -> float:
    """Median wall-clock seconds of a conjugation, after one for warm-up."""
    conjugate(potential, y, method=method)
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        conjugate(potential, y, method=method)
        times.append(time.perf_counter() - began)
    return median(times)


def main() -> None:
    """Run and write the record."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    figures = []
    for d in _STEPS:
        potential = train(d)
        generator = torch.Generator().manual_seed(1)
        far = 3 * torch.randn(_POINTS, d, generator=generator, dtype=torch.float64)
        near = torch.randn(_TIMED_POINTS, d, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            if d in (2, 8, 32, 128):
                record = conjugate(potential, far, throw=False)
                name = f"trained map, d = {d}, {_POINTS:,} points of N(0, 9·I): largest residual"
                figures.append(figure(name, float(record.residual.max()), at_most=_RESIDUAL))
                print(name, float(record.residual.max()), int(record.steps.max()), flush=True)
            ratio = seconds(potential, near, "newton-cg") / seconds(potential, near, "newton")
        figures.append(figure(f"  Newton-CG over Newton, time, d = {d}", ratio))
        print(f"d = {d}: Newton-CG takes {ratio:.2f} of Newton's time", flush=True)
    settings = {"defaults": defaults(), "steps": {str(k): v for k, v in _STEPS.items()}, "crossover": NEWTON_CG_FROM}
    write_record("conjugation", settings=settings, seeds=[0], figures=figures)


if __name__ == "__main__":
    main()
