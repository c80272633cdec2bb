"""User data: validation, and one form for every kind of array."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from ot_lift.errors import DataError

_WRONG_KIND = {
    "c": "Complex data not supported; pass the real and imaginary parts as columns",
    "U": "encode the strings as numbers first",
    "S": "encode the strings as numbers first",
    "T": "encode the strings as numbers first",
    "M": "turn the dates into numbers first",
    "m": "turn the durations into numbers first",
    "O": "convert it first, as in X.astype(float); every row needs the same number of numbers",
    "V": "stack the fields of the structured array as columns first",
}


def check_shape(shape: Sequence[int], *, name: str, features: int | None, minimum_rows: int) -> None:
    """Raise `DataError` unless `shape` is (n >= minimum_rows, features)."""
    shape = tuple(shape)
    wanted = f"expected {name} of shape (n, {'features' if features is None else features}), got {shape}"
    if len(shape) != 2:
        remedy = {
            0: "Reshape your data: pass one row per point",
            1: "Reshape your data with X.reshape(-1, 1) for one column or X.reshape(1, -1) for one row",
        }.get(len(shape), f"Found array with dim {len(shape)}; flatten each row with X.reshape(len(X), -1)")
        raise DataError(f"{wanted}: {remedy}")
    rows, columns = shape
    if columns == 0:
        raise DataError(
            f"expected {name} with at least one column, got 0 feature(s) (shape={shape}) while a minimum "
            "of 1 is required: pass an array with columns"
        )
    if rows < minimum_rows:
        raise DataError(
            f"expected {name} with at least {minimum_rows} row(s), got {rows} sample(s) (shape={shape}) "
            f"while a minimum of {minimum_rows} is required: pass more rows"
        )
    if features is not None and columns != features:
        raise DataError(
            f"{wanted}: {name} has {columns} features, but ot_lift is expecting {features} features as "
            "input; pass the same columns in the same order"
        )


def check_finite(values: Tensor, *, name: str, first_row: int = 0, columns: Sequence[Any] = ()) -> None:
    """Raise `DataError` that names the first NaN or infinity of `values` (n, features)."""
    if values.numel() == 0 or bool(torch.isfinite(values.sum(dtype=torch.float64))):
        return
    bad = ~torch.isfinite(values)
    if not bool(bad.any()):  # finite values whose sum overflows
        return
    row, column = (int(i) for i in bad.nonzero()[0])
    what = "NaN" if bool(values[row, column].isnan()) else "infinity"
    label = repr(columns[column]) if len(columns) else column
    raise DataError(
        f"expected {name} to hold finite numbers, got {what} in row {first_row + row}, column {label} "
        f"(counting from 0; {int(bad.sum())} value(s) are not finite): {name} contains {what}; drop or "
        "impute these rows"
    )


def _wrong_kind(name: str, got: str, remedy: str) -> DataError:
    return DataError(f"expected {name} to hold real numbers, got {got}: {remedy}")


def _from_frame(frame: Any, name: str) -> np.ndarray:
    """Numbers of a pandas frame; a column that holds anything else is named."""
    from pandas.api.types import is_complex_dtype, is_numeric_dtype

    for column, dtype in zip(frame.columns, frame.dtypes, strict=True):
        if is_complex_dtype(dtype):
            raise _wrong_kind(name, f"{dtype} in column {column!r}", _WRONG_KIND["c"])
        if not is_numeric_dtype(dtype):
            remedy = "drop the column or encode it as numbers first"
            raise _wrong_kind(name, f"{dtype} in column {column!r}", remedy)
    narrow = all(str(dtype).lower() in ("float16", "float32") for dtype in frame.dtypes)
    wide = np.float32 if narrow and len(frame.columns) else np.float64
    return np.asarray(frame.to_numpy(dtype=wide, na_value=np.nan))


def _dense(data: Any, name: str) -> np.ndarray | Tensor:
    """`data` as a dense array or tensor of real numbers, of any shape."""
    if isinstance(data, Tensor):
        if data.layout != torch.strided or data.is_nested:
            raise _wrong_kind(name, f"a sparse tensor ({data.layout})", "make it dense with X.to_dense()")
        if data.is_complex():
            raise _wrong_kind(name, str(data.dtype), _WRONG_KIND["c"])
        return data.detach()
    if scipy.sparse.issparse(data):
        raise _wrong_kind(name, f"a sparse {type(data).__name__}", "make it dense with X.toarray()")
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        raise _wrong_kind(name, "a masked array", "drop or fill the masked values first")
    if type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "columns"):
        return _from_frame(data, name)
    try:
        array = np.asarray(data)
    except (ValueError, TypeError, RuntimeError) as error:
        raise _wrong_kind(name, f"a {type(data).__name__} ({error})", _WRONG_KIND["O"]) from error
    if array.dtype.kind == "O" and array.ndim == 0:
        remedy = "pass an array, a list of rows, a frame, a tensor, a DataLoader or a sampler"
        raise _wrong_kind(name, f"a {type(data).__name__}", remedy)
    check_kind(array.dtype, name=name)
    return array


def check_kind(dtype: np.dtype, *, name: str) -> None:
    """Raise `DataError` unless `dtype` is a real number, an integer or a boolean."""
    if dtype.kind not in "fiub":
        raise _wrong_kind(name, f"dtype {dtype}", _WRONG_KIND.get(dtype.kind, _WRONG_KIND["O"]))


def compute_dtype(dtype: np.dtype) -> type[np.floating]:
    """float32 for floats of up to 32 bits, float64 for everything else."""
    return np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64


def to_tensor(data: np.ndarray | Tensor) -> Tensor:
    """float32 and narrower → float32, everything else → float64; shares memory where it can."""
    if isinstance(data, Tensor):
        narrow = data.dtype in (torch.float32, torch.float16, torch.bfloat16)
        return data.to(torch.float32 if narrow else torch.float64).contiguous()
    with np.errstate(over="ignore"):  # a long double beyond float64 becomes inf and is named as such
        array = np.asarray(data, dtype=compute_dtype(data.dtype), order="C")
    # torch warns about read-only arrays and cannot hold negative strides or foreign byte orders
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def as_batch(
    X: Any, *, name: str, features: int | None = None, minimum_rows: int = 1
) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Validate points and turn them into a tensor, with the way back to the caller's kind of array.

    Args:
        X: Points (n, features): ndarray, nested list, pandas frame or torch tensor (on any device).
        name: What the argument is called in error messages.
        features: Number of columns that is required; None takes any.
        minimum_rows: Fewest rows that are accepted.

    Returns:
        The points, finite and contiguous, as float32 (from float32 and narrower) or float64 (from
        everything else), on their own device, perhaps sharing memory with `X`; and `restore`, which
        takes a tensor of any shape to the caller's kind: torch in → torch out on the same device,
        everything else → ndarray, floating results in the dtype of the points.

    Raises:
        DataError: `X` is not a finite real array of that shape.

    Example:
        >>> points, restore = as_batch([[1, 2], [3, 4]], name="X")
        >>> points.dtype, restore(points.sum(1))
        (torch.float64, array([3., 7.]))
    """
    data = _dense(X, name)
    check_shape(data.shape, name=name, features=features, minimum_rows=minimum_rows)
    points = to_tensor(data)
    check_finite(points, name=name, columns=_column_names(X))
    return points, _Restore(points.dtype, points.device if isinstance(X, Tensor) else None)


