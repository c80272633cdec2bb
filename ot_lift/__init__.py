"""Optimal transport maps and densities from convex potentials: fit, transport, invert, certify.

`BrenierMap` is the estimator of maps, `ConvexPotentialFlow` that of densities; `ICNN`, `Lift` and `mark_nonnegative`
are for networks and training loops of your own.
"""

from importlib.metadata import PackageNotFoundError, version

from ot_lift.brenier import BrenierMap
from ot_lift.flows import ConvexPotentialFlow
from ot_lift.lift import Lift
from ot_lift.positivity import mark_nonnegative
from ot_lift.potentials import ICNN

try:
    __version__ = version("ot-lift")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["ICNN", "BrenierMap", "ConvexPotentialFlow", "Lift", "__version__", "mark_nonnegative"]
