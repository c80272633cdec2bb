"""User data: validation, rows in memory, on disk or as a stream, splits, moments and standardisation."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ot_lift.errors import DataError

__all__ = [
    "Rows",
    "Standardizer",
    "as_batch",
    "as_weight",
    "map_npy",
    "open_rows",
    "paired_splits",
    "split_indices",
    "weighted_moments",
]

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


# ---------------------------------------------------------------------------------------- validation
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


# ------------------------------------------------------------------------------------------- row access
class Rows(ABC):
    """Rows of one dataset, wherever they live.

    Attributes:
        name: What the data is called in error messages.
        features: Number of columns.
        size: Number of rows; None for an endless stream.
        dtype: torch dtype of the rows that `take` and `draw` return.
    """

    name: str
    features: int
    size: int | None
    dtype: torch.dtype

    @abstractmethod
    def take(self, index: Tensor | np.ndarray | slice) -> Tensor:
        """Rows (len(index), features) at integer positions or a slice; finite data only."""

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Random rows (count, features): with replacement from finite data, fresh from a stream."""


def _positions(index: Tensor | np.ndarray) -> np.ndarray:
    """Integer positions (k,); a boolean mask is turned into them."""
    array = index.cpu().numpy() if isinstance(index, Tensor) else np.asarray(index)
    return np.flatnonzero(array) if array.dtype == np.bool_ else array.astype(np.int64)


class _FiniteRows(Rows):
    size: int

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return self.take(torch.randint(self.size, (count,), generator=generator, device=generator.device))


class _TensorRows(_FiniteRows):
    """Rows in memory, on the device they came on."""

    def __init__(self, points: Tensor, name: str) -> None:
        self.name, self.dtype = name, points.dtype
        self.size, self.features = points.shape
        self._points = points

    def take(self, index: Tensor | np.ndarray | slice) -> Tensor:
        if isinstance(index, slice):
            return self._points[index]
        return self._points[torch.from_numpy(_positions(index)).to(self._points.device)]


