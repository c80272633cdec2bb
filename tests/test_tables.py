"""Tables are read and written in chunks, keep their columns' names, and say what is wrong with a file."""

from __future__ import annotations

import gc
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ot_lift import tables
from ot_lift.errors import DataError
from ot_lift.tables import open_table
from ot_lift.tables_write import write_table

FORMATS = [".csv", ".parquet", ".npy", ".npz"]
NAMED = [".csv", ".parquet", ".npz"]


@pytest.fixture(params=[np.float64, np.float32])
def data(request: pytest.FixtureRequest, rng: np.random.Generator) -> np.ndarray:
    """Numbers of every size, which must come back to the last bit."""
    values = rng.standard_normal((50, 3)) * 10.0 ** rng.integers(-12, 13, (50, 3))
    return values.astype(request.param)


def in_chunks(array: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    yield from (array[start : start + rows] for start in range(0, len(array), rows))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("chunk_rows", [1, 7, 1000])
def test_what_is_written_is_read(suffix: str, chunk_rows: int, data: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    write_table(path, in_chunks(data, chunk_rows))
    table = open_table(path, chunk_rows=chunk_rows)
    assert (table.path, table.features) == (path, 3)
    assert table.rows == (None if suffix == ".csv" else 50)
    assert table.columns == (["x0", "x1", "x2"] if suffix == ".parquet" else None)
    chunks = list(table.chunks())
    assert all(0 < len(chunk) <= chunk_rows for chunk in chunks)
    read = np.concatenate(chunks)
    assert read.dtype == (np.float64 if suffix == ".csv" else data.dtype)
    assert np.array_equal(read.astype(data.dtype), data)
    assert np.array_equal(table.array().astype(data.dtype), data)


@pytest.mark.parametrize("suffix", NAMED)
@pytest.mark.parametrize("target", NAMED)
def test_columns_keep_their_names_from_file_to_file(suffix: str, target: str, tmp_path: Path) -> None:
    names = ["größe, cm", 'the "second"', " c", "2019"]
    array = np.arange(12.0).reshape(3, 4)
    write_table(tmp_path / f"x{suffix}", array, columns=names)
    table = open_table(tmp_path / f"x{suffix}")
    write_table(tmp_path / f"y{target}", table.chunks(), columns=table.columns)
    again = open_table(tmp_path / f"y{target}")
    stripped = [name.strip() for name in names] if ".csv" in (suffix, target) else names
    assert again.columns == stripped
    assert np.array_equal(again.array(), array)
    if target == ".csv":
        assert pd.read_csv(tmp_path / "y.csv").columns.str.strip().tolist() == stripped


@pytest.mark.parametrize("suffix", FORMATS)
def test_chosen_columns_come_in_the_order_asked_for(suffix: str, tmp_path: Path) -> None:
    array = np.arange(12.0).reshape(4, 3)
    path, named = tmp_path / f"x{suffix}", suffix != ".npy"
    write_table(path, array, columns=["a", "b", "c"] if named else None)
    wanted = ["c", "a"] if named else ["2", "0"]
    table = open_table(path, columns=wanted, chunk_rows=3)
    assert (table.features, table.columns) == (2, wanted if named else None)
    assert np.array_equal(table.array(), array[:, [2, 0]])
    assert np.array_equal(np.concatenate(list(table.chunks())), array[:, [2, 0]])
    with pytest.raises(DataError, match=r"expected a column 'z' in .*, got no such column: choose from"):
        open_table(path, columns=["z"])


HEADERS: dict[str, tuple[str, list[str] | None, int]] = {
    "names": ("a,b\n1,2\n3,4\n", ["a", "b"], 2),
    "no names": ("1,2\n3,4\n", None, 2),
    "unnamed columns of pandas": ("0,1\n1,2\n3,4\n", ["0", "1"], 2),
    "a number among names": ("year,2019\n1,2\n", ["year", "2019"], 1),
    "byte order mark": ("\ufeffa,b\r\n1,2\r\n", ["a", "b"], 1),
    "blank lines": ("\n\na,b\n\n1,2\n\n", ["a", "b"], 1),
    "quotes": ('"a\nb","c,d"\n"1","2"\n', ["a\nb", "c,d"], 1),
    "one column": ("a\n1\n2\n", ["a"], 2),
    "header alone": ("a,b\n", ["a", "b"], 0),
    "booleans and integers": ("a,b\nTrue,1\nFalse,2\n", ["a", "b"], 2),
    "no newline at the end": ("1,2\n3,4", None, 2),
    "spaces": ("a, b\n1, 2\n 3,4 \n", ["a", "b"], 2),
}


@pytest.mark.parametrize("case", HEADERS)
def test_csv_headers_are_told_from_data(case: str, tmp_path: Path) -> None:
    text, columns, rows = HEADERS[case]
    (tmp_path / "x.csv").write_bytes(text.encode())
    table = open_table(tmp_path / "x.csv")
    assert table.columns == columns
    array = table.array()
    assert array.shape == (rows, table.features)
    assert array.dtype == np.float64


BAD_CSV: dict[str, tuple[str, str]] = {
    "words": ("a,b\n1,2\n3,x\n", r"numbers in column 'b' of .*, got 'x' in row 1"),
    "a later chunk": ("a,b\n" + "1,2\n" * 5 + "oops,4\n", r"column 'a' of .*, got 'oops' in row 5"),
    "missing": ("a,b\n1,2\n3,\n", "NaN in row 1, column 'b'"),
    "missing in the first row": ("1,NA,3\n4,5,6\n", "NaN in row 0, column 1"),
    "infinity": ("a\n1\ninf\n", "infinity in row 1, column 'a'"),
    "too long a line": ("a,b\n1,2\n1,2,3\n", "Expected 2 fields in line 3, saw 3"),
    "too long throughout": ("a,b\n1,2,3\n4,5,6\n", "expected 2 cells in every line .* got 3"),
    "trailing commas": ("a,b\n1,2,\n4,5,\n", "expected 2 cells in every line .* got 3"),
    "too short a line": ("a,b\n1,2\n1\n", "NaN in row 1, column 'b'"),
    "semicolons": ("a;b\n1;2\n", "got '1;2' in row 0"),
    "pandas index": (",a\n0,1\n1,2\n", "perhaps a pandas index: write it with index=False"),
    "empty": ("", "the file is empty"),
    "blank": ("\n\n", "the file is empty"),
    "complex": ("a\n1+2j\n", r"got '1\+2j' in row 0"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_a_bad_csv_file_is_named_with_row_and_column(case: str, tmp_path: Path) -> None:
    text, word = BAD_CSV[case]
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=word) as caught:
        list(open_table(tmp_path / "x.csv", chunk_rows=3).chunks())
    assert "x.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_index_column_can_be_left_out_by_name(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1.0, 2.0], "label": ["x", "y"]}).to_csv(tmp_path / "x.csv")
    assert open_table(tmp_path / "x.csv", columns=["a"]).array().tolist() == [[1], [2]]


PARQUET: dict[str, tuple[pd.DataFrame, Any]] = {
    "integers": (pd.DataFrame({"a": [1, 2]}), [[1], [2]]),
    "large integers": (pd.DataFrame({"a": [2**60, 2**53 + 1]}), [[2**60], [2**53]]),
    "mixed": (pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]}), [[1, 0.5, 1], [2, 1.5, 0]]),
    "nullable": (pd.DataFrame({"a": pd.array([1, 2], dtype="Int64")}), [[1], [2]]),
    "half": (pd.DataFrame({"a": np.array([0.5, 1], dtype=np.float16)}), [[0.5], [1]]),
    "index": (pd.DataFrame({"a": [1.0, 2.0]}, index=[5, 7]), [[1], [2]]),
    "named index": (pd.DataFrame({"a": [1.0], "b": [2.0]}).set_index("b"), [[1]]),
}


