"""What the lift costs beside softplus at equal settings, on one thread: `python -m benchmarks.lift_cost`.

A semi-dual step of either, and the lift's own time (emission forward and backward and its share of Adam) over the
potential's forward + backward. The two sides of every ratio are measured in turn, in one process. End quality is
compared on a small problem with equal steps and seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.quality import EVALUATION_SEED, defaults, l2_uvp
from benchmarks.record import figure, write_record
from benchmarks.w2_truth import Wasserstein2Benchmark
from ot_lift import ICNN, BrenierMap, Lift
from ot_lift.batches import StreamBatches
from ot_lift.constrained import Constrained
from ot_lift.objectives import SemiDual
from ot_lift.rows import open_rows

_FEATURES, _BATCH, _BLOCKS, _CALLS = 8, 1024, 41, 20


def _seconds(function: Callable[[], object], calls: int = _CALLS) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - began) / calls


def ratios(first: Callable[[], object], second: Callable[[], object], calls: int = _CALLS) -> list[float]:
    """First over second, block by block in turn, after a warm-up of both."""
    for function in (first, second):
        _seconds(function, 5)
    return [_seconds(first, calls) / _seconds(second, calls) for _ in range(_BLOCKS)]


def semi_dual_step(model: Constrained, seed: int) -> Callable[[], None]:
    """One training step as the training loop takes it, on points that bend the map."""

    def sampler(count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(count, _FEATURES, generator=generator)

    def bent(count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.sinh(sampler(count, generator))

    left, right = (torch.Generator().manual_seed(seed + k) for k in (0, 1))
    held_out = sampler(64, torch.Generator().manual_seed(0))
    source, target = (
        StreamBatches(open_rows(draw, name="X"), lambda x: x.float(), batch_size=_BATCH, generator=generator)
        for draw, generator in ((sampler, left), (bent, right))
    )
    objective = SemiDual(source, target, held_out, held_out)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def step() -> None:
        batch = objective.next_batch()
        loss = objective.loss(model.bind(model.weights(batch)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def own_time(lift: Lift, potential: ICNN) -> list[float]:
    """The lift's emission and update over the potential's forward + backward, no conjugation in either."""
    x = torch.randn(_BATCH, _FEATURES, generator=torch.Generator().manual_seed(3))
    own = [lift.slack, lift.readout, *lift.summary.parameters()]
    emitted = list(lift.weights(x).values())
    gradients = [torch.ones_like(weight) for weight in emitted]
    optimizer = torch.optim.Adam(own, lr=1e-6, fused=True)
    parameters = list(potential.parameters())

    def emit() -> None:
        found = torch.autograd.grad(list(lift.weights(x).values()), own, gradients)
        for parameter, gradient in zip(own, found, strict=True):
            parameter.grad = gradient
        optimizer.step()

    return ratios(emit, lambda: torch.autograd.grad(potential(x).mean(), parameters))


def end_quality(folder: Path, seeds: list[int]) -> dict[str, list[float]]:
    """L2-UVP at d = 8 of the Wasserstein-2 benchmark after equal steps, seed by seed."""
    pair = Wasserstein2Benchmark.load(folder, _FEATURES)
    fresh = pair.source(1 << 14, torch.Generator().manual_seed(EVALUATION_SEED))
    truth = pair.transport(fresh)
    found: dict[str, list[float]] = {}
    for positivity in ("lift", "softplus", "projection"):
        for seed in seeds:
            model = BrenierMap(positivity=positivity, max_steps=1000, patience=None, random_state=seed)
            found.setdefault(positivity, []).append(l2_uvp(model.fit(pair.source, pair.target).transport(fresh), truth))
        print(f"end quality, {positivity}: {found[positivity]}", flush=True)
    return found


def main() -> None:
    """Run and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the Wasserstein-2 benchmark, for end quality")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)  # this process is the benchmark's own
    figures = []
    for h in (64, 128):
        potential = ICNN(_FEATURES, (h, h, h))
        lift = Lift(potential, features=_FEATURES)
        steps = ratios(semi_dual_step(lift, 0), semi_dual_step(Constrained(potential), 0), calls=8)
        name = f"lift over softplus, 3×{h}: semi-dual step"
        figures.append(figure(name, median(steps), at_most=1.05, spread=steps))
        own = own_time(lift, potential)
        name = f"lift over the potential's forward + backward, 3×{h}: its own time"
        figures.append(figure(name, median(own), at_most=0.2, spread=own))
        figures.append(figure(f"  the same: parameters added, 3×{h}", lift.added_parameters))
        print(h, median(steps), median(own), flush=True)
    if options.data is not None:
        for positivity, values in end_quality(options.data, options.seeds).items():
            name = f"  end quality, {positivity}: L2-UVP at d = 8 after 1,000 steps (%)"
            figures.append(figure(name, median(values), spread=values))
    settings = {"defaults": defaults(), "features": _FEATURES, "batch": _BATCH, "dtype": "float32", "threads": 1}
    write_record("lift_cost", settings=settings, seeds=options.seeds, figures=figures)


if __name__ == "__main__":
    main()
