"""Planes in a space of parameters, a loss on them, and what its surface is like."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.experiments.densities1d import Array

_MARGIN, _NARROWEST = 0.25, 0.4  # of the longer side: around the points, and the least of the shorter one
_ROUNDING = 1e-5  # of a surface's range: a second difference within it is none (losses are float32)


@dataclass(frozen=True)
class Plane:
    """origin + a·first + b·second, the two directions orthonormal.

    Attributes:
        origin: `(p,)`.
        directions: `(2, p)`.
        share: of the squared distances of the points that it was laid through, how much lies in it.

    Example:
        >>> plane = Plane.through([torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 4.0, 0.0]), torch.zeros(3)])
        >>> plane.share, [round(abs(one), 6) for one in plane.coordinates(torch.tensor([0.0, 2.0, 7.0]))]
        (1.0, [2.0, 0.0])
    """

    origin: Tensor
    directions: Tensor
    share: float

    @classmethod
    def through(cls, points: Sequence[Tensor]) -> Plane:
        """Through the last of the points `(p,)`, with the two principal directions of the others seen from it.

        References:
            Li et al. (2018), "Visualizing the Loss Landscape of Neural Nets", arXiv 1712.09913.

        Raises:
            ValueError: The points lie on a line.
        """
        moves = torch.stack([point - points[-1] for point in points[:-1]])
        products = (moves @ moves.T).double()
        values, vectors = torch.linalg.eigh(products)
        if not float(values[-2]) > 1e-12 * float(values[-1]) > 0:
            raise ValueError(f"expected points that span a plane, got {len(points)} on a line: take longer steps")
        mixing = (vectors[:, -2:] / values[-2:].sqrt()).flip(1).T
        share = float(values[-2:].sum() / values.clamp_min(0).sum())
        return cls(points[-1], mixing.to(moves) @ moves, min(1.0, share))

    def coordinates(self, point: Tensor) -> tuple[float, float]:
        """Of the nearest point of the plane to `(p,)`."""
        first, second = (self.directions @ (point - self.origin)).tolist()
        return first, second

    def at(self, first: float, second: float) -> Tensor:
        """The point `(p,)` at two coordinates."""
        return self.origin + self.directions.T @ self.directions.new_tensor([first, second])


def sides(places: Sequence[tuple[float, float]], count: int) -> tuple[Array, Array]:
    """Evenly spaced coordinates, `(count,)` each, of a rectangle around places with a margin.

    Example:
        >>> [side.tolist() for side in sides([(0.0, 0.0), (4.0, 2.0)], 3)]
        [[-1.0, 2.0, 5.0], [-1.0, 1.0, 3.0]]
    """
    low, high = np.min(places, axis=0), np.max(places, axis=0)
    longest = float((high - low).max())
    half = np.maximum(high - low, _NARROWEST * longest) / 2 + _MARGIN * longest
    middle = (low + high) / 2
    first, second = (np.linspace(m - h, m + h, count) for m, h in zip(middle, half, strict=True))
    return first, second


def surface(value: Callable[[Tensor], float], plane: Plane, first: Array, second: Array) -> Array:
    """A loss on a grid of the plane, `(len(second), len(first))`; NaN where it is not finite or not defined."""
    found = np.full((len(second), len(first)), math.nan)
    for row, b in enumerate(second):
        for column, a in enumerate(first):
            try:
                loss = value(plane.at(float(a), float(b)))
            except FloatingPointError:
                continue
            found[row, column] = loss if math.isfinite(loss) else math.nan
    return found


def loss_of(
    model: nn.Module, evaluate: Callable[[], Tensor], parameters: Sequence[nn.Parameter]
) -> Callable[[Tensor], float]:
    """A loss as a function of the parameters in a row, `(p,)`; the model is left at the last ones asked for.

    Example:
        >>> line = nn.Linear(1, 1, bias=False)
        >>> value = loss_of(line, lambda: line(torch.ones(1, 1)).sum(), list(line.parameters()))
        >>> value(torch.tensor([3.0]))
        3.0
    """

    @torch.no_grad()
    def value(vector: Tensor) -> float:
        nn.utils.vector_to_parameters(vector, parameters)
        return float(evaluate())

    return value


def not_convex_share(values: Array) -> float:
    """Share of second differences along rows, columns and diagonals that are negative; 0 on a convex surface.

    Args:
        values: `(rows, columns)`; differences with a NaN are left out.

    Example:
        >>> x = np.linspace(-1, 1, 5)
        >>> not_convex_share(x[:, None] ** 2 + x**2), not_convex_share(x[:, None] ** 2 - 3 * x**2)
        (0.0, 0.75)
    """
    middle = values[1:-1, 1:-1]
    pairs = (
        (values[1:-1, :-2], values[1:-1, 2:]),
        (values[:-2, 1:-1], values[2:, 1:-1]),
        (values[:-2, :-2], values[2:, 2:]),
        (values[:-2, 2:], values[2:, :-2]),
    )
    differences = np.stack([before + after - 2 * middle for before, after in pairs])
    known = differences[np.isfinite(differences)]
    if not len(known):
        return math.nan
    return float((known < -_ROUNDING * (np.nanmax(values) - np.nanmin(values))).mean())


def basin_share(values: Array) -> float:
    """Share of the grid's points from which steps to the least neighbour lead to the least point of all.

    Args:
        values: `(rows, columns)`; points with a NaN are left out.

    Example:
        >>> basin_share(np.array([[3.0, 1.0, 2.0, 5.0, 4.0]]))  # from 4 and 5: 5 falls to 2, 4 stays
        0.8
    """
    filled = np.where(np.isfinite(values), values, np.inf)
    lowest = int(filled.argmin())
    leads = _downhill(filled)
    for _ in range(values.size.bit_length()):  # pointers doubled: 2^k steps
        leads = leads[leads]
    known = np.isfinite(values).ravel()
    return float((leads[known] == lowest).mean())


def _downhill(values: Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Of every point the place of the least one among itself and its eight neighbours, `(size,)`."""
    rows, columns = values.shape
    padded = np.pad(values, 1, constant_values=np.inf)
    places = np.pad(np.arange(values.size).reshape(rows, columns), 1)
    steps = [(i, j) for i in range(3) for j in range(3)]
    around = np.stack([padded[i : i + rows, j : j + columns] for i, j in steps])
    where = np.stack([places[i : i + rows, j : j + columns] for i, j in steps])
    least = around.argmin(0)[None]
    found: np.ndarray[Any, np.dtype[np.int64]] = np.take_along_axis(where, least, 0).ravel()
    stuck = ~np.isfinite(values).ravel()
    found[stuck] = np.arange(values.size)[stuck]
    return found
