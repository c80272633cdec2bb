"""Ours, `ot_lift.BrenierMap`, with each of three ways to keep weights non-negative."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

import numpy as np
import torch

from benchmarks.methods import OURS, Watcher
from benchmarks.tasks import Array, Task
from ot_lift import BrenierMap
from ot_lift.maps import StandardisedPotential
from ot_lift.methods import BrenierMethod, Method

_NO_LIMIT_ON_STEPS = 10_000_000
_SET_BY_THE_RUNNER = ("random_state", "max_seconds", "callbacks", "progress")


class WatchedBrenierMethod(BrenierMethod):
    """`BrenierMethod` that shows its map to a watcher at every held-out evaluation."""

    def __init__(self, *, name: str = OURS, **parameters: Any) -> None:
        super().__init__(name=name, **parameters)
        self._watcher: Watcher | None = None

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` in the next fit."""
        self._watcher = watcher

    def fit(self, X: Array, Y: Array, *, random_state: int = 0, max_seconds: float | None = None) -> Self:
        """Fit; the settings shown are the parameters."""
        settings = self.settings
        if self._watcher is not None:
            self._parameters = {**self._parameters, "callbacks": [_shown_to(self._watcher)]}
        super().fit(X, Y, random_state=random_state, max_seconds=max_seconds)
        self.settings = settings
        return self


def _shown_to(watcher: Watcher) -> Callable[[dict[str, float], StandardisedPotential], None]:
    def callback(record: dict[str, float], potential: StandardisedPotential) -> None:
        def transport(points: Array) -> Array:
            with torch.no_grad():
                return np.asarray(potential.gradient(torch.from_numpy(points)))

        watcher(record["seconds"], transport)

    return callback


def methods(task: Task) -> Iterable[Method]:
    """The default settings; where a task asks to spend its budget, time alone ends the fit.

    Beside them stand the other two ways to keep weights non-negative; where cost is the question, networks of twice the
    width and of twice the depth instead.
    """
    defaults = {name: value for name, value in BrenierMap().get_params().items() if name not in _SET_BY_THE_RUNNER}
    if task.spend_budget:
        defaults |= {"max_steps": _NO_LIMIT_ON_STEPS, "patience": None}
    yield WatchedBrenierMethod(name=OURS, **defaults)
    hidden = tuple(defaults["hidden_features"])
    variants: dict[str, dict[str, Any]] = {name: {"positivity": name} for name in ("softplus", "projection")}
    if task.uncapped:
        variants = {
            "twice as wide": {"hidden_features": tuple(2 * width for width in hidden)},
            "twice as deep": {"hidden_features": 2 * hidden},
        }
    for name, changes in variants.items():
        yield WatchedBrenierMethod(name=f"{OURS} {name}", **defaults | changes)
