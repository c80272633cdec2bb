"""Tables of numbers in CSV, Parquet, .npy and .npz files, read in chunks."""

from __future__ import annotations

import csv
import json
import os
import struct
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ot_lift.data import check_finite, check_kind, check_shape, to_tensor
from ot_lift.errors import DataError
from ot_lift.rows import map_npy
from ot_lift.tables_write import by_suffix, write_table

__all__ = ["Table", "open_table"]

_IN_MEMORY_BYTES = 2**28  # `Table.array` spools larger tables to disk
_MISSING = {"", "na", "n/a", "nan", "null", "none", "<na>"}


@dataclass(frozen=True)
class Table:
    """A table of finite numbers in a file, opened but not read.

    Attributes:
        path: The file.
        features: Number of columns that are read.
        columns: Their names; None where the file has none.
        rows: Number of rows; None where only reading the file tells (CSV).
    """

    path: Path
    features: int
    columns: list[str] | None
    rows: int | None
    _read: Callable[[], Iterator[np.ndarray]] = field(repr=False)
    _mapped: np.ndarray | None = field(default=None, repr=False)

    def chunks(self) -> Iterator[np.ndarray]:
        """Arrays (k, features) of consecutive rows, each checked to be finite."""
        first_row = 0
        for chunk in self._read():
            if chunk.dtype.kind == "f":
                name, columns = str(self.path), self.columns or ()
                check_finite(to_tensor(chunk), name=name, first_row=first_row, columns=columns)
            first_row += len(chunk)
            yield chunk

    def array(self) -> np.ndarray:
        """All rows (n, features): memory-mapped from a .npy file or a temporary one if they are many.

        The values of a .npy file are not read, and so not checked, here.
        """
        if self._mapped is not None:
            return self._mapped
        size = self.path.stat().st_size if self.rows is None else self.rows * self.features * 8
        if size <= _IN_MEMORY_BYTES:
            chunks = list(self.chunks())
            return np.concatenate(chunks) if chunks else np.empty((0, self.features))
        return self._spooled()

    def _spooled(self) -> np.ndarray:
        """A temporary .npy file that goes away with the array."""
        descriptor, name = tempfile.mkstemp(suffix=".npy", prefix="ot-lift-")
        os.close(descriptor)
        try:
            write_table(name, self.chunks())
            array = map_npy(name, name=str(self.path))
        except BaseException:
            os.unlink(name)
            raise
        weakref.finalize(array, _remove, name)
        return array


def _remove(name: str) -> None:
    with suppress(OSError):
        os.unlink(name)


