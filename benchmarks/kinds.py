"""The kinds of tasks: maps between datasets, densities, posteriors. Each has tasks, methods and cells of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import benchmarks.density
import benchmarks.density.cells
import benchmarks.methods
import benchmarks.posterior
import benchmarks.posterior.cells
import benchmarks.tasks
from benchmarks.cells import BaseCell, Cell
from benchmarks.tasks import BaseTask, Options


@dataclass(frozen=True)
class Kind:
    """A kind of tasks.

    Attributes:
        name: on the command line, where it stands for all of its tasks.
        find_tasks: gives tasks, and sentences on those that are not available.
        find_methods: likewise the methods for one of its tasks.
        cell: of a task, a method, a seed and a number of threads.
    """

    name: str
    find_tasks: Callable[[Options], tuple[list[Any], list[str]]]
    find_methods: Callable[[Any], tuple[list[Any], list[str]]]
    cell: Callable[..., BaseCell]


KINDS = (
    Kind("map", benchmarks.tasks.find_tasks, benchmarks.methods.find_methods, Cell),
    Kind(
        *("density", benchmarks.density.find_tasks, benchmarks.density.find_methods),
        benchmarks.density.cells.DensityCell,
    ),
    Kind(
        *("posterior", benchmarks.posterior.find_tasks, benchmarks.posterior.find_methods),
        benchmarks.posterior.cells.PosteriorCell,
    ),
)


@dataclass(frozen=True)
class Offer:
    """A task with its methods.

    Attributes:
        kind: of the task.
        task: what is asked.
        methods: what can be tried on it here.
    """

    kind: Kind
    task: BaseTask
    methods: tuple[Any, ...]

    @property
    def names(self) -> set[str]:
        """What the task is called by: its name, its family ("gaussian", "density-gaussian") and its kind."""
        head = f"{self.kind.name}-" if self.task.name.startswith(f"{self.kind.name}-") else ""
        family = head + self.task.name.removeprefix(head).partition("-")[0]
        return {self.task.name, family, self.kind.name}


def offers(options: Options) -> tuple[list[Offer], list[str]]:
    """Every task of every kind, and a sentence for each task or method that is not available here.

    Example:
        >>> found, _ = offers(Options(quick=True))
        >>> sorted({offer.kind.name for offer in found})
        ['density', 'map', 'posterior']
    """
    found: list[Offer] = []
    missing: dict[str, None] = {}
    for kind in KINDS:
        tasks, without = kind.find_tasks(options)
        missing |= dict.fromkeys(without)
        for task in tasks:
            methods, without = kind.find_methods(task)
            missing |= dict.fromkeys(without)
            found.append(Offer(kind, task, tuple(methods)))
    return found, list(missing)
