"""Tasks of the runner: data, the true map where it is known, and a budget. Every module of this folder is one.

Densities and posteriors have folders of their own (see `benchmarks.kinds`). A module offers `tasks(options)`, which
yields `Task` objects or raises `Unavailable` with a sentence that says what is missing. A new task is one new file.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Sampler = Callable[[int, np.random.Generator], Array]


FULL_SECONDS = 20.0  # of a fit, where a task does not say otherwise
QUICK_SECONDS = 0.5  # of a fit in a quick look


class Unavailable(Exception):
    """A task or method cannot run here; the message says why and what to do."""


@dataclass(frozen=True)
class Options:
    """What tasks are built from.

    Attributes:
        data: folder of files that are not part of the project, or None.
        cache: folder of reference draws of posteriors, which are made where the project has no moments; None: none are.
        quick: small data and budgets, for a first look; their records are no results.
    """

    data: Path | None = None
    quick: bool = False
    cache: Path | None = None

    def sizes(self, rows: int, test_rows: int, budget_seconds: float = FULL_SECONDS) -> dict[str, Any]:
        """Arguments of a task: these, or those of every quick one.

        Example:
            >>> Options(quick=True).sizes(50_000, 4_096)
            {'rows': 1000, 'test_rows': 512, 'budget_seconds': 0.5, 'quick': True}
        """
        if self.quick:
            rows, test_rows, budget_seconds = min(rows, 1_000), min(test_rows, 512), QUICK_SECONDS
        return {"rows": rows, "test_rows": test_rows, "budget_seconds": budget_seconds, "quick": self.quick}


def default_seeds(settings: Mapping[str, Any]) -> tuple[int, ...]:
    """Seeds of data and fits that are run of a task, by its settings.

    Three; one in a quick look, and where budgets are spent to their end or the cost is the question, as that takes an
    hour a seed.

    Example:
        >>> default_seeds({"quick": False}), default_seeds({"quick": False, "uncapped": True})
        ((0, 1, 2), (0,))
    """
    return (0,) if any(settings.get(name) for name in ("quick", "spend_budget", "uncapped")) else (0, 1, 2)


@dataclass(frozen=True)
class Problem:
    """Data of one task and seed, float64.

    Attributes:
        source: what methods are fitted on, `(n, features)`.
        target: likewise, `(m, features)`.
        test_source: fresh points of the source, `(k, features)`.
        test_target: fresh points of the target, independent of `test_source`.
        truth: the true map at `test_source`, or None where nobody knows it.
        labels: classes of `test_source` `(k,)` and of `test_target` `(l,)`, where points have classes.

    Example:
        >>> problem = Problem.drawn(
        ...     lambda rows, rng: rng.normal(size=(rows, 2)),
        ...     np.random.default_rng(0),
        ...     rows=5,
        ...     test_rows=3,
        ...     truth=lambda x: x + 1,
        ... )
        >>> problem.target.shape, bool((problem.truth == problem.test_source + 1).all())
        ((5, 2), True)
    """

    source: Array
    target: Array
    test_source: Array
    test_target: Array
    truth: Array | None = None
    labels: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = field(default=None, kw_only=True)

    @classmethod
    def drawn(
        cls,
        source: Sampler,
        rng: np.random.Generator,
        *,
        rows: int,
        test_rows: int,
        target: Sampler | None = None,
        truth: Callable[[Array], Array] | None = None,
    ) -> Problem:
        """Independent points of both sides.

        Args:
            source: Draws `(rows, features)`.
            rng: Of all points.
            rows: To fit on, a side.
            test_rows: To judge on, a side.
            target: Draws likewise; by default the image of other source points under `truth`.
            truth: The true map, where it is known.
        """
        if target is None:
            if truth is None:
                raise ValueError("expected target or truth, got neither: pass the sampler or the map")
            target = _pushed(source, truth)
        train = source(rows, rng), target(rows, rng)
        fresh = source(test_rows, rng)
        return cls(*train, fresh, target(test_rows, rng), None if truth is None else truth(fresh))


def _pushed(source: Sampler, truth: Callable[[Array], Array]) -> Sampler:
    return lambda rows, rng: truth(source(rows, rng))


@dataclass(frozen=True, kw_only=True)
class BaseTask(ABC):
    """What every method is asked to do within one budget.

    Attributes:
        features: d.
        budget_seconds: wall-clock time of a fit.
        quick: whether it is a small version, for a first look.
    """

    features: int
    budget_seconds: float
    quick: bool = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Unique; small letters, digits and hyphens. The first word is the task's family."""

    @property
    @abstractmethod
    def title(self) -> str:
        """A heading."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What it is, with its source, in a few sentences."""

    @property
    @abstractmethod
    def size(self) -> str:
        """How much there is to fit on, in a few words."""

    @property
    def own_threads(self) -> int | None:
        """Threads of every method where their number is the question; None for those that the run has."""
        return None

    def fit_limit(self, *, keeps_budget: bool) -> float:
        """Seconds after which a fit is ended from outside.

        A fit that keeps the budget itself has room for what a budget does not cover, one that does not has the budget,
        and in a quick look twenty of them: whether a method works is asked there, not what it comes to at once.
        """
        if keeps_budget:
            return 2 * self.budget_seconds + 60
        return self.budget_seconds * (20 if self.quick else 1)

    def settings(self) -> dict[str, Any]:
        """All that decides the problem besides the seed, as JSON types."""
        shown = [one.name for one in dataclasses.fields(self) if one.metadata.get("setting", True)]
        return {"name": self.name, "title": self.title, "words": self.words} | {
            name: getattr(self, name) for name in shown
        }


