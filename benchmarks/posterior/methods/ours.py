"""Ours: `ot_lift.PosteriorMap` in both directions, and with the other positivities."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable
from typing import Any, Self

import torch

from benchmarks.methods import OURS
from benchmarks.posterior import BasePosteriorMethod, Draws, PosteriorMethod, PosteriorTask
from benchmarks.posterior.methods import every_method
from benchmarks.quality import defaults
from benchmarks.step_sizes import RULE, choose_step_size
from ot_lift import PosteriorMap
from ot_lift.posterior_target import Target
from ot_lift.posterior_trust import TrustWarning
from posteriors.target import Posterior

_TRAINING = 0.9  # of what is left of the budget; the search of the mode and the diagnosis take the rest
_SET_BY_THE_RUNNER = ("random_state", "max_seconds", "progress")


class PosteriorMapMethod(BasePosteriorMethod):
    """The estimator with its defaults, which may end before the budget does.

    Args:
        name: Shown in tables.
        tuned: Whether the step size is chosen from the grid as for the peers; else it is the default.
        **changes: Other parameters.
    """

    def __init__(self, name: str = OURS, *, tuned: bool = False, **changes: Any) -> None:
        self.name, self._tuned = name, tuned
        own = {key: value for key, value in defaults(PosteriorMap).items() if key not in _SET_BY_THE_RUNNER}
        self._parameters = own | changes
        super().__init__(**self._parameters | ({"learning_rate": RULE} if tuned else {}))

    def fit(self, posterior: Posterior, *, random_state: int, max_seconds: float) -> Self:
        """Fit, after trials of step sizes where they are asked for."""

        def fitted(rate: float, seconds: float) -> PosteriorMap:
            changes = {"learning_rate": rate, "max_seconds": seconds, "random_state": random_state}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TrustWarning)  # the verdict is among the notes
                return PosteriorMap(**{**self._parameters, **changes}).fit(posterior)

        def trial(rate: float, seconds: float) -> float:
            history = fitted(rate, seconds).history_
            return float(history[-1]["held_out"]) if history else math.inf  # nothing to train: the start is exact

        self.notes = []
        rate, left = self._parameters["learning_rate"], max_seconds
        if self._tuned:
            choice = choose_step_size(trial, max_seconds=max_seconds)
            rate, left = choice.rate, choice.seconds
            self.notes.append(choice.note)
        self._posterior, self._map = posterior, fitted(rate, _TRAINING * left)
        self.notes.append(f"its own diagnosis: {str(self._map.diagnosis_).splitlines()[0]}")
        return self

    def draw(self, count: int, *, random_state: int) -> Draws:
        """Independent draws."""
        began = time.perf_counter()
        generator = torch.Generator().manual_seed(random_state)
        z = torch.randn(count, self._posterior.dim, generator=generator, dtype=torch.float64)
        theta, log_q = self._map.map_.push(z)
        seconds = time.perf_counter() - began
        log_weights = Target(self._posterior).value(theta) - log_q
        return Draws(self._posterior.constrain(theta.numpy()), seconds, log_weights.numpy())


def methods(task: PosteriorTask) -> Iterable[PosteriorMethod]:
    """Forward, inverse, and forward with the other positivities."""
    yield PosteriorMapMethod()
    if every_method(task):
        yield PosteriorMapMethod(f"{OURS} inverse", direction="inverse")
        for positivity in ("softplus", "projection"):
            yield PosteriorMapMethod(f"{OURS} {positivity}", tuned=True, positivity=positivity)
