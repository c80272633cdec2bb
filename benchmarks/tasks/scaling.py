"""What a fit, a transport and an inverse cost as points, dimensions and threads grow; plans are between all points."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.tasks import Array, Options, Problem, Task

FAMILY = "scaling"
_ROWS = (500, 1_000, 2_000, 4_000, 10_000, 100_000, 1_000_000, 10_000_000)
_FEATURES, _MIDDLE = (2, 8, 32, 128, 512, 1024), 8
# As dimensions grow: what plans hold, and what lets a network leave its Gaussian start.
_FEW, _MANY = 1_000, 100_000
_THREADS, _THREADED = (1, 2), (100_000, 32)
_BUDGET = 60.0
_CHUNK = 1 << 18  # rows made at once
_MAPPED_BYTES = 1 << 27  # larger arrays are memory-mapped files


@dataclass(frozen=True)
class Scaling(Task):
    """A standard Gaussian under x ↦ Qᵀ sinh(Qx) with a random rotation Q: the gradient of Σ cosh((Qx)ᵢ).

    Attributes:
        threads: of every method, where their number is the question.

    Example:
        >>> task = Scaling(features=3, rows=50, test_rows=20, budget_seconds=1.0, uncapped=True)
        >>> task.name, task.problem(0).truth.shape
        ('scaling-n50-d3', (20, 3))
    """

    threads: int | None = field(default=None, metadata={"setting": False})

    @property
    def name(self) -> str:
        return f"{FAMILY}-n{self.rows}-d{self.features}" + (f"-t{self.threads}" if self.threads else "")

    @property
    def title(self) -> str:
        with_threads = "" if self.threads is None else f", {self.threads} thread{'s' * (self.threads > 1)}"
        return f"Scaling, n = {self.rows:,}, d = {self.features:,}{with_threads}"

    @property
    def words(self) -> str:
        return (
            "A standard Gaussian is stretched by sinh along the axes of a random rotation, which is the gradient of a "
            "convex function. Exact and entropic plans are between all points, whatever that costs. A fit that takes "
            "its minute to the end at every size tells its cost by its error."
        )

    @property
    def own_threads(self) -> int | None:
        return self.threads

    def settings(self) -> dict[str, Any]:
        """With the threads where they are the question."""
        return super().settings() | ({} if self.threads is None else {"threads": self.threads})

    def problem(self, seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        rotation = np.linalg.qr(rng.normal(size=(self.features, self.features)))[0]

        def drawn(rows: int, function: Callable[[Array], Array] = lambda x: x) -> Array:
            return filled((rows, self.features), lambda count: function(rng.normal(size=(count, self.features))))

        def truth(x: Array) -> Array:
            return np.sinh(x @ rotation.T) @ rotation

        source, target = drawn(self.rows), drawn(self.rows, truth)
        fresh = drawn(self.test_rows)
        return Problem(source, target, fresh, drawn(self.test_rows, truth), truth(fresh))


def filled(shape: tuple[int, int], rows_of: Callable[[int], Array]) -> Array:
    """Rows that are made a chunk at a time; a large array is a memory-mapped file, which goes when the array does.

    Args:
        shape: Of the array.
        rows_of: Gives as many rows as it is asked for.

    Example:
        >>> filled((3, 2), lambda count: np.ones((count, 2))).sum().item()
        6.0
    """
    large = 8 * math.prod(shape) > _MAPPED_BYTES
    array: Array = np.empty(shape)
    if large:
        with tempfile.TemporaryFile() as file:
            array = np.memmap(file, dtype=np.float64, mode="w+", shape=shape)
    for start in range(0, shape[0], _CHUNK):
        array[start : start + _CHUNK] = rows_of(min(_CHUNK, shape[0] - start))
    return array


def is_varied(task: Task) -> bool:
    """Whether networks of other widths and depths are tried: at three sizes, where it is not the start that is kept."""
    return task.rows == _MANY and task.features in (2, 8, 32) and task.own_threads is None


def tasks(options: Options) -> Iterable[Task]:
    """Growing n at d = 8, growing d at n = 1,000 and 100,000, one thread and two; a quick look is at small sizes."""
    growing: Iterable[tuple[int, int]] = (
        *((n, _MIDDLE) for n in _ROWS),
        *((n, d) for n in (_FEW, _MANY) for d in _FEATURES),
    )
    if options.quick:
        growing = ((250, 8), (500, 8), (500, 2))
    shared: dict[str, Any] = {"uncapped": True}
    for count, dimension in dict.fromkeys(growing):
        yield Scaling(features=dimension, **shared, **options.sizes(count, 2_048, _BUDGET))
    n, d = (250, 8) if options.quick else _THREADED
    for threads in _THREADS:
        if threads <= (os.cpu_count() or 1):
            yield Scaling(features=d, threads=threads, **shared, **options.sizes(n, 2_048, _BUDGET))
