"""Integrals of exp(−E): lattices, where the mass is, refinement, and importance weights with their errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

from ot_lift.densities_normalizer import importance_sampling, lattice, on_lattice, place, quadrature


def huber(x: Tensor) -> Tensor:
    """√(1 + x²) summed over the columns: tails of a Laplace density. Its integral is 2K₁(1) a column."""
    return (1 + x.square()).sqrt().sum(1)


@pytest.mark.parametrize("centre", [0.0, 100.0, -1e4])
@pytest.mark.parametrize("width", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("features", [1, 2])
def test_gaussians_of_any_place_and_width_are_integrated(features: int, width: float, centre: float) -> None:
    found = quadrature(lambda x: 0.5 * ((x - centre) / width).square().sum(1), features)
    assert found.log_value == pytest.approx(features * (0.5 * math.log(2 * math.pi) + math.log(width)), abs=1e-6)
    assert found.standard_error < 1e-6 and found.bias == 0
    assert found.method == "quadrature" and found.effective_sample_size is None


@pytest.mark.parametrize("features", [1, 2])
def test_long_tails_are_integrated(features: int) -> None:
    found = quadrature(huber, features)
    assert found.log_value == pytest.approx(features * math.log(2 * special.k1(1.0)), abs=1e-7)


def test_correlated_columns_are_integrated() -> None:
    matrix = torch.tensor([[2.0, 1.9], [1.9, 2.0]]).double()
    found = quadrature(lambda x: 0.5 * (x @ matrix * x).sum(1), 2)
    assert found.log_value == pytest.approx(math.log(2 * math.pi / math.sqrt(0.39)), abs=1e-6)


def test_kinks_and_walls_leave_an_error_that_is_told() -> None:
    def wall(x: Tensor) -> Tensor:  # an exponential density beside a steep wall
        return torch.where(x[:, 0] > 0, x[:, 0], -1e3 * x[:, 0])

    found = quadrature(wall, 1)
    assert abs(found.log_value - math.log(1 + 1e-3)) < 1e-4
    assert abs(found.log_value - math.log(1 + 1e-3)) < 10 * found.standard_error + 1e-9


@pytest.mark.parametrize("features", [1, 2])
def test_a_box_holds_the_mass_and_little_more(features: int) -> None:
    low, high = place(lambda x: 0.5 * ((x - 30) / 4).square().sum(1), features, drop=8.0)
    torch.testing.assert_close(low, torch.full((features,), 30 - 16.0).double(), rtol=0, atol=3.0)
    torch.testing.assert_close(high, torch.full((features,), 30 + 16.0).double(), rtol=0, atol=3.0)
    assert bool((low <= 30 - 16).all()) and bool((high >= 30 + 16).all())


@pytest.mark.parametrize(("features", "size"), [(1, 1024), (2, 2584), (2, 317811)])
def test_lattices_are_even_in_every_column(features: int, size: int) -> None:
    points = lattice(features, size, torch.full((features,), 0.25 / size).double())
    for column in points.T:
        order = column.sort().values
        torch.testing.assert_close(order.diff(), torch.full((size - 1,), 1 / size).double(), rtol=0, atol=1e-9)
    assert bool((points >= 0).all()) and bool((points < 1).all())


def test_a_shifted_lattice_is_unbiased_and_has_little_noise(generator: torch.Generator) -> None:
    box = torch.tensor([[-3.0, -3.0], [5.0, 5.0]]).double()
    values = []
    for _ in range(200):
        shift = torch.rand(2, generator=generator, dtype=torch.float64)
        points, log_volume = on_lattice(box, 377, shift)
        values.append(((points > 0).all(1)).double().sum() * math.exp(log_volume))  # a square of side 5
    values = torch.stack(values)
    assert abs(float(values.mean()) - 25) < 4 * float(values.std()) / 200**0.5
    plain = 64 * math.sqrt(25 / 64 * 39 / 64 / 377)  # the deviation of as many independent points
    assert float(values.std()) < 0.3 * plain


def test_importance_weights_give_the_log_of_their_mean_with_its_error(rng: np.random.Generator) -> None:
    found = []
    for _ in range(300):
        log_weight = torch.from_numpy(rng.normal(size=2000) * 0.5)  # E exp = e^{1/8}
        found.append(importance_sampling(log_weight))
    values = np.array([each.log_value for each in found])
    assert abs(values.mean() - 0.125) < 4 * values.std() / 300**0.5 + abs(found[0].bias)
    assert np.mean([each.standard_error for each in found]) == pytest.approx(values.std(), rel=0.15)
    effective = 2000 / math.exp(0.25)  # 1/E w² at E w = 1
    assert np.mean([each.effective_sample_size or 0 for each in found]) == pytest.approx(effective, rel=0.02)


def test_a_normaliser_moves_to_other_units() -> None:
    found = importance_sampling(torch.zeros(5)).plus(3.0)
    assert found.log_value == 3.0 and found.points == 5
