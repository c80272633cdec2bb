"""From a standard Gaussian to six shapes in the plane that maps are often shown on; nobody knows the true maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.datasets import make_circles, make_moons, make_swiss_roll

from benchmarks.tasks import Array, Options, Problem, Sampler, Task


def eight_gaussians(rows: int, rng: np.random.Generator) -> Array:
    """Eight round clouds on a circle of radius 4, deviation 0.3."""
    angles = rng.integers(8, size=rows) * np.pi / 4
    return 4 * np.column_stack([np.cos(angles), np.sin(angles)]) + rng.normal(scale=0.3, size=(rows, 2))


def spirals(rows: int, rng: np.random.Generator) -> Array:
    """Two arms that turn once and a half, deviation 0.1."""
    angles = np.sqrt(rng.random(rows)) * 3 * np.pi
    arms = rng.choice([-1.0, 1.0], size=(rows, 1)) * np.column_stack([np.cos(angles), np.sin(angles)])
    return arms * angles[:, None] / np.pi + rng.normal(scale=0.1, size=(rows, 2))


def checkerboard(rows: int, rng: np.random.Generator) -> Array:
    """The dark squares of a board of 4 × 4, each of side 1."""
    column, half = rng.integers(4, size=rows), rng.integers(2, size=rows)
    corners = np.column_stack([column, 2 * half + column % 2])
    return corners - 2 + rng.random((rows, 2))


def moons(rows: int, rng: np.random.Generator) -> Array:
    """Scikit-learn's two half circles, deviation 0.1, twice as large."""
    return 2 * np.asarray(make_moons(rows, noise=0.1, random_state=_seed(rng))[0])


def circles(rows: int, rng: np.random.Generator) -> Array:
    """Scikit-learn's two circles of radii 3 and 1.5, deviation 0.15."""
    return 3 * np.asarray(make_circles(rows, noise=0.05, factor=0.5, random_state=_seed(rng))[0])


def swiss_roll(rows: int, rng: np.random.Generator) -> Array:
    """Scikit-learn's roll seen from its end, a fifth as large, deviation 0.1."""
    return np.asarray(make_swiss_roll(rows, noise=0.5, random_state=_seed(rng))[0])[:, [0, 2]] / 5


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


SHAPES: Mapping[str, Sampler] = {
    "eight-gaussians": eight_gaussians,
    "spirals": spirals,
    "moons": moons,
    "checkerboard": checkerboard,
    "circles": circles,
    "swiss-roll": swiss_roll,
}


@dataclass(frozen=True)
class Coupling(Task):
    """A standard Gaussian to one of `SHAPES`.

    Attributes:
        shape: its name.

    Example:
        >>> task = Coupling(features=2, rows=50, test_rows=20, budget_seconds=1.0, shape="checkerboard")
        >>> task.name, float(np.abs(task.problem(0).target).max().round())
        ('coupling-checkerboard', 2.0)
    """

    shape: str = "moons"

    @property
    def name(self) -> str:
        return f"coupling-{self.shape}"

    @property
    def title(self) -> str:
        return f"Gaussian to {self.shape.replace('-', ' ')}, d = 2"

    @property
    def words(self) -> str:
        return (
            f"A standard Gaussian is sent to a shape in the plane. {SHAPES[self.shape].__doc__} The true map is not "
            "known: the energy distance from transported points to the shape decides, against the level that two "
            "halves of the shape reach."
        )

    def problem(self, seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        return Problem.drawn(_gaussian, rng, rows=self.rows, test_rows=self.test_rows, target=SHAPES[self.shape])


def _gaussian(rows: int, rng: np.random.Generator) -> Array:
    return rng.normal(size=(rows, 2))


def tasks(options: Options) -> Iterable[Task]:
    """One for each shape."""
    return [Coupling(features=2, shape=shape, **options.sizes(20_000, 4_096)) for shape in SHAPES]
