"""Posterior tasks: an unnormalised log density, to be sampled from.

A module of `benchmarks/posterior/tasks` offers `tasks(options)`, one of `benchmarks/posterior/methods` offers
`methods(task)`; both may raise `Unavailable`. A new task or method is one new file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import posteriors
from benchmarks.methods import ours_last
from benchmarks.tasks import Array, BaseTask, Options, found_in
from posteriors.target import Posterior

KIND = "posterior"


@dataclass(frozen=True, kw_only=True)
class PosteriorTask(BaseTask):
    """A target of the catalogue.

    Attributes:
        target: its name there.
        draws: independent draws that a method is judged on.
        cache: folder where reference draws are kept, and made where the project has no moments; None: none are made.

    Example:
        >>> task = PosteriorTask(features=11, budget_seconds=1.0, target="linear_diabetes", draws=100)
        >>> task.name, task.posterior().dim
        ('posterior-linear-diabetes', 11)
    """

    target: str
    draws: int
    cache: Path | None = field(default=None, metadata={"setting": False})

    @property
    def name(self) -> str:
        return f"posterior-{self.target.replace('_', '-')}"

    @property
    def title(self) -> str:
        return f"Posterior {self.target.replace('_', ' ')}, d = {self.features}"

    @property
    def words(self) -> str:
        return (
            f"A log-concave posterior on real data: {self.posterior().citation}. Means and standard deviations of all "
            "its quantities are held against those of long chains of NUTS; the largest error of any of them decides, "
            "with errors of means in posterior standard deviations and those of standard deviations relative."
        )

    @property
    def size(self) -> str:
        return f"{self.features} dimensions"

    def posterior(self) -> Posterior:
        """The target."""
        return posteriors.load(self.target)

    def settings(self) -> dict[str, Any]:
        """All that decides the problem, as JSON types, with the kind of task."""
        return super().settings() | {"kind": KIND}


@dataclass(frozen=True)
class Draws:
    """What a fitted method gives.

    Attributes:
        sites: values of every site of the model, `(n, *shape)`.
        seconds: that drawing took, compilation left out.
        log_weights: log π − log q of independent draws from a density q, `(n,)`; None for a chain.
        effective: how many independent draws a chain is worth; None for independent draws.
    """

    sites: Mapping[str, Array]
    seconds: float
    log_weights: Array | None = None
    effective: float | None = None


class PosteriorMethod(Protocol):
    """What a cell asks of a way to sample.

    Attributes:
        name: shown in tables; unique among the methods of a task.
        settings: what it is run with, as JSON types.
        notes: sentences on what it chose or had to do.
        keeps_budget: whether `fit` itself ends near `max_seconds`; one that does not is ended from outside.
        compile_seconds: of the fit, that a compiler took; 0 where there is none.
    """

    name: str
    settings: dict[str, Any]
    notes: list[str]
    keeps_budget: bool
    compile_seconds: float

    def fit(self, posterior: Posterior, *, random_state: int, max_seconds: float) -> Self:
        """Fit to a target; a sampler runs here."""

    def draw(self, count: int, *, random_state: int) -> Draws:
        """Independent draws; a sampler gives all that it has."""


class BasePosteriorMethod(ABC):
    """Settings, notes and no compiler.

    Args:
        **settings: Shown with the results, as JSON types.
    """

    name: str
    keeps_budget: bool = True

    def __init__(self, **settings: Any) -> None:
        self.settings: dict[str, Any] = settings
        self.notes: list[str] = []
        self.compile_seconds = 0.0

    @abstractmethod
    def fit(self, posterior: Posterior, *, random_state: int, max_seconds: float) -> Self:
        """Fit to a target; a sampler runs here."""

    @abstractmethod
    def draw(self, count: int, *, random_state: int) -> Draws:
        """Independent draws; a sampler gives all that it has."""


def find_tasks(options: Options) -> tuple[list[PosteriorTask], list[str]]:
    """Every posterior task, and a sentence for each that is not available here.

    Example:
        >>> "posterior-gamma-pumps" in [task.name for task in find_tasks(Options())[0]]
        True
    """
    return found_in("benchmarks.posterior.tasks", lambda module: module.tasks(options))


def find_methods(task: PosteriorTask) -> tuple[list[PosteriorMethod], list[str]]:
    """Every method for a task, and a sentence for each that is not available here.

    Example:
        >>> methods, missing = find_methods(find_tasks(Options())[0][0])
        >>> {"Laplace", "ot-lift", "ot-lift inverse"} <= {method.name for method in methods}
        True
    """
    found, missing = found_in("benchmarks.posterior.methods", lambda module: module.methods(task))
    return ours_last(found), missing
