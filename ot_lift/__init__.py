"""Optimal transport maps and densities from convex potentials: fit, transport, invert, certify.

`BrenierMap` (between datasets), `ConvexPotentialFlow` and `LogConcaveDensity` (of one dataset), `PosteriorMap` (from
N(0, I) to a posterior) and `AmortizedPosterior` (of every observation, from simulations) are the estimators; `ICNN`,
`Lift` and `mark_nonnegative` are for networks and training loops of your own.
"""

from importlib.metadata import PackageNotFoundError, version

from ot_lift.amortized import AmortizedPosterior
from ot_lift.brenier import BrenierMap
from ot_lift.densities import LogConcaveDensity
from ot_lift.flows import ConvexPotentialFlow
from ot_lift.lift import Lift
from ot_lift.positivity import mark_nonnegative
from ot_lift.posterior import PosteriorMap
from ot_lift.potentials import ICNN

try:
    __version__ = version("ot-lift")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "ICNN",
    "AmortizedPosterior",
    "BrenierMap",
    "ConvexPotentialFlow",
    "Lift",
    "LogConcaveDensity",
    "PosteriorMap",
    "__version__",
    "mark_nonnegative",
]