class _MappedRows(_FiniteRows):
    """Rows of a memory-mapped array; only those asked for are read into memory."""

    def __init__(self, array: np.ndarray, name: str) -> None:
        self.name, self.size, self.features = name, array.shape[0], array.shape[1]
        self.dtype = torch.float32 if compute_dtype(array.dtype) is np.float32 else torch.float64
        self._array = array
        step = max(1, 2**21 // self.features)
        for start in range(0, self.size, step):
            check_finite(self.take(slice(start, start + step)), name=name, first_row=start)

    def take(self, index: Tensor | np.ndarray | slice) -> Tensor:
        if isinstance(index, slice):
            return to_tensor(np.array(self._array[index]))
        positions = _positions(index)
        order = np.argsort(positions, kind="stable")  # reads the file front to back
        rows = np.empty((len(positions), self.features), dtype=self._array.dtype)
        rows[order] = self._array[positions[order]]
        return to_tensor(rows)


class _StreamRows(Rows):
    size = None

    def take(self, index: Tensor | np.ndarray | slice) -> Tensor:
        raise DataError(f"expected {self.name} to have numbered rows, got an endless stream: draw from it")


class _SamplerRows(_StreamRows):
    """Fresh rows from a callable sampler(n, generator) → (n, features)."""

    def __init__(self, sampler: Callable[..., Any], name: str, features: int | None) -> None:
        label = getattr(sampler, "__qualname__", type(sampler).__name__)
        self.name = f"{name} (sampler {label})"
        try:
            inspect.signature(sampler).bind(2, torch.Generator())
        except TypeError as error:
            raise DataError(f"expected {self.name} to be called as sampler(n, generator): {error}") from error
        except ValueError:  # a builtin without a signature
            pass
        self._sampler = sampler
        probe, _ = as_batch(sampler(2, torch.Generator().manual_seed(0)), name=self.name, features=features)
        self.features, self.dtype = probe.shape[1], probe.dtype
        self._check_count(probe, 2)

    def _check_count(self, points: Tensor, count: int) -> None:
        if len(points) != count:
            raise DataError(
                f"expected {self.name} to return shape ({count}, {self.features}), got "
                f"{tuple(points.shape)}: return as many rows as are asked for"
            )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        points, _ = as_batch(self._sampler(count, generator), name=self.name, features=self.features, minimum_rows=0)
        self._check_count(points, count)
        return points.to(self.dtype)


@contextmanager
def _torch_stream(generator: torch.Generator) -> Iterator[None]:
    """What a loader draws from torch's global stream follows `generator`; the stream is put back."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield


class _LoaderRows(_StreamRows):
    """Rows of a DataLoader, epoch after epoch, in the loader's own order."""

    def __init__(self, loader: DataLoader[Any], name: str, features: int | None) -> None:
        self.name = f"{name} (DataLoader)"
        self._loader = loader
        self._restart()
        with _torch_stream(torch.Generator().manual_seed(0)):
            probe = self._batch(features)
        self.features, self.dtype = probe.shape[1], probe.dtype
        self._restart()

    def _restart(self) -> None:
        self._epoch: Iterator[Any] | None = None
        self._epoch_rows = 0
        self._rest: list[Tensor] = []

    def _batch(self, features: int | None) -> Tensor:
        """The next batch that has rows; a new epoch starts where one ends."""
        while True:
            self._epoch = iter(self._loader) if self._epoch is None else self._epoch
            batch = next(self._epoch, None)
            if batch is None:
                if self._epoch_rows == 0:
                    raise DataError(f"expected {self.name} to yield batches of points, got 0 sample(s)")
                self._epoch, self._epoch_rows = None, 0
                continue
            if isinstance(batch, tuple | list) and len(batch) == 1:
                batch = batch[0]
            if not isinstance(batch, Tensor | np.ndarray):
                got = type(batch).__name__ + (f" of {len(batch)}" if hasattr(batch, "__len__") else "")
                raise DataError(
                    f"expected batches of {self.name} to be a tensor or a tuple of one tensor, got a {got}: "
                    "wrap the dataset so that it yields the points alone"
                )
            points, _ = as_batch(batch, name=self.name, features=features, minimum_rows=0)
            self._epoch_rows += len(points)
            if len(points):
                return points

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        have = sum(map(len, self._rest))
        while have < count:
            with _torch_stream(generator):
                points = self._batch(self.features).to(self.dtype)
            self._rest.append(points)
            have += len(points)
        if not self._rest:
            return torch.empty((0, self.features), dtype=self.dtype)
        points = torch.cat(self._rest) if len(self._rest) > 1 else self._rest[0]
        self._rest = [points[count:]] if len(points) > count else []
        return points[:count]


def map_npy(path: str | os.PathLike[str], *, name: str) -> np.ndarray:
    """Memory-map a .npy file of real numbers (n, features), nothing unpickled.

    Args:
        path: A file written by `numpy.save`.
        name: What the data is called in error messages.

    Returns:
        Read-only memory-mapped array in the dtype of the file; its values are not read yet.

    Raises:
        DataError: There is no such file, it is damaged, or it holds something else.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"expected {name} in a .npy file, got no file at {path}: check the path") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"expected {name} in a .npy file of numbers, got {path}, which is damaged or something else "
            f"({error}): write it again with numpy.save"
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"expected {name} in a .npy file, got an archive at {path}: write it with numpy.save")
    check_kind(array.dtype, name=f"{name} ({path})")
    check_shape(array.shape, name=f"{name} ({path})", features=None, minimum_rows=0)
    return array


def open_rows(data: Any, *, name: str, features: int | None = None, minimum_rows: int = 2) -> Rows:
    """Open a dataset for row access, validated once.

    Args:
        data: Points (n, features) as an ndarray, list, pandas frame or torch tensor; a memory-mapped
            array or the path of a .npy file (checked in chunks, never loaded whole); a torch DataLoader
            (a stream that cycles; batches are a tensor or a tuple of one) or a callable
            `sampler(n, generator) → (n, features)`, where `generator` is a `torch.Generator`.
        name: What the argument is called in error messages.
        features: Number of columns that is required; None takes any.
        minimum_rows: Fewest rows that are accepted from finite data.

    Returns:
        The rows. Streams are checked batch by batch as they are drawn.

    Raises:
        DataError: The data is not finite real numbers of that shape.

    Example:
        >>> rows = open_rows([[0.0], [1.0], [4.0]], name="X")
        >>> rows.size, rows.features, rows.take(slice(1, 3)).flatten().tolist()
        (3, 1, [1.0, 4.0])
        >>> stream = open_rows(lambda n, generator: torch.randn(n, 2, generator=generator), name="Y")
        >>> stream.size, stream.draw(5, torch.Generator().manual_seed(0)).shape
        (None, torch.Size([5, 2]))
    """
    if isinstance(data, str | os.PathLike):
        if Path(data).suffix.lower() != ".npy":
            raise DataError(
                f"expected {name} as an array or a path that ends in .npy, got {str(data)!r}: read other "
                "files with ot_lift.tables.open_table(path).array()"
            )
        data = map_npy(data, name=name)
    if isinstance(data, DataLoader):
        return _LoaderRows(data, name, features)
    if callable(data) and not hasattr(data, "__array__"):
        return _SamplerRows(data, name, features)
    if isinstance(data, np.memmap):
        check_kind(data.dtype, name=name)
        check_shape(data.shape, name=name, features=features, minimum_rows=minimum_rows)
        return _MappedRows(data, name)
    points, _ = as_batch(data, name=name, features=features, minimum_rows=minimum_rows)
    return _TensorRows(points, name)


# ------------------------------------------------------------------------------------------------ splits
def split_indices(size: int, fractions: Sequence[float], generator: torch.Generator) -> list[Tensor]:
    """Split range(size) at random into disjoint parts, none of them empty.

    Args:
        size: Number of rows.
        fractions: Positive shares of the parts; they sum to 1.
        generator: Source of randomness.

    Returns:
        One int64 tensor per part, in random order.

    Raises:
        DataError: There are fewer rows than parts.

    Example:
        >>> parts = split_indices(12, (0.8, 0.1, 0.1), torch.Generator().manual_seed(0))
        >>> [len(part) for part in parts], sorted(torch.cat(parts).tolist()) == list(range(12))
        ([10, 1, 1], True)
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.ndim != 1 or len(shares) == 0 or np.any(shares <= 0) or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"expected positive fractions that sum to 1, got {list(fractions)}")
    if size < len(shares):
        raise DataError(f"expected at least {len(shares)} rows to split into {len(shares)} parts, got {size}")
    exact = shares * size
    counts = np.floor(exact + 1e-9).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: size - counts.sum()]] += 1
    while counts.min() == 0:
        counts[counts.argmax()] -= 1
        counts[counts.argmin()] += 1
    order = torch.randperm(size, generator=generator, device=generator.device).cpu()
    return [order[stop - count : stop] for count, stop in zip(counts, counts.cumsum(), strict=True)]


