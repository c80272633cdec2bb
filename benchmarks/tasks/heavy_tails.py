"""Student's t with three degrees of freedom on both sides: variances exist, fourth moments do not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.gaussian import random_covariance
from benchmarks.tasks import Array, Options, Problem, Task
from ot_lift.standardizer import Standardizer

_DEGREES = 3


@dataclass(frozen=True)
class HeavyTails(Task):
    """Two elliptical Student laws.

    Example:
        >>> task = HeavyTails(features=3, rows=50, test_rows=20, budget_seconds=1.0)
        >>> task.name, task.problem(0).truth.shape
        ('heavytails-d3', (20, 3))
    """

    @property
    def name(self) -> str:
        return f"heavytails-d{self.features}"

    @property
    def title(self) -> str:
        return f"Heavy tails, d = {self.features}"

    @property
    def words(self) -> str:
        return (
            f"Two multivariate Student laws with {_DEGREES} degrees of freedom and random scale matrices, the largest "
            "eigenvalue a hundred times the smallest. Between elliptical laws of one kind the optimal map is linear "
            "(Gelbrich 1990), but sample covariances are far off, and single points lie far away."
        )

    def problem(self, seed: int) -> Problem:
        law, rng = torch.Generator().manual_seed(1000 + seed), np.random.default_rng(seed)
        scales = [random_covariance(self.features, law) for _ in range(2)]
        root, zero = torch.linalg.cholesky(scales[0]).numpy(), torch.zeros(self.features, dtype=torch.float64)
        exact = Standardizer.bures(zero, scales[0], zero, scales[1])

        def source(rows: int, rng: np.random.Generator) -> Array:
            noise = rng.normal(size=(rows, self.features)) @ root.T
            return noise / np.sqrt(rng.chisquare(_DEGREES, size=(rows, 1)) / _DEGREES)

        def truth(x: Array) -> Array:
            return np.asarray(exact.target_inverse(exact.source(torch.from_numpy(x))))

        return Problem.drawn(source, rng, rows=self.rows, test_rows=self.test_rows, truth=truth)


def tasks(options: Options) -> Iterable[Task]:
    """Eight dimensions."""
    return [HeavyTails(features=8, **options.sizes(20_000, 4_096))]
