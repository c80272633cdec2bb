"""Records of cells that nobody ran, for the tests of what is done with records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cells import RECORD_FORMAT

MACHINE = {
    "cpu": "A processor",
    "cores": 2,
    "threads": 1,
    "torch": "2.13.0",
    "numpy": "2.0.2",
    "pot": "0.9.7",
    "python": "3.11.7",
    "platform": "Linux x86_64",
}


def record(
    task: str,
    method: str,
    seed: int,
    *,
    status: str = "ok",
    contended: bool = False,
    details: Mapping[str, Any] | None = None,
    machine: Mapping[str, Any] | None = None,
    **figures: float,
) -> dict[str, Any]:
    """The record of one cell with these figures."""
    words = {"name": task, "title": f"The task {task}", "words": "Words & <signs>.", "rows": 10, "quick": False}
    timing = dict.fromkeys(("cpu_seconds", "waited_share", "others_share"), 0.0)
    return {
        "format": RECORD_FORMAT,
        "task": task,
        "method": method,
        "seed": seed,
        "fingerprint": f"{task} {method} {seed}",
        "settings": {"task": words, "method": {"strength": 3}, "threads": 1},
        "status": status,
        "reason": "" if status == "ok" else "ValueError: no luck",
        "figures": dict(figures) if status == "ok" else {},
        "timing": {**timing, "wall_seconds": 2.0, "together": False, "contended": contended},
        "notes": ["fitted on 5 points"],
        "messages": [],
        "details": dict(details or {}),
        "machine": {**MACHINE, **(machine or {})},
        "revision": "0123456789ab",
        "date": "2026-01-02T03:04:05+00:00",
    }


def seeds_of(task: str, method: str, l2_uvp: Sequence[float], **more: Any) -> list[dict[str, Any]]:
    """A record for each value, seed by seed, with a fit time and null levels."""
    plain = {"fit_seconds": 1.0, "energy": 0.5, "energy_null": 0.1, "sliced_w2": 0.5, "sliced_w2_null": 0.2}
    return [record(task, method, seed, **{**plain, "l2_uvp": value, **more}) for seed, value in enumerate(l2_uvp)]
