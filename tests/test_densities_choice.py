"""The choice between the trained energy and that of N(0, I)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ot_lift.densities_choice import choose, closed_form, gaussian_energy
from ot_lift.flows_map import FlowMap
from ot_lift.flows_start import identity_blocks
from ot_lift.flows_whitening import Whitening
from ot_lift.potentials import Quadratic


def scaled(by: float, features: int) -> Quadratic:
    """E of N(0, 1/by)."""
    quadratic = Quadratic(features).double()
    quadratic.set_quadratic_(by * torch.eye(features))
    return quadratic


def flow(features: int) -> FlowMap | None:
    if features < 3:
        return None
    units = Whitening.of_moments(torch.zeros(features), torch.eye(features)).coordinates
    return FlowMap(identity_blocks(features), units)


def points(features: int) -> Tensor:
    return torch.randn(400, features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("features", [1, 2, 3])
def test_a_clear_gain_is_taken_with_its_normaliser(features: int, generator: torch.Generator) -> None:
    x = 0.7 * points(features)
    choice = choose(scaled(2.0, features), flow(features), x, generator)
    assert choice.used_network and choice.steps >= 1
    exact = 0.5 * features * math.log(math.pi)
    assert abs(choice.normalizer.log_value - exact) < 4 * choice.normalizer.standard_error + 1e-6
    assert choice.log_likelihood == pytest.approx(-float(x.square().sum(1).mean()) - choice.normalizer.log_value)
    spread = float(x.square().sum(1).std()) / 20
    assert choice.standard_error == pytest.approx(math.hypot(spread, choice.normalizer.standard_error))


@pytest.mark.parametrize("features", [1, 3])
def test_without_a_clear_gain_the_start_is_kept(features: int, generator: torch.Generator) -> None:
    choice = choose(scaled(1.1, features), flow(features), points(features), generator)
    assert not choice.used_network and choice.steps == 0
    assert choice.normalizer == closed_form(features)
    x = points(features)
    torch.testing.assert_close(choice.energy(x), gaussian_energy(features)(x))
    drawn = choice.proposal.draw(2000, generator)
    assert float((drawn.std(0) - 1).abs().max()) < 0.1
