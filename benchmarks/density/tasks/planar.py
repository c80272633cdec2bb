"""Four shapes in the plane whose densities are known: clouds and curves blurred by normal noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from benchmarks.density import DensityProblem, DensityTask
from benchmarks.planar import PLANAR
from benchmarks.tasks import Options

_WORDS = {
    "eight_gaussians": "Eight round clouds on a circle.",
    "two_spirals": "Two arms that turn once and a half.",
    "one_moon": "Half a circle.",
    "rings": "Four circles with one centre, each with a quarter of the points.",
}


@dataclass(frozen=True)
class PlanarDensity(DensityTask):
    """One of `benchmarks.planar.PLANAR`.

    Attributes:
        shape: its name.

    Example:
        >>> task = PlanarDensity(features=2, rows=50, test_rows=20, budget_seconds=1.0, shape="rings")
        >>> task.name, task.problem(0).truth.shape
        ('density-rings', (20,))
    """

    shape: str = "one_moon"

    @property
    def name(self) -> str:
        return f"density-{self.shape.replace('_', '-')}"

    @property
    def title(self) -> str:
        return f"Density of {self.shape.replace('_', ' ')}, d = 2"

    @property
    def words(self) -> str:
        return (
            f"{_WORDS[self.shape]} Normal noise of deviation {PLANAR[self.shape].noise:.2g} blurs it, so the density "
            "is a mean of normal densities and known. A shape that flows are usually shown on (Grathwohl et al. 2019, "
            "arXiv 1810.01367)."
        )

    def problem(self, seed: int) -> DensityProblem:
        generator = torch.Generator().manual_seed(seed)
        law = PLANAR[self.shape]
        train, test = (law.sample(rows, generator) for rows in (self.rows, self.test_rows))
        return DensityProblem(train.numpy(), test.numpy(), law.log_prob(test).numpy())


def tasks(options: Options) -> Iterable[DensityTask]:
    """One for each shape."""
    return [PlanarDensity(features=2, shape=shape, **options.sizes(20_000, 10_000)) for shape in PLANAR]