def _column_names(data: Any) -> Sequence[Any]:
    return list(data.columns) if hasattr(data, "columns") and hasattr(data, "dtypes") else ()


@dataclass(frozen=True)
class _Restore:
    """Back to the caller's kind of array; `device` is None for NumPy."""

    dtype: torch.dtype
    device: torch.device | None

    def __call__(self, values: Tensor) -> Any:
        dtype = self.dtype if values.is_floating_point() else values.dtype
        answer = values.detach().to(device=self.device or "cpu", dtype=dtype)
        return answer.numpy() if self.device is None else answer


def as_weight(weight: Any, *, name: str, size: int) -> Tensor:
    """Validate one weight per row and scale them to sum to 1.

    Args:
        weight: Non-negative numbers (size,), not all zero.
        name: What the argument is called in error messages.
        size: Number of rows of the data.

    Returns:
        float64 tensor (size,) on the CPU that sums to 1.

    Raises:
        DataError: The weights have another shape, are negative, not finite or all zero.

    Example:
        >>> as_weight([1, 3], name="source_weight", size=2)
        tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    values = to_tensor(_dense(weight, name)).to("cpu", torch.float64)
    if tuple(values.shape) != (size,):
        raise DataError(f"expected {name} of shape ({size},), got {tuple(values.shape)}: pass one weight per row")
    check_finite(values[:, None], name=name)
    if bool((values < 0).any()):
        raise DataError(f"expected {name} >= 0, got {float(values.min())}: drop or clip negative weights")
    largest = values.max() if size else values.new_zeros(())
    if float(largest) == 0:
        raise DataError(f"expected {name} with a positive sum, got weights that are all zero")
    values = values / largest  # the sum of weights near the largest float64 would overflow
    return values / values.sum()
