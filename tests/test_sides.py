"""A side splits its rows once, keeps their weights with them, and knows itself again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from instances import normal
from torch import Tensor
from torch.testing import assert_close

from ot_lift.batches import FiniteBatches, StreamBatches
from ot_lift.errors import DataError
from ot_lift.sides import HELD_OUT_ROWS, Reach, Side


def open_side(data: object, *, weight: object = None, seed: int = 0, features: int | None = None) -> Side:
    generator = torch.Generator().manual_seed(seed)
    return Side.open(data, name="X", features=features, weight=weight, generator=generator)


def numbers(size: int) -> np.ndarray:
    """Rows (i, −i), so that a point tells its position."""
    return np.stack([np.arange(size), -np.arange(size)], 1).astype(float)


def positions(points: Tensor) -> list[int]:
    assert torch.equal(points[:, 0], -points[:, 1])
    return points[:, 0].long().tolist()


@pytest.mark.parametrize(("size", "held_out"), [(6, 2), (12, 2), (20, 2), (100, 10), (50_000, HELD_OUT_ROWS)])
def test_rows_are_split_into_three_parts_that_share_none(size: int, held_out: int) -> None:
    side = open_side(numbers(size))
    assert side.train is not None
    parts = [side.train.tolist(), positions(side.stop), positions(side.certificate)]
    assert [len(part) for part in parts] == [size - 2 * held_out, held_out, held_out]
    assert sorted(row for part in parts for row in part) == list(range(size))
    assert side.stop.dtype == side.certificate.dtype == torch.float64


def test_moments_are_those_of_the_training_rows() -> None:
    data = normal(500, 3, seed=1)
    side = open_side(data)
    train = data[side.train]
    assert_close(side.mean, train.mean(0))
    assert_close(side.covariance, torch.cov(train.T, correction=0))


def test_moments_of_all_are_those_of_the_rows_that_have_weight() -> None:
    data = normal(500, 3, seed=1)
    mean, covariance = open_side(data).moments()
    assert_close(mean, data.mean(0))
    assert_close(covariance, torch.cov(data.T, correction=0))
    weight = torch.arange(500, dtype=torch.float64) % 3
    mean, covariance = open_side(data, weight=weight).moments()
    assert_close(mean, weight @ data / weight.sum())
    assert_close(covariance, torch.cov(data.T, correction=0, aweights=weight))


def test_few_rows_have_a_covariance_that_is_not_singular() -> None:
    side = open_side(normal(12, 8, seed=1))
    assert side.covariance.dtype == torch.float64
    assert float(torch.linalg.eigvalsh(side.covariance)[0]) > 0.01


def test_the_same_seed_gives_the_same_split_and_another_another() -> None:
    first, same, other = open_side(numbers(50)), open_side(numbers(50)), open_side(numbers(50), seed=1)
    assert torch.equal(first.stop, same.stop) and torch.equal(first.certificate, same.certificate)
    assert not torch.equal(first.stop, other.stop)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"expected X with at least 6 rows .* got 5"):
        open_side(numbers(5))
    with pytest.raises(DataError, match=r"at least 6 rows of positive weight .* got 4"):
        open_side(numbers(20), weight=[1.0] * 4 + [0.0] * 16)
    with pytest.raises(DataError, match="3"):
        open_side(numbers(20), features=3)


# --------------------------------------------------------------------------------------------- weights
def test_weights_stay_with_their_rows_and_rows_of_no_weight_are_not_there() -> None:
    weight = torch.arange(60, dtype=torch.float64) % 5
    side = open_side(numbers(60), weight=weight)
    assert side.train is not None and side.weight is not None and side.stop_weight is not None
    ratio = side.weight / weight[side.train]
    assert_close(ratio, ratio[:1].expand_as(ratio))
    assert_close(side.stop_weight / weight[positions(side.stop)], ratio[: len(side.stop)])
    used = side.train.tolist() + positions(side.stop) + positions(side.certificate)
    assert bool((weight[used] > 0).all()) and len(set(used)) == len(used)
    expected = (weight[side.train][:, None] * torch.from_numpy(numbers(60))[side.train]).sum(0)
    assert_close(side.mean, expected / weight[side.train].sum())


def test_certificate_points_are_a_fair_sample_by_weight() -> None:
    weight = np.where(np.arange(20_000) % 2 == 0, 1.0, 3.0)
    side = open_side(numbers(20_000), weight=weight)
    odd = np.array(positions(side.certificate)) % 2
    assert len(set(positions(side.certificate))) == len(odd)
    error = (0.75 * 0.25 / len(odd)) ** 0.5
    assert abs(odd.mean() - 0.75) < 4.5 * error


def test_samples_follow_the_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    side = open_side(numbers(200), weight=np.where(np.arange(200) < 20, 50.0, 1e-9))
    found = positions(side.sample(100, generator))
    assert len(found) == 100 and max(found) < 20
    plain = open_side(numbers(200))
    assert plain.train is not None
    drawn = positions(plain.sample(30, generator))
    assert len(set(drawn)) == 30 and set(drawn) <= set(plain.train.tolist())
    assert sorted(positions(plain.sample(10_000, generator))) == sorted(plain.train.tolist())


# --------------------------------------------------------------------------------------------- streams
def sampler(count: int, generator: torch.Generator) -> Tensor:
    return 3 + 2 * torch.randn(count, 2, generator=generator, dtype=torch.float64)


def test_a_stream_draws_its_held_out_points_first() -> None:
    side = open_side(sampler)
    assert side.train is None and side.weight is None and side.stop_weight is None
    assert len(side.stop) == len(side.certificate) == HELD_OUT_ROWS
    assert torch.equal(side.stop, sampler(HELD_OUT_ROWS, torch.Generator().manual_seed(0)))
    assert_close(side.mean, torch.full((2,), 3.0).double(), rtol=0.0, atol=5 * 2 / (1 << 17) ** 0.5)
    assert_close(side.covariance, 4 * torch.eye(2).double(), rtol=0.0, atol=0.1)
    assert side.sample(7, torch.Generator().manual_seed(0)).shape == (7, 2)
    assert side.moments() == (side.mean, side.covariance)
    with pytest.raises(DataError, match="expected no weights with the stream X"):
        open_side(sampler, weight=[1.0])


def test_batches_are_of_the_training_part() -> None:
    generator = torch.Generator().manual_seed(0)
    side = open_side(numbers(40))
    assert side.train is not None
    batches = side.batches(lambda x: x.float(), batch_size=8, generator=generator)
    assert isinstance(batches, FiniteBatches) and batches.size == 32
    drawn = {row for _ in range(4) for row in positions(batches.next()[1])}
    assert drawn == set(side.train.tolist())
    stream = open_side(sampler).batches(lambda x: x.float(), batch_size=8, generator=generator)
    assert isinstance(stream, StreamBatches) and stream.next()[1].shape == (8, 2)


# --------------------------------------------------------------------------------------- fingerprint, reach
def test_a_fingerprint_tells_datasets_apart_and_knows_the_same_again() -> None:
    data = normal(50, 2, seed=1)
    prints = [
        open_side(data).fingerprint(),
        open_side(data.flip(0)).fingerprint(),
        open_side(data, seed=1).fingerprint(),
        open_side(data + 1e-9).fingerprint(),
        open_side(data, weight=np.arange(1.0, 51.0)).fingerprint(),
        open_side(sampler).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert open_side(data.numpy()).fingerprint() == prints[0]
    assert open_side(data.clone().T.contiguous().T).fingerprint() == prints[0]
    assert open_side(sampler).fingerprint() == prints[-1]


def test_reach_counts_points_by_the_shape_of_the_data() -> None:
    data = normal(1000, 2, seed=1) * torch.tensor([10.0, 0.1]) + 5
    side = open_side(data)
    reach = side.reach()
    assert reach.beyond(data) == 0
    radius = reach.radius * torch.tensor([10.0, 0.1]).double()
    points = side.mean + torch.tensor([[1.8, 0.0], [0.0, 1.8], [2.4, 0.0], [0.0, 2.4], [0.0, -24.0]]) * radius
    assert reach.beyond(points) == 3
    assert reach.beyond(points, factor=30.0) == 0
    assert reach.including(points).beyond(points) == 0


def test_reach_of_flat_or_constant_data_is_finite() -> None:
    flat = normal(50, 2, seed=1) * torch.tensor([1.0, 0.0])
    side = open_side(flat)
    assert side.reach().beyond(flat) == 0
    assert side.reach().beyond(flat + torch.tensor([0.0, 1.0])) == 50
    constant = Reach.of(torch.ones(2).double(), torch.zeros(2, 2).double(), torch.ones(3, 2).double())
    assert constant.beyond(torch.ones(4, 2)) == 0
