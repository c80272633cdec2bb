"""What a fit, a transport and an inverse cost as points and dimensions grow; discrete methods take all points."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.tasks import Array, Options, Problem, Task

FAMILY = "scaling"
_ROWS, _FEATURES = (1_000, 10_000, 100_000, 1_000_000), (2, 8, 32, 128, 512, 1024)
_MIDDLE = 10_000, 8


@dataclass(frozen=True)
class Scaling(Task):
    """A standard Gaussian under x ↦ Qᵀ sinh(Qx) with a random rotation Q: the gradient of Σ cosh((Qx)ᵢ).

    Example:
        >>> task = Scaling(features=3, rows=50, test_rows=20, budget_seconds=1.0, uncapped=True)
        >>> task.name, task.problem(0).truth.shape
        ('scaling-n50-d3', (20, 3))
    """

    @property
    def name(self) -> str:
        return f"{FAMILY}-n{self.rows}-d{self.features}"

    @property
    def title(self) -> str:
        return f"Scaling, n = {self.rows:,}, d = {self.features:,}"

    @property
    def words(self) -> str:
        return (
            "A standard Gaussian is stretched by sinh along the axes of a random rotation, which is the gradient of a "
            "convex function. Exact and entropic plans are between all points, whatever that costs."
        )

    def problem(self, seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        rotation = np.linalg.qr(rng.normal(size=(self.features, self.features)))[0]

        def source(rows: int, rng: np.random.Generator) -> Array:
            return rng.normal(size=(rows, self.features))

        def truth(x: Array) -> Array:
            return np.sinh(x @ rotation.T) @ rotation

        return Problem.drawn(source, rng, rows=self.rows, test_rows=self.test_rows, truth=truth)


def tasks(options: Options) -> Iterable[Task]:
    """Growing n at d = 8, growing d at n = 10,000; a quick look has 250 and 1,000 points and d = 2 and 8."""
    rows, features, (n, d) = ((250, 1_000), (2, 8), (1_000, 8)) if options.quick else (_ROWS, _FEATURES, _MIDDLE)
    sizes = dict.fromkeys([*((one, d) for one in rows), *((n, one) for one in features)])
    return [Scaling(features=d, uncapped=True, **options.sizes(n, 2_048, 300.0)) for n, d in sizes]
