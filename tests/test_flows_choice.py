"""The choice between trained blocks and the Gaussian start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ot_lift.flows_choice import choose
from ot_lift.flows_map import Blocks
from ot_lift.flows_start import identity_blocks
from ot_lift.flows_whitening import Whitening
from ot_lift.potentials import Quadratic


@pytest.fixture
def points(generator: torch.Generator) -> Tensor:
    return torch.randn(400, 1, generator=generator, dtype=torch.float64)


def scaling(by: float) -> Blocks:
    """x ↦ by·x."""
    quadratic = Quadratic(1)
    quadratic.set_quadratic_(torch.tensor([[by]]))
    return Blocks([quadratic])


def test_a_clear_gain_is_taken_and_told_in_the_units_of_the_data(points: Tensor) -> None:
    whitening = Whitening.of_moments(torch.zeros(1), torch.tensor([[9.0]]))
    choice = choose(scaling(0.5), whitening, 2 * points)  # in whitened coordinates N(0, 4)
    assert choice.used_network
    expected = -0.5 * math.log(2 * math.pi * 36) - 0.5 * float(points.square().mean())
    assert choice.log_likelihood == pytest.approx(expected)
    spread = float((0.5 * points.square()).std()) / 20
    assert choice.standard_error == pytest.approx(spread)


@pytest.mark.parametrize("by", [0.9, 1.0, 1.1])
def test_without_a_clear_gain_the_start_is_kept(by: float, points: Tensor) -> None:
    whitening = Whitening.of_moments(torch.zeros(1), torch.ones(1, 1))
    scaled = points / points.square().mean().sqrt()  # no other scale can be better than 1
    choice = choose(scaling(by), whitening, scaled)
    assert not choice.used_network
    assert torch.equal(choice.map_(scaled), identity_blocks(1).transport(scaled))


def test_two_points_do_not_overturn_the_start() -> None:
    whitening = Whitening.of_moments(torch.zeros(1), torch.ones(1, 1))
    assert not choose(scaling(0.5), whitening, torch.tensor([[2.0], [-2.5]]).double()).used_network
