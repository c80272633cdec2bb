"""Cells of the paper's experiments: a task runs a method on a seed and hands back figures and what is behind them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cells import BaseCell, check_record
from benchmarks.cells_child import Outcome, Reach, run_in_child
from ot_lift.errors import DataError

__all__ = ["ExperimentCell", "ExperimentMethod", "ExperimentTask", "Outcome"]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class ExperimentMethod:
    """A method of an experiment.

    Attributes:
        name: unique in the experiment.
        settings: all that decides what it does, as JSON types.
    """

    name: str
    settings: Mapping[str, Any]


class ExperimentTask(ABC):
    """One part of an experiment: what every method is run on."""

    limit_seconds = 4 * 3600.0
    alone = False

    @property
    @abstractmethod
    def name(self) -> str:
        """The experiment's name and what tells the part from others, with hyphens."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """As JSON types; `experiment`, `title`, `words` and `quick` are among them."""

    @abstractmethod
    def run(self, method: ExperimentMethod, seed: int, needed: Record | None) -> Outcome:
        """Measure; called in a process of its own.

        Args:
            method: What to run.
            seed: Of all that is random.
            needed: The record of the cell that this one needs, if it needs one.
        """


@dataclass(frozen=True)
class ExperimentCell(BaseCell):
    """A part of an experiment, a method and a seed.

    Attributes:
        task: the part.
        method: what is run on it.
        needs: the cell whose record must be there before.
    """

    task: ExperimentTask
    method: ExperimentMethod
    needs: ExperimentCell | None = None

    @property
    def stage(self) -> int:
        """One more than that of the cell it needs."""
        return 0 if self.needs is None else self.needs.stage + 1

    @property
    def alone(self) -> bool:
        """Whether its figures are times."""
        return self.task.alone

    def run(self, out: Path, *, together: bool = False) -> dict[str, Any]:
        """The record; a failure is one too."""
        limits = {"run": self.task.limit_seconds}
        return run_in_child(self, _measured, self, out, limits=limits, together=together)


def _finished(cell: ExperimentCell, out: Path) -> Record:
    path = out / cell.path
    if path.exists():
        record = check_record(json.loads(path.read_text(encoding="utf-8")), str(path))
        if record["status"] == "ok" and record["fingerprint"] == cell.fingerprint:
            return record
    raise DataError(f"expected that {cell.label} has ended well before, it has not: run it again with --retry")


def _measured(cell: ExperimentCell, out: Path, reach: Reach) -> Outcome:
    """Run in the child, in one phase."""
    return cell.task.run(cell.method, cell.seed, None if cell.needs is None else _finished(cell.needs, out))