@dataclass(frozen=True, kw_only=True)
class Task(BaseTask):
    """A pair of datasets to be mapped to one another.

    Attributes:
        rows: points a side that methods are fitted on.
        test_rows: fresh points a side that they are judged on.
        spend_budget: whether methods that could stop early are asked to use all of it.
        uncapped: whether methods take all points, whatever that costs; of such tasks the cost is the question.
    """

    rows: int
    test_rows: int
    spend_budget: bool = False
    uncapped: bool = False

    @property
    def size(self) -> str:
        return f"{self.rows:,} points a side"

    def points(self, *, seconds: int, minutes: int, quick: int | None = None) -> int:
        """Points a side for a method whose cost grows with their square.

        Args:
            seconds: that keep its fit to seconds.
            minutes: that a budget of minutes holds, for tasks whose budget is to be spent.
            quick: for a quick look; None for those of seconds.

        Returns:
            One of these, or all of the task's where the cost is the question.

        Example:
            >>> from benchmarks.tasks.gaussian import GaussianPair
            >>> task = GaussianPair(features=2, rows=50_000, test_rows=9, budget_seconds=600.0, spend_budget=True)
            >>> task.points(seconds=4_000, minutes=12_000)
            12000
        """
        if self.uncapped:
            return self.rows
        if self.quick:
            return seconds if quick is None else quick
        return minutes if self.spend_budget else seconds

    @abstractmethod
    def problem(self, seed: int) -> Problem:
        """The data; equal seeds give equal data."""


def modules_of(package: str) -> Iterable[ModuleType]:
    """Every module of a package, by name.

    Example:
        >>> "benchmarks.tasks.gaussian" in [module.__name__ for module in modules_of("benchmarks.tasks")]
        True
    """
    places = importlib.import_module(package).__path__
    for module in sorted(pkgutil.iter_modules(places), key=lambda one: one.name):
        yield importlib.import_module(f"{package}.{module.name}")


def found_in(package: str, ask: Callable[[ModuleType], Iterable[Any]]) -> tuple[list[Any], list[str]]:
    """What the modules of a package offer, and a sentence for each that has something that is not available here.

    Args:
        package: Its dotted name.
        ask: Gives what a module offers, or raises `Unavailable`.
    """
    found: list[Any] = []
    missing: list[str] = []
    for module in modules_of(package):
        try:
            found += ask(module)
        except Unavailable as reason:
            missing.append(f"{module.__name__.rpartition('.')[2]}: {reason}")
    return found, missing


def find_tasks(options: Options) -> tuple[list[Task], list[str]]:
    """Every task, and a sentence for each that is not available here.

    Example:
        >>> tasks, missing = find_tasks(Options(quick=True))
        >>> [task.name for task in tasks if task.name.startswith("gaussian")]
        ['gaussian-d2', 'gaussian-d8', 'gaussian-d32']
        >>> "wasserstein2" in {line.split(":")[0] for line in missing}
        True
    """
    return found_in("benchmarks.tasks", lambda module: module.tasks(options))
