"""Importance weights of draws: Pareto smoothing, evidence, resampling and independence Metropolis."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]

_FEW = 5  # weights in the tail below which no Pareto distribution is fitted
_EQUAL = 1e-9  # spread of log weights below which all are equal


@dataclass(frozen=True)
class Smoothed:
    """Result of :func:`pareto_smooth`.

    Attributes:
        log_weights: normalised and smoothed, ``(n,)``, float64.
        k_hat: shape of the tail's generalised Pareto distribution; above 0.7 importance weighting is unreliable. It is
            −inf for equal weights and +inf where the tail is too short to fit.
        effective: importance ESS, 1/Σw².
    """

    log_weights: Tensor
    k_hat: float
    effective: float


def pareto_smooth(log_weights: Tensor) -> Smoothed:
    """Pareto-smoothed importance weights, as ArviZ's ``psislw`` has them.

    Args:
        log_weights: log π − log q of independent draws from q, ``(n,)``; −inf where π is 0.

    References:
        Vehtari, Simpson, Gelman, Yao & Gabry 2024 (arXiv 1507.02646); Zhang & Stephens 2009.

    Example:
        >>> equal = pareto_smooth(torch.zeros(100, dtype=torch.float64))
        >>> equal.k_hat, round(equal.effective, 9)
        (-inf, 100.0)
    """
    x = log_weights.double().numpy().copy()
    n = len(x)
    if not np.isfinite(x).any():
        return Smoothed(torch.full((n,), -math.log(n), dtype=torch.float64), math.inf, 0.0)
    x -= x.max()
    k_hat = -math.inf
    if x.min() < -_EQUAL:
        order = np.argsort(x, kind="stable")
        cutoff = max(float(x[order[max(0, n - math.ceil(min(0.2 * n, 3 * math.sqrt(n))) - 1)]]), -700.0)
        tail = order[x[order] > cutoff]
        k_hat = math.inf
        if len(tail) >= _FEW:
            k_hat, scale = _fit_pareto(np.exp(x[tail]) - math.exp(cutoff))
            if math.isfinite(k_hat):
                probability = (np.arange(len(tail)) + 0.5) / len(tail)
                x[tail] = np.minimum(np.log(_pareto_quantile(probability, k_hat, scale) + math.exp(cutoff)), 0.0)
    smoothed = torch.log_softmax(torch.from_numpy(x), 0)
    return Smoothed(smoothed, k_hat, float(1.0 / smoothed.exp().square().sum()))


def _fit_pareto(sorted_excess: Array) -> tuple[float, float]:
    """Shape and scale by the profile posterior mean (Zhang & Stephens 2009), shape shrunk toward ½ as in PSIS."""
    n = len(sorted_excess)
    count = 30 + int(n**0.5)
    b = 1 - np.sqrt(count / (np.arange(1, count + 1) - 0.5))
    b = b / (3 * sorted_excess[int(n / 4 + 0.5) - 1]) + 1 / sorted_excess[-1]
    shape = np.log1p(-b[:, None] * sorted_excess).mean(1)
    profile = n * (np.log(-(b / shape)) - shape - 1)
    weight = np.exp(profile - profile.max())
    weight /= weight.sum()
    weight = np.where(weight < 10 * np.finfo(float).eps, 0.0, weight)
    b_mean = float((b * weight).sum() / weight.sum())
    k = float(np.log1p(-b_mean * sorted_excess).mean())
    return (n * k + 5.0) / (n + 10), -k / b_mean


def _pareto_quantile(probability: Array, shape: float, scale: float) -> Array:
    tail = -np.log1p(-probability)
    return scale * (tail if abs(shape) < 1e-12 else np.expm1(shape * tail) / shape)


@dataclass(frozen=True)
class Evidence:
    """Estimates of log Z, the log of the integral of the target, in nats.

    Attributes:
        elbo: mean of log π − log q, a lower bound in expectation.
        elbo_standard_error: of ``elbo``.
        log_evidence: log of the mean importance weight; biased low, less so the larger ``effective``.
        log_evidence_standard_error: by the delta method.
        effective: importance ESS of the draws.
        draws: how many.

    Example:
        >>> evidence = Evidence.of(torch.full((10,), 2.0))
        >>> evidence.elbo, evidence.log_evidence, evidence.elbo_standard_error
        (2.0, 2.0, 0.0)
    """

    elbo: float
    elbo_standard_error: float
    log_evidence: float
    log_evidence_standard_error: float
    effective: float
    draws: int

    @classmethod
    def of(cls, log_weights: Tensor) -> Evidence:
        """From log π − log q ``(n,)`` of independent draws."""
        weights, n = log_weights.double(), len(log_weights)
        top = float(weights.max())
        if not math.isfinite(top):
            return cls(-math.inf, math.inf, -math.inf, math.inf, 0.0, n)
        ratio = (weights - top).exp()
        mean = float(ratio.mean())
        finite = bool(torch.isfinite(weights).all())
        return cls(
            float(weights.mean()),
            float(weights.std()) / math.sqrt(n) if finite else math.inf,
            top + math.log(mean),
            float(ratio.std()) / mean / math.sqrt(n),
            float(ratio.sum().square() / ratio.square().sum()),
            n,
        )

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of numbers."""
        return asdict(self)


def resample(log_weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Positions ``(count,)`` drawn in proportion to normalised weights, systematically, in random order.

    Example:
        >>> weights = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64).log()
        >>> resample(weights, 4, torch.Generator().manual_seed(0)).sort().values.tolist()
        [0, 0, 2, 2]
    """
    offset = torch.rand(1, generator=generator, dtype=torch.float64)
    grid = (torch.arange(count, dtype=torch.float64) + offset) / count
    cumulative = log_weights.exp().cumsum(0)
    chosen = torch.searchsorted(cumulative / cumulative[-1], grid).clamp_max(len(log_weights) - 1)
    return chosen[torch.randperm(count, generator=generator)]


def metropolis(log_weights: Tensor, start: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """Independence Metropolis chains over given proposals, accepted by the ratio of importance weights.

    Args:
        log_weights: of the proposals, ``(steps, chains)``.
        start: position in the flattened proposals at which every chain starts, ``(chains,)``.
        generator: source of randomness.

    Returns:
        Positions in the flattened proposals after every step, ``(steps, chains)``, and the acceptance rate.

    Example:
        >>> zeros = torch.zeros(3, 2)
        >>> chain, rate = metropolis(zeros, torch.tensor([0, 1]), torch.Generator().manual_seed(0))
        >>> chain.tolist(), rate  # equal weights: every proposal is accepted
        ([[0, 1], [2, 3], [4, 5]], 1.0)
    """
    steps, chains = log_weights.shape
    uniform = torch.rand(steps, chains, generator=generator, dtype=torch.float64).log()
    flat = log_weights.reshape(-1)
    state, accepted = start.clone(), 0
    path = torch.empty(steps, chains, dtype=torch.int64)
    for step in range(steps):
        proposal = torch.arange(step * chains, (step + 1) * chains)
        accept = ~(uniform[step] > flat[proposal] - flat[state])
        accept &= torch.isfinite(flat[proposal]) | ~torch.isfinite(flat[state])
        state = torch.where(accept, proposal, state)
        path[step], accepted = state, accepted + int(accept.sum())
    return path, accepted / (steps * chains)
