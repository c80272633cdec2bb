"""Whether an amortised posterior is right: simulation-based calibration, a classifier test, held-out likelihood.

Functions take arrays or tensors and return data; nothing is plotted. A *posterior* is anything with
``sample(y, n, random_state=...)``, which draws ``(m, n, d)`` for observations ``(m, k)``, and ``log_prob(theta, y)``,
as :class:`~ot_lift.amortized.AmortizedPosterior` has them. The *truth* of an observation is the θ behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import stats

from ot_lift.distances import float64_points
from ot_lift.errors import DataError
from ot_lift.two_sample import TwoSampleAccuracy, c2st

__all__ = [
    "Coverage",
    "HeldOut",
    "RankHistograms",
    "Ranks",
    "TwoSampleAccuracy",
    "c2st",
    "expected_coverage",
    "held_out_nll",
    "rank_histograms",
    "simulation_ranks",
]

LOG_DENSITY, LOG_JOINT = "log density", "log joint density"

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_REPEATS = 4000  # simulations behind a joint band
_SIMULATED_NUMBERS = 1 << 24  # of them in memory at a time


class ConditionalPosterior(Protocol):
    """What is checked."""

    def sample(self, y: Any, n: int, *, random_state: Any) -> Any:
        """Draws ``(m, n, d)`` for observations ``(m, k)``."""

    def log_prob(self, theta: Any, y: Any) -> Any:
        """Log-density ``(n,)`` at θ ``(n, d)`` given y ``(n, k)``."""


@dataclass(frozen=True)
class Ranks:
    """Where the truth lies among posterior draws, for every simulation and test quantity.

    Attributes:
        ranks: how many of the draws are smaller, ``(simulations, quantities)``, 0 to ``draws``; uniform if the
            posterior is right.
        draws: for each simulation.
        names: of the quantities: parameters, then the log density, then the log joint density if it was given.
    """

    ranks: Integers
    draws: int
    names: tuple[str, ...]


def simulation_ranks(
    posterior: ConditionalPosterior,
    theta: Any,
    y: Any,
    *,
    draws: int = 99,
    log_joint: Callable[[Array, Array], Any] | None = None,
    names: Sequence[str] | None = None,
    random_state: int | None = 0,
) -> Ranks:
    """Ranks of the truth among draws given its observation (Talts et al. 2018).

    Every parameter is a test quantity, and so is the posterior's own log density log p(θ|y), whose ranks are those of
    credible regions. The log joint density log p(θ, y), where it is known, sees errors that parameters one at a time do
    not: a posterior that is the prior has uniform ranks of all parameters (Modrák et al. 2023).

    Args:
        posterior: what is checked.
        theta: truths ``(m, d)``, from the prior.
        y: simulated with them, ``(m, k)``.
        draws: for each simulation; draws + 1 divides well into bins.
        log_joint: of θ ``(n, d)`` and y ``(n, k)``, up to a constant, ``(n,)``.
        names: of the parameters (default: θ1, θ2, …).
        random_state: of the draws.

    References:
        Talts, Betancourt, Simpson, Vehtari & Gelman 2018 (arXiv 1804.06788); Modrák, Moon, Kim, Bürkner, Huurre,
        Faltejsková, Gelman & Vehtari 2023 (arXiv 2211.02383).

    Example:
        >>> from types import SimpleNamespace
        >>> ladder = SimpleNamespace(  # draws 1 to n whatever y
        ...     sample=lambda y, n, random_state: np.tile(np.arange(1.0, n + 1)[:, None], (len(y), 1, 1)),
        ...     log_prob=lambda theta, y: -theta[:, 0],
        ... )
        >>> simulation_ranks(ladder, [[0.5], [2.5]], [[0.0], [0.0]], draws=9).ranks.tolist()
        [[0, 9], [2, 7]]
    """
    if draws < 1:
        raise ValueError(f"expected draws >= 1, got {draws}")
    truth = float64_points(theta, name="theta").numpy()
    observed = float64_points(y, name="y").numpy()
    _same_count(truth, observed)
    labels = [f"θ{k + 1}" for k in range(truth.shape[1])] if names is None else [str(name) for name in names]
    if len(labels) != truth.shape[1]:
        raise ValueError(f"expected {truth.shape[1]} names, one a parameter, got {len(labels)}")
    drawn = np.asarray(posterior.sample(observed, draws, random_state=random_state), dtype=np.float64)
    flat, beside = drawn.reshape(-1, truth.shape[1]), np.repeat(observed, draws, 0)
    quantities = [(truth, drawn)]
    functions = [posterior.log_prob] if log_joint is None else [posterior.log_prob, log_joint]
    for function in functions:
        at_truth, at_draws = (np.asarray(function(*at), dtype=np.float64) for at in ((truth, observed), (flat, beside)))
        quantities.append((at_truth[:, None], at_draws.reshape(len(truth), draws, 1)))
    ranks = np.concatenate([(each < own[:, None]).sum(1) for own, each in quantities], 1)
    return Ranks(ranks.astype(np.int64), draws, (*labels, *(LOG_DENSITY, LOG_JOINT)[: len(functions)]))


@dataclass(frozen=True)
class RankHistograms:
    """Counts of ranks with a band for all of them at once, and tests of uniformity.

    Attributes:
        names: of the quantities.
        edges: of the bins, in ranks, ``(bins + 1,)``; a bin holds ranks from its edge to the next one's less one.
        counts: ``(quantities, bins)``.
        lower: of the joint band, ``(bins,)``: if all is uniform, every count of every quantity lies within the band,
            both ends included, with probability ``level``.
        upper: likewise.
        level: of the band.
        p_values: of a χ² test of each quantity, ``(quantities,)``.
        p_value: of all quantities, by Bonferroni.
    """

    names: tuple[str, ...]
    edges: Integers
    counts: Integers
    lower: Integers
    upper: Integers
    level: float
    p_values: Array
    p_value: float

    @property
    def inside(self) -> bool:
        """Whether every count lies within the band."""
        return bool(((self.counts >= self.lower) & (self.counts <= self.upper)).all())


def rank_histograms(ranks: Ranks, *, bins: int = 20, level: float = 0.95) -> RankHistograms:
    """Histograms of ranks, with joint bands and p-values.

    The band is of pointwise binomial intervals, as wide as it takes for counts of uniform ranks to lie within all of
    them with the probability asked for (after Säilynoja, Bürkner & Vehtari 2022); quantities count as independent.

    Args:
        ranks: from :func:`simulation_ranks`.
        bins: how many; at most draws + 1. A χ² test wants five ranks a bin or more.
        level: of the joint band.

    References:
        Säilynoja, Bürkner & Vehtari 2022, "Graphical test for discrete uniformity" (arXiv 2103.10522).

    Example:
        >>> found = rank_histograms(Ranks(np.repeat(np.arange(100), 2)[:, None], 99, ("θ",)), bins=10)
        >>> found.counts.tolist(), found.p_value, found.inside
        ([[20, 20, 20, 20, 20, 20, 20, 20, 20, 20]], 1.0, True)
    """
    if not 1 < bins <= ranks.draws + 1:
        raise ValueError(f"expected 1 < bins <= {ranks.draws + 1} (draws + 1), got {bins}")
    edges = np.linspace(0, ranks.draws + 1, bins + 1).round().astype(np.int64)
    counts = np.stack([np.histogram(column, edges - 0.5)[0] for column in ranks.ranks.T]).astype(np.int64)
    share = np.diff(edges) / (ranks.draws + 1)
    size, quantities = ranks.ranks.shape
    lower, upper = _joint_band(size, share, level, quantities=quantities, cumulative=False)
    p_values = np.array([stats.chisquare(row, size * share).pvalue for row in counts])
    overall = min(1.0, quantities * float(p_values.min()))
    return RankHistograms(ranks.names, edges, counts, lower, upper, level, p_values, overall)


@dataclass(frozen=True)
class Coverage:
    """How often regions of highest posterior density hold the truth.

    Attributes:
        levels: of the regions, ``(draws,)``, in (0, 1).
        covered: the share of simulations whose truth is in the region, ``(draws,)``; equal to ``levels`` if the
            posterior is right, below if it is too sure of itself.
        lower: of the joint band of ``covered``, ``(draws,)``.
        upper: likewise.
        level: of the band.
    """

    levels: Array
    covered: Array
    lower: Array
    upper: Array
    level: float

    @property
    def inside(self) -> bool:
        """Whether all of the curve lies within the band."""
        return bool(((self.covered >= self.lower) & (self.covered <= self.upper)).all())


def expected_coverage(ranks: Ranks, *, level: float = 0.95) -> Coverage:
    """Expected coverage of highest-density regions, from the ranks of the log density (Hermans et al. 2022).

    Args:
        ranks: from :func:`simulation_ranks`.
        level: of the joint band.

    References:
        Hermans, Delaunoy, Rozet, Wehenkel, Begy & Louppe 2022 (arXiv 2110.06581).

    Example:
        >>> found = expected_coverage(Ranks(np.arange(4)[:, None], 3, ("log density",)))
        >>> found.levels.tolist(), found.covered.tolist(), found.inside
        ([0.25, 0.5, 0.75], [0.25, 0.5, 0.75], True)
    """
    if LOG_DENSITY not in ranks.names:
        raise ValueError(f"expected ranks of {LOG_DENSITY!r}, got those of {ranks.names}")
    above = ranks.draws - ranks.ranks[:, ranks.names.index(LOG_DENSITY)]  # draws of higher density than the truth
    share = np.full(ranks.draws + 1, 1 / (ranks.draws + 1))
    counts = np.bincount(above, minlength=ranks.draws + 1).cumsum()[:-1]
    lower, upper = _joint_band(len(above), share, level, quantities=1, cumulative=True)
    return Coverage(share.cumsum()[:-1], counts / len(above), lower / len(above), upper / len(above), level)


def _joint_band(
    size: int, share: Array, level: float, *, quantities: int, cumulative: bool
) -> tuple[Integers, Integers]:
    """Lower and upper ends for multinomial counts, or for their running sums but the last, at a joint level."""
    if not 0 < level < 1:
        raise ValueError(f"expected 0 < level < 1, got {level}")
    rng = np.random.default_rng(0)
    marginal = share.cumsum()[:-1] if cumulative else share
    every = np.arange(size + 1)[:, None]
    # The probability of a count and of those further out, on the side where it is smaller: (size + 1, cells).
    tails = np.minimum(stats.binom.cdf(every, size, marginal), stats.binom.sf(every - 1, size, marginal))
    cells = np.arange(len(marginal))
    per_block = max(1, _SIMULATED_NUMBERS // (quantities * len(share)))
    smallest: list[Array] = []
    for start in range(0, _REPEATS, per_block):
        counts = rng.multinomial(size, share, (min(per_block, _REPEATS - start), quantities))
        if cumulative:
            counts = counts.cumsum(2)[..., :-1]
        smallest.append(tails[counts, cells].min((1, 2)))
    within = tails >= np.quantile(np.concatenate(smallest), 1 - level, method="lower")
    lower, upper = within.argmax(0), size - within[::-1].argmax(0)
    return lower.astype(np.int64), upper.astype(np.int64)


@dataclass(frozen=True)
class HeldOut:
    """Negative log-likelihood of pairs that a fit has not seen.

    Attributes:
        nll: mean of −log p(θ|y), nats.
        standard_error: of that mean.
        values: −log p(θ|y) of every pair, ``(n,)``: two posteriors are compared pair by pair.
    """

    nll: float
    standard_error: float
    values: Array


def held_out_nll(posterior: ConditionalPosterior, theta: Any, y: Any) -> HeldOut:
    """Mean of −log p(θ|y) over fresh pairs: of two posteriors, the lower one is closer to the truth on average over y.

    Args:
        posterior: what is judged.
        theta: ``(n, d)`` with n ≥ 2.
        y: simulated with it, ``(n, k)``.

    Example:
        >>> from types import SimpleNamespace
        >>> flat = SimpleNamespace(log_prob=lambda theta, y: np.full(len(theta), -2.0))
        >>> held_out_nll(flat, [[0.0], [1.0]], [[0.0], [0.0]]).nll
        2.0
    """
    parameters, observed = (float64_points(each, name=name).numpy() for each, name in ((theta, "theta"), (y, "y")))
    _same_count(parameters, observed)
    if len(parameters) < 2:
        raise DataError(f"expected two pairs or more, got {len(parameters)}")
    values = -np.asarray(posterior.log_prob(parameters, observed), dtype=np.float64)
    return HeldOut(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), values)


def _same_count(theta: Array, y: Array) -> None:
    if len(theta) != len(y):
        raise DataError(f"expected a row of y for every row of theta, got {len(theta)} of theta and {len(y)} of y")
