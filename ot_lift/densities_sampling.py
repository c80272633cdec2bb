"""Draws of exp(−E)/Z: those of a proposal, corrected by an independence Metropolis chain each."""

from __future__ import annotations

import torch
from torch import Tensor

from ot_lift.densities_normalizer import Energy
from ot_lift.densities_proposal import Proposal

TOTAL_VARIATION = 0.01  # allowed between a chain's last state and the density
MOST_STEPS = 1024


def steps_needed(log_weight: Tensor, *, total_variation: float = TOTAL_VARIATION) -> tuple[int, float]:
    """How long a chain that starts at the proposal must run, and the bound that holds then.

    Two chains, one from the proposal q and one from the density p, that see the same proposals and the same uniforms
    meet when the one of larger weight w accepts; until then that weight does not change. So after k steps the total
    variation is at most E_q[(1 − a(w))ᵏ] + E_p[(1 − a(w))ᵏ] with a(w) = E_q[min(1, w′/w)] (by coupling; a(w) is that of
    Liu 1996). The expectations are estimated by the given draws.

    Args:
        log_weight: log of p/q, up to a constant, at independent draws of q, ``(n,)``.
        total_variation: bound to reach.

    Returns:
        A power of two, at most `MOST_STEPS`, and the bound.

    References:
        Liu 1996, "Metropolized independent sampling with comparisons to rejection sampling and importance sampling".

    Example:
        >>> steps_needed(torch.zeros(100))  # the proposal is the density
        (1, 0.0)
    """
    weight = (log_weight.double() - log_weight.max()).exp().sort().values
    count = len(weight)
    # E min(1, w′/w) at each w: those below contribute their weight, those from w on contribute 1.
    below = weight.cumsum(0) - weight
    rejected = 1 - (below / weight.clamp_min(torch.finfo(weight.dtype).tiny) + torch.arange(count, 0, -1)) / count
    rejected = rejected.clamp(0, 1)
    share = 1 / count + weight / weight.sum()
    steps = 1
    while True:
        bound = float((share * rejected**steps).sum())
        if bound <= total_variation or steps >= MOST_STEPS:
            return steps, bound
        steps *= 2


def metropolis(
    energy: Energy, proposal: Proposal, count: int, *, steps: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """One chain a point, each started at a draw of the proposal and given ``steps`` further ones to accept.

    Args:
        energy: E, ``(n, features)`` → ``(n,)``.
        proposal: where the chains start and what they are offered.
        count: how many chains.
        steps: of each.
        generator: source of randomness.

    Returns:
        Last states ``(count, features)`` and the share of offers that were accepted.

    Example:
        >>> from ot_lift.densities_proposal import StandardNormal
        >>> narrow = lambda x: 2 * x.square().sum(1)  # of N(0, ¼)
        >>> generator = torch.Generator().manual_seed(0)
        >>> drawn, accepted = metropolis(narrow, StandardNormal(1), 4000, steps=16, generator=generator)
        >>> abs(drawn.std().item() - 0.5) < 0.02
        True
    """
    state = proposal.draw(count, generator)
    log_weight = -energy(state) - proposal.log_prob(state)
    accepted = 0
    for _ in range(steps):
        offer = proposal.draw(count, generator)
        offered = -energy(offer) - proposal.log_prob(offer)
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        takes = uniform.log() < offered - log_weight
        state = torch.where(takes[:, None], offer, state)
        log_weight = torch.where(takes, offered, log_weight)
        accepted += int(takes.sum())
    return state, accepted / (count * steps)
