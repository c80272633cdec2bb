"""The two protocols under which energies on the line are fitted, the same for every experiment that fits them.

Protocol paper is a fixed recipe. Protocol tuned has a cosine schedule, averaged weights, and the step size that was
best for the method on validation, which cells of a third protocol, tuning, find beforehand.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod, ExperimentTask, Outcome, Record
from benchmarks.experiments.densities1d import GRID_POINTS, TARGETS, Array
from benchmarks.experiments.energies import (
    BATCH,
    ENERGY,
    LAYERS,
    TRAINING_POINTS,
    VALIDATION_POINTS,
    WIDTH,
    Data,
    Trial,
    divergences,
)
from benchmarks.experiments.training import Recipe, Watcher, fit, shoulder_share
from ot_lift.constrained import Constrained

RATES = (1e-3, 5e-3, 3e-2)  # tried for every method in the tuned protocol
TUNING_SEED = 99  # no result has it
QUICK: Mapping[str, Any] = {"iterations": 150, "points": 20_000, "quick": True}
_LOOKS = 24  # at a fit, for the curves; fewer at a short one
_STEPS_A_LOOK = 25
_KEPT_POINTS = 250  # of a density, for the pictures


@dataclass(frozen=True)
class EnergyTask(ExperimentTask):
    """A target under a protocol.

    Attributes:
        target: a name in `TARGETS`.
        protocol: "paper", "tuned" or "tuning", which finds the step size of "tuned".
        iterations: of the full length.
        points: of the training split.
        quick: whether this is a short version, for a first look.
    """

    experiment: ClassVar[str]
    words: ClassVar[str]

    target: str
    protocol: str
    iterations: int = 3_000
    points: int = TRAINING_POINTS
    quick: bool = False

    @abstractmethod
    def trial(self, name: str, seed: int, data: Data) -> Trial:
        """The model that a method starts with, and what it is conditioned on."""

    def untrained(self, name: str, data: Data) -> Outcome | None:
        """The outcome of a method without training; None for all others."""
        return None

    def watched(self, trial: Trial, data: Data, watch: Watcher) -> tuple[Watcher, Mapping[str, Any]]:
        """What looks at the fit besides `watch`, and the details that it will have filled."""
        return watch, {}

    @property
    def name(self) -> str:
        return f"{self.experiment}-{self.target}-{self.protocol}"

    @property
    def recipe(self) -> Recipe:
        """At the paper's step size."""
        if self.protocol == "paper":
            return Recipe(iterations=self.iterations)
        length = self.iterations // 3 if self.protocol == "tuning" else self.iterations
        return Recipe(iterations=length, cosine=True, averaging=0.02)

    def settings(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "experiment": self.experiment,
            "title": TARGETS[self.target].title,
            "words": self.words,
            "quick": self.quick,
            "target": self.target,
            "protocol": self.protocol,
            "recipe": dict(vars(self.recipe)),
            "batch": BATCH,
            "training_points": self.points,
            "validation_points": VALIDATION_POINTS,
            "grid_points": GRID_POINTS,
            "energy": {"hidden_features": [WIDTH] * LAYERS, **ENERGY},
        }
        if self.protocol != "paper":
            del shown["recipe"]["learning_rate"]
            shown["tuning"] = {"rates": list(RATES), "seed": TUNING_SEED, "iterations": self.iterations // 3}
        return shown

    def run(self, method: ExperimentMethod, seed: int, needed: Record | None) -> Outcome:
        data = Data.drawn(TARGETS[self.target], seed, points=self.points)
        if (outcome := self.untrained(method.name, data)) is not None:
            return outcome
        if self.protocol == "tuning":
            return self._tuned(data, method.name, seed)
        rate = self.recipe.learning_rate if needed is None else float(needed["figures"]["learning_rate"])
        return self._fitted(data, method.name, seed, replace(self.recipe, learning_rate=rate))

    def _tuned(self, data: Data, name: str, seed: int) -> Outcome:
        """The step size with the least validation loss; one at which training diverges has none."""
        losses: dict[float, float] = {}
        for rate in RATES:
            recipe = replace(self.recipe, learning_rate=rate)
            trial = self.trial(name, seed, data)
            try:
                best, _ = fit(trial.model, data.loss, data.batches(seed), recipe, condition=trial.condition, looks=1)
                losses[rate] = data.held_out(best, trial.reference)
            except FloatingPointError:
                continue
        if not losses:
            raise FloatingPointError(f"training diverges at every step size of {', '.join(map(str, RATES))}")
        rate = min(losses, key=losses.__getitem__)
        told = {f"{rate:g}": losses.get(rate) for rate in RATES}
        return Outcome({"learning_rate": rate, "validation_loss": losses[rate]}, {"validation_loss": told})

    def _fitted(self, data: Data, name: str, seed: int, recipe: Recipe) -> Outcome:
        curve: list[tuple[float, ...]] = []
        trial = self.trial(name, seed, data)

        def look(step: int, loss: float, model: Constrained) -> None:
            grid, density, weights = data.density(model, trial.reference)
            found = divergences(density, grid, data.target)["total_variation"], shoulder_share(weights)
            curve.append((step, *(float(f"{value:.4g}") for value in (loss, *found))))

        watch, more = self.watched(trial, data, look)
        looks = max(3, min(_LOOKS, recipe.iterations // _STEPS_A_LOOK))
        trained, seconds = fit(
            *(trial.model, data.loss, data.batches(seed), recipe),
            condition=trial.condition,
            watch=watch,
            looks=looks,
        )
        grid, density, weights = data.density(trained, trial.reference)
        figures = {
            **divergences(density, grid, data.target),
            "validation_loss": data.held_out(trained, trial.reference),
            "shoulder_share": shoulder_share(weights),
            "learning_rate": recipe.learning_rate,
            "parameters": float(sum(one.numel() for one in trial.model.parameters() if one.requires_grad)),
            "fit_seconds": seconds,
        }
        return Outcome(figures, {"density": kept(grid, density), "curve": curve, **more})


def kept(grid: Array, density: Array) -> list[list[float]]:
    """A density in few points, for a record."""
    places = np.linspace(0, len(grid) - 1, _KEPT_POINTS).round().astype(int)
    return [[float(f"{value:.5g}") for value in values[places]] for values in (grid, density)]


def cells_of(
    tasks: Mapping[str, EnergyTask], methods: Iterable[ExperimentMethod], seeds: Sequence[int], threads: int
) -> list[ExperimentCell]:
    """Cells of one target under both protocols; those that tune are needed by the tuned ones.

    Args:
        tasks: By protocol: paper, tuned, tuning.
        methods: Those that are trained.
        seeds: Of data, start and batches.
        threads: Of every cell.
    """
    found = []
    for method in methods:
        needed = ExperimentCell(tasks["tuning"], method, TUNING_SEED, threads)
        found += [ExperimentCell(tasks["paper"], method, seed, threads) for seed in seeds]
        found += [ExperimentCell(tasks["tuned"], method, seed, threads, needed) for seed in seeds]
    return found
