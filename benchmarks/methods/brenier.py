"""Ours, `ot_lift.BrenierMap`, with each of three ways to keep weights non-negative."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

import numpy as np
import torch

from benchmarks.methods import OURS, QUICK_TASK, Watcher
from benchmarks.step_sizes import RULE, choose_step_size
from benchmarks.tasks import Array, Task
from benchmarks.tasks.scaling import is_varied
from ot_lift import BrenierMap
from ot_lift.maps import StandardisedPotential
from ot_lift.methods import BrenierMethod, Method

_NO_LIMIT_ON_STEPS = 10_000_000
_VARIANTS_IN_A_QUICK_LOOK = (QUICK_TASK, "scaling-n500-d8")
_SET_BY_THE_RUNNER = ("random_state", "max_seconds", "callbacks", "progress")


class WatchedBrenierMethod(BrenierMethod):
    """`BrenierMethod` that shows its map to a watcher at every held-out evaluation.

    Args:
        name: Shown in tables.
        tuned: Whether the step size is chosen from the grid as for the peers, by the held-out semi-dual.
        **parameters: Of `BrenierMap`.
    """

    def __init__(self, *, name: str = OURS, tuned: bool = False, **parameters: Any) -> None:
        super().__init__(name=name, **parameters)
        self._watcher: Watcher | None = None
        self._tuned = tuned
        if tuned:
            self.settings["learning_rate"] = RULE

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` in the next fit."""
        self._watcher = watcher

    def fit(self, X: Array, Y: Array, *, random_state: int = 0, max_seconds: float | None = None) -> Self:
        """Fit; the settings shown are the parameters."""
        settings, spent = self.settings, 0.0
        if self._tuned and max_seconds is not None:
            choice = choose_step_size(self._trial(X, Y, random_state), max_seconds=max_seconds)
            self._parameters = {**self._parameters, "learning_rate": choice.rate}
            self.notes.append(choice.note)
            spent, max_seconds = max_seconds - choice.seconds, choice.seconds
        if self._watcher is not None:
            self._parameters = {**self._parameters, "callbacks": [_shown_to(self._watcher, after=spent)]}
        super().fit(X, Y, random_state=random_state, max_seconds=max_seconds)
        self.settings = settings
        return self

    def _trial(self, X: Array, Y: Array, random_state: int) -> Callable[[float, float], float]:
        """The last held-out value of a short training; equal seeds hold out equal points.

        A whole fit would certify each of the maps, for seconds that the budget does not have.
        """

        def trial(rate: float, seconds: float) -> float:
            changes = {"learning_rate": rate, "max_seconds": seconds, "random_state": random_state}
            _, _, trained, _ = BrenierMap(**{**self._parameters, **changes})._train(X, Y)
            return float(trained.history[-1]["held_out"])

        return trial


def _shown_to(watcher: Watcher, *, after: float) -> Callable[[dict[str, float], StandardisedPotential], None]:
    """A callback of a fit that began some seconds into the budget."""

    def callback(record: dict[str, float], potential: StandardisedPotential) -> None:
        def transport(points: Array) -> Array:
            with torch.no_grad():
                return np.asarray(potential.gradient(torch.from_numpy(points)))

        watcher(after + record["seconds"], transport)

    return callback


def _has_variants(task: Task) -> bool:
    if task.quick:
        return task.name in _VARIANTS_IN_A_QUICK_LOOK
    return is_varied(task) if task.uncapped else True


def methods(task: Task) -> Iterable[Method]:
    """The default settings; where a task asks to spend its budget, time alone ends the fit.

    Beside them stand the other two ways to keep weights non-negative, step sizes from the grid of the peers; where
    cost is the question, networks of twice the width and of twice the depth instead, at some sizes. In a quick
    look these variants run on one task of either sort.
    """
    defaults = {name: value for name, value in BrenierMap().get_params().items() if name not in _SET_BY_THE_RUNNER}
    if task.spend_budget:
        defaults |= {"max_steps": _NO_LIMIT_ON_STEPS, "patience": None}
    yield WatchedBrenierMethod(name=OURS, **defaults)
    if not _has_variants(task):
        return
    hidden = tuple(defaults["hidden_features"])
    variants: dict[str, dict[str, Any]] = {name: {"positivity": name} for name in ("softplus", "projection")}
    if task.uncapped:
        variants = {
            "twice as wide": {"hidden_features": tuple(2 * width for width in hidden)},
            "twice as deep": {"hidden_features": 2 * hidden},
        }
    for name, changes in variants.items():
        yield WatchedBrenierMethod(name=f"{OURS} {name}", tuned="positivity" in changes, **defaults | changes)
