"""Cells of the paper's experiments: a task runs a method on a seed and hands back figures and what is behind them."""

from __future__ import annotations

import json
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from benchmarks.cells import BaseCell, check_record, make_record
from benchmarks.cells_process import Stopped, in_child
from benchmarks.machine import Moment
from ot_lift.errors import DataError
from ot_lift.isolation import Phases, captured

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a cell measured.

    Attributes:
        figures: numbers by name.
        details: curves and tables behind them, JSON types.
        notes: sentences.
    """

    figures: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


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
        began = time.perf_counter()
        found: dict[str, Any] = {}
        try:
            needed = None if self.needs is None else _finished(self.needs, out)
            with tempfile.TemporaryDirectory(prefix="ot-lift-cell-") as folder:
                phases = Phases(Path(folder), {"run": self.task.limit_seconds})
                found = in_child(_measured, self, needed, phases=phases)
            status = "failed" if found.get("reason") else "ok"
        except Stopped as stop:
            status, found = "timed out", {"reason": str(stop), "usage": stop.usage}
        except Exception as error:  # whatever happens to a cell is its record, and the others go on
            status, found = "failed", {"reason": f"{type(error).__name__}: {error}"}
        outcome: Outcome = found.get("outcome") or Outcome({})
        return make_record(
            self,
            status,
            {**found, "notes": outcome.notes},
            outcome.figures,
            outcome.details,
            together=together,
            seconds=time.perf_counter() - began,
        )


def _finished(cell: ExperimentCell, out: Path) -> Record:
    path = out / cell.path
    if path.exists():
        record = check_record(json.loads(path.read_text(encoding="utf-8")), str(path))
        if record["status"] == "ok" and record["fingerprint"] == cell.fingerprint:
            return record
    raise DataError(f"expected that {cell.label} has ended well before, it has not: run it again with --retry")


def _measured(cell: ExperimentCell, needed: Record | None) -> dict[str, Any]:
    """Run in the child: the outcome or the reason why there is none, with the time and what was printed."""
    torch.set_num_threads(cell.threads)  # this process is the cell's alone
    found: dict[str, Any] = {}
    with captured(descriptors=True) as messages, threadpool_limits(cell.threads):
        began = Moment.now()
        try:
            found["outcome"] = cell.task.run(cell.method, cell.seed, needed)
        except Exception as error:
            found["reason"] = f"{type(error).__name__}: {error}"
        found["usage"] = began.until_now()
    return {**found, "messages": messages.lines}
