"""Proposals: each draws from the density that it reports."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from ot_lift.densities_proposal import Cells, FlowProposal, Proposal, StandardNormal, multivariate_t_log_prob
from ot_lift.flows_map import Blocks, FlowMap
from ot_lift.flows_whitening import Whitening
from ot_lift.potentials import ICNN


def energy(x: Tensor) -> Tensor:
    """Of Gumbel columns."""
    return (x + (-x).exp()).sum(1)


def flow(features: int) -> FlowMap:
    network = ICNN(features, (6, 6), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    units = Whitening.of_moments(torch.ones(features), 2 * torch.eye(features)).coordinates
    return FlowMap(Blocks([network]), units)


PROPOSALS: dict[str, Proposal] = {
    "normal": StandardNormal(2),
    "cells of a line": Cells(energy, 1),
    "cells of a plane": Cells(energy, 2),
    "a flow": FlowProposal(flow(2)),
}


@pytest.mark.parametrize("name", PROPOSALS)
def test_draws_have_the_density_that_is_reported(name: str, generator: torch.Generator) -> None:
    proposal = PROPOSALS[name]
    drawn = proposal.draw(20_000, generator)
    log_prob = proposal.log_prob(drawn)
    assert drawn.dtype == log_prob.dtype == torch.float64 and bool(torch.isfinite(log_prob).all())
    # Under the proposal, the mean of another density over the proposal's own is that density's total.
    centre, spread = drawn.mean(0), 0.7 * drawn.std(0)
    other = stats.norm.logpdf(drawn, centre, spread).sum(1)
    weight = (torch.from_numpy(other) - log_prob).exp()
    assert abs(float(weight.mean()) - 1) < 4 * float(weight.std()) / len(weight) ** 0.5


@pytest.mark.parametrize("features", [1, 2])
def test_cells_are_nearly_the_density_and_nothing_outside(features: int, generator: torch.Generator) -> None:
    cells = PROPOSALS["cells of a line" if features == 1 else "cells of a plane"]
    drawn = cells.draw(5000, generator)
    for column in drawn.T:
        assert stats.kstest(column, stats.gumbel_r.cdf).pvalue > 1e-3
    torch.testing.assert_close(cells.log_prob(drawn), -energy(drawn), atol=0.6, rtol=0)
    assert cells.log_prob(torch.full((1, features), 1e6).double()).item() == -math.inf


def test_the_t_distribution_is_scipys() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = stats.multivariate_t(shape=[[1, 0, 0], [0, 1, 0], [0, 0, 1]], df=5).logpdf(x)
    torch.testing.assert_close(multivariate_t_log_prob(x), torch.from_numpy(expected))


def test_a_mixture_keeps_weights_bounded_where_the_flow_has_no_tails() -> None:
    proposal = FlowProposal(flow(2))
    far = torch.tensor([[60.0, -60.0]]).double()
    assert proposal.log_prob(far).item() > multivariate_t_log_prob(far).item() - 2.4
