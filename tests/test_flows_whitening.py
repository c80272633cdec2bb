"""Whitening: mean 0 and covariance I, whatever the units, with noise where the data are flat."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ot_lift.flows_whitening import Whitening
from ot_lift.likelihood import blurred
from ot_lift.sides import Side


def side(x: Tensor, weight: object = None) -> Side:
    return Side.open(x, name="X", features=None, weight=weight, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_whitened_data_have_mean_zero_and_covariance_one(scale: float, generator: torch.Generator) -> None:
    root = scale * torch.tensor([[1.0, 0.0, 0.0], [1e4, 1e3, 0.0], [-1.0, 0.1, 1e-3]]).double()
    data = side(scale + torch.randn(2000, 3, generator=generator, dtype=torch.float64) @ root.T)
    whitening = Whitening.of(data)
    assert data.train is not None
    x = whitening.coordinates.source(data.rows.take(data.train))
    torch.testing.assert_close(x.mean(0), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.T @ x / len(x), torch.eye(3).double(), atol=1e-6, rtol=0)
    assert whitening.blur is None
    assert whitening.log_volume == pytest.approx(-float(torch.linalg.slogdet(root)[1]), abs=0.2)


def test_coordinates_and_their_inverse_undo_each_other() -> None:
    covariance = torch.tensor([[1e8, 5.0], [5.0, 1e-6]])
    units = Whitening.of_moments(torch.tensor([1e6, -3.0]), covariance).coordinates
    x = torch.tensor([[1.0, 2.0], [1e6, -3.0]]).double()
    torch.testing.assert_close(units.source_inverse(units.source(x)), x, atol=1e-6, rtol=1e-9)


@pytest.mark.parametrize("case", ["constant", "zero", "duplicated", "all the same"])
def test_flat_directions_are_blurred_to_unit_size(case: str, generator: torch.Generator) -> None:
    x = torch.randn(3000, 2, generator=generator, dtype=torch.float64)
    extra = {"constant": 0 * x[:, 0] + 7, "zero": 0 * x[:, 0], "duplicated": x[:, 0], "all the same": 0 * x[:, 0]}
    x = torch.cat([x if case != "all the same" else 0 * x + 5, extra[case][:, None]], 1)
    whitening = Whitening.of(side(x))
    assert whitening.blur is not None
    points = whitening.points(x, generator)
    torch.testing.assert_close(points.T @ points / len(points), torch.eye(3).double(), atol=0.1, rtol=0)
    # On the scale of the data the noise is nothing.
    back = whitening.coordinates.source_inverse(points)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-3 * float(x.abs().max()))


def test_few_points_are_shrunk_by_what_held_out_points_like_best(rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.normal(size=(30, 10)))  # independent columns: their correlations are noise
    data = side(x)
    chosen = Whitening.of(data)
    assert data.train is not None
    train = data.rows.take(data.train)
    bare = Whitening.of_moments(train.mean(0), torch.cov(train.T, correction=0))

    def mean_log_likelihood(units: Whitening) -> float:
        fresh = torch.from_numpy(np.random.default_rng(0).normal(size=(2000, 10)))
        return units.log_volume - 0.5 * float(units.coordinates.source(fresh).square().sum(1).mean())

    assert mean_log_likelihood(chosen) > mean_log_likelihood(bare) + 1
    kept = chosen.of_all(data)
    assert kept.share == chosen.share > 0
    torch.testing.assert_close(kept.coordinates.shift_x, x.mean(0))
    assert mean_log_likelihood(kept) > mean_log_likelihood(chosen)


def test_a_share_of_one_leaves_no_correlation() -> None:
    units = Whitening.of_moments(torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]), share=1.0)
    torch.testing.assert_close(units.coordinates.matrix, torch.eye(2).double())


def test_weights_count(generator: torch.Generator) -> None:
    x = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    whitening = Whitening.of(side(x, weight=x[:, 0].exp()))
    assert float(whitening.coordinates.shift_x) == pytest.approx(1.0, abs=0.15)


def test_batches_are_whitened_in_the_dtype_asked_for(generator: torch.Generator) -> None:
    data = side(5 + 3 * torch.randn(500, 2, generator=generator, dtype=torch.float64))
    whitening = Whitening.of(data)
    _, batch = whitening.batches(data, torch.empty(0), batch_size=400, generator=generator).next()
    assert batch.dtype == torch.float32
    assert float(batch.mean(0).abs().max()) < 1e-2 and float((batch.std(0) - 1).abs().max()) < 1e-2


def test_noise_has_the_covariance_asked_for(generator: torch.Generator) -> None:
    root = torch.tensor([[2.0, 0.0], [1.0, 0.5]]).double()
    noise = blurred(torch.zeros(20_000, 2).double(), root, generator)
    torch.testing.assert_close(torch.cov(noise.T), root @ root.T, atol=0.15, rtol=0)
