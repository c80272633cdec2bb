"""Batches visit what they should as often as they should, and continue from a saved position bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import ot_lift.batches
from ot_lift.batches import Batches, FiniteBatches, StreamBatches
from ot_lift.rows import Rows, open_rows

SIZE, BATCH = 24, 6


def numbered(size: int = SIZE) -> Rows:
    """Rows whose entries are their own number."""
    return open_rows(np.arange(2.0 * size).reshape(size, 2) // 2, name="X")


def halve(x: Tensor) -> Tensor:
    return (0.5 * x).float()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def finite(**options: object) -> FiniteBatches:
    index = torch.arange(SIZE)
    options = {"batch_size": BATCH, "generator": generator(), **options}
    return FiniteBatches(numbered(), index, halve, **options)  # type: ignore[arg-type]


def test_an_epoch_visits_every_row_once() -> None:
    batches = finite()
    orders = []
    for _ in range(3):
        slots = torch.cat([batches.next()[0] for _ in range(SIZE // BATCH)])
        assert sorted(slots.tolist()) == list(range(SIZE))
        orders.append(slots.tolist())
    assert orders[0] != orders[1] != orders[2]


def test_an_epoch_that_does_not_divide_repeats_no_row_and_leaves_none_out_for_long() -> None:
    batches = finite(batch_size=10)
    seen = torch.zeros(SIZE)
    for _ in range(12):
        epoch = torch.cat([batches.next()[0] for _ in range(SIZE // 10)])
        assert len(epoch.unique()) == len(epoch) == 20
        seen[epoch] += 1
    assert bool((seen > 0).all())


def test_points_are_the_transformed_rows_of_their_slots() -> None:
    index = torch.tensor([5, 3, 8, 1])
    batches = FiniteBatches(numbered(), index, halve, batch_size=3, generator=generator())
    slots, points = batches.next()
    assert batches.size == 4 and slots.dtype == torch.int64 and points.dtype == torch.float32
    assert_close(points, (0.5 * index[slots].double())[:, None].repeat(1, 2).float())
    assert batches.renewed is None


def test_rows_too_many_to_keep_are_gathered_for_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = finite()
    monkeypatch.setattr(ot_lift.batches, "_RESIDENT_BYTES", 0)
    gathered = finite()
    assert gathered._points is None
    for _ in range(6):
        for ours, theirs in zip(kept.next(), gathered.next(), strict=True):
            assert torch.equal(ours, theirs)


def test_a_batch_is_never_larger_than_the_data() -> None:
    batches = finite(batch_size=1000)
    assert sorted(batches.next()[0].tolist()) == list(range(SIZE))
    weighted = finite(batch_size=1000, weight=torch.ones(SIZE))
    assert len(weighted.next()[0]) == SIZE


def test_weights_are_the_frequencies_of_the_rows() -> None:
    weight = torch.tensor([0.0, 1.0, 2.0, 0.0, 5.0, 0.0], dtype=torch.float64)
    index = torch.arange(6)
    batches = FiniteBatches(numbered(), index, halve, batch_size=6, generator=generator(), weight=weight)
    draws = 2000
    counts = torch.bincount(torch.cat([batches.next()[0] for _ in range(draws)]), minlength=6)
    share = weight / weight.sum()
    error = (share * (1 - share) / (6 * draws)).sqrt()
    assert counts[weight == 0].eq(0).all()
    assert bool(((counts / (6 * draws) - share).abs() <= 4.5 * error).all())


# ------------------------------------------------------------------------------------------- streams
def sampler(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, 2, generator=generator, dtype=torch.float64)


def stream(draw: Callable[[int, torch.Generator], Tensor] = sampler, *, seed: int = 0) -> StreamBatches:
    return StreamBatches(open_rows(draw, name="X"), halve, batch_size=4, generator=generator(seed))


def test_a_stream_is_visited_through_a_pool_of_which_a_block_is_fresh_every_epoch() -> None:
    batches = stream()
    epoch = batches.size // 4
    pool = batches._pool.clone()
    fresh: list[slice] = []
    for number in range(2 * ot_lift.batches._POOL_BLOCKS):
        seen = []
        for step in range(epoch):
            slots, points = batches.next()
            seen.append(slots)
            if step == 0 and number > 0:
                assert batches.renewed is not None
                fresh.append(batches.renewed)
                changed = (batches._pool != pool).any(1).nonzero().squeeze(1)
                assert changed.tolist() == list(range(batches.size))[batches.renewed]
                pool = batches._pool.clone()
            else:
                assert batches.renewed is None
            assert torch.equal(points, batches._pool[slots])
        assert sorted(torch.cat(seen).tolist()) == list(range(batches.size))
    covered = sorted(slot for block in fresh[: ot_lift.batches._POOL_BLOCKS] for slot in range(batches.size)[block])
    assert covered == list(range(batches.size))  # every point is replaced in turn


def test_a_stream_is_transformed_and_stays_what_its_seed_makes_it() -> None:
    ours, theirs, other = stream(), stream(), stream(seed=1)
    for _ in range(200):
        (slots, points), (same, equal) = ours.next(), theirs.next()
        assert torch.equal(slots, same) and torch.equal(points, equal)
        assert bool((points <= 0.5).all()) and points.dtype == torch.float32
    assert not torch.equal(other.next()[1], points)


# ---------------------------------------------------------------------------------------------- state
KINDS: dict[str, Callable[[int], Batches]] = {
    "finite": lambda seed: finite(generator=generator(seed)),
    "finite, not dividing": lambda seed: finite(generator=generator(seed), batch_size=7),
    "weighted": lambda seed: finite(generator=generator(seed), weight=torch.arange(SIZE)),
    "stream": lambda seed: stream(seed=seed),
}


def future(batches: Batches, steps: int = 150) -> list[tuple[list[int], Tensor, slice | None]]:
    """What the next batches are, and which slots are renewed; long enough for a stream's pool to turn."""
    found = []
    for _ in range(steps):
        slots, points = batches.next()
        found.append((slots.tolist(), points.clone(), batches.renewed))
    return found


@pytest.mark.parametrize("others", [0, 1, 70])
@pytest.mark.parametrize("steps", [0, 1, 4, 9, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_position_has_the_same_future(kind: str, steps: int, others: int) -> None:
    batches, other = KINDS[kind](0), KINDS[kind](1)
    for _ in range(steps):
        batches.next()
    for _ in range(others):
        other.next()
    state = batches.state()
    assert all(isinstance(value, Tensor) for value in state.values())
    other.load_state(copy.deepcopy(state))
    for ours, theirs in zip(future(batches), future(other), strict=True):
        assert ours[0] == theirs[0] and torch.equal(ours[1], theirs[1]) and ours[2] == theirs[2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_does_not_move_with_the_batches_it_was_taken_from_or_given_to(kind: str) -> None:
    batches = KINDS[kind](0)
    state = batches.state()
    expected = copy.deepcopy(state)
    first = future(batches)
    batches.load_state(state)
    second = future(batches)
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert [slots for slots, _, _ in first] == [slots for slots, _, _ in second]
    assert all(torch.equal(ours[1], theirs[1]) for ours, theirs in zip(first, second, strict=True))
