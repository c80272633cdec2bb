"""User data is validated once, and answered in the form in which it came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from ot_lift.data import as_batch, as_weight
from ot_lift.errors import DataError
from ot_lift.rows import open_rows

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