_IndexPair = tuple[np.ndarray, np.ndarray]


def paired_splits(
    n: int, m: int, *, folds: int = 5, random_state: int | np.random.Generator | None = None
) -> Iterator[tuple[_IndexPair, _IndexPair]]:
    """Cross-validation of two datasets at once: each fold holds out a part of both.

    Args:
        n: Number of source rows.
        m: Number of target rows; may differ from n.
        folds: Number of folds, 2 to min(n, m).
        random_state: Seed or generator of the shuffles.

    Yields:
        ((source_train, target_train), (source_test, target_test)): int64 positions.

    Raises:
        DataError: A side has fewer rows than there are folds.

    Example:
        >>> for (x_train, y_train), (x_test, y_test) in paired_splits(4, 6, folds=2, random_state=0):
        ...     print(len(x_train), len(y_train), len(x_test), len(y_test))
        2 3 2 3
        2 3 2 3
    """
    if folds < 2:
        raise ValueError(f"expected folds >= 2, got {folds}")
    if min(n, m) < folds:
        raise DataError(f"expected at least {folds} rows a side for {folds} folds, got {n} and {m}")
    rng = np.random.default_rng(random_state)
    source, target = (np.array_split(rng.permutation(size), folds) for size in (n, m))
    for fold in range(folds):
        train = [np.concatenate(side[:fold] + side[fold + 1 :]) for side in (source, target)]
        yield (train[0], train[1]), (source[fold], target[fold])