def open_table(path: str | os.PathLike[str], *, columns: Sequence[str] | None = None, chunk_rows: int = 65536) -> Table:
    r"""Open a file of numbers, its format told by its suffix.

    A CSV file is comma-separated; its first line is a header unless every cell in it is a number
    (0,1,2,… as pandas writes for unnamed columns counts as a header). A .npz file holds one array, and
    may hold its column names under the key `columns`. Parquet leaves out a stored pandas index.

    Args:
        path: A file that ends in .csv, .parquet, .npy or .npz.
        columns: Columns to read, in this order; None reads all. Where the file has no names, positions
            counted from 0, as strings.
        chunk_rows: Largest number of rows in a chunk.

    Returns:
        The table; its values are read by `chunks` or `array`.

    Raises:
        DataError: No such file, not a table of numbers, or a column is missing; reading raises it too,
            with the name of the column that does not hold finite numbers.

    Example:
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = Path(place, "x.csv").write_text("height,weight\n1,2\n3,4\n")
        ...     table = open_table(f"{place}/x.csv", columns=["weight"])
        ...     table.columns, table.array().tolist()
        (['weight'], [[2.0], [4.0]])
    """
    target = Path(path)
    opener = by_suffix(target, _OPENERS)
    if not target.is_file():
        got = "a folder" if target.is_dir() else "nothing"
        raise DataError(f"expected a file at {target}, got {got} there: check the path")
    with _reading(target):
        table: Table = opener(target, columns, chunk_rows)
    return table


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the readers raise about a damaged file into one sentence."""
    try:
        yield
    except DataError:
        raise
    except (ValueError, OSError, EOFError, struct.error, zlib.error, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"expected a {path.suffix} table of numbers at {path}, got a file that is damaged or something "
            f"else ({reason}): check or write it again"
        ) from error


def _select(path: Path, names: list[str] | None, wanted: Sequence[str] | None, features: int) -> list[int]:
    """Positions of the wanted columns; a missing or ambiguous name is refused."""
    if wanted is None:
        return list(range(features))
    known = [str(i) for i in range(features)] if names is None else names
    for name in wanted:
        if known.count(name) != 1:
            problem = "no such column" if name not in known else f"{known.count(name)} columns of that name"
            raise DataError(f"expected a column {name!r} in {path}, got {problem}: choose from {', '.join(known[:20])}")
    return [known.index(name) for name in wanted]


def _chosen(names: list[str] | None, positions: list[int]) -> list[str] | None:
    return None if names is None else [names[i] for i in positions]


# --------------------------------------------------------------------------------------------- CSV
def _open_csv(path: Path, wanted: Sequence[str] | None, chunk_rows: int) -> Table:
    cells, records = _first_line(path)
    is_header = not all(map(_is_number, cells)) or (len(cells) > 1 and cells == [str(i) for i in range(len(cells))])
    names = [cell.strip() for cell in cells] if is_header else None
    positions = _select(path, names, wanted, len(cells))
    if names is not None and any(not names[i] for i in positions):
        nameless = next(i for i in positions if not names[i])
        raise DataError(
            f"expected a name for every column of {path}, got none for column {nameless} (counting from 0), "
            "perhaps a pandas index: write it with index=False, or choose the columns by name"
        )
    labels = names or [str(i) for i in range(len(cells))]

    def read() -> Iterator[np.ndarray]:
        import pandas

        first_row = 0
        with (
            _reading(path),
            suppress(pandas.errors.EmptyDataError),
            pandas.read_csv(
                path,
                header=None,
                skiprows=records if is_header else 0,
                index_col=False,
                chunksize=chunk_rows,
                low_memory=False,
                encoding="utf-8-sig",
            ) as frames,
        ):
            for frame in frames:
                if frame.shape[1] != len(cells):
                    raise DataError(
                        f"expected {len(cells)} cells in every line of {path}, got {frame.shape[1]} after "
                        "the first: check the separators (commas) and the header"
                    )
                frame.columns = labels
                chunk = [_numbers(path, frame.iloc[:, i], labels[i], first_row) for i in positions]
                first_row += len(frame)
                yield np.stack(chunk, axis=1)

    return Table(path, len(positions), _chosen(names, positions), None, read)


def _first_line(path: Path) -> tuple[list[str], int]:
    """Cells of the first record that is not blank, and how many records of the file end with it."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            for records, cells in enumerate(csv.reader(file), start=1):
                if "\0" in "".join(cells):
                    raise ValueError("it has NUL bytes")
                if cells:
                    return cells, records
        except csv.Error as error:
            raise ValueError(str(error)) from error
    raise DataError(f"expected rows of numbers in {path}, got 0 sample(s): the file is empty")


def _is_number(cell: str) -> bool:
    """Whether a cell is a number or stands for a missing one."""
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in _MISSING
    return True


def _numbers(path: Path, column: Any, label: str, first_row: int) -> np.ndarray:
    """A pandas column as float64; the first cell that is not a number is named."""
    import pandas

    numbers = pandas.to_numeric(column, errors="coerce")
    if not pandas.api.types.is_numeric_dtype(column.dtype):
        bad = (numbers.isna() & column.notna()).to_numpy()
        if bad.any():
            row = int(bad.argmax())
            raise DataError(
                f"expected numbers in column {label!r} of {path}, got {column.iloc[row]!r} in row "
                f"{first_row + row} (counting from 0): choose other columns, or encode it as numbers first"
            )
    return np.asarray(numbers.to_numpy(dtype=np.float64, na_value=np.nan))


