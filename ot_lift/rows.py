"""Rows of one dataset, in memory, on disk or as a stream, read in one way."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ot_lift.data import as_batch, check_finite, check_kind, check_shape, compute_dtype, to_tensor
from ot_lift.errors import DataError


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


class TensorRows(_FiniteRows):
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
    return TensorRows(points, name)
