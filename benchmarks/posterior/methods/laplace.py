"""The normal law of the mode and the curvature there: where every other method has to begin to be better."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Self

import torch

from benchmarks.posterior import BasePosteriorMethod, Draws, PosteriorMethod, PosteriorTask
from ot_lift.posterior_latent import log_normal
from ot_lift.posterior_mode import find_mode
from ot_lift.posterior_target import Target
from posteriors.target import Posterior


class LaplaceMethod(BasePosteriorMethod):
    """L-BFGS from several starts and Newton in float64, as `ot_lift.PosteriorMap` begins."""

    name = "Laplace"
    keeps_budget = False

    def fit(self, posterior: Posterior, *, random_state: int, max_seconds: float) -> Self:
        """Search the mode; it takes what it takes."""
        self._posterior, self._target = posterior, Target(posterior)
        self._units = find_mode(self._target, torch.Generator().manual_seed(random_state))
        return self

    def draw(self, count: int, *, random_state: int) -> Draws:
        """Independent draws."""
        began = time.perf_counter()
        generator = torch.Generator().manual_seed(random_state)
        z = torch.randn(count, self._target.dim, generator=generator, dtype=torch.float64)
        theta = self._units.to_user(z)
        seconds = time.perf_counter() - began
        log_weights = self._target.value(theta) - log_normal(z) + self._units.log_det
        return Draws(self._posterior.constrain(theta.numpy()), seconds, log_weights.numpy())


def methods(task: PosteriorTask) -> Iterable[PosteriorMethod]:
    """It has no settings."""
    return [LaplaceMethod()]