# --------------------------------------------------------------------------- moments and standardisation
def weighted_moments(
    rows: Rows | Tensor,
    weight: Tensor | None = None,
    *,
    index: Tensor | None = None,
    chunk_rows: int = 65536,
) -> tuple[Tensor, Tensor]:
    """Mean and covariance in float64, read in chunks that are merged stably.

    Args:
        rows: Finite rows or a tensor (n, features).
        weight: Non-negative weights (n,); None weighs all rows equally.
        index: Positions of the rows to use; None uses all.
        chunk_rows: Rows that are in memory at a time.

    Returns:
        mean (features,) and covariance (features, features), normalised by the sum of the weights (not
        by n − 1), both float64.

    Raises:
        DataError: The data is a stream, has no weight, or is too large for float64 moments.

    References:
        Chan, Golub & LeVeque (1983), Algorithms for computing the sample variance, Am. Stat. 37.

    Example:
        >>> mean, covariance = weighted_moments(torch.tensor([[0.0], [2.0]]))
        >>> mean.item(), covariance.item()
        (1.0, 1.0)
    """
    table = _TensorRows(rows, "rows") if isinstance(rows, Tensor) else rows
    if table.size is None:
        raise DataError(f"expected finite rows, got the stream {table.name}: draw points from it first")
    size = table.size if index is None else len(index)
    total, mean, scatter = 0.0, torch.zeros(()), torch.zeros(())
    for start in range(0, size, chunk_rows):
        chosen: slice | Tensor = slice(start, min(start + chunk_rows, size))
        chosen = chosen if index is None else index[chosen]
        points = table.take(chosen).to(torch.float64)
        share = points.new_ones(len(points)) if weight is None else weight[chosen].to(points)
        if (mass := float(share.sum())) == 0.0:
            continue
        centre = points[0] + share @ (points - points[0]) / mass
        centre = centre + share @ (points - centre) / mass  # removes the rounding of a far offset
        spread = points - centre
        chunk = (spread * share[:, None]).T @ spread
        step, grown = centre - mean.to(centre), total + mass
        scatter = scatter.to(chunk) + chunk + torch.outer(step, step) * (total * mass / grown)
        mean, total = mean.to(centre) + step * (mass / grown), grown
    if total == 0.0:
        raise DataError(f"expected {table.name} to have rows of positive weight, got none")
    covariance = scatter / total
    if not bool(torch.isfinite(covariance).all()):
        raise DataError(f"expected {table.name} below 1e150 in size, got larger values: rescale the data")
    return mean, (covariance + covariance.T) / 2


