"""The paper's experiments ("A lift for input-convex neural network training", arXiv 2605.24274), by the same runner.

Every name in `EXPERIMENTS` is a module of this folder that offers `EXPERIMENT`, an `Experiment`. Its cells have records
like all others; its report is one page. A new experiment is one new file and its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.experiments.cells import ExperimentCell
from benchmarks.tasks import Options
from ot_lift.report_figures import Plot
from ot_lift.report_tables import Table

EXPERIMENTS = (
    "gallery1d",
    "ablation",
    "overhead",
    "escape",
    "gamma2d",
    "flows2d",
    "dimension",
    "latents",
    "tabular",
    "landscape",
)


@dataclass(frozen=True)
class Page:
    """What an experiment's records say.

    Attributes:
        sentences: the findings, whichever way they go.
        tables: heading, explanation, table.
        plots: pictures.
        metrics: names of figures, and what they are.
    """

    sentences: Sequence[str]
    tables: Sequence[tuple[str, str, Table]]
    plots: Sequence[Plot]
    metrics: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Experiment:
    """An experiment of the paper.

    Attributes:
        name: on the command line.
        title: a heading.
        words: what it is, in a few sentences.
        seeds: run by default.
        cells: gives the cells for options, seeds and threads, those that others need included.
        page: gives the findings for records of it, at least one.
    """

    name: str
    title: str
    words: str
    seeds: tuple[int, ...]
    cells: Callable[[Options, Sequence[int], int], Sequence[ExperimentCell]]
    page: Callable[[Sequence[Mapping[str, Any]]], Page]


def find_experiments() -> list[Experiment]:
    """Every experiment.

    Example:
        >>> [experiment.name for experiment in find_experiments()] == list(EXPERIMENTS)
        True
    """
    return [find_experiment(name) for name in EXPERIMENTS]


def find_experiment(name: str) -> Experiment:
    """The experiment of that name, which is in `EXPERIMENTS`."""
    found: Experiment = importlib.import_module(f"benchmarks.experiments.{name}").EXPERIMENT
    return found


def experiment_cells(
    names: Sequence[str], options: Options, *, seeds: Sequence[int] | None, threads: int | None
) -> tuple[list[ExperimentCell], list[str]]:
    """The cells of experiments that names stand for.

    Args:
        names: Of experiments ("gallery1d"), of parts of them by how their names begin ("gallery1d-gumbel",
            "gallery1d-gumbel-tuned"), and of methods within these; other names are left over.
        options: Whether the run is a quick one.
        seeds: None for those of the experiment; one with a quick run.
        threads: None for one: the networks are small, and cells run side by side.

    Returns:
        The cells, those that others need among them, and the names that are not an experiment's.

    Example:
        >>> cells, rest = experiment_cells(
        ...     ["gallery1d-gumbel-paper", "softplus", "EMD"], Options(), seeds=[0], threads=None
        ... )
        >>> [cell.label for cell in cells], rest
        (['gallery1d-gumbel-paper × softplus, seed 0'], ['EMD'])
    """
    cells: list[ExperimentCell] = []
    used: set[str] = set()
    for name in dict.fromkeys(name.partition("-")[0] for name in names):
        if name not in EXPERIMENTS:
            continue
        experiment = find_experiment(name)
        asked = seeds if seeds is not None else (0,) if options.quick else experiment.seeds
        own = experiment.cells(options, asked, threads or 1)
        parts = {part for part in names if any(_is_part(cell, part) for cell in own)}
        methods = {cell.method.name for cell in own} & set(names) or {cell.method.name for cell in own}
        used |= parts | methods
        wanted = [cell for cell in own if cell.method.name in methods and any(_is_part(cell, part) for part in parts)]
        wanted += [cell.needs for cell in wanted if cell.needs is not None]
        cells += {cell.path: cell for cell in wanted}.values()
    return cells, [name for name in names if name not in used]


def _is_part(cell: ExperimentCell, name: str) -> bool:
    return f"{cell.task.name}-".startswith(f"{name}-")
