"""Ours: `ot_lift.ConvexPotentialFlow` and `ot_lift.LogConcaveDensity`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np

from benchmarks.density import BaseDensityMethod, DensityMethod, DensityTask
from benchmarks.methods import OURS
from benchmarks.quality import defaults
from benchmarks.step_sizes import RULE, choose_step_size
from benchmarks.tasks import Array
from ot_lift import ConvexPotentialFlow, LogConcaveDensity

_NO_LIMIT_ON_STEPS = 10_000_000
_TRAINING = 0.9  # of what is left of the budget; whitening, the choice at the end and a normaliser take the rest
_VARIANTS_IN_A_QUICK_LOOK = "density-rings"
_SET_BY_THE_RUNNER = ("random_state", "max_seconds", "callbacks", "progress")
_KINDS: Mapping[str, Any] = {"flow": ConvexPotentialFlow, "log-concave": LogConcaveDensity}


class OursMethod(BaseDensityMethod):
    """An estimator with its defaults but for the end of the fit, which is the budget's.

    Args:
        name: Shown in tables.
        kind: "flow" or "log-concave".
        tuned: Whether the step size is chosen from the grid as for the peers; else it is the default.
        **changes: Other parameters.
    """

    keeps_budget = True

    def __init__(self, name: str, kind: str, *, tuned: bool = False, **changes: Any) -> None:
        self.name, self._tuned = name, tuned
        parameters = {name: value for name, value in defaults(_KINDS[kind]).items() if name not in _SET_BY_THE_RUNNER}
        self._parameters = parameters | {"max_steps": _NO_LIMIT_ON_STEPS, "patience": None} | changes
        super().__init__(kind=kind, **self._parameters | ({"learning_rate": RULE} if tuned else {}))

    def fit(self, X: Array, *, random_state: int, max_seconds: float) -> Self:
        """Fit until the budget ends, after trials of step sizes where they are asked for."""

        def fitted(rate: float, seconds: float) -> Any:
            changes = {"learning_rate": rate, "max_seconds": seconds, "random_state": random_state}
            return _KINDS[self.settings["kind"]](**{**self._parameters, **changes}).fit(X)

        def trial(rate: float, seconds: float) -> float:
            """The network's last held-out value, whether or not it is better than the Gaussian start."""
            return float(fitted(rate, seconds).history_[-1]["held_out"])

        self.notes = []
        rate, left = self._parameters["learning_rate"], max_seconds
        if self._tuned:
            choice = choose_step_size(trial, max_seconds=max_seconds)
            rate, left = choice.rate, choice.seconds
            self.notes.append(choice.note)
        self._density = fitted(rate, _TRAINING * left)
        if not self._density.used_network_:
            self.notes.append("the Gaussian start was kept: held-out points did not prefer the network")
        return self

    def log_prob(self, X: Array) -> Array:
        """Log-density `(k,)`."""
        return np.asarray(self._density.log_prob(X))

    def sample(self, count: int, *, random_state: int) -> Array:
        """Draws `(count, features)`."""
        return np.asarray(self._density.sample(count, random_state=random_state))


def methods(task: DensityTask) -> Iterable[DensityMethod]:
    """The flow with its defaults, with three blocks and with the other positivities; the log-concave density.

    Where cost is the question the variants of the flow are left out. In a quick look all but the default run on one
    task, where the log-concave density finds its normaliser by quadrature.
    """
    yield OursMethod(OURS, "flow")
    if task.quick and task.name != _VARIANTS_IN_A_QUICK_LOOK:
        return
    yield OursMethod(f"{OURS} log-concave", "log-concave")
    if task.uncapped:
        return
    yield OursMethod(f"{OURS} three blocks", "flow", blocks=3)
    for positivity in ("softplus", "projection"):
        yield OursMethod(f"{OURS} {positivity}", "flow", tuned=True, positivity=positivity)
