"""Between Gaussians the optimal map is linear and known in closed form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from benchmarks.gaussian import random_covariance, sample
from benchmarks.tasks import Options, Problem, Task
from ot_lift.standardizer import Standardizer


@dataclass(frozen=True)
class GaussianPair(Task):
    """Random means and covariances with condition number 100.

    Example:
        >>> task = GaussianPair(features=2, rows=50, test_rows=20, budget_seconds=1.0)
        >>> task.name, task.problem(0).truth.shape
        ('gaussian-d2', (20, 2))
    """

    @property
    def name(self) -> str:
        return f"gaussian-d{self.features}"

    @property
    def title(self) -> str:
        return f"Gaussian pair, d = {self.features}"

    @property
    def words(self) -> str:
        return (
            "Two Gaussians with random means and randomly rotated covariances, the largest eigenvalue a hundred times "
            "the smallest. The optimal map is linear and known (Dowson and Landau 1982), so a linear method is at home "
            "here and nobody can beat it by more than noise."
        )

    def problem(self, seed: int) -> Problem:
        law = torch.Generator().manual_seed(1000 + seed)
        means = [torch.randn(self.features, generator=law, dtype=torch.float64) for _ in range(2)]
        covariances = [random_covariance(self.features, law) for _ in range(2)]
        sides = list(zip(means, covariances, strict=True))
        train = [sample(*side, self.rows, law) for side in sides]
        test = [sample(*side, self.test_rows, law) for side in sides]
        exact = Standardizer.bures(*sides[0], *sides[1])
        truth = exact.target_inverse(exact.source(test[0]))
        return Problem(*(points.numpy() for points in (*train, *test, truth)))


def tasks(options: Options) -> Iterable[Task]:
    """Dimensions 2, 8 and 32."""
    return [GaussianPair(features=d, **options.sizes(50_000, 4_096)) for d in (2, 8, 32)]
