"""Rows are read in the same way from memory, from disk and from streams."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ot_lift.errors import DataError
from ot_lift.rows import open_rows
from ot_lift.standardizer import weighted_moments

GOOD = np.arange(12.0).reshape(4, 3)


def saved(folder: Path, array: np.ndarray) -> str:
    np.save(folder / "x.npy", array)
    return str(folder / "x.npy")


@pytest.fixture(params=["array", "path", "memmap", "tensor", "frame"])
def finite(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    data = np.arange(40, dtype=np.float32).reshape(20, 2)
    return {
        "array": lambda: data,
        "path": lambda: saved(tmp_path, data),
        "memmap": lambda: np.load(saved(tmp_path, data), mmap_mode="r"),
        "tensor": lambda: torch.from_numpy(data),
        "frame": lambda: pd.DataFrame(data),
    }[request.param]()


def test_finite_rows_are_taken_by_index_slice_and_mask(finite: Any, generator: torch.Generator) -> None:
    rows = open_rows(finite, name="X", features=2)
    assert (rows.size, rows.features, rows.dtype) == (20, 2, torch.float32)
    index = np.array([7, 0, 7, 19])
    for positions in (index, torch.from_numpy(index)):
        assert rows.take(positions)[:, 0].tolist() == [14, 0, 14, 38]
    assert rows.take(slice(3, 5)).tolist() == [[6, 7], [8, 9]]
    assert rows.take(np.arange(20) == 4).tolist() == [[8, 9]]
    assert rows.take(np.array([], dtype=np.int64)).shape == (0, 2)
    drawn = rows.draw(500, generator)
    assert drawn.shape == (500, 2)
    assert drawn[:, 0].unique().tolist() == list(range(0, 40, 2))


def test_a_mapped_file_is_never_loaded_whole(tmp_path: Path, generator: torch.Generator) -> None:
    path = saved(tmp_path, np.zeros((2**20, 8), dtype=np.float32))  # 32 MiB
    tracemalloc.start()
    try:
        open_rows(path, name="X").draw(1000, generator)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_mapped_file_is_scanned_in_chunks_and_the_bad_row_named(tmp_path: Path) -> None:
    data = np.zeros((900_000, 4), dtype=np.float16)
    data[800_001, 2] = np.inf
    with pytest.raises(DataError, match="infinity in row 800001, column 2"):
        open_rows(saved(tmp_path, data), name="X")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "no file"),
        (b"hello", "damaged or something else"),
        (b"", "damaged or something else"),
        ("truncated", "damaged or something else"),
        ("object", "damaged or something else"),
        ("1-D", "Reshape your data"),
        ("strings", "strings"),
        ("archive", "archive"),
        ("empty", r"0 sample\(s\)"),
    ],
)
def test_a_bad_npy_file_gives_one_sentence(tmp_path: Path, content: Any, word: str) -> None:
    path = tmp_path / "x.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "archive":
        with open(path, "wb") as file:
            np.savez(file, a=GOOD)
    elif content is not None:
        arrays = {
            "object": GOOD.astype(object),
            "1-D": GOOD[0],
            "strings": np.array([["a"]]),
            "empty": GOOD[:0],
        }
        np.save(path, arrays.get(content, GOOD))
        if content == "truncated":
            path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=word):
        open_rows(str(path), name="X")


def test_another_kind_of_file_is_pointed_to_the_tables() -> None:
    with pytest.raises(DataError, match=r"ends in \.npy, got 'x\.csv'.*open_table"):
        open_rows("x.csv", name="X")


def normal(n: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(n, 3, generator=generator)


def test_a_sampler_is_an_endless_stream_of_fresh_rows(generator: torch.Generator) -> None:
    rows = open_rows(normal, name="X")
    assert (rows.size, rows.features, rows.dtype) == (None, 3, torch.float32)
    first, second = rows.draw(100, generator), rows.draw(100, generator)
    assert first.shape == (100, 3)
    assert not torch.equal(first, second)
    with pytest.raises(DataError, match="endless stream"):
        rows.take(slice(0, 2))
    with pytest.raises(DataError, match="draw points"):
        weighted_moments(rows)


@pytest.mark.parametrize(
    ("later", "word"),
    [
        (lambda n: np.zeros((n, 2)), r"\(n, 3\), got \(64, 2\)"),
        (lambda n: np.zeros((n - 1, 3)), r"shape \(64, 3\), got \(63, 3\)"),
        (lambda n: np.full((n, 3), np.nan), "NaN in row 0"),
        (lambda n: np.zeros(n), "Reshape your data"),
        (lambda n: "no", "real numbers"),
    ],
)
def test_a_sampler_that_turns_bad_later_is_named(
    later: Callable[[int], Any], word: str, generator: torch.Generator
) -> None:
    def moody(n: int, generator: torch.Generator) -> Any:
        return np.zeros((n, 3)) if n < 10 else later(n)

    rows = open_rows(moody, name="X")
    with pytest.raises(DataError, match=word) as caught:
        rows.draw(64, generator)
    assert "X (sampler" in str(caught.value)
    assert "moody" in str(caught.value)


def test_a_sampler_is_called_with_count_and_generator() -> None:
    with pytest.raises(DataError, match=r"called as sampler\(n, generator\)"):
        open_rows(lambda n: np.zeros((n, 2)), name="X")
    with pytest.raises(DataError, match=r"\(n, 2\), got \(2, 3\)"):
        open_rows(normal, name="X", features=2)


def test_a_loader_cycles_and_draws_across_its_batches(generator: torch.Generator) -> None:
    data = torch.arange(10.0).reshape(10, 1)
    rows = open_rows(DataLoader(TensorDataset(data), batch_size=4), name="X")
    assert (rows.size, rows.features) == (None, 1)
    drawn = torch.cat([rows.draw(count, generator) for count in (3, 0, 8, 1, 13)])
    assert drawn.flatten().tolist() == [float(i % 10) for i in range(25)]


def test_a_shuffled_loader_follows_the_generator_and_leaves_the_global_stream_alone() -> None:
    data = torch.arange(64.0).reshape(64, 1)

    def draw(seed: int) -> list[float]:
        rows = open_rows(DataLoader(TensorDataset(data), batch_size=16, shuffle=True), name="X")
        return rows.draw(64, torch.Generator().manual_seed(seed)).flatten().tolist()

    before = torch.get_rng_state()
    assert draw(0) == draw(0) != draw(1)
    assert sorted(draw(0)) == data.flatten().tolist()
    assert torch.equal(before, torch.get_rng_state())


class Batches(IterableDataset[Any]):
    """Ready batches, as a streaming dataset yields them."""

    def __init__(self, *batches: Any) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)


@pytest.mark.parametrize(
    ("batches", "word"),
    [
        ((), r"0 sample\(s\)"),
        ((torch.zeros(0, 2),), r"0 sample\(s\)"),
        (((torch.zeros(3, 2), torch.zeros(3)),), r"a (tuple|list) of 2"),
        (({"x": torch.zeros(3, 2)},), "dict of 1"),
        ((torch.zeros(3),), "Reshape your data"),
        ((torch.zeros(3, 2), torch.zeros(3, 4)), r"\(n, 2\), got \(3, 4\)"),
        ((torch.zeros(3, 2), torch.full((3, 2), torch.nan)), "NaN"),
    ],
)
def test_a_loader_with_bad_batches_is_named(batches: tuple[Any, ...], word: str, generator: torch.Generator) -> None:
    with pytest.raises(DataError, match=word) as caught:
        open_rows(DataLoader(Batches(*batches), batch_size=None), name="X").draw(6, generator)
    assert "X (DataLoader)" in str(caught.value)
