"""What peers outside POT share: a cap on their points, and coordinates without offset and unit of length."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from benchmarks.tasks import Array
from ot_lift.methods import BaseMethod


class CentredMethod(BaseMethod):
    """A method that sees at most `max_points` random points a side, each side centred, both divided by one length.

    An optimal map stays one under such changes, so that step sizes and tolerances mean the same at every scale. Those
    who inherit define `_fit`, `_forward` and, where they have one, `_backward`, in these coordinates.

    Args:
        max_points: Cap on the points a side; None is no cap.
        **settings: Shown with the results.

    Example:
        >>> class Same(CentredMethod):
        ...     name = "same"
        ...
        ...     def _fit(self, x, y, rng, max_seconds):
        ...         self.size = len(x)
        ...
        ...     def _forward(self, x):
        ...         return x
        >>> method = Same(max_points=2).fit(np.array([[0.0], [2.0]]), np.array([[5.0], [7.0]]))
        >>> method.transport(np.array([[1.0]])).tolist(), method.invert(np.array([[6.0]]))
        ([[6.0]], None)
    """

    def __init__(self, *, max_points: int | None, **settings: Any) -> None:
        super().__init__(max_points=max_points, **settings)

    @abstractmethod
    def _fit(self, x: Array, y: Array, rng: np.random.Generator, max_seconds: float | None) -> None:
        """Fit on centred points."""

    @abstractmethod
    def _forward(self, x: Array) -> Array:
        """Images of centred source points."""

    def _backward(self, y: Array) -> Array | None:
        """Preimages of centred target points."""
        return None

    def fit(self, X: Array, Y: Array, *, random_state: int = 0, max_seconds: float | None = None) -> Self:
        """Fit on random points within the cap."""
        self.notes = []
        rng = np.random.default_rng(random_state)
        x, y = (self._capped(points, side, rng) for points, side in ((X, "source"), (Y, "target")))
        self._centres = x.mean(0), y.mean(0)
        x, y = x - self._centres[0], y - self._centres[1]
        self._length = float(np.sqrt(max(np.square(x).sum(1).mean(), np.square(y).sum(1).mean()))) or 1.0
        self._fit(x / self._length, y / self._length, rng, max_seconds)
        return self

    def _capped(self, points: Array, side: str, rng: np.random.Generator) -> Array:
        cap = self.settings["max_points"]
        points = np.asarray(points, dtype=np.float64)
        if cap is None or len(points) <= cap:
            return points
        self.notes.append(f"fitted on {cap:,} of {len(points):,} {side} points (its cap)")
        return points[rng.choice(len(points), cap, replace=False)]

    def transport(self, X: Array) -> Array:
        """Images in data units."""
        return self._in_data_units(self._forward)(X)

    def _in_data_units(self, function: Callable[[Array], Array]) -> Callable[[Array], Array]:
        """A map of centred source points to centred target points, as one of points as they are given."""
        (home, away), length = self._centres, self._length
        return lambda points: function((np.asarray(points) - home) / length) * length + away

    def invert(self, Y: Array) -> Array | None:
        """Preimages in data units, where the method has an inverse."""
        away, home = self._centres
        found = self._backward((np.asarray(Y) - home) / self._length)
        return None if found is None else found * self._length + away


def in_blocks(function: Any, points: Array, *, rows: int) -> Array:
    """A compiled function of `(rows, features)` on any number of points, the last block filled up with zeros.

    Example:
        >>> in_blocks(lambda block: 2 * block, np.ones((5, 1)), rows=2).ravel().tolist()
        [2.0, 2.0, 2.0, 2.0, 2.0]
    """
    filled = np.zeros((-(-len(points) // rows) * rows, points.shape[1]))
    filled[: len(points)] = points
    blocks = [np.asarray(function(filled[start : start + rows])) for start in range(0, len(filled), rows)]
    return np.concatenate(blocks)[: len(points)].astype(np.float64)
