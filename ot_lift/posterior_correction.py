"""Draws that importance weights have corrected: asymptotically exact, no longer independent."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ot_lift.posterior_latent import LatentMap
from ot_lift.posterior_target import Target
from ot_lift.posterior_weights import metropolis, pareto_smooth, resample

Correction = Literal["importance", "metropolis"]

_POOL = 4  # proposals a resampled draw
_CHAINS, _WARM_UP = 64, 50


def corrected_draws(
    target: Target, latent: LatentMap, n: int, *, correct: Correction, generator: torch.Generator
) -> Tensor:
    """Draws from a target by way of a map.

    Args:
        target: the log density.
        latent: the map whose draws are the proposals.
        n: how many draws.
        correct: ``"importance"``: resampled in proportion to Pareto-smoothed weights from four times as many;
            ``"metropolis"``: independence Metropolis chains, started at resampled proposals.
        generator: source of randomness.

    Returns:
        ``(n, d)``, float64.

    Raises:
        ValueError: for a correction that does not exist.

    References:
        Vehtari et al. 2024 (arXiv 1507.02646); Tierney 1994 (independence Metropolis).
    """
    if correct not in ("importance", "metropolis"):
        raise ValueError(f"expected correct None, 'importance' or 'metropolis', got {correct!r}")
    chains = min(_CHAINS, n)
    steps = _WARM_UP + -(-n // chains)
    count = _POOL * n if correct == "importance" else chains * steps
    theta, log_q = latent.push(torch.randn(count, target.dim, generator=generator, dtype=torch.float64))
    log_weights = target.value(theta) - log_q
    smoothed = pareto_smooth(log_weights).log_weights
    if correct == "importance":
        return theta[resample(smoothed, n, generator)]
    start = resample(smoothed, chains, generator)
    path, _ = metropolis(log_weights.reshape(steps, chains), start, generator)
    return theta[path[_WARM_UP:].reshape(-1)[:n]]
