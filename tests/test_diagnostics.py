"""Statistics between samples: closed-form oracles, invariances, null levels that hold what they say."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from ot_lift.diagnostics import (
    cosine_similarity,
    emd_w2_squared,
    energy_distance,
    l2_uvp,
    maximum_mean_discrepancy,
    null_level,
    pushforward_error,
    sliced_w2_squared,
)
from ot_lift.discrete import exact_transport
from ot_lift.errors import DataError

SCALES = (1e-12, 1.0, 1e12)


def test_the_constant_map_to_the_mean_has_a_uvp_of_100_percent(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(50, 3))
    constant = np.broadcast_to(truth.mean(0), truth.shape)
    assert l2_uvp(constant, truth, truth) == pytest.approx(100)
    assert l2_uvp(truth, truth, truth) == 0


@pytest.mark.parametrize("scale", SCALES)
def test_uvp_and_cosine_have_no_units(rng: np.random.Generator, scale: float) -> None:
    x, fitted, truth = rng.normal(size=(3, 40, 2))
    assert l2_uvp(scale * fitted, scale * truth, scale * truth) == pytest.approx(l2_uvp(fitted, truth, truth))
    assert cosine_similarity(scale * x, scale * fitted, scale * truth) == pytest.approx(
        cosine_similarity(x, fitted, truth)
    )


def test_uvp_refuses_a_target_that_does_not_vary() -> None:
    with pytest.raises(DataError, match="points that vary"):
        l2_uvp([[1.0]], [[1.0]], [[2.0], [2.0]])


def test_maps_must_be_compared_at_the_same_points() -> None:
    with pytest.raises(DataError, match="expected truth with 2 rows"):
        l2_uvp([[1.0], [2.0]], [[1.0]], [[1.0], [2.0]])


def test_opposite_displacements_have_cosine_minus_one(rng: np.random.Generator) -> None:
    x, step = rng.normal(size=(2, 20, 3))
    assert cosine_similarity(x, x + step, x - 3 * step) == pytest.approx(-1)


def test_displacements_of_zero_length_agree_only_with_each_other() -> None:
    x = [[0.0], [1.0]]
    assert cosine_similarity(x, x, x) == 1.0
    assert cosine_similarity(x, x, [[1.0], [1.0]]) == 0.0


def test_energy_distance_is_twice_scipys_squared_in_one_dimension(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=30), rng.normal(size=45) + 1
    oracle = scipy.stats.energy_distance(x, y) ** 2
    assert energy_distance(x[:, None], y[:, None]) == pytest.approx(oracle, rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 60), (7, 13)])
def test_sliced_w2_in_one_dimension_is_exact_transport(rng: np.random.Generator, n: int, m: int) -> None:
    x, y = rng.normal(size=(n, 1)), 2 * rng.normal(size=(m, 1))
    assert sliced_w2_squared(x, y) == pytest.approx(emd_w2_squared(x, y), rel=1e-10)


def test_sliced_w2_of_a_shift_is_its_square_over_the_dimension(generator: torch.Generator) -> None:
    x = torch.randn(100, 3, generator=generator)
    shift = torch.tensor([3.0, 0.0, 0.0])
    found = sliced_w2_squared(x, x + shift, projections=4000, generator=generator)
    assert found == pytest.approx(9 / 3, rel=0.05)  # ⟨u, shift⟩² has mean ‖shift‖²/3 and deviation 2.7


def test_mmd_is_zero_between_equal_samples_and_grows_with_distance(rng: np.random.Generator) -> None:
    x = rng.normal(size=(60, 2))
    values = [maximum_mean_discrepancy(x, x + shift) for shift in (0.0, 0.5, 2.0)]
    assert values[0] == pytest.approx(0, abs=1e-12)
    assert values[0] < values[1] < values[2] <= 2


def test_mmd_refuses_a_bandwidth_that_is_not_positive() -> None:
    with pytest.raises(DataError, match="bandwidth > 0"):
        maximum_mean_discrepancy([[0.0]], [[1.0]], bandwidth=0.0)


@pytest.mark.parametrize("scale", SCALES)
def test_distances_carry_the_units_of_the_data(rng: np.random.Generator, scale: float) -> None:
    x, y = rng.normal(size=(2, 50, 2))
    for distance, power in ((energy_distance, 1), (sliced_w2_squared, 2), (emd_w2_squared, 2)):
        assert distance(scale * x, scale * y) == pytest.approx(scale**power * distance(x, y), rel=1e-9, abs=0)
    assert maximum_mean_discrepancy(scale * x, scale * y) == pytest.approx(maximum_mean_discrepancy(x, y), rel=1e-9)


def test_a_common_offset_changes_nothing(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(2, 50, 2))
    for distance in (energy_distance, sliced_w2_squared, emd_w2_squared, maximum_mean_discrepancy):
        assert distance(x + 1e6, y + 1e6) == pytest.approx(distance(x, y), rel=1e-6, abs=1e-9)


def test_a_long_sample_is_taken_in_blocks(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(37, 2)), rng.normal(size=(11, 2))
    whole = energy_distance(x, y)
    monkeypatch.setattr("ot_lift.distances._PAIRS_PER_CHUNK", 60)
    assert energy_distance(x, y) == pytest.approx(whole, rel=1e-12)


def test_exact_transport_of_a_permuted_shift_finds_it(rng: np.random.Generator) -> None:
    x = rng.normal(size=(30, 2))
    found = exact_transport(x, rng.permutation(x) + np.array([3.0, 4.0]))
    assert found.converged
    assert found.value == pytest.approx(25)
    assert found.plan.sum(1) == pytest.approx(np.full(30, 1 / 30))


def test_exact_transport_potentials_certify_its_value(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(40, 3)), 1 + rng.normal(size=(25, 3))
    found = exact_transport(x, y)
    costs = ((x[:, None] - y[None]) ** 2).sum(-1)
    slack = costs - found.source_potential[:, None] - found.target_potential[None] - found.value
    assert slack.min() >= -1e-9
    assert (slack * found.plan).sum() == pytest.approx(0, abs=1e-9)


def test_the_error_of_exact_transport_is_its_deviation_over_samples(rng: np.random.Generator) -> None:
    found = [exact_transport(rng.normal(size=(60, 2)), 1 + 2 * rng.normal(size=(90, 2))) for _ in range(120)]
    deviation = np.std([one.value for one in found], ddof=1)
    error = np.mean([one.error for one in found])
    assert 0.8 * deviation <= error <= 1.4 * deviation  # a deviation of 120 values is known to about 7%


def test_the_null_level_of_the_fast_path_is_that_of_the_plain_one(rng: np.random.Generator) -> None:
    y = rng.normal(size=(200, 2))
    generators = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    plain = null_level(energy_distance, y, repeats=400, generator=next(generators))
    fast = pushforward_error(y, y, repeats=400, generator=next(generators)).energy_null
    assert fast == pytest.approx(plain, rel=0.1)  # two quantiles of 400 draws each


def test_a_sample_of_the_target_stays_below_the_level_19_times_in_20(rng: np.random.Generator) -> None:
    above = 0
    for seed in range(200):
        x, y = rng.normal(size=(60, 2)), rng.normal(size=(120, 2))
        found = pushforward_error(x, y, projections=16, repeats=100, generator=torch.Generator().manual_seed(seed))
        above += found.energy > found.energy_null
    assert 1 <= above <= 22  # 10 ± 3 expected; four deviations


def test_a_shifted_sample_is_above_the_level(rng: np.random.Generator, generator: torch.Generator) -> None:
    found = pushforward_error(rng.normal(size=(500, 4)) + 0.3, rng.normal(size=(900, 4)), generator=generator)
    assert found.size == 450
    assert found.energy > found.energy_null
    assert found.sliced_w2 > found.sliced_w2_null


def test_equal_generators_give_equal_figures(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(2, 80, 3))
    first, second = (pushforward_error(x, y, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert first == second
    assert pushforward_error(x, y) == pushforward_error(x, y)


def test_a_level_needs_two_halves() -> None:
    with pytest.raises(DataError, match="for two halves, got 1"):
        pushforward_error([[0.0], [1.0]], [[0.0]])
    with pytest.raises(DataError, match="at least 8 rows"):
        null_level(energy_distance, [[0.0]] * 6, size=4)


@pytest.mark.parametrize("bad", [[[np.nan]], [1.0, 2.0], [["a"]], [[1j]]])
def test_bad_samples_are_refused_in_words(bad: object) -> None:
    with pytest.raises(DataError, match="expected X"):
        energy_distance(bad, [[0.0]])
