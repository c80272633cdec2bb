"""Six log-concave densities on the line, by every way to keep an energy convex: the paper's first figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.experiments import Experiment
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod, Outcome
from benchmarks.experiments.densities1d import TARGETS
from benchmarks.experiments.energies import (
    MODELS,
    SETTINGS,
    Data,
    Trial,
    divergences,
    gaussian_density,
    wide_width,
)
from benchmarks.experiments.gallery1d_page import page
from benchmarks.experiments.protocols import QUICK, LineTask, cells_of, kept
from benchmarks.tasks import Options

NAME = "gallery1d"
WIDE, WIDE_TARGETS = "wide softplus", ("gumbel", "beta")
GAUSSIAN = "Gaussian"
WORDS = (
    "An energy E, an input-convex network of three layers of 128, is fitted to six densities p ∝ exp(−E) by the "
    "forward Kullback–Leibler divergence, 3,000 steps of Adam with batches of 256. Protocol paper: step size 10⁻³ "
    "throughout. Protocol tuned, for every method: standardised coordinates, the best of four step sizes by "
    "validation (one seed that no result has, a third of the length), a cosine schedule and averaged weights. The "
    "density is normalised on the interval of the target (all but 2 in a million of it), which every method knows. A "
    "lift is evaluated at the weights that it emits once from the whole training split. All others start at the "
    "library's own initial weights, which sum to about one over a unit's inputs and are nearly all on softplus' "
    "shoulder; softplus from -2 starts every weight at softplus(−2), as the lift's slack does. Wide softplus, on two "
    "densities, has as many trained parameters as the lift, ten times wider. Gaussian is the normal density with the "
    "points' mean and variance."
)
_QUICK_TARGETS, _QUICK_METHODS = ("gumbel", "beta"), ("lift", "softplus", "projection", GAUSSIAN)


@dataclass(frozen=True)
class GalleryTask(LineTask):
    """A target under a protocol, for every positivity."""

    experiment: ClassVar[str] = NAME
    words: ClassVar[str] = WORDS

    def trial(self, name: str, seed: int, data: Data) -> Trial:
        return Trial(MODELS[name](seed), data.training)

    def untrained(self, name: str, data: Data) -> Outcome | None:
        if name != GAUSSIAN:
            return None
        grid, density = gaussian_density(data)
        return Outcome(divergences(density, grid, data.target), {"density": kept(grid, density)})


def methods() -> list[ExperimentMethod]:
    """Every method with what it is made of."""
    own: dict[str, Mapping[str, Any]] = {**SETTINGS, WIDE: {"width": wide_width()}}
    return [ExperimentMethod(name, {"positivity": name, **own.get(name, {})}) for name in (*MODELS, GAUSSIAN)]


def cells(options: Options, seeds: Sequence[int], threads: int) -> list[ExperimentCell]:
    """Every target, protocol, method and seed; the Gaussian, which is not trained, under one protocol alone.

    Args:
        options: A quick run has 150 steps, two targets and four methods.
        seeds: Of data, start and batches.
        threads: Of every cell.
    """
    short = QUICK if options.quick else {}
    found = []
    for target in _QUICK_TARGETS if options.quick else TARGETS:
        tasks = {protocol: GalleryTask(target, protocol, **short) for protocol in ("paper", "tuned", "tuning")}
        own = [method for method in methods() if method.name != WIDE or target in WIDE_TARGETS]
        if options.quick:
            own = [method for method in own if method.name in _QUICK_METHODS]
        found += cells_of(tasks, own, seeds, threads, untrained=(GAUSSIAN,))
    return found


EXPERIMENT = Experiment(NAME, "Log-concave densities on the line", WORDS, tuple(range(5)), cells, page)
