"""Density tasks: points of one law, to be modelled by a density that can be evaluated and sampled.

A module of `benchmarks/density/tasks` offers `tasks(options)`, one of `benchmarks/density/methods` offers
`methods(task)`; both may raise `Unavailable`. A new task or method is one new file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, Self

from benchmarks.methods import ours_last
from benchmarks.tasks import Array, BaseTask, Options, found_in

KIND = "density"


@dataclass(frozen=True)
class DensityProblem:
    """Data of one task and seed, float64.

    Attributes:
        train: what methods are fitted on, `(n, features)`.
        test: other points of the law, `(k, features)`.
        truth: its log-density at `test` `(k,)`, nats; None where nobody knows it.
    """

    train: Array
    test: Array
    truth: Array | None = None


@dataclass(frozen=True, kw_only=True)
class DensityTask(BaseTask):
    """Points of a law.

    Attributes:
        rows: that methods are fitted on.
        test_rows: that they are judged on.
        uncapped: whether the cost is the question.
    """

    rows: int
    test_rows: int
    uncapped: bool = False

    @property
    def size(self) -> str:
        return f"{self.rows:,} points"

    @abstractmethod
    def problem(self, seed: int) -> DensityProblem:
        """The data; equal seeds give equal data."""

    def settings(self) -> dict[str, Any]:
        """All that decides the problem besides the seed, as JSON types, with the kind of task."""
        return super().settings() | {"kind": KIND}


class DensityMethod(Protocol):
    """What a cell asks of a density. Arrays are NumPy, `(n, features)`, in data units.

    Attributes:
        name: shown in tables; unique among the methods of a task.
        settings: what it is run with, as JSON types.
        notes: sentences on what it chose or had to do.
        keeps_budget: whether `fit` itself ends near `max_seconds`; one that does not is ended from outside.
    """

    name: str
    settings: dict[str, Any]
    notes: list[str]
    keeps_budget: bool

    def fit(self, X: Array, *, random_state: int, max_seconds: float) -> Self:
        """Fit the density of X `(n, features)`."""

    def log_prob(self, X: Array) -> Array:
        """Log-density `(k,)` at X `(k, features)`, nats."""

    def sample(self, count: int, *, random_state: int) -> Array:
        """Draws `(count, features)`."""


class BaseDensityMethod(ABC):
    """Settings and notes.

    Args:
        **settings: Shown with the results, as JSON types.
    """

    name: str
    keeps_budget: bool = False

    def __init__(self, **settings: Any) -> None:
        self.settings: dict[str, Any] = settings
        self.notes: list[str] = []

    @abstractmethod
    def fit(self, X: Array, *, random_state: int, max_seconds: float) -> Self:
        """Fit the density of X `(n, features)`."""


def find_tasks(options: Options) -> tuple[list[DensityTask], list[str]]:
    """Every density task, and a sentence for each that is not available here.

    Example:
        >>> [task.name for task in find_tasks(Options())[0]][:3]
        ['density-gaussian-d2', 'density-gaussian-d8', 'density-gaussian-d21']
    """
    return found_in("benchmarks.density.tasks", lambda module: module.tasks(options))


def find_methods(task: DensityTask) -> tuple[list[DensityMethod], list[str]]:
    """Every density for a task, and a sentence for each that is not available here.

    Example:
        >>> names = [method.name for method in find_methods(find_tasks(Options())[0][0])[0]]
        >>> {"Gaussian", "Gaussian mixture", "kernel density", "ot-lift"} <= set(names)
        True
    """
    found, missing = found_in("benchmarks.density.methods", lambda module: module.methods(task))
    return ours_last(found), missing
