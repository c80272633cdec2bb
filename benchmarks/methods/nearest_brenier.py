"""POT's nearest Brenier potential: smooth and strongly convex, by convex programs (needs the package cvxpy)."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Self

import numpy as np

from benchmarks.tasks import Array, Task, Unavailable
from ot_lift.discrete import import_pot
from ot_lift.errors import ConvergenceError
from ot_lift.methods import BaseMethod, Method


class NearestBrenierMethod(BaseMethod):
    """The potential with curvature between two constants whose gradient is nearest to pushing X onto Y.

    A new point costs two convex programs of POT's (the lower and the upper potential; the lower one's gradient is the
    map), some tenths of a second, so budgets run out where many points are judged.

    Args:
        max_points: On each side; the program has their number squared of constraints.
        least: Strong convexity, with both sides centred and divided by their own root-mean-square spread.
        greatest: Lipschitz constant of the gradient, likewise.
        iterations: Turns between plan and potential.

    References:
        Paty, d'Aspremont, Cuturi (2020), arXiv 1905.10812.
    """

    name = "nearest Brenier"

    def __init__(
        self, *, max_points: int = 20, least: float = 0.1, greatest: float = 10.0, iterations: int = 2
    ) -> None:
        super().__init__(max_points=max_points, least=least, greatest=greatest, iterations=iterations)

    def fit(self, X: Array, Y: Array, *, random_state: int = 0, max_seconds: float | None = None) -> Self:
        """Fit on random points, as many on either side."""
        count = min(self.settings["max_points"], len(X), len(Y))
        self.notes = [f"fitted on {count:,} of {len(X):,} source and {len(Y):,} target points (its cap)"]
        rng = np.random.default_rng(random_state)
        (self._points, self._home), (images, self._away) = (
            _standardised(np.asarray(points)[rng.choice(len(points), count, replace=False)]) for points in (X, Y)
        )
        importlib.import_module("cvxpy")  # POT returns nothing where its import fails
        found = import_pot().mapping.nearest_brenier_potential_fit(
            self._points,
            images,
            its=self.settings["iterations"],
            **self._constants(),
        )
        if found[0] is None:
            raise ConvergenceError("the convex program of the fit has no solution; allow a wider range of curvature")
        self._values, self._gradients = found
        return self

    def transport(self, X: Array) -> Array:
        """Gradient of the lower potential, by one program a point."""
        mean, spread = self._home
        with contextlib.redirect_stdout(io.StringIO()):
            _, gradients = import_pot().mapping.nearest_brenier_potential_predict_bounds(
                self._points, self._values, self._gradients, (np.asarray(X) - mean) / spread, **self._constants()
            )
        return np.asarray(gradients[0]) * self._away[1] + self._away[0]

    def _constants(self) -> dict[str, float]:
        return {
            "strongly_convex_constant": self.settings["least"],
            "gradient_lipschitz_constant": self.settings["greatest"],
        }


def _standardised(points: Array) -> tuple[Array, tuple[Any, float]]:
    """The points centred and divided by one length, with both."""
    mean = points.mean(0)
    spread = float(np.sqrt(np.square(points - mean).sum(1).mean())) or 1.0
    return (points - mean) / spread, (mean, spread)


def methods(task: Task) -> Iterable[Method]:
    """At most 20 points a side."""
    if find_spec("cvxpy") is None:
        raise Unavailable("POT solves it with the package cvxpy, which is not installed; pip install cvxpy")
    return [NearestBrenierMethod()]
