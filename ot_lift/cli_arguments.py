"""Arguments of the commands: their help, and what becomes of them (tables, devices, methods, checkpoints)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ot_lift.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from ot_lift.methods import Method
    from ot_lift.tables import Table

__all__ = [
    "Columns",
    "Device",
    "Json",
    "MaxSeconds",
    "MaxSteps",
    "Seed",
    "Source",
    "Target",
    "checkpoint_folder",
    "checkpoints_at",
    "known_device",
    "known_methods",
    "listed",
    "open_pair",
    "remove_checkpoints",
    "table_rows",
]

Source = Annotated[Path, typer.Argument(help="Points to move: one row each.", metavar="SOURCE")]
Target = Annotated[Path, typer.Argument(help="Points to move them onto; any number of rows.", metavar="TARGET")]
Columns = Annotated[
    str | None,
    typer.Option(help="Columns to use, by name and in this order: a,b,c. By default all.", metavar="A,B,…"),
]
Seed = Annotated[int, typer.Option(help="Seed of all randomness: the same seed gives the same result.", min=0)]
Device = Annotated[
    str | None, typer.Option(help="Where to train: cpu, cuda, cuda:1, mps. By default the CPU.", metavar="NAME")
]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON object in place of text.")]
MaxSteps = Annotated[int | None, typer.Option(help="At most this many training steps.", min=1)]
MaxSeconds = Annotated[float | None, typer.Option(help="At most this many seconds of training.", min=0.01)]


def open_pair(source: Path, target: Path, columns: str | None) -> tuple[Table, Table]:
    """Both tables; where they name the same columns in another order, the target follows the source."""
    from ot_lift.tables import open_table

    first, second = (open_table(path, columns=listed(columns)) for path in (source, target))
    if first.features != second.features:
        raise DataError(
            f"expected as many columns in {target} as in {source}, got {second.features} and {first.features}: "
            "choose the ones to use with --columns"
        )
    if first.columns and second.columns and sorted(first.columns) == sorted(second.columns):
        second = open_table(target, columns=first.columns)
    return first, second


def listed(text: str | None) -> list[str] | None:
    """The names in "a,b,c"."""
    return None if text is None else [name.strip() for name in text.split(",")]


def table_rows(table: Table) -> np.ndarray:
    """All rows, memory-mapped if they are many; what is not finite is reported under the file's name."""
    from ot_lift.rows import open_rows

    array = table.array()
    open_rows(array, name=str(table.path))
    return array


def known_device(name: str | None) -> str | None:
    """The device, once it is known to be there."""
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise DataError(
            f"expected a device of this machine, as cpu or cuda, got {name!r}: leave it out for the CPU"
        ) from error
    return name


def checkpoint_folder(out: Path, *, resume: bool) -> Path:
    """Where a fit keeps its checkpoints; those of an unfinished one are not overwritten."""
    folder = out.parent / f"{out.name}.checkpoints"
    if folder.exists() and not resume:
        raise DataError(
            f"expected no unfinished fit beside {out}, got {folder}: add --resume to go on with it, or remove that "
            "folder to begin anew"
        )
    return folder


@contextmanager
def checkpoints_at(folder: Path) -> Iterator[None]:
    """Leave no folder behind if the block ends before its first checkpoint."""
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()


def remove_checkpoints(folder: Path) -> None:
    """After a fit that ended by itself."""
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def known_methods(names: list[str] | None, parameters: dict[str, Any]) -> list[Method]:
    """The methods of those names, ours last with its parameters."""
    from ot_lift.compare import default_methods
    from ot_lift.methods import BrenierMethod

    *peers, ours = default_methods()
    known = [method.name for method in (*peers, ours)]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise DataError(f"expected methods among {', '.join(known)}, got {unknown[0]!r}: check its spelling")
    given = {name: value for name, value in parameters.items() if value is not None}
    kept = [method for method in peers if names is None or method.name in names]
    return [*kept, BrenierMethod(name=ours.name, **given)]
