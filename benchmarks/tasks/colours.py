"""Colour transfer between the two photographs that ship with scikit-learn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.tasks import Options, Problem, Task
from ot_lift.demo_colours import sample_photographs


@dataclass(frozen=True)
class Colours(Task):
    """Pixels of one photograph to those of another.

    Example:
        >>> Colours(features=3, rows=50, test_rows=20, budget_seconds=1.0).name
        'colours-photographs'
    """

    @property
    def name(self) -> str:
        return "colours-photographs"

    @property
    def title(self) -> str:
        return "Colour transfer, d = 3"

    @property
    def words(self) -> str:
        return (
            "Colours (red, green, blue, each in [0, 1]) of random pixels of scikit-learn's photograph of a temple are "
            "sent to those of its photograph of a flower. Pixels that judge are none of those fitted on. The true map "
            "is not known: the energy distance decides."
        )

    def problem(self, seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        sides = [side.sample(self.rows + self.test_rows, rng) for side in sample_photographs()]
        (source, fresh), (target, other) = ((points[: self.rows], points[self.rows :]) for points in sides)
        return Problem(source, target, fresh, other)


def tasks(options: Options) -> Iterable[Task]:
    """One."""
    return [Colours(features=3, **options.sizes(20_000, 4_096))]
