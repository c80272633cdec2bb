"""Distances between two samples: energy distance, maximum mean discrepancy, sliced Wasserstein-2.

Arrays of shape `(n, features)` of any kind come in, float64 arithmetic inside, plain numbers in data units
(squared where the name says so) come out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ot_lift.data import as_batch
from ot_lift.errors import DataError

__all__ = ["energy_distance", "maximum_mean_discrepancy", "sliced_w2_squared"]

_PAIRS_PER_CHUNK = 4_000_000  # 32 MB of float64 distances at a time


def float64_points(values: object, *, name: str, features: int | None = None) -> Tensor:
    """The rows of `values` as a float64 tensor on the CPU."""
    batch, _ = as_batch(values, name=name, features=features)
    return batch.detach().to(device="cpu", dtype=torch.float64)


def float64_pair(X: object, Y: object, *, names: tuple[str, str] = ("X", "Y")) -> tuple[Tensor, Tensor]:
    """Two samples as float64 tensors ``(n, features)`` and ``(m, features)``; DataError where they do not match."""
    first = float64_points(X, name=names[0])
    return first, float64_points(Y, name=names[1], features=first.shape[1])


def _mean_pairwise(x: Tensor, y: Tensor, function: Callable[[Tensor], Tensor]) -> float:
    """Mean over all pairs of `function(‖x − y‖)`, a block of rows at a time."""
    rows = max(1, _PAIRS_PER_CHUNK // y.shape[0])
    blocks = (x[start : start + rows] for start in range(0, x.shape[0], rows))
    return sum(float(function(pairwise_distances(block, y)).mean()) * len(block) for block in blocks) / len(x)


def pairwise_distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances without the matrix-product shortcut, which loses near-equal points far from 0."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def energy_distance(X: object, Y: object) -> float:
    """Energy distance of two samples: 2E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖ (no root, data units).

    All pairs count, a point with itself included (the V-statistic), so the value is never negative and is 0
    exactly for equal samples; for two samples of n points of one law it is of order E‖Y − Y′‖/n, which is
    why it is read against `null_level`.

    Args:
        X: `(n, features)`.
        Y: `(m, features)`.

    Returns:
        A non-negative number in data units.

    References:
        Székely, Rizzo (2013), J. Statist. Plann. Inference 143(8).

    Example:
        >>> energy_distance([[0.0], [0.0]], [[3.0], [3.0]])
        6.0
    """
    x, y = float64_pair(X, Y)
    across, within_x, within_y = (_mean_pairwise(*pair, torch.positive) for pair in ((x, y), (x, x), (y, y)))
    return max(0.0, 2 * across - within_x - within_y)


def maximum_mean_discrepancy(X: object, Y: object, *, bandwidth: float | None = None) -> float:
    """Squared maximum mean discrepancy under a Gaussian kernel exp(−‖x − y‖²/(2·bandwidth²)).

    All pairs count (the V-statistic, never negative); read it against `null_level`.

    Args:
        X: `(n, features)`.
        Y: `(m, features)`.
        bandwidth: In data units; by default the median distance between points of Y (at most 1,000 of them).

    Returns:
        A number in [0, 2], without units.

    Raises:
        DataError: `bandwidth` is not positive.

    References:
        Gretton, Borgwardt, Rasch, Schölkopf, Smola (2012), JMLR 13, arXiv 0805.2368.

    Example:
        >>> maximum_mean_discrepancy([[0.0]], [[1.0]], bandwidth=1.0)  # 2 − 2·exp(−1/2)
        0.7869386805747332
    """
    x, y = float64_pair(X, Y)
    if bandwidth is None:
        few = y[:1000]
        positive = torch.nn.functional.pdist(few)
        positive = positive[positive > 0]
        bandwidth = float(positive.median()) if positive.numel() else 1.0
    if not bandwidth > 0:
        raise DataError(f"expected bandwidth > 0 (data units), got {bandwidth}; leave it out for the median distance")
    width = bandwidth

    def kernel(distance: Tensor) -> Tensor:
        return (-0.5 * (distance / width).square()).exp()

    across, within_x, within_y = (_mean_pairwise(*pair, kernel) for pair in ((x, y), (x, x), (y, y)))
    return max(0.0, within_x + within_y - 2 * across)


def random_directions(features: int, count: int, generator: torch.Generator | None) -> Tensor:
    """`count` unit vectors as columns `(features, count)`; the single direction there is in one dimension."""
    if features == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    normal = torch.randn(features, count, generator=generator or torch.Generator(), dtype=torch.float64)
    return torch.nn.functional.normalize(normal, dim=0)


def sorted_w2_squared(first: Tensor, second: Tensor) -> Tensor:
    """Exact one-dimensional W2² along the last axis, which is sorted; sizes n and m may differ.

    The quantile functions are steps with jumps at i/n and j/m: their squared difference is integrated on the
    merged grid.
    """
    n, m = first.shape[-1], second.shape[-1]
    if n == m:
        return (first - second).square().mean(-1)
    ticks = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]))  # over n·m
    widths = torch.diff(ticks, prepend=ticks.new_zeros(1)).to(first.dtype) / (n * m)
    gap = first[..., (ticks - 1) // m] - second[..., (ticks - 1) // n]
    return (gap.square() * widths).sum(-1)


def sliced_w2_squared(
    X: object, Y: object, *, projections: int = 128, generator: torch.Generator | None = None
) -> float:
    """Sliced Wasserstein-2, squared: the mean over random directions u of the exact 1-D W2²(⟨u, X⟩, ⟨u, Y⟩).

    Args:
        X: `(n, features)`.
        Y: `(m, features)`; n and m may differ.
        projections: Number of directions (one is enough, and used, for one feature).
        generator: Source of the directions.

    Returns:
        Squared data units. Between W2²/features and 0, up to the sampling of directions.

    Raises:
        DataError: `projections` is below 1.

    References:
        Bonneel, Rabin, Peyré, Pfister (2015), J. Math. Imaging Vis. 51.

    Example:
        >>> sliced_w2_squared([[0.0], [2.0]], [[1.0], [1.0], [3.0], [3.0]])
        1.0
    """
    if projections < 1:
        raise DataError(f"expected projections ≥ 1, got {projections}")
    x, y = float64_pair(X, Y)
    directions = random_directions(x.shape[1], projections, generator)
    first, second = ((points @ directions).T.sort(-1).values for points in (x, y))
    return float(sorted_w2_squared(first, second).mean())