# ----------------------------------------------------------------------------------------- Parquet
def _open_parquet(path: Path, wanted: Sequence[str] | None, chunk_rows: int) -> Table:
    import pyarrow
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    stored = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    names = [name for name in schema.names if name not in stored]
    positions = _select(path, names, wanted, len(names))
    chosen = [names[i] for i in positions]
    kinds = pyarrow.types
    numeric = (kinds.is_integer, kinds.is_floating, kinds.is_boolean, kinds.is_decimal)
    for name in chosen:
        if schema.names.count(name) > 1:
            raise DataError(f"expected one column {name!r} in {path}, got several: rename them")
        kind = schema.field(name).type
        if not any(is_kind(kind) for is_kind in numeric):
            raise DataError(
                f"expected numbers in column {name!r} of {path}, got {kind}: choose other columns, or encode "
                "it as numbers first"
            )
    if not chosen:
        raise DataError(f"expected at least one column in {path}, got 0 feature(s)")
    narrow = all(kinds.is_float32(schema.field(name).type) for name in chosen)
    dtype, wide = (np.float32, pyarrow.float32()) if narrow else (np.float64, pyarrow.float64())

    def read() -> Iterator[np.ndarray]:
        with _reading(path), parquet.ParquetFile(path, memory_map=True) as file:
            for batch in file.iter_batches(batch_size=chunk_rows, columns=chosen):
                chunk = np.empty((batch.num_rows, len(chosen)), dtype=dtype)
                for i, name in enumerate(chosen):
                    chunk[:, i] = batch.column(name).cast(wide, safe=False).to_numpy(zero_copy_only=False)
                yield chunk

    return Table(path, len(chosen), chosen, rows, read)


# ------------------------------------------------------------------------------------ .npy and .npz
def _open_npy(path: Path, wanted: Sequence[str] | None, chunk_rows: int) -> Table:
    array = map_npy(path, name="a table")
    positions = _select(path, None, wanted, array.shape[1])

    def read() -> Iterator[np.ndarray]:
        for start in range(0, len(array), chunk_rows):
            rows = array[start : start + chunk_rows]
            yield np.array(rows if wanted is None else rows[:, positions])

    return Table(path, len(positions), None, len(array), read, array if wanted is None else None)


def _open_npz(path: Path, wanted: Sequence[str] | None, chunk_rows: int) -> Table:
    with zipfile.ZipFile(path) as archive:
        members = [name.removesuffix(".npy") for name in archive.namelist()]
        keys = [name for name in members if name != "columns"]
        if len(keys) != 1:
            raise DataError(
                f"expected one array in {path}, got {len(keys)} ({', '.join(keys[:5])}): save the one to read"
            )
        names = None
        if "columns" in members:
            with archive.open("columns.npy") as file:
                names = [str(name) for name in np.lib.format.read_array(file, allow_pickle=False)]
        with archive.open(f"{keys[0]}.npy") as file:
            shape, by_column, dtype = _npy_header(file)
    label = f"{keys[0]} in {path}"
    check_kind(dtype, name=label)
    check_shape(shape, name=label, features=None if names is None else len(names), minimum_rows=0)
    positions = _select(path, names, wanted, shape[1])

    def read() -> Iterator[np.ndarray]:
        with _reading(path), zipfile.ZipFile(path) as archive, archive.open(f"{keys[0]}.npy") as file:
            whole = np.lib.format.read_array(file, allow_pickle=False) if by_column else None
            if whole is None:
                _npy_header(file)
            for start in range(0, shape[0], chunk_rows):
                size = min(chunk_rows, shape[0] - start)
                if whole is None:
                    content = file.read(size * shape[1] * dtype.itemsize)
                    rows = np.frombuffer(content, dtype=dtype).reshape(size, shape[1])
                else:
                    rows = whole[start : start + size]
                yield np.array(rows[:, positions])

    return Table(path, len(positions), _chosen(names, positions), shape[0], read)


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is stored by column, and dtype; leaves `file` at the first value."""
    if np.lib.format.read_magic(file) == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


_OPENERS: dict[str, Callable[[Path, Sequence[str] | None, int], Table]] = {
    ".csv": _open_csv,
    ".parquet": _open_parquet,
    ".npy": _open_npy,
    ".npz": _open_npz,
}
