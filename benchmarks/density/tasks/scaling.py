"""What a density costs to fit, to evaluate and to sample as points and dimensions grow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.density import DensityProblem, DensityTask
from benchmarks.tasks import Array, Options

_ROWS, _FEATURES = (1_000, 10_000, 100_000, 1_000_000), (2, 8, 32, 128, 512)
_MIDDLE = 10_000, 8


@dataclass(frozen=True)
class ScalingDensity(DensityTask):
    """A standard Gaussian under x ↦ Qᵀ sinh(Qx) with a random rotation Q.

    Example:
        >>> task = ScalingDensity(features=3, rows=50, test_rows=20, budget_seconds=1.0)
        >>> task.name, task.problem(0).truth.shape
        ('density-scaling-n50-d3', (20,))
    """

    uncapped: bool = True

    @property
    def name(self) -> str:
        return f"density-scaling-n{self.rows}-d{self.features}"

    @property
    def title(self) -> str:
        return f"Scaling of densities, n = {self.rows:,}, d = {self.features:,}"

    @property
    def words(self) -> str:
        return (
            "A standard Gaussian is stretched by sinh along the axes of a random rotation, so its density is known. "
            "Fits that end on their budget take it all at every size: what they cost is told by their scores, samples "
            "and memory, and by how far above the truth they end."
        )

    def problem(self, seed: int) -> DensityProblem:
        rng = np.random.default_rng(seed)
        rotation = np.linalg.qr(rng.normal(size=(self.features, self.features)))[0]

        def drawn(rows: int) -> tuple[Array, Array]:
            """Points and their log-density: log N(z) − Σ log cosh((Qz)ᵢ)."""
            turned = rng.normal(size=(rows, self.features))  # Qz, as much a Gaussian as z
            normal = -0.5 * np.square(turned).sum(1) - 0.5 * self.features * math.log(2 * math.pi)
            return np.sinh(turned) @ rotation, normal - np.log(np.cosh(turned)).sum(1)

        (train, _), (test, truth) = drawn(self.rows), drawn(self.test_rows)
        return DensityProblem(train, test, truth)


def tasks(options: Options) -> Iterable[DensityTask]:
    """Growing n at d = 8, growing d at n = 10,000; a quick look has two sizes."""
    rows, features, (n, d) = ((250, 1_000), (8,), (1_000, 8)) if options.quick else (_ROWS, _FEATURES, _MIDDLE)
    sizes = dict.fromkeys([*((one, d) for one in rows), *((n, one) for one in features)])
    return [ScalingDensity(features=one, **options.sizes(count, 2_048)) for count, one in sizes]
