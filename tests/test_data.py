"""User data is validated once, read from anywhere in the same way, and standardised without losing digits."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ot_lift.data import (
    Standardizer,
    as_batch,
    as_weight,
    open_rows,
    paired_splits,
    split_indices,
    weighted_moments,
)
from ot_lift.errors import DataError

GOOD = np.arange(12.0).reshape(4, 3)


def with_entry(value: float) -> np.ndarray:
    data = GOOD.copy()
    data[2, 1] = value
    return data


# Data, and what the message must contain; scikit-learn's own checks look for some of these words.
BAD: dict[str, tuple[Any, tuple[str, ...]]] = {
    "nan": (with_entry(np.nan), ("finite", "NaN in row 2, column 1", "drop or impute")),
    "infinity": (with_entry(-np.inf), ("finite", "infinity in row 2, column 1")),
    "nan in a frame": (pd.DataFrame(with_entry(np.nan), columns=list("abc")), ("column 'b'",)),
    "missing in a nullable frame": (
        pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}),
        ("NaN in row 1",),
    ),
    "empty": (np.empty((0, 3)), ("0 sample(s) (shape=(0, 3))", "minimum of 1 is required")),
    "empty list": ([], ("(0,)", "Reshape your data")),
    "no columns": (np.empty((3, 0)), ("0 feature(s) (shape=(3, 0)) while a minimum of 1 is required",)),
    "features": (
        GOOD[:, :2],
        ("(n, 3), got (4, 2)", "X has 2 features, but ot_lift is expecting 3 features as"),
    ),
    "1-D": (np.arange(3.0), ("(n, 3), got (3,)", "Reshape your data")),
    "series": (pd.Series([1.0, 2.0]), ("Reshape your data",)),
    "scalar": (3.0, ("got ()", "Reshape your data")),
    "3-D": (np.zeros((2, 3, 4)), ("got (2, 3, 4)", "dim 3")),
    "strings": ([["a", "b"]], ("real numbers", "strings")),
    "bytes": (np.array([[b"a"]]), ("strings",)),
    "a word": ("abc", ("real numbers",)),
    "string column": (pd.DataFrame({"a": [1.0], "b": ["x"]}), ("column 'b'", "drop the column")),
    "dates": (np.array([["2020-01-01"]], dtype="datetime64[D]"), ("datetime64[D]", "dates")),
    "complex": (GOOD + 1j, ("Complex data not supported", "complex128")),
    "complex frame": (pd.DataFrame({"a": [1j]}), ("Complex data not supported", "column 'a'")),
    "complex tensor": (torch.zeros(2, 3, dtype=torch.complex64), ("Complex data not supported",)),
    "object": (GOOD.astype(object), ("dtype object", "X.astype(float)")),
    "mixed list": ([[1, None, 3]], ("dtype object",)),
    "ragged": ([[1, 2, 3], [4, 5]], ("real numbers", "list", "same number")),
    "structured": (np.zeros(2, dtype=[("a", "f8")]), ("structured",)),
    "sparse": (scipy.sparse.csr_matrix(GOOD), ("sparse", "X.toarray()")),
    "sparse array": (scipy.sparse.csr_array(GOOD), ("sparse",)),
    "sparse tensor": (torch.eye(3).to_sparse(), ("sparse", "X.to_dense()")),
    "masked": (np.ma.masked_less(GOOD, 2), ("masked",)),
    "dict": ({"a": 1}, ("got a dict", "pass an array")),
    "None": (None, ("got a NoneType", "pass an array")),
    "generator": ((row for row in GOOD), ("got a generator",)),
    "long double beyond float64": (np.full((2, 3), np.longdouble("1e400")), ("infinity",)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_expected_got_and_remedy(case: str) -> None:
    data, words = BAD[case]
    with pytest.raises(DataError) as caught:
        as_batch(data, name="X", features=3 if case in ("features", "1-D") else None)
    message = str(caught.value)
    assert message.startswith("expected ")
    assert "got" in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("case", sorted(set(BAD) - {"a word", "features", "generator"}))
def test_rows_refuse_the_same_bad_input(case: str) -> None:
    with pytest.raises(DataError):
        open_rows(BAD[case][0], name="X", minimum_rows=1)


def test_one_row_is_too_few_to_fit() -> None:
    with pytest.raises(DataError, match=r"at least 2 row\(s\), got 1 sample\(s\) \(shape=\(1, 3\)\)"):
        open_rows(GOOD[:1], name="X")


# Every kind of input, the dtype it is computed in and the dtype of the answer.
KINDS: dict[str, tuple[Callable[[np.ndarray], Any], torch.dtype, Any]] = {
    "float64": (lambda a: a, torch.float64, np.float64),
    "float32": (lambda a: a.astype(np.float32), torch.float32, np.float32),
    "float16": (lambda a: a.astype(np.float16), torch.float32, np.float32),
    "long double": (lambda a: a.astype(np.longdouble), torch.float64, np.float64),
    "int8": (lambda a: a.astype(np.int8), torch.float64, np.float64),
    "uint64": (lambda a: a.astype(np.uint64), torch.float64, np.float64),
    "big-endian": (lambda a: a.astype(">f8"), torch.float64, np.float64),
    "fortran": (np.asfortranarray, torch.float64, np.float64),
    "reversed": (lambda a: a[::-1][::-1, ::-1][:, ::-1], torch.float64, np.float64),
    "list": (lambda a: a.tolist(), torch.float64, np.float64),
    "list of integers": (lambda a: a.astype(int).tolist(), torch.float64, np.float64),
    "frame": (lambda a: pd.DataFrame(a, columns=list("abc")), torch.float64, np.float64),
    "float32 frame": (lambda a: pd.DataFrame(a.astype(np.float32)), torch.float32, np.float32),
    "mixed frame": (lambda a: pd.DataFrame(a).astype({0: int, 1: "Float64"}), torch.float64, np.float64),
    "tensor": (torch.tensor, torch.float64, torch.float64),
    "float32 tensor": (lambda a: torch.tensor(a).float(), torch.float32, torch.float32),
    "float16 tensor": (lambda a: torch.tensor(a).half(), torch.float32, torch.float32),
    "bfloat16 tensor": (lambda a: torch.tensor(a).bfloat16(), torch.float32, torch.float32),
    "integer tensor": (lambda a: torch.tensor(a).long(), torch.float64, torch.float64),
    "transposed tensor": (lambda a: torch.tensor(a.T.copy()).T, torch.float64, torch.float64),
    "tensor with a graph": (lambda a: torch.tensor(a).requires_grad_(), torch.float64, torch.float64),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_array_goes_in_and_comes_back(kind: str) -> None:
    make, compute, answer = KINDS[kind]
    data = make(GOOD)
    points, restore = as_batch(data, name="X", features=3)
    assert points.dtype == compute
    assert points.is_contiguous()
    assert not points.requires_grad
    assert np.array_equal(points.numpy(), GOOD)
    back = restore(points.double() * 2)
    assert isinstance(back, torch.Tensor if isinstance(data, torch.Tensor) else np.ndarray)
    assert back.dtype == answer
    assert np.array_equal(np.asarray(back), 2 * GOOD)
    assert restore(torch.ones(4, dtype=torch.bool)).dtype in (torch.bool, np.bool_)


def test_read_only_arrays_are_taken_without_a_warning_and_left_alone() -> None:
    data = GOOD.copy()
    data.flags.writeable = False
    points, _ = as_batch(data, name="X")
    points.add_(1)
    assert np.array_equal(data, GOOD)


def test_finite_values_whose_sum_overflows_pass() -> None:
    points, _ = as_batch(np.full((4, 2), 1.7e308), name="X")
    assert points.shape == (4, 2)


def test_weights_sum_to_one_whatever_their_size() -> None:
    assert as_weight([1e308, 1e308], name="w", size=2).sum().item() == pytest.approx(1)
    assert as_weight(np.array([1, 3]), name="w", size=2).tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("weight", "word"),
    [
        ([1, 2, 3], r"shape \(2,\)"),
        ([1, -1], ">= 0"),
        ([0, 0], "weights that are all zero"),
        ([1, np.nan], "NaN"),
    ],
)
def test_bad_weights_are_refused(weight: list[float], word: str) -> None:
    with pytest.raises(DataError, match=word):
        as_weight(weight, name="w", size=2)


# ------------------------------------------------------------------------------------------- row access
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


# ------------------------------------------------------------------------------------------------ splits
@pytest.mark.parametrize(
    ("size", "counts"), [(3, [1, 1, 1]), (4, [2, 1, 1]), (12, [10, 1, 1]), (1000, [800, 100, 100])]
)
def test_parts_are_disjoint_complete_and_never_empty(size: int, counts: list[int], generator: torch.Generator) -> None:
    parts = split_indices(size, (0.8, 0.1, 0.1), generator)
    assert [len(part) for part in parts] == counts
    assert torch.cat(parts).sort().values.tolist() == list(range(size))


def test_splits_refuse_too_few_rows_and_wrong_fractions(generator: torch.Generator) -> None:
    with pytest.raises(DataError, match="at least 3 rows"):
        split_indices(2, (0.8, 0.1, 0.1), generator)
    with pytest.raises(ValueError, match="sum to 1"):
        split_indices(10, (0.5, 0.4), generator)
    with pytest.raises(DataError, match="at least 5 rows a side"):
        next(paired_splits(4, 100))
    with pytest.raises(ValueError, match="folds >= 2"):
        next(paired_splits(4, 100, folds=1))


def test_paired_splits_hold_out_every_row_of_both_sides_once() -> None:
    splits = list(paired_splits(11, 23, folds=4, random_state=3))
    for side, size in ((0, 11), (1, 23)):
        tests = [test[side] for _, test in splits]
        assert sorted(np.concatenate(tests).tolist()) == list(range(size))
        for train, test in splits:
            assert sorted([*train[side].tolist(), *test[side].tolist()]) == list(range(size))
    again = list(paired_splits(11, 23, folds=4, random_state=3))
    assert np.array_equal(splits[0][0][0], again[0][0][0])


# --------------------------------------------------------------------------- moments and standardisation
@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_chunked_moments_keep_their_digits(offset: float, scale: float, rng: np.random.Generator) -> None:
    noise = rng.standard_normal((1000, 3)) @ rng.standard_normal((3, 3))
    data = scale * (noise + offset)
    weight = rng.random(1000)
    weight[:300] = 0
    mean, covariance = weighted_moments(open_rows(data, name="X"), torch.from_numpy(weight), chunk_rows=128)
    # the shift is undone as exactly as the data allows: its own rounding at the offset stays
    tolerance = 1e-12 + 4 * offset * np.finfo(float).eps
    expected = np.cov(noise.T, aweights=weight, ddof=0)
    assert np.allclose(covariance.numpy() / scale**2, expected, rtol=1e-12, atol=tolerance)
    assert np.allclose(mean.numpy() / scale, np.average(noise, 0, weight) + offset, rtol=1e-14, atol=1e-14)


def test_moments_of_chosen_rows_weigh_those_rows(rng: np.random.Generator) -> None:
    data, weight, index = rng.standard_normal((50, 2)), rng.random(50), np.array([40, 3, 17, 5])
    mean, covariance = weighted_moments(
        torch.from_numpy(data), torch.from_numpy(weight), index=torch.from_numpy(index), chunk_rows=3
    )
    assert np.allclose(mean, np.average(data[index], 0, weight[index]))
    assert np.allclose(covariance, np.cov(data[index].T, aweights=weight[index], ddof=0))


def test_moments_refuse_what_float64_cannot_hold() -> None:
    with pytest.raises(DataError, match="rescale"):
        weighted_moments(torch.tensor([[1e200], [-1e200]], dtype=torch.float64))
    with pytest.raises(DataError, match="positive weight"):
        weighted_moments(torch.zeros(3, 1), torch.zeros(3))


def spd(features: int, generator: torch.Generator, condition: float = 100.0) -> torch.Tensor:
    basis, _ = torch.linalg.qr(torch.randn(features, features, generator=generator, dtype=torch.float64))
    values = torch.logspace(0, -float(np.log10(condition)), features, dtype=torch.float64)
    return (basis * values) @ basis.T


def bures_matrix(cov_x: torch.Tensor, cov_y: torch.Tensor) -> torch.Tensor:
    import scipy.linalg

    root = scipy.linalg.sqrtm(cov_x.numpy()).real
    inverse = np.linalg.inv(root)
    return torch.from_numpy(inverse @ scipy.linalg.sqrtm(root @ cov_y.numpy() @ root).real @ inverse)


@pytest.mark.parametrize("features", [1, 2, 8, 32])
@pytest.mark.parametrize(("scale_x", "scale_y"), [(1.0, 1.0), (1e12, 1e-12), (1e-12, 1e12), (1e12, 1e12)])
def test_bures_coordinates_make_the_gaussian_map_the_identity(
    features: int, scale_x: float, scale_y: float, generator: torch.Generator
) -> None:
    cov_x, cov_y = spd(features, generator), spd(features, generator)
    mean_x, mean_y = (torch.randn(features, generator=generator, dtype=torch.float64) for _ in range(2))
    units = Standardizer.bures(mean_x * scale_x, cov_x * scale_x**2, mean_y * scale_y, cov_y * scale_y**2)
    noise = torch.randn(2000, features, generator=generator, dtype=torch.float64)
    x = noise @ torch.linalg.cholesky(cov_x).T + mean_x
    y = (x - mean_x) @ bures_matrix(cov_x, cov_y) + mean_y
    inner = units.source(x * scale_x)
    assert torch.allclose(units.target_inverse(inner) / scale_y, y, rtol=1e-9, atol=1e-9)
    assert torch.allclose(units.target(y * scale_y), inner, rtol=1e-9, atol=1e-9)
    assert torch.allclose(units.source_inverse(inner) / scale_x, x, rtol=1e-9, atol=1e-9)
    standardised = units.matrix @ (cov_x * scale_x**2) @ units.matrix.T
    assert standardised.trace().item() / features == pytest.approx(1)


@pytest.mark.parametrize("case", ["constant", "duplicated", "constant source only", "all constant", "collinear"])
def test_degenerate_columns_keep_the_coordinates_invertible(case: str, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((200, 3)) + 1e6, 5 * rng.standard_normal((150, 3))
    if case in ("constant", "constant source only", "all constant"):
        x[:, 2] = 0.1
    if case == "constant":
        y[:, 2] = -7.3
    if case == "duplicated":
        x[:, 2], y[:, 2] = x[:, 1], y[:, 1]
    if case == "collinear":
        x[:, 2], y[:, 2] = x[:, 0] + x[:, 1] - 1e6, y[:, 0] - 2 * y[:, 1]
    if case == "all constant":
        x[:], y[:] = 0.1, 0.3
    moments = [weighted_moments(open_rows(side, name="X")) for side in (x, y)]
    units = Standardizer.bures(*moments[0], *moments[1])
    points, targets = torch.from_numpy(x), torch.from_numpy(y)
    assert torch.allclose(units.source_inverse(units.source(points)), points, rtol=1e-12, atol=1e-6)
    assert torch.allclose(units.target_inverse(units.target(targets)), targets, rtol=1e-12, atol=1e-6)
    assert torch.allclose(units.matrix @ units.inverse, torch.eye(3, dtype=torch.float64), atol=1e-5)
    assert float(units.source(points).abs().max()) < 10
    image = units.target_inverse(units.source(points))
    assert torch.allclose(image.mean(0), targets.mean(0), atol=1e-3)
    if case == "constant":
        assert torch.allclose(image[:, 2], targets[0, 2], atol=1e-9)
    if case == "duplicated":
        assert torch.allclose(image[:, 1], image[:, 2], atol=1e-4)


def test_shifts_happen_before_the_cast(rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.standard_normal((100, 2)) + 1e6)
    units = Standardizer.scalar(x.mean(0), x.mean(0), 2.0, 4.0)
    assert units.source(x, dtype=torch.float32).dtype == torch.float32
    assert torch.allclose(units.source(x, dtype=torch.float32).double(), (x - x.mean(0)) / 2, rtol=1e-6, atol=1e-7)
    assert torch.allclose(units.target(x), (x - x.mean(0)) / 4)
    assert torch.allclose(units.target_inverse(units.target(x)), x, rtol=1e-15)
    with pytest.raises(ValueError, match="positive finite"):
        Standardizer.scalar(x.mean(0), x.mean(0), 0.0)


@pytest.mark.parametrize("kind", ["scalar", "bures"])
def test_the_map_in_data_units_is_the_gradient_of_the_potential(kind: str, generator: torch.Generator) -> None:
    features = 3
    mean_x, mean_y = (torch.randn(features, generator=generator, dtype=torch.float64) for _ in range(2))
    cov_x, cov_y = 9 * spd(features, generator), spd(features, generator)
    units = (
        Standardizer.scalar(mean_x, mean_y, 3.0, 0.5)
        if kind == "scalar"
        else Standardizer.bures(mean_x, cov_x, mean_y, cov_y)
    )
    curvature = spd(features, generator, condition=4.0)  # φ̃(x̃) = ½ x̃ᵀ C x̃, φ̃*(ỹ) = ½ ỹᵀ C⁻¹ ỹ
    x = torch.randn(20, features, generator=generator, dtype=torch.float64).requires_grad_()
    inner = units.source(x)
    phi = units.potential(x, ((inner @ curvature) * inner).sum(1) / 2)
    y = units.target_inverse(inner @ curvature)
    assert torch.allclose(torch.autograd.grad(phi.sum(), x, retain_graph=True)[0], y, rtol=1e-12)
    outer = units.target(y)
    dual = units.conjugate(y, (torch.linalg.solve(curvature, outer.T).T * outer).sum(1) / 2)
    assert torch.allclose(phi + dual, (x * y).sum(1), rtol=1e-11, atol=1e-11)  # Fenchel–Young with equality
    hessian = units.scale * units.matrix.T @ curvature @ units.matrix
    weakest = float(torch.linalg.eigvalsh(curvature)[0])
    assert 0 < units.strong_convexity(weakest) <= float(torch.linalg.eigvalsh(hessian)[0]) * (1 + 1e-12)
    assert units.to("cpu").matrix.device.type == "cpu"
