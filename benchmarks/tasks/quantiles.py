"""In one dimension the optimal map is the target's quantile function after the source's distribution function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.tasks import Array, Options, Problem, Task

LAWS: Mapping[str, tuple[str, Any]] = {
    "laplace": ("Laplace(0, 1), whose tails are heavier than the source's", stats.laplace()),
    "gamma": ("Gamma(2, 1), which is skewed and has an end", stats.gamma(2)),
    "beta": ("Beta(2, 5), which has two ends", stats.beta(2, 5)),
}


@dataclass(frozen=True)
class Quantile(Task):
    """N(0, 1) to one of `LAWS`.

    Attributes:
        law: its name.

    Example:
        >>> task = Quantile(features=1, rows=50, test_rows=20, budget_seconds=1.0, law="laplace")
        >>> task.transport(np.array([[0.0], [-1.0]])).round(4).tolist()  # −log(1/(2Φ(−1)))
        [[0.0], [-1.1479]]
    """

    law: str = "laplace"

    @property
    def name(self) -> str:
        return f"quantile-{self.law}"

    @property
    def title(self) -> str:
        return f"Quantile map to {self.law.title()}, d = 1"

    @property
    def words(self) -> str:
        return f"N(0, 1) is sent to {LAWS[self.law][0]}. The optimal map is the increasing one and known."

    def transport(self, x: Array) -> Array:
        """The true map, `(n, 1)`; each half by its own tail, where numbers near 0 keep their digits."""
        law = LAWS[self.law][1]
        return np.where(x > 0, law.isf(stats.norm.sf(x)), law.ppf(stats.norm.cdf(x)))

    def problem(self, seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        return Problem.drawn(_gaussian, rng, rows=self.rows, test_rows=self.test_rows, truth=self.transport)


def _gaussian(rows: int, rng: np.random.Generator) -> Array:
    return rng.normal(size=(rows, 1))


def tasks(options: Options) -> Iterable[Task]:
    """One for each law."""
    return [Quantile(features=1, law=law, **options.sizes(20_000, 4_096)) for law in LAWS]
