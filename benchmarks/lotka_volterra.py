"""A predator–prey jump process by Gillespie's algorithm, many runs side by side, and its summary statistics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

START = (50.0, 100.0)  # predators, prey
# Rates of: a predator more, a predator less, a prey more, a prey less (Papamakarios & Murray 2016, arXiv 1605.06376).
USUAL_RATES = (0.01, 0.5, 1.0, 0.01)
_CHANGES = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
_MOST_EVENTS = 20_000  # a run that has had so many stays as it is


def populations(rates: Array, times: Array, rng: np.random.Generator) -> Array:
    """Runs of the process, an event of every run at a time (Gillespie 1977).

    Args:
        rates: of the four reactions, ``(runs, 4)``: x·y, x, y and x·y times them, for x predators and y prey.
        times: when the populations are noted, increasing, ``(times,)``.
        rng: source of randomness.

    Returns:
        Predators and prey, ``(runs, times, 2)``.
    """
    runs = len(rates)
    noted = np.zeros((runs, len(times), 2))
    alive, state, clock, place = np.arange(runs), np.tile(START, (runs, 1)), np.zeros(runs), np.zeros(runs, np.int64)
    for _ in range(_MOST_EVENTS):
        x, y = state.T
        hazards = rates[alive] * np.stack([x * y, x, y, x * y], 1)
        reach = hazards.cumsum(1)
        total = reach[:, 3]
        with np.errstate(divide="ignore"):
            clock = clock + rng.exponential(size=len(alive)) / total  # never, if nothing can happen
        while len(due := np.flatnonzero((place < len(times)) & (clock > times[np.minimum(place, len(times) - 1)]))):
            noted[alive[due], place[due]] = state[due]
            place[due] += 1
        chosen = (rng.random(len(alive))[:, None] * total[:, None] >= reach[:, :3]).sum(1)
        state = state + _CHANGES[chosen]
        going = place < len(times)
        if not going.all():
            alive, state, clock, place = alive[going], state[going], clock[going], place[going]
        if not len(alive):
            break
    for run, at, last in zip(alive, place, state, strict=True):
        noted[run, at:] = last
    return noted


def summaries(noted: Array) -> Array:
    """Nine statistics of each run: log means and variances, autocorrelations at lags 1 and 2, the cross-correlation.

    Correlations are Fisher-transformed: most of the former are close to 1.

    Args:
        noted: predators and prey, ``(runs, times, 2)``.

    Returns:
        ``(runs, 9)``, finite also for populations that do not change.
    """
    mean, variance = noted.mean(1), noted.var(1)
    standard = (noted - mean[:, None]) / np.sqrt(variance + 1e-9)[:, None]
    lagged = [(standard[:, lag:] * standard[:, :-lag]).mean(1) for lag in (1, 2)]
    cross = (standard[:, :, 0] * standard[:, :, 1]).mean(1, keepdims=True)
    correlations = np.concatenate([*lagged, cross], 1)
    return np.concatenate([np.log1p(mean), np.log1p(variance), np.arctanh(0.9999 * correlations.clip(-1, 1))], 1)
