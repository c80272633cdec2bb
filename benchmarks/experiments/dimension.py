"""Does the lift's advantage grow with dimension? Flows on log-concave densities that are known, in 1 to 32 dimensions.

Why not energies: of N(0, 1.3²I) as a fit to N(0, I) in 32 dimensions, 1.9 nats off, importance weights under the true
density itself have an effective size of one in 31,000. A quadrature is out of reach, so that no figure would be sound.

In full, with three seeds: about 60 minutes of CPU time (392 fits of 5 to 25 s), half of them in 32 dimensions. Quick:
about a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.experiments import Experiment
from benchmarks.experiments.cells import ExperimentCell
from benchmarks.experiments.densities_nd import FAMILIES, LogConcave
from benchmarks.experiments.dimension_page import page
from benchmarks.experiments.flows import GAUSSIAN, WORDS, FlowTask, methods
from benchmarks.experiments.protocols import QUICK, cells_of
from benchmarks.tasks import Options

NAME = "dimension"
DIMENSIONS = (1, 2, 6, 21, 32)
ITERATIONS = 1_500
_WORDS = (
    "Product: independent Gumbel, Gamma(2) and skew-normal(4) coordinates by turns, of mean 0 and variance 1. Rotated: "
    "the same, rotated at random. Ridge: differences of d Gumbel variables to one more. All are log-concave, with a "
    "density and an entropy that are known. A flow by the gradient of one input-convex network of two layers of 64 is "
    f"fitted to 50,000 points by maximum likelihood, {ITERATIONS:,} steps of Adam with batches of 128. Protocol paper: "
    "step size 5·10⁻³. Protocol tuned: the best of three step sizes for every method, by validation (one seed that no "
    f"result has, a third of the length), a cosine schedule and averaged weights. {WORDS} The paper's claim is about "
    "energies; here it is asked of flows, whose likelihood is exact in every dimension. Above two of them an energy's "
    "normaliser is an importance estimate, and too low where a fit is too wide: the worst would look best."
)
_QUICK_DIMENSIONS, _QUICK_METHODS = (1, 6), ("lift", "softplus", "projection", GAUSSIAN)


@dataclass(frozen=True)
class DimensionTask(FlowTask):
    """A family in one dimension under a protocol."""

    experiment: ClassVar[str] = NAME
    words: ClassVar[str] = _WORDS
    hidden: ClassVar[tuple[int, ...]] = (64, 64)

    iterations: int = ITERATIONS
    features: int = 1

    @property
    def name(self) -> str:
        return f"{NAME}-{self.target}-d{self.features}-{self.protocol}"

    @property
    def title(self) -> str:
        return f"{self.target.capitalize()}, d = {self.features}"

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"features": self.features, "entropy": self.law().entropy}

    def law(self) -> LogConcave:
        return FAMILIES[self.target](self.features)


def cells(options: Options, seeds: Sequence[int], threads: int) -> list[ExperimentCell]:
    """Every family, dimension, protocol, method and seed; on the line nothing can be rotated.

    Args:
        options: A quick run has 150 steps, one family, two dimensions and four methods.
        seeds: Of data, start and batches.
        threads: Of every cell.
    """
    short: dict[str, Any] = dict(QUICK) if options.quick else {}
    own = [method for method in methods() if not options.quick or method.name in _QUICK_METHODS]
    found = []
    for family in ("product",) if options.quick else FAMILIES:
        for features in _QUICK_DIMENSIONS if options.quick else DIMENSIONS:
            if family == "rotated" and features == 1:
                continue
            tasks = {
                protocol: DimensionTask(family, protocol, features=features, **short)
                for protocol in ("paper", "tuned", "tuning")
            }
            found += cells_of(tasks, own, seeds, threads, untrained=(GAUSSIAN,))
    return found


EXPERIMENT = Experiment(NAME, "Does the advantage grow with dimension?", _WORDS, (0, 1, 2), cells, page)
