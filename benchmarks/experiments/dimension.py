"""Does the lift's advantage grow with dimension? Flows on log-concave densities that are known, in 1 to 32 dimensions.

Why not energies: of N(0, 1.3²I) as a fit to N(0, I) in 32 dimensions, 1.9 nats off, importance weights under the true
density itself have an effective size of one in 31,000. A quadrature is out of reach, so that no figure would be sound.

In full, with three seeds: about 50 minutes of CPU time, most of it in 21 and 32 dimensions, where a fit takes 13 to
20 s. Quick: about a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.experiments import Experiment
from benchmarks.experiments.cells import ExperimentCell, Outcome
from benchmarks.experiments.densities_nd import FAMILIES, LogConcave
from benchmarks.experiments.dimension_page import page
from benchmarks.experiments.energies import Trial
from benchmarks.experiments.flows import GAUSSIAN, WIDE, WORDS, FlowData, FlowTask, methods
from benchmarks.experiments.protocols import QUICK, cells_of
from benchmarks.tasks import Options
from ot_lift.constrained import Constrained

NAME = "dimension"
DIMENSIONS = (1, 2, 6, 21, 32)
ITERATIONS = 1_200
_WORDS = (
    "Product: independent Gumbel, Gamma(2) and skew-normal(4) coordinates by turns, of mean 0 and variance 1. Rotated: "
    "the same, rotated at random. Ridge: differences of d Gumbel variables to one more. All are log-concave, with a "
    "density and an entropy that are known. A flow by the gradient of one input-convex network of two layers of 64 is "
    f"fitted to 50,000 points by maximum likelihood, {ITERATIONS:,} steps of Adam with batches of 128. Protocol paper: "
    "step size 5·10⁻³. Protocol tuned: the best of three step sizes for every method, by validation (one seed that no "
    "result has, a third of the length), a cosine schedule and averaged weights. The ridge is fitted under both, the "
    f"others are tuned alone and without unscaled softplus. {WORDS} The paper's claim is about "
    "energies; here it is asked of flows, whose likelihood is exact in every dimension. Above two of them an energy's "
    "normaliser is an importance estimate, and too low where a fit is too wide: the worst would look best."
)
_WIDE_AT = ("ridge", 2)
_LEFT_OUT = {f"{NAME}-{family}-d{d}-paper" for family in FAMILIES if family != "ridge" for d in DIMENSIONS}
_QUICK_DIMENSIONS, _QUICK_METHODS = (1, 6), ("lift", "softplus", "projection", GAUSSIAN)


@dataclass(frozen=True)
class DimensionTask(FlowTask):
    """A family in one dimension under a protocol."""

    experiment: ClassVar[str] = NAME
    words: ClassVar[str] = _WORDS
    hidden: ClassVar[tuple[int, ...]] = (64, 64)
    looks: ClassVar[int] = 4  # no curve is drawn

    iterations: int = ITERATIONS
    features: int = 1

    @property
    def name(self) -> str:
        return f"{NAME}-{self.target}-d{self.features}-{self.protocol}"

    @property
    def title(self) -> str:
        return f"{self.target.capitalize()}, d = {self.features}"

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"features": self.features}

    def law(self) -> LogConcave:
        return FAMILIES[self.target](self.features)

    def measured(self, model: Constrained, trial: Trial, data: FlowData) -> Outcome:
        found = super().measured(model, trial, data)
        return Outcome({**found.figures, "entropy": self.law().entropy})


def cells(options: Options, seeds: Sequence[int], threads: int) -> list[ExperimentCell]:
    """Every family, dimension, protocol, method and seed; on the line nothing can be rotated.

    Args:
        options: A quick run has 150 steps, one family, two dimensions and four methods.
        seeds: Of data, start and batches.
        threads: Of every cell.
    """
    short: dict[str, Any] = dict(QUICK) if options.quick else {}
    found = []
    for family in ("ridge",) if options.quick else FAMILIES:
        for features in _QUICK_DIMENSIONS if options.quick else DIMENSIONS:
            if (family, features) == ("rotated", 1):
                continue
            tasks = {
                protocol: DimensionTask(family, protocol, features=features, **short)
                for protocol in ("paper", "tuned", "tuning")
            }
            names = _QUICK_METHODS if options.quick else _methods_at(family, features)
            own = [method for method in methods() if method.name in names]
            found += cells_of(tasks, own, seeds, threads, untrained=(GAUSSIAN,))
    return [cell for cell in found if cell.task.name not in _LEFT_OUT or cell.method.name == GAUSSIAN]


def _methods_at(family: str, features: int) -> list[str]:
    left_out = {"unscaled softplus"} if family != "ridge" else set()
    if (family, features) != _WIDE_AT:
        left_out.add(WIDE)
    return [method.name for method in methods() if method.name not in left_out]


EXPERIMENT = Experiment(NAME, "Does the advantage grow with dimension?", _WORDS, (0, 1, 2), cells, page)
