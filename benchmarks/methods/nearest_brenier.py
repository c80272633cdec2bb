"""POT's nearest Brenier potential: smooth and strongly convex, by convex programs (needs the package cvxpy)."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Self

import numpy as np

from benchmarks.methods import QUICK_TASK
from benchmarks.tasks import Array, Task, Unavailable
from ot_lift.discrete import import_pot
from ot_lift.errors import ConvergenceError
from ot_lift.methods import BaseMethod, Method


class NearestBrenierMethod(BaseMethod):
    """The potential with curvature between two constants whose gradient is nearest to pushing X onto Y.

    A new point costs a convex program, whose solution is the gradient of the lower potential. POT writes it anew for
    every point, and another for the upper potential, which takes a quarter of a second; here it is written once, with
    the point as its parameter, and takes a few milliseconds.

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
        self.notes = [
            f"fitted on {count:,} of {len(X):,} source and {len(Y):,} target points (its cap)",
            "points are moved by POT's convex program, written once for all of them",
        ]
        rng = np.random.default_rng(random_state)
        (self._points, self._home), (images, self._away) = (
            _standardised(np.asarray(points)[rng.choice(len(points), count, replace=False)]) for points in (X, Y)
        )
        importlib.import_module("cvxpy")  # POT returns nothing where its import fails
        found = import_pot().mapping.nearest_brenier_potential_fit(
            self._points,
            images,
            its=self.settings["iterations"],
            strongly_convex_constant=self.settings["least"],
            gradient_lipschitz_constant=self.settings["greatest"],
        )
        if found[0] is None:
            raise ConvergenceError("the convex program of the fit has no solution; allow a wider range of curvature")
        self._values, self._gradients = found
        return self

    def transport(self, X: Array) -> Array:
        """Gradient of the lower potential: Paty et al. 2020, equation 2, as a quadratic program."""
        cvxpy = importlib.import_module("cvxpy")
        points, values, gradients = self._points, self._values, self._gradients
        least, greatest = self.settings["least"], self.settings["greatest"]
        curvature = 1 / (2 * (greatest - least))
        bound, gradient = cvxpy.Variable(), cvxpy.Variable(points.shape[1])
        at, offsets = cvxpy.Parameter(points.shape[1]), cvxpy.Parameter(len(points))
        program = cvxpy.Problem(
            cvxpy.Minimize(bound + curvature * cvxpy.sum_squares(gradient) - 2 * curvature * least * (at @ gradient)),
            [bound >= offsets + 2 * curvature * (least * points - gradients) @ gradient],
        )
        mean, spread = self._home
        image = np.empty_like(X, dtype=np.float64)
        for row, point in enumerate((np.asarray(X, dtype=np.float64) - mean) / spread):
            away = point - points
            at.value = point
            offsets.value = (
                values
                + (gradients * away).sum(1) * (1 + 2 * curvature * least)
                + curvature * np.square(gradients).sum(1)
                + curvature * least * greatest * np.square(away).sum(1)
            )
            program.solve(solver=cvxpy.CLARABEL)
            image[row] = gradient.value
        return image * self._away[1] + self._away[0]


def _standardised(points: Array) -> tuple[Array, tuple[Any, float]]:
    """The points centred and divided by one length, with both."""
    mean = points.mean(0)
    spread = float(np.sqrt(np.square(points - mean).sum(1).mean())) or 1.0
    return (points - mean) / spread, (mean, spread)


def methods(task: Task) -> Iterable[Method]:
    """With as few points as its fit can hold; where the cost is the question it has nothing to say.

    In a quick look on one task: importing cvxpy and a program take ten seconds.
    """
    if task.uncapped or (task.quick and task.name != QUICK_TASK):
        return []
    if find_spec("cvxpy") is None:
        raise Unavailable("POT solves it with the package cvxpy, which is not installed; pip install cvxpy")
    return [NearestBrenierMethod(max_points=task.points(seconds=15, minutes=50, quick=4))]
