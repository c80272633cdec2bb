"""One cell: a task, a method and a seed give a record, as plain JSON, and nothing else happens."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.cells_judging import Judge
from benchmarks.cells_process import Stopped, in_child, measured
from benchmarks.machine import Usage, here
from benchmarks.tasks import Array, Problem, Task
from ot_lift.isolation import Phases
from ot_lift.measuring import Job
from ot_lift.methods import Method
from ot_lift.report import json_text

RECORD_FORMAT = "ot-lift benchmark cell 1"
RECORD_KEYS = (
    *("format", "task", "method", "seed", "fingerprint", "settings", "status", "reason", "figures", "timing"),
    *("notes", "messages", "details", "machine", "revision", "date"),
)
_DESCRIBES = ("title", "words")  # of a task's settings: they decide nothing
_DRAWN_POINTS = 300  # in two dimensions, kept for the pictures
_CURVE_ROWS = 100
_QUICK_TIMING = 0.05  # seconds of a timing in a quick look, which is after no times


class Asked(Protocol):
    """The task of a cell, as the runner sees it."""

    @property
    def name(self) -> str:
        """Unique; the first folder of the record."""

    def settings(self) -> dict[str, Any]:
        """All that decides the problem besides the seed, as JSON types; with `title` and `words` for people."""


class Tried(Protocol):
    """The method of a cell, as the runner sees it."""

    @property
    def name(self) -> str:
        """Unique among the task's methods; the second folder of the record."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that decides what it does, as JSON types."""


@dataclass(frozen=True)
class BaseCell(ABC):
    """What the runner knows of a cell of any kind.

    Attributes:
        task: what is asked.
        method: what is tried.
        seed: of all that is random.
        threads: that the cell may use.
    """

    task: Asked
    method: Tried
    seed: int
    threads: int

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the result besides seed, machine and code."""
        return {"task": self.task.settings(), "method": dict(self.method.settings), "threads": self.threads}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names, seed and settings but for words: a record with another one is out of date."""
        settings = {name: dict(own) if isinstance(own, Mapping) else own for name, own in self.settings.items()}
        for name in _DESCRIBES:
            settings["task"].pop(name, None)
        decides = [RECORD_FORMAT, self.task.name, self.method.name, self.seed, settings]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    @property
    def path(self) -> Path:
        """Of its record within a folder of records."""
        return Path(self.task.name, re.sub(r"[^\w.-]+", "-", self.method.name), f"{self.seed}.json")

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.task.name} × {self.method.name}, seed {self.seed}"

    @property
    def stage(self) -> int:
        """Cells of an earlier stage have all ended before those of a later one begin."""
        return 0

    @property
    @abstractmethod
    def alone(self) -> bool:
        """Whether nothing may run beside it."""

    @abstractmethod
    def run(self, out: Path, *, together: bool = False) -> dict[str, Any]:
        """The record; whatever happens to the cell is in it.

        Args:
            out: Folder of the records, for a cell that needs another's.
            together: Whether the caller runs other cells at the same time; its times are then marked.
        """


@dataclass(frozen=True)
class Cell(BaseCell):
    """A map between two datasets: a task, a method and a seed.

    Attributes:
        task: gives data and budget.
        method: not fitted yet.
        seed: of the data and of the fit.
        threads: that the method may use.

    Example:
        >>> from benchmarks.tasks.gaussian import GaussianPair
        >>> from ot_lift.methods import IdentityMethod
        >>> cell = Cell(GaussianPair(features=2, rows=50, test_rows=20, budget_seconds=1.0), IdentityMethod(), 0, 1)
        >>> str(cell.path), cell.alone, len(cell.fingerprint)
        ('gaussian-d2/identity/0.json', False, 64)
    """

    task: Task
    method: Method
    seed: int
    threads: int

    @property
    def alone(self) -> bool:
        """Whether nothing may run beside it: a fit that ends on its budget is worse on a busy machine."""
        return self.method.keeps_budget

    def run(self, out: Path, *, together: bool = False) -> dict[str, Any]:
        """See `run_cell`."""
        return run_cell(self, together=together)


def run_cell(cell: Cell, *, together: bool = False) -> dict[str, Any]:
    """Fit the cell's method on the cell's data in a process of its own and judge it.

    Args:
        cell: What to run.
        together: Whether the caller runs other cells at the same time; its times are then marked.

    Returns:
        The record, JSON types. A failure is a record too: `status` is "ok", "failed" or "timed out", with `reason`.
    """
    began = time.perf_counter()
    found: dict[str, Any] = {}
    details: dict[str, Any] = {}
    try:
        problem, judge = _prepared(cell.task, cell.seed)
        with tempfile.TemporaryDirectory(prefix="ot-lift-cell-") as name:
            folder = Path(name)
            found = _fitted(cell, problem, folder)
            status = "failed" if found.get("reason") else "ok"
            image = np.load(folder / "transported.npy") if status == "ok" else None
        if image is not None:
            found |= judge.figures(image)
            details = _pictures(problem, image)
    except Stopped as stop:
        status, found = "timed out", {"reason": str(stop), "usage": stop.usage}
    except Exception as error:  # whatever happens to a cell is its record, and the others go on
        status, found = "failed", {"reason": f"{type(error).__name__}: {error}"}
    figures = {name: found[name] for name in _MEASURED if found.get(name) is not None}
    details |= _more(found)
    return make_record(cell, status, found, figures, details, together=together, seconds=time.perf_counter() - began)


