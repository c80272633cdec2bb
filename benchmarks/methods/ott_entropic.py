"""OTT-JAX's Sinkhorn with its entropic map (optional: the extra `peers`)."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

import numpy as np

from benchmarks.centred import CentredMethod, in_blocks
from benchmarks.methods import QUICK_TASK
from benchmarks.tasks import Array, Task, Unavailable
from ot_lift.errors import ConvergenceError
from ot_lift.methods import Method

_ROWS = 1024


class OTTEntropicMethod(CentredMethod):
    """Barycentric map of the entropic plan between random points, at OTT's own regularisation.

    Args:
        max_points: Cap on the points a side.
        max_iterations: Cap on Sinkhorn's iterations.
        tolerance: On the marginals.

    References:
        Cuturi et al. (2022), arXiv 2201.12324 (OTT); Pooladian, Niles-Weed (2021), arXiv 2109.12004 (the map).
    """

    name = "OTT entropic"

    def __init__(self, *, max_points: int = 2000, max_iterations: int = 2000, tolerance: float = 1e-3) -> None:
        super().__init__(max_points=max_points, max_iterations=max_iterations, tolerance=tolerance)

    def _fit(self, x: Array, y: Array, rng: np.random.Generator, max_seconds: float | None) -> None:
        import jax
        from ott.geometry.pointcloud import PointCloud
        from ott.problems.linear.linear_problem import LinearProblem
        from ott.solvers.linear.sinkhorn import Sinkhorn

        points = PointCloud(jax.numpy.asarray(x, dtype=np.float32), jax.numpy.asarray(y, dtype=np.float32))
        self.settings["regularisation_over_squared_length"] = float(points.epsilon)
        solver = Sinkhorn(max_iterations=self.settings["max_iterations"], threshold=self.settings["tolerance"])
        found = jax.jit(solver)(LinearProblem(points))
        if not bool(found.converged):
            raise ConvergenceError(f"Sinkhorn's marginals are not within {self.settings['tolerance']} of their goals")
        potentials = found.to_dual_potentials()
        self._maps = tuple(jax.jit(lambda z, way=way: potentials.transport(z, forward=way)) for way in (True, False))

    def _forward(self, x: Array) -> Array:
        return in_blocks(self._maps[0], x, rows=_ROWS)

    def _backward(self, y: Array) -> Array:
        return in_blocks(self._maps[1], y, rows=_ROWS)


def methods(task: Task) -> Iterable[Method]:
    """With 10,000 points it takes up to two minutes, with 16,000 more than ten.

    In a quick look on one task: JAX compiles for seconds.
    """
    if find_spec("ott") is None:
        raise Unavailable("OTT-JAX is not installed; pip install 'ot-lift[peers]'")
    if task.quick and task.name != QUICK_TASK:
        return []
    return [OTTEntropicMethod(max_points=task.points(seconds=2_000, minutes=10_000))]
