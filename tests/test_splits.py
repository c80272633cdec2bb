"""Splits are disjoint, complete and never empty."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ot_lift.errors import DataError
from ot_lift.splits import paired_splits, split_indices


@pytest.mark.parametrize(
    ("size", "counts"), [(3, [1, 1, 1]), (4, [2, 1, 1]), (12, [10, 1, 1]), (1000, [800, 100, 100])]
)
def test_parts_are_disjoint_complete_and_never_empty(size: int, counts: list[int], generator: torch.Generator) -> None:
    parts = split_indices(size, (0.8, 0.1, 0.1), generator)
    assert [len(part) for part in parts] == counts
    assert torch.cat(parts).sort().values.tolist() == list(range(size))


def test_splits_refuse_too_few_rows_and_wrong_fractions(generator: torch.Generator) -> None:
    with pytest.raises(DataError, match="at least 3 rows"):
        split_indices(2, (0.8, 0.1, 0.1), generator)
    with pytest.raises(ValueError, match="sum to 1"):
        split_indices(10, (0.5, 0.4), generator)
    with pytest.raises(DataError, match="at least 5 rows a side"):
        next(paired_splits(4, 100))
    with pytest.raises(ValueError, match="folds >= 2"):
        next(paired_splits(4, 100, folds=1))


def test_paired_splits_hold_out_every_row_of_both_sides_once() -> None:
    splits = list(paired_splits(11, 23, folds=4, random_state=3))
    for side, size in ((0, 11), (1, 23)):
        tests = [test[side] for _, test in splits]
        assert sorted(np.concatenate(tests).tolist()) == list(range(size))
        for train, test in splits:
            assert sorted([*train[side].tolist(), *test[side].tolist()]) == list(range(size))
    again = list(paired_splits(11, 23, folds=4, random_state=3))
    assert np.array_equal(splits[0][0][0], again[0][0][0])
