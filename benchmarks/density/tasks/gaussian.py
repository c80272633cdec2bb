"""Gaussians of known density; the condition number says how far from round they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from benchmarks.density import DensityProblem, DensityTask
from benchmarks.quality import EVALUATION_SEED
from benchmarks.tasks import Options

CONDITION = 1e4


def gaussian(d: int, seed: int, *, condition: float = CONDITION) -> MultivariateNormal:
    """N(m, Σ): a random rotation of eigenvalues log-uniform between 1 and the condition number, both ends taken."""
    generator = torch.Generator().manual_seed(1000 + seed)
    exponents = torch.rand(d, generator=generator, dtype=torch.float64)
    exponents[0], exponents[-1] = 0.0, 1.0
    basis = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    root = basis * condition ** (0.5 * exponents)
    mean = torch.randn(d, generator=generator, dtype=torch.float64)
    return MultivariateNormal(mean, scale_tril=torch.linalg.cholesky(root @ root.T))


def draw(law: MultivariateNormal, rows: int, seed: int) -> Tensor:
    """Points ``(rows, d)``, from a generator of their own."""
    noise = torch.randn(rows, len(law.mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return law.mean + noise @ law.scale_tril.T


@dataclass(frozen=True)
class GaussianDensity(DensityTask):
    """A Gaussian with a random rotation.

    Attributes:
        condition: largest over smallest variance.

    Example:
        >>> task = GaussianDensity(features=3, rows=50, test_rows=20, budget_seconds=1.0)
        >>> task.name, task.problem(0).test.shape
        ('density-gaussian-d3', (20, 3))
    """

    condition: float = CONDITION

    @property
    def name(self) -> str:
        return f"density-gaussian-d{self.features}"

    @property
    def title(self) -> str:
        return f"Density of a Gaussian, d = {self.features}"

    @property
    def words(self) -> str:
        return (
            f"A randomly rotated Gaussian whose largest variance is {self.condition:,.0f} times the smallest. A fitted "
            "Gaussian is at home here, and nobody can beat it by more than noise."
        )

    def problem(self, seed: int) -> DensityProblem:
        law = gaussian(self.features, seed, condition=self.condition)
        train, test = draw(law, self.rows, seed), draw(law, self.test_rows, EVALUATION_SEED + seed)
        return DensityProblem(train.numpy(), test.numpy(), law.log_prob(test).numpy())


def tasks(options: Options) -> Iterable[DensityTask]:
    """Dimensions 2, 8 and 21."""
    return [GaussianDensity(features=d, **options.sizes(20_000, 10_000)) for d in (2, 8, 21)]
