"""Statistics that say how far a transported sample is from its target.

Every function takes arrays of shape `(n, features)` (NumPy, torch, lists, frames), computes in float64 and
returns plain numbers in data units (squared where the name says so). Randomness comes from a
`torch.Generator` alone; without one, a fresh generator with torch's fixed default seed is used, so equal
calls give equal answers and no global state is read or changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ot_lift.discrete import emd_w2_squared
from ot_lift.distances import (
    energy_distance,
    float64_pair,
    float64_points,
    maximum_mean_discrepancy,
    pairwise_distances,
    random_directions,
    sliced_w2_squared,
    sorted_w2_squared,
)
from ot_lift.errors import DataError

__all__ = [
    "PushforwardError",
    "cosine_similarity",
    "emd_w2_squared",
    "energy_distance",
    "l2_uvp",
    "maximum_mean_discrepancy",
    "null_level",
    "pushforward_error",
    "sliced_w2_squared",
]


def _same_rows(values: Tensor, reference: Tensor, *, name: str) -> None:
    if values.shape[0] != reference.shape[0]:
        raise DataError(
            f"expected {name} with {reference.shape[0]} rows, one for each transported point, "
            f"got {values.shape[0]}; evaluate both maps at the same points"
        )


def l2_uvp(transported: object, truth: object, target: object) -> float:
    """Unexplained variance percentage of a map: 100·E‖T̂(x) − T(x)‖² / Var(target).

    Args:
        transported: T̂(x), the fitted map at fresh source points, `(n, features)`.
        truth: T(x), the true map at the same points, `(n, features)`.
        target: Samples of the target, `(m, features)`; Var is the trace of their covariance.

    Returns:
        Percent; 0 is exact, 100 is what the constant map to the target's mean scores.

    Raises:
        DataError: Shapes do not agree, or all target points are equal.

    References:
        Korotin, Li, Genevay, Solomon, Filippov, Burnaev (2021), arXiv 2106.01954.

    Example:
        >>> l2_uvp([[1.0], [3.0]], [[1.0], [2.0]], [[0.0], [2.0]])
        50.0
    """
    fitted, true = float64_pair(transported, truth, names=("transported", "truth"))
    _same_rows(true, fitted, name="truth")
    points = float64_points(target, name="target", features=fitted.shape[1])
    variance = (points - points.mean(0)).square().sum(1).mean()
    if not variance > 0:
        raise DataError("expected target points that vary, got points that are all equal: L2-UVP has no scale")
    return float(100 * (fitted - true).square().sum(1).mean() / variance)


def cosine_similarity(source: object, transported: object, truth: object) -> float:
    """Cosine between the displacements of two maps: ⟨T̂ − id, T − id⟩ / (‖T̂ − id‖·‖T − id‖) in L²(source).

    Args:
        source: Points x, `(n, features)`.
        transported: T̂(x), `(n, features)`.
        truth: T(x), `(n, features)`.

    Returns:
        A number in [−1, 1]; 1 where the displacements agree up to a positive factor. Two maps that both
        leave every point in place agree (1.0); if only one of them does, the cosine is 0.

    References:
        Korotin et al. (2021), arXiv 2106.01954, section 4.

    Example:
        >>> cosine_similarity([[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 1.0]])  # 45 degrees
        0.7071067811865475
    """
    points, fitted = float64_pair(source, transported, names=("source", "transported"))
    true = float64_points(truth, name="truth", features=points.shape[1])
    _same_rows(fitted, points, name="transported")
    _same_rows(true, points, name="truth")
    first, second = fitted - points, true - points
    lengths = float(first.norm()), float(second.norm())
    if 0.0 in lengths:
        return float(lengths[0] == lengths[1])
    return float(((first / lengths[0]) * (second / lengths[1])).sum())


def null_level(
    statistic: Callable[[Tensor, Tensor], float],
    Y: object,
    *,
    size: int | None = None,
    repeats: int = 100,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> float:
    """What `statistic` reaches between two samples of one law: a quantile over random disjoint halves of Y.

    Args:
        statistic: Called with two float64 tensors `(size, features)`, returns a number.
        Y: `(m, features)`, m ≥ 2.
        size: Points in each half, at most (and by default) m // 2. A statistic shrinks with the sample, so
            compare with one computed at the same size.
        repeats: Number of random halvings.
        level: The quantile, between 0 and 1.
        generator: Source of the halvings.

    Returns:
        The level, in the statistic's own units. The halves share the one sample Y, so this is the level of a
        permutation test: exact over the draw of Y up to the number of repeats.

    Raises:
        DataError: Y has fewer than two rows or `size` does not fit twice.

    Example:
        >>> null_level(energy_distance, [[0.0], [3.0]], repeats=5)  # one point against the other
        6.0
    """
    points = float64_points(Y, name="Y")
    size = _half(points.shape[0], size)
    generator = generator or torch.Generator()
    found = []
    for _ in range(repeats):
        order = torch.randperm(points.shape[0], generator=generator)
        found.append(float(statistic(points[order[:size]], points[order[size : 2 * size]])))
    return float(np.quantile(found, level, method="higher"))


def _half(count: int, size: int | None) -> int:
    size = count // 2 if size is None else size
    if size < 1 or 2 * size > count:
        raise DataError(
            f"expected at least {max(2, 2 * size)} rows of the target, for two halves, got {count}; give more points"
        )
    return size


@dataclass(frozen=True)
class PushforwardError:
    """How far a transported sample is from its target, each figure beside its null level.

    Attributes:
        energy: Energy distance, data units.
        energy_null: 95% level of the same figure between two halves of the target of the same size.
        sliced_w2: Sliced Wasserstein-2, the root, data units.
        sliced_w2_null: Its 95% level.
        size: Points on each side of every comparison.
    """

    energy: float
    energy_null: float
    sliced_w2: float
    sliced_w2_null: float
    size: int


def pushforward_error(
    transported: object,
    target: object,
    *,
    max_points: int = 1000,
    projections: int = 64,
    repeats: int = 200,
    generator: torch.Generator | None = None,
) -> PushforwardError:
    """Energy distance and sliced W2 of T(X) against Y, with the levels that two halves of Y reach.

    Both sides of every comparison have the same number of points, min(n, m // 2, max_points): the figures
    and their levels then carry the same sampling error and a figure under its level says that the transported
    points cannot be told from the target at this size.

    Args:
        transported: T(x), `(n, features)`.
        target: y, `(m, features)`, m ≥ 2.
        max_points: Cap on the points of a side.
        projections: Directions of the sliced distance.
        repeats: Random halvings behind the levels.
        generator: Source of subsamples, directions and halvings.

    Returns:
        The figures and their levels, in data units.

    Example:
        >>> found = pushforward_error([[5.0], [5.0]], [[0.0], [0.0], [0.0], [0.0]])
        >>> found.energy, found.energy_null, found.sliced_w2, found.size
        (10.0, 0.0, 5.0, 2)
    """
    image, points = float64_pair(transported, target, names=("transported", "target"))
    generator = generator or torch.Generator()
    size = _half(points.shape[0], min(image.shape[0], points.shape[0] // 2, max_points))
    image = image[torch.randperm(image.shape[0], generator=generator)[:size]]
    points = points[torch.randperm(points.shape[0], generator=generator)[: 2 * size]]
    directions = random_directions(points.shape[1], projections, generator)
    centre = points.mean(0)
    projected = ((points - centre) @ directions).T
    image_projected = ((image - centre) @ directions).T.sort(-1).values
    sliced = sorted_w2_squared(image_projected, projected[:, :size].sort(-1).values).mean()
    energy_null, sliced_null = _null_levels(points, projected, repeats=repeats, generator=generator)
    return PushforwardError(
        energy=energy_distance(image, points[:size]),
        energy_null=energy_null,
        sliced_w2=float(sliced.sqrt()),
        sliced_w2_null=float(np.sqrt(sliced_null)),
        size=size,
    )


def _null_levels(points: Tensor, projected: Tensor, *, repeats: int, generator: torch.Generator) -> tuple[float, float]:
    """95% levels of energy distance and sliced W2² over halvings, sharing one distance matrix and one sort.

    With s = ±1 naming the halves, the energy distance of two halves of size k is −sᵀDs/k².
    """
    size = points.shape[0] // 2
    orders = [torch.randperm(2 * size, generator=generator) for _ in range(repeats)]
    signs = torch.ones(2 * size, repeats, dtype=torch.float64)
    for column, order in enumerate(orders):
        signs[order[:size], column] = -1.0
    energies = -(signs * (pairwise_distances(points, points) @ signs)).sum(0) / size**2
    ordered, places = projected.sort(-1)
    sliced = []
    for column in range(repeats):
        chosen = signs[:, column][places] < 0
        halves = ordered[chosen].view(-1, size), ordered[~chosen].view(-1, size)
        sliced.append(float(sorted_w2_squared(*halves).mean()))
    return (
        max(0.0, float(np.quantile(energies.numpy(), 0.95, method="higher"))),
        float(np.quantile(sliced, 0.95, method="higher")),
    )
