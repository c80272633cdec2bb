"""The tabular sets that density estimators are compared on, in the preprocessing and the splits they were published in.

After Papamakarios, Pavlakou & Murray 2017, "Masked Autoregressive Flow for Density Estimation" (arXiv 1705.07057) and
its authors' code, quirks kept. The files are those of Zenodo's record 1161203, see `benchmarks.experiments.zenodo`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments.densities1d import Array
from ot_lift.errors import DataError

Splits = tuple[Array, Array, Array]  # training, validation, test, each `(rows, features)`

_CORRELATED = 0.98  # columns that go together more closely than this count as one
_REPEATED = 5  # times that a column's least value may come
_PICKLE = "gas/ethylene_CO.pickle"


@dataclass(frozen=True)
class Published:
    """A set.

    Attributes:
        files: below the folder of the data.
        features: columns that are left.
        read: the splits from a folder.
        needs: a module that reading takes, or None.
    """

    files: tuple[str, ...]
    features: int
    read: Callable[[Path], Splits]
    needs: str | None = None

    def is_in(self, folder: Path | None) -> bool:
        """Whether it can be read from a folder."""
        if folder is None or (self.needs is not None and find_spec(self.needs) is None):
            return False
        return all((folder / file).exists() for file in self.files)

    def load(self, folder: Path) -> Splits:
        """The splits, float64.

        Raises:
            DataError: A file or a module is missing, or a file is something else.
        """
        if self.needs is not None and find_spec(self.needs) is None:
            raise DataError(f"expected {self.needs} to read {self.files[0]}, it is not installed: pip install it")
        if missing := [file for file in self.files if not (folder / file).exists()]:
            pickled = (
                "; the pickle that lies there is not read, for a pickle can run any code: put UCI's own text there "
                "(Gas sensor array under dynamic gas mixtures)"
                if (folder / _PICKLE).exists()
                else "; `python -m benchmarks.experiments.zenodo FOLDER` fetches the published files"
            )
            raise DataError(f"expected {' and '.join(missing)} in {folder}, got none{pickled}")
        return self.read(folder)


def power(folder: Path) -> Splits:
    """Household power, 6 columns: shuffled, with the noise of rounding added, standardised."""
    data, rng = _numbers(folder / "power/data.npy", 8), np.random.RandomState(42)
    rng.shuffle(data)
    data = np.delete(data, (1, 3), axis=1)
    rows = len(data)
    voltage, active = 0.01 * rng.rand(rows, 1), 0.001 * rng.rand(rows, 1)  # in the order in which they were drawn
    data += np.hstack([active, voltage, rng.rand(rows, 3), np.zeros((rows, 1))])
    return _standardised(*_tenths(data))


def gas(folder: Path) -> Splits:
    """Gas sensors, 8 columns: time and concentrations left out, then columns that nearly repeat another; standardised.

    The published file is a pickle of UCI's text, which is read instead.
    """
    path = folder / "gas/ethylene_CO.txt"
    data = _table(path, skip=1)
    if data.shape[1] != 19:
        raise DataError(f"expected 19 columns in {path}, got {data.shape[1]}: fetch UCI's file again")
    data = uncorrelated(data[:, 3:])
    return _tenths((data - data.mean(0)) / data.std(0, ddof=1))


def hepmass(folder: Path) -> Splits:
    """Particle collisions with a signal, 21 columns: standardised, columns with a value that comes often left out."""
    training, test = (_signal(folder / f"hepmass/1000_{name}.csv") for name in ("train", "test"))
    if test.shape[1] == training.shape[1] + 1:
        test = test[:, :-1]  # the published test file has one column more
    if test.shape[1] != training.shape[1]:
        raise DataError(f"expected as many columns in both files, got {training.shape[1]} and {test.shape[1]}")
    mean, deviation = training.mean(0), training.std(0, ddof=1)
    training, test = (training - mean) / deviation, (test - mean) / deviation
    kept = few_repeats(training)
    training, test = training[:, kept], test[:, kept]
    held_out = len(training) // 10
    return training[:-held_out], training[-held_out:], test


def miniboone(folder: Path) -> Splits:
    """Particle identification, 43 columns, as the archive has it; standardised."""
    return _standardised(*_tenths(_numbers(folder / "miniboone/data.npy")))


def miniboone_text(path: Path) -> Array:
    """What the archive has of MINIBOONE, from UCI's own text: the signal, without outliers and columns that repeat.

    Args:
        path: `MiniBooNE_PID.txt`; its first line counts the rows of signal and of background.

    Returns:
        `(rows, features)`, to be saved as `miniboone/data.npy`.
    """
    with path.open(encoding="ascii") as file:
        signal = file.readline().split()[:1]
    if not signal or not signal[0].isdigit():
        raise DataError(f"expected the numbers of rows in the first line of {path}: fetch UCI's file again")
    data = _table(path, skip=1)[: int(signal[0])]
    data = data[data[:, 0] >= -100]
    return data[:, few_repeats(data)]


def bsds300(folder: Path) -> Splits:
    """Patches of photographs, 63 columns, split as published and used as they are."""
    import h5py  # type: ignore[import-untyped]  # optional, and it ships no types

    path = folder / "BSDS300/BSDS300.hdf5"
    with h5py.File(path, "r") as file:
        if missing := {"train", "validation", "test"} - set(file):
            raise DataError(f"expected {', '.join(sorted(missing))} in {path}, got {', '.join(file)}: fetch it again")
        first, second, third = (np.asarray(file[name], dtype=np.float64) for name in ("train", "validation", "test"))
    return first, second, third


PUBLISHED: Mapping[str, Published] = {
    "power": Published(("power/data.npy",), 6, power),
    "gas": Published(("gas/ethylene_CO.txt",), 8, gas),
    "hepmass": Published(("hepmass/1000_train.csv", "hepmass/1000_test.csv"), 21, hepmass),
    "miniboone": Published(("miniboone/data.npy",), 43, miniboone),
    "bsds300": Published(("BSDS300/BSDS300.hdf5",), 63, bsds300, "h5py"),
}


def uncorrelated(data: Array) -> Array:
    """Columns are left out, the first first, until no two have a correlation above 0.98.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 2))
        >>> uncorrelated(np.column_stack([x[:, 0], 2 * x[:, 0], x[:, 1]])).shape
        (100, 2)
    """
    while True:
        close = (np.atleast_2d(np.corrcoef(data, rowvar=False)) > _CORRELATED).sum(0) > 1
        if not close.any():
            return data
        data = np.delete(data, int(close.argmax()), axis=1)


def few_repeats(data: Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which columns have a least value that comes at most five times.

    The authors' code means the value that comes most often, and looks at the least one; so do we.

    Example:
        >>> few_repeats(np.column_stack([np.arange(8.0), np.arange(8.0).clip(5, None)])).tolist()
        [True, False]
    """
    found: np.ndarray[Any, np.dtype[np.bool_]] = (data == data.min(0)).sum(0) <= _REPEATED
    return found


