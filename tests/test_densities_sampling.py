"""Metropolis chains from a proposal, and the length that they need."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ot_lift.densities_proposal import StandardNormal
from ot_lift.densities_sampling import MOST_STEPS, metropolis, steps_needed


def narrow(x: Tensor) -> Tensor:
    """E of N(1, ¼)."""
    return 2 * (x - 1).square().sum(1)


def test_chains_end_at_the_density_whatever_their_proposal(generator: torch.Generator) -> None:
    proposal = StandardNormal(1)
    drawn = proposal.draw(20_000, generator)
    steps, bound = steps_needed(-narrow(drawn) - proposal.log_prob(drawn))
    assert bound <= 0.01
    chains, accepted = metropolis(narrow, proposal, 4000, steps=steps, generator=generator)
    assert 0 < accepted < 1
    law = stats.norm(1, 0.5).cdf
    assert stats.kstest(chains[:, 0], law).statistic < 0.01 + 1.63 / 4000**0.5
    assert stats.kstest(proposal.draw(4000, generator)[:, 0], law).statistic > 0.2


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_the_bound_holds_for_every_length(steps: int, generator: torch.Generator) -> None:
    proposal = StandardNormal(1)
    chains, _ = metropolis(narrow, proposal, 20_000, steps=steps, generator=generator)
    edges = np.linspace(-3, 5, 81)
    found = np.histogram(chains[:, 0], edges)[0] / len(chains)
    truth = np.diff(stats.norm(1, 0.5).cdf(edges))
    drawn = proposal.draw(20_000, generator)
    log_weight = -narrow(drawn) - proposal.log_prob(drawn)
    noise = 0.5 * np.sqrt(truth / len(chains)).sum()
    assert 0.5 * abs(found - truth).sum() < _bound(log_weight, steps) + 2 * noise


def _bound(log_weight: Tensor, steps: int) -> float:
    """The bound after a number of steps, written out pair by pair."""
    weight = log_weight[:1000].exp()
    accepts = torch.minimum(torch.ones(()).double(), weight[None] / weight[:, None]).mean(1)
    return float(((1 / len(weight) + weight / weight.sum()) * (1 - accepts) ** steps).sum())


def test_the_sorted_sum_is_the_sum_over_pairs(generator: torch.Generator) -> None:
    log_weight = 2 * torch.randn(1000, generator=generator, dtype=torch.float64)
    steps, bound = steps_needed(log_weight)
    assert bound == pytest.approx(_bound(log_weight, steps), rel=1e-9)
    assert _bound(log_weight, steps // 2) > 0.01


def test_lengths_have_a_limit_and_the_bound_says_so() -> None:
    log_weight = torch.zeros(100_000).double()
    log_weight[0] = 60.0
    steps, bound = steps_needed(log_weight)
    assert steps == MOST_STEPS and bound > 0.5


def test_points_without_weight_need_no_steps() -> None:
    log_weight = torch.zeros(100).double()
    log_weight[:3] = -np.inf
    assert steps_needed(log_weight)[0] <= 2