@dataclass(frozen=True, eq=False)
class Standardizer:
    """Affine coordinates of source and target in which a gradient map stays a gradient map.

    x̃ = M(x − m_x) and ỹ = M⁻ᵀ(y − m_y)/κ, so T(x) = m_y + κ Mᵀ T̃(x̃) is the gradient of
    φ(x) = κ φ̃(x̃) + ⟨m_y, x⟩ whenever T̃ = ∇φ̃. The scalar κ carries the units of the product ⟨x, y⟩: with
    it both sides have unit size whatever the units of the data.

    Attributes:
        shift_x: m_x (features,), float64, units of the source.
        shift_y: m_y (features,), float64, units of the target.
        matrix: M (features, features), float64.
        inverse: M⁻¹ (features, features), float64.
        scale: κ > 0, float64 scalar tensor.

    Example:
        >>> zero, one = torch.zeros(1), torch.ones(1, 1)
        >>> units = Standardizer.bures(zero, one, zero + 3, 4 * one)   # N(0, 1) → N(3, 4): T(x) = 3 + 2x
        >>> x = torch.tensor([[0.5]], dtype=torch.float64)
        >>> units.target_inverse(units.source(x)).item()
        4.0
    """

    shift_x: Tensor
    shift_y: Tensor
    matrix: Tensor
    inverse: Tensor
    scale: Tensor

    def source(self, x: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """Standardised x̃ (n, features) of x in data units, shifted in float64 before the cast."""
        return ((x.to(torch.float64) - self.shift_x) @ self.matrix.T).to(dtype)

    def source_inverse(self, x: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """Source points x (n, features) in data units of standardised x̃."""
        return (x.to(torch.float64) @ self.inverse.T + self.shift_x).to(dtype)

    def target(self, y: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """Standardised ỹ (n, features) of y in data units, shifted in float64 before the cast."""
        return ((y.to(torch.float64) - self.shift_y) / self.scale @ self.inverse).to(dtype)

    def target_inverse(self, y: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """Target points y (n, features) in data units of ỹ; of ỹ = T̃(x̃) this is the map's value T(x)."""
        return (self.scale * (y.to(torch.float64) @ self.matrix) + self.shift_y).to(dtype)

    def potential(self, x: Tensor, value: Tensor) -> Tensor:
        """Potential φ(x) (n,) in data units from x in data units and `value` = φ̃(x̃)."""
        return self.scale * value.to(torch.float64) + x.to(torch.float64) @ self.shift_y

    def conjugate(self, y: Tensor, value: Tensor) -> Tensor:
        """Conjugate φ*(y) (n,) in data units from y in data units and `value` = φ̃*(ỹ)."""
        return self.scale * value.to(torch.float64) + (y.to(torch.float64) - self.shift_y) @ self.shift_x

    def strong_convexity(self, standardised: float) -> float:
        """Strong convexity of φ in data units, κ μ̃ σ_min(M)², from μ̃ of φ̃."""
        smallest = torch.linalg.svdvals(self.matrix)[-1]
        return float(self.scale * smallest**2) * standardised

    def to(self, device: torch.device | str) -> Standardizer:
        """The same coordinates with tensors on `device`."""
        return Standardizer(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    @classmethod
    def scalar(cls, mean_x: Tensor, mean_y: Tensor, scale: float, scale_y: float | None = None) -> Standardizer:
        """Shifts and one scale a side: x̃ = (x − m_x)/scale, ỹ = (y − m_y)/scale_y.

        Args:
            mean_x: Centre of the source (features,), data units.
            mean_y: Centre of the target (features,), data units.
            scale: Positive size of the source, data units.
            scale_y: Positive size of the target; None takes `scale`.

        Returns:
            The coordinates, float64.

        Raises:
            ValueError: A scale is not a positive finite number.
        """
        other = scale if scale_y is None else scale_y
        if not (0 < scale < float("inf") and 0 < other < float("inf")):
            raise ValueError(f"expected positive finite scales, got {scale} and {other}")
        shift_x, shift_y = mean_x.to(torch.float64), mean_y.to(torch.float64)
        unit = torch.eye(len(shift_x), dtype=torch.float64, device=shift_x.device)
        return cls(shift_x, shift_y, unit / scale, unit * scale, shift_x.new_tensor(scale * other))

    @classmethod
    def bures(
        cls, mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor, *, floor: float = 1e-10
    ) -> Standardizer:
        """Coordinates in which the optimal map between the two Gaussians is the identity.

        M = c A^½ with A = Σx^−½ (Σx^½ Σy Σx^½)^½ Σx^−½, the optimal linear map; c gives the standardised
        source average variance 1. Both sides are first divided by their own scalar scale, and
        eigenvalues below `floor` times the largest are raised to it, so that constant or duplicated
        columns and any units are fine.

        Args:
            mean_x: Mean of the source (features,).
            cov_x: Covariance of the source (features, features).
            mean_y: Mean of the target (features,).
            cov_y: Covariance of the target (features, features).
            floor: Smallest relative eigenvalue of a covariance. Of fewer than about four rows a column the
                small eigenvalues are noise: 0.1 then gives the better map.

        Returns:
            The coordinates, float64.

        References:
            Dowson & Landau (1982), The Fréchet distance between multivariate normal distributions,
            J. Multivariate Anal. 12.
        """
        shift_x, shift_y = mean_x.to(torch.float64), mean_y.to(torch.float64)
        size_x, size_y = _scalar_scale(shift_x, cov_x), _scalar_scale(shift_y, cov_y)
        unit_x = cov_x.to(torch.float64) / size_x**2
        root_x, root_y = _floored_root(unit_x, floor), _floored_root(cov_y / size_y**2, floor)
        # the singular values of Σy^½ Σx^½ are the eigenvalues of (Σx^½ Σy Σx^½)^½, without squaring the
        # condition number
        _, singular, right = torch.linalg.svd(root_y @ root_x)
        whitened = torch.linalg.solve(root_x, right.mT)
        values, vectors = torch.linalg.eigh((whitened * singular) @ whitened.mT)
        values = values.clamp_min(floor * float(values[-1])).sqrt()
        half = (vectors * values) @ vectors.mT
        average = float(torch.trace(half @ unit_x @ half)) / len(shift_x)
        stretch = average**-0.5 if average > floor else 1.0
        return cls(
            shift_x,
            shift_y,
            half * (stretch / size_x),
            (vectors / values) @ vectors.mT * (size_x / stretch),
            shift_x.new_tensor(size_x * size_y / stretch**2),
        )


def _scalar_scale(mean: Tensor, covariance: Tensor) -> float:
    """Root of the average variance; of constant data, whose variance is rounding, the size of the mean."""
    deviation = float(covariance.to(torch.float64).diagonal().mean().clamp_min(0).sqrt())
    offset = float(mean.abs().max())
    if deviation > 16 * torch.finfo(torch.float64).eps * offset:
        return deviation
    return offset or 1.0


def _floored_root(covariance: Tensor, floor: float) -> Tensor:
    """Symmetric root of a covariance of unit size, eigenvalues raised to `floor` times the largest."""
    values, vectors = torch.linalg.eigh(covariance.to(torch.float64))
    largest = float(values[-1]) if float(values[-1]) > floor else 1.0
    root: Tensor = (vectors * values.clamp_min(floor * largest).sqrt()) @ vectors.mT
    return root
