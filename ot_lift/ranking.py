"""Which methods are best at a figure, beyond noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ot_lift.distances import float64_points, pairwise_distances, random_directions, sorted_w2_squared

__all__ = ["best_of", "resampled_pushforward"]

Array = npt.NDArray[np.float64]

_POINTS = 1000
_PROJECTIONS = 32


def resampled_pushforward(
    transported: Mapping[str, npt.ArrayLike],
    target: npt.ArrayLike,
    *,
    repeats: int = 100,
    generator: torch.Generator | None = None,
) -> dict[str, dict[str, Array]]:
    """Bootstrap values of energy distance and squared sliced W2, the same resamples and directions for every method.

    Differences between methods are therefore paired: what all of them owe to the draw of source and target points
    cancels.

    Args:
        transported: By method, images of the same source points, `(n, features)`.
        target: `(m, features)`.
        repeats: Resamples.
        generator: Source of resamples and directions.

    Returns:
        By figure ("energy", "sliced_w2"), by method, values `(repeats,)`.

    Example:
        >>> values = resampled_pushforward({"good": [[0.0], [1.0]], "bad": [[9.0], [9.0]]}, [[0.0], [1.0]])
        >>> bool((values["energy"]["good"] < values["energy"]["bad"]).all())
        True
    """
    generator = generator or torch.Generator()
    y = float64_points(target, name="target")
    images = {name: float64_points(image, name=name, features=y.shape[1]) for name, image in transported.items()}
    size = min(_POINTS, len(y), *(len(image) for image in images.values()))
    rows, columns = (torch.randint(size, (repeats, size), generator=generator) for _ in range(2))
    directions = random_directions(y.shape[1], _PROJECTIONS, generator)
    y = y[torch.randperm(len(y), generator=generator)[:size]]
    centre = y.mean(0)
    images = {name: image[:size] for name, image in images.items()}
    weights = tuple(_weights(index) for index in (rows, columns))
    within_y = _quadratic(pairwise_distances(y, y), weights[1], weights[1])
    energy = {
        name: 2 * _quadratic(pairwise_distances(image, y), *weights)
        - _quadratic(pairwise_distances(image, image), weights[0], weights[0])
        - within_y
        for name, image in images.items()
    }
    projected = {name: ((image - centre) @ directions).T for name, image in images.items()}
    target_projected = ((y - centre) @ directions).T
    sliced: dict[str, list[float]] = {name: [] for name in images}
    for row, column in zip(rows, columns, strict=True):
        resampled = target_projected[:, column].sort(-1).values
        for name, values in projected.items():
            sliced[name].append(float(sorted_w2_squared(values[:, row].sort(-1).values, resampled).mean()))
    return {
        "energy": {name: values.numpy() for name, values in energy.items()},
        "sliced_w2": {name: np.array(values) for name, values in sliced.items()},
    }


def _weights(index: Tensor) -> Tensor:
    """How often each point was drawn, over the size: `(size, repeats)`."""
    counts = torch.zeros(index.shape[1], index.shape[0], dtype=torch.float64)
    return counts.scatter_add_(0, index.T, torch.ones_like(counts)) / index.shape[1]


def _quadratic(distances: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """leftᵀ·distances·right for each resample."""
    return (left * (distances @ right)).sum(0)


def best_of(
    values: Mapping[str, float],
    *,
    within: float = 0.0,
    noise_level: float | None = None,
    resampled: Mapping[str, Array] | None = None,
) -> Sequence[str]:
    """The method with the least value, and those that noise alone may separate from it.

    Args:
        values: The figure by method; lower is better.
        within: Values up to this far above the least are not told from it.
        noise_level: Values below it are not told from each other (the null level of a distance).
        resampled: Bootstrap values by method, paired; a method ties with the best unless its value is the greater one
            in at least 95% of the resamples.

    Returns:
        Names, the best first; empty if there are no values.

    Example:
        >>> best_of({"a": 1.0, "b": 1.05, "c": 2.0}, within=0.1)
        ['a', 'b']
    """
    ranked = sorted(values, key=lambda name: values[name])
    if not ranked:
        return []
    best = ranked[0]

    def ties(name: str) -> bool:
        if values[name] <= max(values[best] + within, noise_level or 0.0):
            return True
        return resampled is not None and bool(np.quantile(resampled[name] - resampled[best], 0.05) <= 0)

    return [best, *(name for name in ranked[1:] if ties(name))]