@pytest.mark.parametrize("case", PARQUET)
def test_parquet_columns_of_any_numbers_are_read(case: str, tmp_path: Path) -> None:
    frame, expected = PARQUET[case]
    frame.to_parquet(tmp_path / "x.parquet")
    table = open_table(tmp_path / "x.parquet")
    assert table.columns == list(frame.columns)
    assert table.rows == len(frame)
    assert table.array().tolist() == expected


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        (pd.DataFrame({"a": [1.0], "b": ["x"]}), "numbers in column 'b' of .*string"),
        (pd.DataFrame({"b": pd.to_datetime(["2020-01-01"])}), "column 'b' of .*timestamp"),
        (pd.DataFrame({"a": [1.0, None]}), "NaN in row 1, column 'a'"),
        (pd.DataFrame({"a": pd.array([None, 2], dtype="Int64")}), "NaN in row 0, column 'a'"),
        (pd.DataFrame(), r"0 feature\(s\)"),
    ],
)
def test_parquet_columns_without_numbers_are_named(frame: pd.DataFrame, word: str, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=word):
        list(open_table(tmp_path / "x.parquet").chunks())


@pytest.mark.parametrize("array", [np.arange(12).reshape(4, 3), np.asfortranarray(np.arange(12.0).reshape(4, 3))])
def test_archives_of_numpy_are_read_whatever_their_key_and_layout(array: np.ndarray, tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", embedding=array)
        table = open_table(tmp_path / "x.npz", chunk_rows=3, columns=["2", "1"])
        assert [len(chunk) for chunk in table.chunks()] == [3, 1]
        assert np.array_equal(table.array(), array[:, [2, 1]])


def test_archives_that_are_not_one_table_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for arrays, word in (
        ({"a": np.eye(2), "b": np.eye(2)}, r"one array in .*, got 2 \(a, b\)"),
        ({}, "got 0"),
        ({"a": np.zeros(3)}, "Reshape your data"),
        ({"a": np.array([["x"]])}, "strings"),
        ({"a": np.array([[None]], dtype=object)}, "object"),
        ({"a": np.eye(2), "columns": np.array(["one"])}, r"\(n, 1\), got \(2, 2\)"),
        ({"a": np.eye(2), "columns": np.array(["one", None])}, "damaged or something else"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=word):
            open_table(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_is_something_else_or_truncated_gives_one_sentence(
    suffix: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / f"x{suffix}"
    for content in (b"\x89PNG\r\n\x1a\n\x00\xff", b"\x00" * 40):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.\w+") as caught:
            list(open_table(path).chunks())
        assert "\n" not in str(caught.value)
    if suffix != ".csv":
        write_table(path, rng.standard_normal((500, 3)))
        path.write_bytes(path.read_bytes()[:-60])
        with pytest.raises(DataError, match="damaged or something else"):
            list(open_table(path).chunks())


def test_a_flipped_byte_in_an_archive_is_found(tmp_path: Path) -> None:
    write_table(tmp_path / "x.npz", np.zeros((500, 3)))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[2000] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match="damaged or something else"):
        open_table(tmp_path / "x.npz").array()


def test_paths_without_a_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got nothing there"):
        open_table(tmp_path / "absent.csv")
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(DataError, match="got a folder there"):
        open_table(tmp_path / "x.csv")
    for use in (open_table, lambda path: write_table(path, [np.eye(2)])):
        with pytest.raises(DataError, match=r"ends in \.csv, \.parquet, \.npy, \.npz, got 'x\.txt'"):
            use(tmp_path / "x.txt")


@pytest.mark.parametrize("suffix", NAMED)
def test_a_large_table_is_spooled_to_disk_and_cleaned_up(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    monkeypatch.setattr(tables, "_IN_MEMORY_BYTES", 1000)
    data = rng.standard_normal((400, 3))
    write_table(tmp_path / f"x{suffix}", data)
    array = open_table(tmp_path / f"x{suffix}", chunk_rows=64).array()
    assert isinstance(array, np.memmap)
    assert np.array_equal(array, data)
    assert len(list(spool.iterdir())) == 1
    view = array[:10]
    del array
    gc.collect()
    assert np.array_equal(view, data[:10])
    del view
    gc.collect()
    assert list(spool.iterdir()) == []
    write_table(tmp_path / f"x{suffix}", [data, np.full((1, 3), np.nan)])
    with pytest.raises(DataError, match="NaN in row 400"):
        open_table(tmp_path / f"x{suffix}").array()
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz"])
def test_reading_and_writing_take_the_memory_of_a_chunk(suffix: str, tmp_path: Path) -> None:
    chunk = np.ones((2**14, 8), dtype=np.float32)  # 512 KiB
    tracemalloc.start()
    try:
        write_table(tmp_path / f"x{suffix}", (chunk for _ in range(32)))
        rows = sum(len(part) for part in open_table(tmp_path / f"x{suffix}", chunk_rows=2**14).chunks())
        assert rows == 32 * 2**14
        assert tracemalloc.get_traced_memory()[1] < 16 * chunk.nbytes
    finally:
        tracemalloc.stop()
