"""Run cells through joblib, keep a record of each, and never run one twice."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib

from benchmarks.cells import BaseCell, check_record
from benchmarks.experiments import EXPERIMENTS, experiment_cells
from benchmarks.kinds import Offer, offers
from benchmarks.tasks import Options, default_seeds
from ot_lift.errors import DataError
from ot_lift.io import atomic_file
from ot_lift.report import json_text

Record = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes:
        waiting: cells to run, those of one task and seed together.
        finished: cells whose record is there.
        outdated: how many of those waiting have a record with other settings, which will be replaced.
    """

    waiting: tuple[BaseCell, ...]
    finished: tuple[BaseCell, ...]
    outdated: int

    @classmethod
    def of(cls, cells: Iterable[BaseCell], out: Path, *, retry: bool = False, again: bool = False) -> Plan:
        """Look for records.

        Args:
            cells: What is wanted.
            out: Folder of the records; may be missing.
            retry: Whether cells that failed or ran out of time are run again.
            again: Whether every cell is run again.
        """
        waiting, finished, outdated = [], [], 0
        for cell in cells:
            record = read_cell(out / cell.path)
            current = record is not None and record["fingerprint"] == cell.fingerprint
            outdated += record is not None and not current
            if record is None or not current or again or (retry and record["status"] != "ok"):
                waiting.append(cell)
            else:
                finished.append(cell)
        return cls(tuple(waiting), tuple(finished), outdated)

    def check(self, name: str) -> None:
        """That no record is of other settings.

        Args:
            name: What to run if one is.

        Raises:
            DataError: One is.
        """
        if self.outdated:
            raise DataError(
                f"expected records of the code's settings, got {self.outdated} of {name} with others: "
                f"run `python -m benchmarks run {name}`"
            )


def chosen_cells(
    names: Sequence[str], options: Options, *, seeds: Sequence[int] | None, threads: int | None
) -> tuple[list[BaseCell], list[str]]:
    """The cells that names stand for, sorted by task and seed.

    Args:
        names: Of tasks ("gaussian-d8"), families of tasks ("gaussian"), kinds of them ("map", "density",
            "posterior") and methods; with no task or no method among them, all of these.
        options: What tasks are built from.
        seeds: Of data and fits; None for those of `default_seeds`.
        threads: Of every method, but for tasks on threads; None for those of the machine, in a quick look one for cells
            that share it.

    Returns:
        The cells, and sentences on what is not available here.

    Raises:
        DataError: A name is unknown.

    Example:
        >>> cells, _ = chosen_cells(["gaussian-d2", "linear", "EMD"], Options(quick=True), seeds=[0], threads=1)
        >>> [cell.label for cell in cells]
        ['gaussian-d2 × EMD, seed 0', 'gaussian-d2 × linear, seed 0']
    """
    found, missing = offers(options)
    known = {name for offer in found for name in offer.names}
    known_methods = {method.name for offer in found for method in offer.methods}
    if unknown := [name for name in names if name not in known | known_methods]:
        raise DataError(
            f"expected names of tasks or methods, got {', '.join(map(repr, unknown))}; there are "
            f"{', '.join(sorted(known | known_methods | set(EXPERIMENTS)))}"
            + "".join(f"; not available: {line}" for line in missing)
        )
    wanted, wanted_methods = set(names) & known or known, set(names) & known_methods or known_methods
    cells = [
        _cell(offer, method, seed, threads)
        for offer in found
        if offer.names & wanted
        for seed in (default_seeds(offer.task.settings()) if seeds is None else seeds)
        for method in offer.methods
        if method.name in wanted_methods
    ]
    return cells, missing


def asked_cells(
    names: Sequence[str], options: Options, *, seeds: Sequence[int] | None, threads: int | None
) -> tuple[list[BaseCell], list[str]]:
    """The cells of experiments and of tasks that names stand for; without a name, those of every task.

    Args:
        names: Of experiments and parts of them, of tasks, families of tasks and methods.
        options: What tasks are built from.
        seeds: Of data and fits; None for those of the task or the experiment, with a quick run for 0.
        threads: Of every method; None for those of `chosen_cells`, in an experiment for one.

    Returns:
        The cells, and sentences on what is not available here.

    Raises:
        DataError: A name is unknown.

    Example:
        >>> cells, _ = asked_cells(["gallery1d-beta-paper", "lift"], Options(), seeds=[0], threads=None)
        >>> [cell.label for cell in cells]
        ['gallery1d-beta-paper × lift, seed 0']
    """
    own, rest = experiment_cells(names, options, seeds=seeds, threads=threads)
    if own and not rest:
        return [*own], []
    cells, missing = chosen_cells(rest, options, seeds=seeds, threads=threads)
    return [*own, *cells], missing


