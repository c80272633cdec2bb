"""Convex-potential flows on four densities in the plane, by every way to keep their weights non-negative.

In full, with three seeds: about 45 minutes of CPU time (112 fits of 21 or, with the lift, 30 s). Quick: about a minute.
Wide softplus is left out: ten times as wide as the others here, it would take most of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.experiments import Experiment
from benchmarks.experiments.cells import ExperimentCell, Outcome
from benchmarks.experiments.energies import Trial
from benchmarks.experiments.flows import GAUSSIAN, WIDE, WORDS, FlowData, FlowTask, log_density_of, methods
from benchmarks.experiments.flows2d_page import page
from benchmarks.experiments.protocols import QUICK, cells_of
from benchmarks.planar import PLANAR, Planar
from benchmarks.tasks import Options
from ot_lift.constrained import Constrained

NAME = "flows2d"
TITLES = {
    "eight-gaussians": "Eight Gaussians",
    "two-spirals": "Two spirals",
    "one-moon": "One moon",
    "rings": "Rings",
}
_WORDS = (
    "A flow by the gradient of one input-convex network of three layers of 64, fitted to 50,000 points by maximum "
    "likelihood, 3,000 steps of Adam with batches of 128. Protocol paper: step size 5·10⁻³, halved after 2,000 steps. "
    "Protocol tuned: the best of three step sizes for every method, by validation (one seed that no result has, a "
    f"third of the length), a cosine schedule and averaged weights. {WORDS} The likelihood above the true one is a "
    "mean over 10,000 fresh points; the paper expects no gap here, since softplus never enters its shoulder."
)
_QUICK_TARGETS, _QUICK_METHODS = ("eight-gaussians", "one-moon"), ("lift", "softplus", "projection", GAUSSIAN)
_PICTURE_SIDE = 60  # points a side of a density that a record keeps


@dataclass(frozen=True)
class PlanarTask(FlowTask):
    """A density in the plane under a protocol."""

    experiment: ClassVar[str] = NAME
    words: ClassVar[str] = _WORDS
    hidden: ClassVar[tuple[int, ...]] = (64, 64, 64)

    @property
    def title(self) -> str:
        return TITLES[self.target]

    def law(self) -> Planar:
        return PLANAR[self.target.replace("-", "_")]

    @torch.no_grad()
    def measured(self, model: Constrained, trial: Trial, data: FlowData) -> Outcome:
        found = super().measured(model, trial, data)
        box = box_of(data)
        at = data.units.coordinates.source(grid(box, _PICTURE_SIDE))
        density = (log_density_of(model.bake(trial.reference).double(), at) + data.units.log_volume).exp()
        return Outcome(found.figures, {"box": box, "density": [float(f"{value:.3g}") for value in density.tolist()]})


def box_of(data: FlowData) -> list[list[float]]:
    """Lower and upper corner of the fresh points, in the law's units."""
    points = data.units.coordinates.source_inverse(data.fresh)
    return [[round(value, 3) for value in corner.tolist()] for corner in (points.amin(0), points.amax(0))]


def grid(box: Sequence[Sequence[float]], side: int) -> Tensor:
    """Evenly spaced points of a box, `(side², 2)`, float64, the second coordinate running fastest.

    Example:
        >>> grid([[0.0, 0.0], [1.0, 2.0]], 2).tolist()
        [[0.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 2.0]]
    """
    return torch.cartesian_prod(*(torch.linspace(a, b, side, dtype=torch.float64) for a, b in zip(*box, strict=True)))


def cells(options: Options, seeds: Sequence[int], threads: int) -> list[ExperimentCell]:
    """Every density, protocol, method and seed; the Gaussian, which is not trained, under one protocol alone.

    Args:
        options: A quick run has 150 steps, two densities and four methods.
        seeds: Of data, start and batches.
        threads: Of every cell.
    """
    short: dict[str, Any] = dict(QUICK) if options.quick else {}
    own = [method for method in methods() if method.name != WIDE]
    if options.quick:
        own = [method for method in own if method.name in _QUICK_METHODS]
    found = []
    for target in _QUICK_TARGETS if options.quick else TITLES:
        tasks = {protocol: PlanarTask(target, protocol, **short) for protocol in ("paper", "tuned", "tuning")}
        found += cells_of(tasks, own, seeds, threads, untrained=(GAUSSIAN,))
    return found


EXPERIMENT = Experiment(NAME, "Flows in the plane", _WORDS, (0, 1, 2), cells, page)