@functools.lru_cache(maxsize=1)  # cells come sorted by task and seed
def _prepared(task: Task, seed: int) -> tuple[Problem, Judge]:
    problem = task.problem(seed)
    return problem, Judge.of(problem, seed)


def _fitted(cell: Cell, problem: Problem, folder: Path) -> dict[str, Any]:
    """What was measured of the fit; the images of the test points are then in the folder."""
    for name, points in (("source", problem.source), ("target", problem.target), ("held_out", problem.test_source)):
        np.save(folder / f"{name}.npy", points)
    if problem.truth is not None:
        np.save(folder / "truth.npy", problem.truth)
    budget = cell.task.budget_seconds
    limits = {
        "start": 300.0,  # for a machine that has to read the libraries from a cold disk
        "fit": cell.task.fit_limit(keeps_budget=cell.method.keeps_budget),
        "evaluation": max(120.0, 2 * budget),
    }
    timing = {"timing_seconds": _QUICK_TIMING} if cell.task.quick else {}
    job = Job(folder, Phases(folder, limits), cell.seed, budget, alone=True, **timing)
    found: dict[str, Any] = in_child(measured, cell.method, job, cell.threads, phases=job.phases)
    return found


def _pictures(problem: Problem, image: Array) -> dict[str, Any]:
    """In two dimensions, a few points for the page."""
    if image.shape[1] != 2:
        return {}
    shown = {"source": problem.test_source, "target": problem.test_target, "image": image}
    return {"points": {name: np.round(points[:_DRAWN_POINTS], 3).tolist() for name, points in shown.items()}}


_MEASURED = (
    *("l2_uvp", "cosine", "energy", "energy_null", "sliced_w2", "sliced_w2_null", "monotonicity_violations"),
    *("misread", "transport_cost", "transport_cost_error", "emd_w2_squared", "emd_w2_squared_error", "true_cost"),
    *("w2_squared", "w2_squared_lower", "w2_squared_upper", "round_trip"),
    *("fit_seconds", "fit_cpu_seconds", "transport_seconds", "invert_seconds", "peak_memory_bytes"),
)


def _more(found: Mapping[str, Any]) -> dict[str, Any]:
    """Curves and texts behind the figures."""
    curve = found.get("curve") or []
    step = -(-len(curve) // _CURVE_ROWS) or 1
    details: dict[str, Any] = {"curve": [*curve[:-1:step], curve[-1]]} if curve else {}
    details |= {name: found[name] for name in ("stop_reason", "certificate", "w2_squared_basis") if found.get(name)}
    if interval := found.get("transport_seconds_range"):
        details["transport_seconds_range"] = interval
    return details


def make_record(
    cell: BaseCell,
    status: str,
    found: Mapping[str, Any],
    figures: Mapping[str, Any],
    details: Mapping[str, Any],
    *,
    together: bool,
    seconds: float,
) -> dict[str, Any]:
    """The record of a cell of any kind.

    Args:
        cell: What was run.
        status: "ok", "failed" or "timed out".
        found: `reason`, `usage`, `notes` and `messages`, those that there are.
        figures: By name; left out where the cell did not end well.
        details: Curves and tables behind the figures, JSON types.
        together: Whether other cells ran at the same time.
        seconds: Wall-clock time of the whole cell.
    """
    usage: Usage | None = found.get("usage")
    surroundings = here()
    record = {
        "format": RECORD_FORMAT,
        "task": cell.task.name,
        "method": cell.method.name,
        "seed": cell.seed,
        "fingerprint": cell.fingerprint,
        "settings": cell.settings,
        "status": status,
        "reason": found.get("reason", ""),
        "figures": dict(figures) if status == "ok" else {},
        "timing": {
            "wall_seconds": seconds,
            "cpu_seconds": usage and usage.cpu_seconds,
            "together": together,
            "waited_share": usage and usage.waited_share,
            "others_share": usage and usage.others_share,
            "contended": together or (usage is not None and usage.contended),
        },
        "notes": list(found.get("notes", ())),
        "messages": list(found.get("messages", ())),
        "details": dict(details),
        **surroundings,
        "machine": surroundings["machine"] | {"threads": cell.threads},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    strict: dict[str, Any] = json.loads(json_text(record))  # as a reader will see it; null for what is not finite
    return strict


def check_record(record: Any, where: str) -> dict[str, Any]:
    """A record that was read, or a ValueError that says what is wrong with it.

    Example:
        >>> check_record({"format": "a letter"}, "letter.json")
        Traceback (most recent call last):
        ValueError: expected a record of a benchmark cell in letter.json, got something else: remove it
    """
    if not isinstance(record, dict) or record.get("format") != RECORD_FORMAT or set(record) != set(RECORD_KEYS):
        raise ValueError(f"expected a record of a benchmark cell in {where}, got something else: remove it")
    return record