def _cell(offer: Offer, method: Any, seed: int, threads: int | None) -> BaseCell:
    given = offer.task.own_threads or threads
    cell = offer.kind.cell(offer.task, method, seed, given or _threads())
    shares = not given and offer.task.quick and not cell.alone
    return replace(cell, threads=1) if shares else cell


def _threads() -> int:
    """What the environment asks for, else every core."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) else os.cpu_count() or 1


def run(
    plan: Plan,
    out: Path,
    *,
    jobs: int | None = 1,
    backend: str | None = None,
    cluster: str | None = None,
    tell: Callable[[BaseCell, Record], None] = lambda cell, record: None,
) -> list[Record]:
    """Run what a plan waits for; the record of a cell is on disk as soon as the cell ends.

    Cells whose fit ends on its budget run one at a time, after the others. When this is interrupted or killed, the
    cells that were running are lost and no others.

    Args:
        plan: From `Plan.of`.
        out: Folder of the records.
        jobs: Cells at the same time; None takes it from a surrounding `joblib.parallel_config`.
        backend: Of joblib; None is loky or that of a surrounding `joblib.parallel_config`.
        cluster: Address of a Dask scheduler, whose workers then run the cells.
        tell: Called after every cell.

    Returns:
        The new records.
    """
    records = []
    with _backend(backend, cluster):
        for stage, alone in sorted({(cell.stage, cell.alone) for cell in plan.waiting}):
            cells = [cell for cell in plan.waiting if (cell.stage, cell.alone) == (stage, alone)]
            together = not alone and len(cells) > 1 and _at_once(jobs) > 1
            for place, record in _ended(cells, out, jobs, 1 if alone else "2 * n_jobs", together=together):
                write_cell(out / cells[place].path, record)
                records.append(record)
                tell(cells[place], record)
    return records


def _backend(backend: str | None, cluster: str | None) -> contextlib.AbstractContextManager[Any]:
    if cluster:
        context: contextlib.AbstractContextManager[Any] = joblib.parallel_config(backend="dask", scheduler_host=cluster)
        return context
    return joblib.parallel_config(backend=backend) if backend else contextlib.nullcontext()


def _ended(
    cells: Sequence[BaseCell], out: Path, jobs: int | None, at_once: str | int, *, together: bool
) -> Iterator[tuple[int, Record]]:
    """Records in the order in which cells end, each with its cell's place; `at_once` of them are handed out."""
    pool = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=at_once)
    found: Iterator[tuple[int, Record]] = pool(
        joblib.delayed(_numbered)(place, cell, out, together) for place, cell in enumerate(cells)
    )
    return found


def _at_once(jobs: int | None) -> int:
    """How many cells joblib will run at the same time."""
    return int(joblib.effective_n_jobs(joblib.Parallel(n_jobs=jobs).n_jobs))


def _numbered(place: int, cell: BaseCell, out: Path, together: bool) -> tuple[int, Record]:
    return place, cell.run(out, together=together)


# ------------------------------------------------------------------------------------- records
def write_cell(path: Path, record: Record) -> None:
    """Write a record, as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(json_text(record).encode())


def read_cell(path: Path) -> Record | None:
    """A record, or None where there is none.

    Raises:
        DataError: The file is something else.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return check_record(json.loads(content), str(path))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def read_cells(place: Path) -> list[Record]:
    """Every record in a folder, by task, method and seed; or the one record that a file is.

    Raises:
        DataError: There is none.
    """
    paths = [place] if place.is_file() else sorted(place.glob("*/*/*.json"))
    records = [record for path in paths if (record := read_cell(path)) is not None]
    if not records:
        raise DataError(f"expected records of benchmark cells in {place}, got none: run `python -m benchmarks run`")
    return sorted(records, key=lambda one: (_by_number(one["task"]), one["method"], one["seed"]))


def _by_number(name: str) -> tuple[str, int]:
    """Tasks of one family by dimension, not by letter."""
    family, _, place = name.rpartition("-d")
    return (family, int(place)) if place.isdigit() else (name, 0)
