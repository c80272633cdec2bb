"""One grid of step sizes for every method that has one, and the choice from it within the method's own budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

GRID = (1e-3, 3e-3, 1e-2, 3e-2)
TRIALS = 0.2  # of the budget, for all trials together
RULE = f"the best of {', '.join(f'{rate:g}' for rate in GRID)} after {TRIALS / len(GRID):.0%} of the budget each"


@dataclass(frozen=True)
class Choice:
    """A step size and what speaks for it.

    Attributes:
        rate: the one to fit with.
        values: of validation, by step size; less is better; infinite where the trial failed.
        seconds: what is left of the budget.
    """

    rate: float
    values: dict[float, float]
    seconds: float

    @property
    def note(self) -> str:
        """A sentence for the record."""
        tried = ", ".join(f"{value:.4g} with {rate:g}" for rate, value in self.values.items())
        return f"step size {self.rate:g}, by validation: {tried}"


def choose_step_size(trial: Callable[[float, float], float], *, max_seconds: float) -> Choice:
    """Try every step size of the grid for the same short time.

    Args:
        trial: Fits with a step size for some seconds and gives a value of validation; less is better. What it raises
            as an ArithmeticError, a RuntimeError or a ValueError speaks against the step size.
        max_seconds: Of trials and fit together.

    Returns:
        The best, with the seconds that are left for the fit: half the budget or more.

    Example:
        >>> choice = choose_step_size(lambda rate, seconds: abs(rate - 0.01), max_seconds=1.0)
        >>> choice.rate, 0.9 < choice.seconds <= 1.0
        (0.01, True)
    """
    began = time.monotonic()
    values = {}
    for rate in GRID:
        try:
            value = trial(rate, TRIALS / len(GRID) * max_seconds)
        except (ArithmeticError, RuntimeError, ValueError):
            value = math.inf
        values[rate] = value if math.isfinite(value) else math.inf
    rate = min(values, key=values.__getitem__)
    return Choice(rate, values, max(0.5 * max_seconds, max_seconds - (time.monotonic() - began)))
