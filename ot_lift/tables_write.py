"""Tables of numbers written to CSV, Parquet, .npy and .npz files in chunks."""

from __future__ import annotations

import csv
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np

from ot_lift.data import check_kind, check_shape, compute_dtype
from ot_lift.errors import DataError
from ot_lift.io import atomic_file, writing

__all__ = ["by_suffix", "write_table"]

Chosen = TypeVar("Chosen")


def write_table(
    path: str | os.PathLike[str], chunks: Iterable[np.ndarray], *, columns: Sequence[str] | None = None
) -> None:
    """Write chunks of rows to a file that appears when it is complete, its format told by its suffix.

    Args:
        path: A file that ends in .csv, .parquet, .npy or .npz; an existing one is replaced.
        chunks: Arrays (k, features) of numbers; float32 stays float32, everything else becomes float64,
            as the first chunk has it.
        columns: Names of the columns; Parquet uses x0, x1, … and CSV has no header without them, .npy
            cannot hold them.

    Raises:
        DataError: The chunks do not fit together, or the place cannot be written. Nothing is left there.

    Example:
        >>> with tempfile.TemporaryDirectory() as place:
        ...     write_table(f"{place}/y.csv", [np.eye(2)], columns=["a", "b"])
        ...     print(Path(place, "y.csv").read_text())
        a,b
        1,0
        0,1
        <BLANKLINE>
    """
    target = Path(path)
    sink_class = by_suffix(target, _SINKS)
    names = None if columns is None else [str(column) for column in columns]
    sink: _Sink | None = None
    features = None if names is None else len(names)
    dtype: np.dtype = np.dtype(np.float64)
    with atomic_file(target) as file, ExitStack() as stack:
        for chunk in [chunks] if isinstance(chunks, np.ndarray) else chunks:
            array = np.asarray(chunk)
            check_kind(array.dtype, name=f"each chunk for {target}")
            check_shape(array.shape, name=f"each chunk for {target}", features=features, minimum_rows=0)
            with writing(target):
                if sink is None:
                    features, dtype = array.shape[1], np.dtype(compute_dtype(array.dtype))
                    sink = sink_class(file, stack, features, dtype, names)
                sink.append(np.ascontiguousarray(array, dtype=dtype))
        if features is None:
            raise DataError(f"expected at least one chunk of rows for {target}, got none")
        with writing(target):
            (sink or sink_class(file, stack, features, dtype, names)).close()


def by_suffix(path: Path, table: Mapping[str, Chosen]) -> Chosen:
    """The entry of a table of formats for a file's suffix.

    Raises:
        DataError: for a suffix that is not in the table.

    Example:
        >>> by_suffix(Path("X.CSV"), {".csv": 1, ".npy": 2})
        1
    """
    try:
        return table[path.suffix.lower()]
    except KeyError:
        raise DataError(
            f"expected a file name that ends in {', '.join(table)}, got {path.name!r}: choose one of these formats"
        ) from None


class _Sink(Protocol):
    """Takes chunks (k, features) of one dtype and writes them to an open file; `stack` frees the rest."""

    def __init__(
        self, file: BinaryIO, stack: ExitStack, features: int, dtype: np.dtype, names: list[str] | None
    ) -> None: ...
    def append(self, chunk: np.ndarray) -> None: ...
    def close(self) -> None: ...


class _CsvSink:
    def __init__(
        self, file: BinaryIO, stack: ExitStack, features: int, dtype: np.dtype, names: list[str] | None
    ) -> None:
        self._file = file
        if names is not None:
            text = StringIO()
            csv.writer(text, lineterminator="\n").writerow(names)
            file.write(text.getvalue().encode())

    def append(self, chunk: np.ndarray) -> None:
        from pyarrow import csv as arrow_csv

        options = arrow_csv.WriteOptions(include_header=False, quoting_style="none")
        arrow_csv.write_csv(_arrow_table(chunk, None), self._file, options)

    def close(self) -> None: ...


class _ParquetSink:
    def __init__(
        self, file: BinaryIO, stack: ExitStack, features: int, dtype: np.dtype, names: list[str] | None
    ) -> None:
        from pyarrow import parquet

        self._names = names
        empty = _arrow_table(np.empty((0, features), dtype=dtype), names)
        self._writer = stack.enter_context(parquet.ParquetWriter(file, empty.schema))

    def append(self, chunk: np.ndarray) -> None:
        self._writer.write_table(_arrow_table(chunk, self._names))

    def close(self) -> None:
        self._writer.close()


def _arrow_table(chunk: np.ndarray, names: list[str] | None) -> Any:
    import pyarrow

    labels = names or [f"x{i}" for i in range(chunk.shape[1])]
    return pyarrow.table([pyarrow.array(np.ascontiguousarray(column)) for column in chunk.T], names=labels)


class _NpySink:
    """The header has a fixed length, so the number of rows is filled in at the end."""

    def __init__(
        self, file: BinaryIO, stack: ExitStack, features: int, dtype: np.dtype, names: list[str] | None
    ) -> None:
        self._file, self._features, self._dtype, self._rows = file, features, dtype, 0
        self._write_header()

    def _write_header(self) -> None:
        shape = (self._rows, self._features)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        text = repr({"descr": descr, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
        self._file.seek(0)
        self._file.write(np.lib.format.magic(1, 0) + struct.pack("<H", len(text)) + text.encode("ascii"))

    def append(self, chunk: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(chunk).data)
        self._rows += len(chunk)

    def close(self) -> None:
        self._write_header()
        self._file.seek(0, os.SEEK_END)


class _NpzSink:
    """A zip member must be written in one go, so the rows wait in a temporary file."""

    def __init__(
        self, file: BinaryIO, stack: ExitStack, features: int, dtype: np.dtype, names: list[str] | None
    ) -> None:
        self._file, self._names = file, names
        self._spool = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 — freed by the stack
        self._rows = _NpySink(self._spool, stack, features, dtype, None)

    def append(self, chunk: np.ndarray) -> None:
        self._rows.append(chunk)

    def close(self) -> None:
        self._rows.close()
        self._spool.seek(0)
        with zipfile.ZipFile(self._file, "w") as archive:
            with archive.open("data.npy", "w", force_zip64=True) as member:
                shutil.copyfileobj(self._spool, member, 2**20)
            if self._names is not None:
                with archive.open("columns.npy", "w") as member:
                    np.lib.format.write_array(member, np.array(self._names), allow_pickle=False)


_SINKS: dict[str, type[_Sink]] = {
    ".csv": _CsvSink,
    ".parquet": _ParquetSink,
    ".npy": _NpySink,
    ".npz": _NpzSink,
}
