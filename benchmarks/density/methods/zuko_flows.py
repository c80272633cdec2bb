"""Zuko's neural spline flow and masked autoregressive flow (optional: the extra `peers`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import numpy as np
import torch

from benchmarks.density import BaseDensityMethod, DensityMethod, DensityTask
from benchmarks.density_peers import BATCH, HIDDEN, PEERS, fit_peer, zuko_is_there
from benchmarks.step_sizes import RULE, choose_step_size
from benchmarks.tasks import Array, Unavailable


class ZukoMethod(BaseDensityMethod):
    """Zuko's own defaults but for the widths; the step size is chosen on held-out points within the budget.

    Args:
        kind: "NSF" or "MAF".

    References:
        Durkan et al. 2019 (arXiv 1906.04032); Papamakarios et al. 2017 (arXiv 1705.07057).
    """

    keeps_budget = True

    def __init__(self, kind: str) -> None:
        super().__init__(kind=kind, hidden_features=list(HIDDEN), batch_size=BATCH, learning_rate=RULE)
        self.name = f"zuko {kind}"

    def fit(self, X: Array, *, random_state: int, max_seconds: float) -> Self:
        """Try the step sizes, then train with the best from the start."""
        kind = self.settings["kind"]
        points = torch.from_numpy(np.random.default_rng(random_state).permutation(X))

        def trial(rate: float, seconds: float) -> float:
            return fit_peer(kind, points, seconds=seconds, learning_rate=rate, seed=random_state).held_out

        choice = choose_step_size(trial, max_seconds=max_seconds)
        self._peer = fit_peer(kind, points, seconds=choice.seconds, learning_rate=choice.rate, seed=random_state)
        self.notes = [choice.note, f"{self._peer.steps:,} steps within the budget"]
        return self

    def log_prob(self, X: Array) -> Array:
        """Log-density `(k,)`."""
        return self._peer.log_prob(torch.from_numpy(np.asarray(X))).numpy()

    def sample(self, count: int, *, random_state: int) -> Array:
        """Draws `(count, features)`."""
        return self._peer.sample(count, random_state).numpy()


def methods(task: DensityTask) -> Iterable[DensityMethod]:
    """Both."""
    if not zuko_is_there():
        raise Unavailable("zuko is not installed; pip install 'ot-lift[peers]'")
    return [ZukoMethod(kind) for kind in PEERS]
