"""Results of record: one JSON file per benchmark, with its settings, seeds, machine, figures and revision."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"

RECORD_KEYS = ("name", "settings", "seeds", "machine", "figures", "revision", "date")
FIGURE_KEYS = ("figure", "value", "target", "met", "spread")
MACHINE_KEYS = ("cpu", "cores", "threads", "torch", "numpy", "pot", "python", "platform")


def figure(
    name: str,
    value: float,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    spread: Sequence[float] | None = None,
) -> dict[str, Any]:
    """One row of a record; whether the target is met follows from the value, and is never typed by hand.

    Args:
        name: What was measured, with its unit: "L2-UVP, d = 8 (%)".
        value: The measured number.
        at_most: The target, where smaller is better.
        at_least: The target, where larger is better. With neither, the row has no target (a baseline, say).
        spread: The values of the single seeds or repeats behind `value`, every one of them.

    Raises:
        ValueError: The value is not finite, or both targets are given.

    Example:
        >>> figure("L2-UVP, d = 2 (%)", 0.13, at_most=0.2, spread=[0.12, 0.14])
        {'figure': 'L2-UVP, d = 2 (%)', 'value': 0.13, 'target': '≤ 0.2', 'met': True, 'spread': [0.12, 0.14]}
    """
    if not math.isfinite(value):
        raise ValueError(f"expected a finite value for {name!r}, got {value}: record the failure as a number")
    if at_most is not None and at_least is not None:
        raise ValueError(f"expected at_most or at_least for {name!r}, got both: write two rows")
    target, met = None, None
    if at_most is not None:
        target, met = f"≤ {at_most:g}", bool(value <= at_most)
    elif at_least is not None:
        target, met = f"≥ {at_least:g}", bool(value >= at_least)
    values = None if spread is None else [float(one) for one in spread]
    return {"figure": name, "value": float(value), "target": target, "met": met, "spread": values}


def machine(*, device: str = "cpu") -> dict[str, Any]:
    """The machine and the versions that a benchmark ran with; no host name, user or path.

    Args:
        device: Where the tensors were. An accelerator's name is added to the description.

    Example:
        >>> description = machine()
        >>> description["cores"] >= 1 and description["threads"] >= 1
        True
    """
    described: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "pot": version("POT"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    if torch.device(device).type == "cuda":
        described["accelerator"] = torch.cuda.get_device_name(device)
    return described


def _cpu_name() -> str:
    table = Path("/proc/cpuinfo")
    if table.exists():
        for line in table.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def revision() -> str:
    """The commit that the code is at, with "+changes" where the measured code differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        changes = git("status", "--porcelain", "--", "ot_lift", "benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+changes" if changes else commit


def write_record(
    name: str,
    *,
    settings: Mapping[str, Any],
    seeds: Iterable[int],
    figures: Iterable[Mapping[str, Any]],
    details: Mapping[str, Any] | None = None,
    device: str = "cpu",
    directory: Path = RESULTS,
) -> Path:
    """Write `directory/NAME.json` as a whole or not at all.

    Args:
        name: The benchmark's name, and the file's.
        settings: Everything that decides the result besides the seeds, as plain values.
        seeds: Every seed that was run.
        figures: Rows from `figure`.
        details: Curves and tables behind the figures, as plain values.
        device: Where the tensors were.
        directory: The folder of the records.

    Returns:
        The file's path.
    """
    record: dict[str, Any] = {
        "name": name,
        "settings": dict(settings),
        "seeds": list(seeds),
        "machine": machine(device=device),
        "figures": [dict(row) for row in figures],
        "revision": revision(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    if details is not None:
        record["details"] = dict(details)
    record = json.loads(json.dumps(record, allow_nan=False))  # as a reader will see it
    check_record(record, name)
    path = directory / f"{name}.json"
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=directory, suffix=".part", delete=False) as file:
        try:
            json.dump(record, file, indent=1, ensure_ascii=False, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    return path


def read_record(name: str, *, directory: Path = RESULTS) -> dict[str, Any]:
    """Read and check `directory/NAME.json`.

    Raises:
        FileNotFoundError: There is no such record.
        ValueError: The file is not a record of that name.
    """
    record = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
    check_record(record, name)
    return record


def read_records(*, directory: Path = RESULTS) -> list[dict[str, Any]]:
    """All records of a folder, by name."""
    return [read_record(path.stem, directory=directory) for path in sorted(directory.glob("*.json"))]


def check_record(record: Any, name: str) -> None:
    """Raise a ValueError where a record of that name lacks something or contradicts itself."""
    if not isinstance(record, dict) or (missing := [key for key in RECORD_KEYS if key not in record]):
        lacks = "an object" if not isinstance(record, dict) else ", ".join(missing)
        raise ValueError(f"record {name!r} lacks {lacks}: write it with benchmarks.record.write_record")
    if record["name"] != name:
        raise ValueError(f"expected the record {name!r}, got {record['name']!r}: a file is named as its record")
    if missing := [key for key in MACHINE_KEYS if key not in record["machine"]]:
        raise ValueError(f"record {name!r} does not say the machine's {', '.join(missing)}")
    for row in record["figures"]:
        if tuple(row) != FIGURE_KEYS:
            raise ValueError(f"expected rows with {FIGURE_KEYS} in record {name!r}, got {tuple(row)}")
        if row["met"] != _meets(row["value"], row["target"]):
            raise ValueError(f"record {name!r} says met={row['met']} of {row['value']} against {row['target']}")


def _meets(value: float, target: str | None) -> bool | None:
    if target is None:
        return None
    sign, _, bound = target.partition(" ")
    return value <= float(bound) if sign == "≤" else value >= float(bound)