def _tenths(data: Array) -> Splits:
    """The last tenth is the test split, the last tenth of the others the validation split."""
    test = len(data) // 10
    validation = (len(data) - test) // 10
    if validation == 0:
        raise DataError(f"expected at least 12 rows, got {len(data)}: the file is cut short, fetch it again")
    rest = data[:-test]
    return rest[:-validation], rest[-validation:], data[-test:]


def _standardised(training: Array, validation: Array, test: Array) -> Splits:
    """By training and validation rows together, as the authors did."""
    both = np.vstack([training, validation])
    mean, deviation = both.mean(0), both.std(0)
    return (training - mean) / deviation, (validation - mean) / deviation, (test - mean) / deviation


def _signal(path: Path) -> Array:
    """Rows of class 1, without the class."""
    data = _table(path, skip=1, delimiter=",")
    return data[data[:, 0] == 1, 1:]


def _table(path: Path, *, skip: int, delimiter: str | None = None) -> Array:
    try:
        data: Array = np.loadtxt(path, skiprows=skip, delimiter=delimiter, ndmin=2)
    except ValueError as error:
        raise DataError(f"expected a table of numbers in {path}, got something else ({error})") from error
    return data


def _numbers(path: Path, columns: int | None = None) -> Array:
    try:
        data = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise DataError(f"expected an array of numbers in {path}, got something else ({error})") from error
    if data.ndim != 2 or (columns is not None and data.shape[1] != columns):
        raise DataError(f"expected (rows, {columns or 'features'}) in {path}, got {data.shape}: fetch it again")
    return data.astype(np.float64)
