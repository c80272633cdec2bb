"""Random splits of one dataset and of two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ot_lift.errors import DataError


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
