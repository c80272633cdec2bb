"""Cells that fit and judge in one function, run in a process of its own; the record says what came of it."""

from __future__ import annotations

import os
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from benchmarks.cells import BaseCell, Tried, make_record
from benchmarks.cells_process import Stopped, in_child
from benchmarks.machine import Moment
from ot_lift.isolation import Phases, captured

Reach = Callable[[str], None]
"""Called by the function of a cell at the end of a phase."""


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


class Budgeted(Tried, Protocol):
    """A method with a budget of seconds."""

    @property
    def keeps_budget(self) -> bool:
        """Whether its fit itself ends near the budget; one that does not is ended from outside."""


class BudgetCell(BaseCell):
    """A cell whose method is fitted, with a budget of seconds, and judged by one function."""

    method: Budgeted

    @property
    def alone(self) -> bool:
        """Whether nothing may run beside it: a fit that ends on its budget is worse on a busy machine."""
        return self.method.keeps_budget

    @property
    @abstractmethod
    def limits(self) -> Mapping[str, float]:
        """Seconds by phase, in the order of the phases."""

    @abstractmethod
    def measured(self, reach: Reach) -> Outcome:
        """Run in the child: fit and judge."""

    def run(self, out: Path, *, together: bool = False) -> dict[str, Any]:
        """The record; a failure is one too."""
        return run_in_child(self, type(self).measured, self, limits=self.limits, together=together)


def run_in_child(
    cell: BaseCell,
    function: Callable[..., Outcome],
    *arguments: Any,
    limits: Mapping[str, float | None],
    together: bool,
) -> dict[str, Any]:
    """The record of `function(*arguments, reach)`; a failure is a record too.

    Args:
        cell: What is run.
        function: Measures; it calls `reach` with the name of every phase that it has ended.
        arguments: Of the function, before `reach`.
        limits: Seconds by phase, in the order of the phases.
        together: Whether the caller runs other cells at the same time; its times are then marked.
    """
    began = time.perf_counter()
    found: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="ot-lift-cell-") as folder:
            phases = Phases(Path(folder), limits)
            found = in_child(_observed, function, arguments, phases, cell.threads, phases=phases)
        status = "failed" if found.get("reason") else "ok"
    except Stopped as stop:
        status, found = "timed out", {"reason": str(stop), "usage": stop.usage}
    except Exception as error:  # whatever happens to a cell is its record, and the others go on
        status, found = "failed", {"reason": f"{type(error).__name__}: {error}"}
    outcome: Outcome = found.get("outcome") or Outcome({})
    return make_record(
        cell,
        status,
        {**found, "notes": outcome.notes},
        outcome.figures,
        outcome.details,
        together=together,
        seconds=time.perf_counter() - began,
    )


def _observed(
    function: Callable[..., Outcome], arguments: tuple[Any, ...], phases: Phases, threads: int
) -> dict[str, Any]:
    """Run in the child: the outcome or the reason why there is none, with the time and what was printed."""
    torch.set_num_threads(threads)  # this process is the cell's alone
    os.environ["NPROC"] = str(threads)  # how many threads XLA starts, when a peer imports JAX
    found: dict[str, Any] = {}
    with captured(descriptors=True) as messages, threadpool_limits(threads):
        began = Moment.now()
        try:
            found["outcome"] = function(*arguments, phases.reach)
        except Exception as error:
            found["reason"] = f"{type(error).__name__}: {error}"
        found["usage"] = began.until_now()
    return {**found, "messages": messages.lines}
