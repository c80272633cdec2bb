"""A target in two pieces: the optimal map jumps where the source is torn, and no smooth map does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.tasks import Array, Options, Problem, Task

_GAP = 3.0  # half of what lies between the pieces, in deviations of the source


@dataclass(frozen=True)
class Disconnected(Task):
    """A standard Gaussian, cut in two halves that are moved apart.

    Example:
        >>> task = Disconnected(features=2, rows=50, test_rows=20, budget_seconds=1.0)
        >>> transport(np.array([[0.5, 1.0], [-0.5, 1.0]])).tolist()
        [[3.5, 1.0], [-3.5, 1.0]]
    """

    @property
    def name(self) -> str:
        return f"disconnected-d{self.features}"

    @property
    def title(self) -> str:
        return f"Disconnected target, d = {self.features}"

    @property
    def words(self) -> str:
        return (
            f"A standard Gaussian is cut at x₁ = 0 and its halves are moved apart by {2 * _GAP:g}: the gradient of "
            f"½‖x‖² + {_GAP:g}·|x₁|, hence optimal, with a jump that maps of finite slope can only come near."
        )

    def problem(self, seed: int) -> Problem:
        def source(rows: int, rng: np.random.Generator) -> Array:
            return rng.normal(size=(rows, self.features))

        rng = np.random.default_rng(seed)
        return Problem.drawn(source, rng, rows=self.rows, test_rows=self.test_rows, truth=transport)


def transport(x: Array) -> Array:
    """The true map, `(n, features)`."""
    moved = x.copy()
    moved[:, 0] += _GAP * np.sign(x[:, 0])
    return moved


def tasks(options: Options) -> Iterable[Task]:
    """Dimensions 2 and 8."""
    return [Disconnected(features=d, **options.sizes(20_000, 4_096)) for d in (2, 8)]
