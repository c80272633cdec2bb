"""The two protocols under which networks are fitted, the same for every experiment that fits them.

Protocol paper is a fixed recipe. Protocol tuned has a cosine schedule, averaged weights, and the step size that was
best for the method on validation, which cells of a third protocol, tuning, find beforehand. Energies are fitted in
standardised coordinates there: in the data's own, where Beta(2, 5) lies within a sixth of a unit, a network of unit
curvature ends at a total variation of 0.01 with the lift whatever its step size, and at 0.003 in standardised ones.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

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
    EnergyData,
    Trial,
    divergences,
)
from benchmarks.experiments.training import Recipe, Watcher, fit, shoulder_share
from ot_lift.constrained import Constrained

# Tried for every method in the tuned protocol. Three have to hold the best of every method: at the length of tuning, on
# Laplace, Gumbel and Beta(2, 5), the lift is best at 5e-3 (about as good at 2e-3, worse at 3e-2), projection about 1e-1
# (worse at 3e-2 and at 3e-1), and softplus at 3e-1, with 1e-1 next and all of them lost at 1.
RATES = (5e-3, 5e-2, 3e-1)
# On half of the targets on the line the lift of an energy is best at 1e-3: what is left at 5e-3 is the noise of batches
# (Gamma: total variation 0.0064 and 0.0039, and 0.0025 with stratified batches; neither a longer average of the weights
# nor batches without replacement come below 0.005). On Laplace 5e-3 is best.
ENERGY_RATES = (1e-3, *RATES)
TUNING_SEED = 99  # no result has it
QUICK: Mapping[str, Any] = {"iterations": 150, "points": 20_000, "quick": True}
_STEPS_A_LOOK = 25
_KEPT_POINTS = 250  # of a density, for the pictures


class Points(Protocol):
    """What a fit needs of its data."""

    def batches(self, seed: int) -> Callable[[], Tensor]:
        """Draws `(n, features)` of the training points."""

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """What is minimised."""

    def held_out(self, model: Constrained, reference: Tensor) -> float:
        """The same over points that no batch has; a lift's weights are emitted once, from `reference`."""


Drawn = TypeVar("Drawn", bound=Points)


@dataclass(frozen=True)
class FitTask(ExperimentTask, Generic[Drawn]):
    """A target under a protocol.

    Attributes:
        target: its name.
        protocol: "paper", "tuned" or "tuning", which finds the step size of "tuned".
        iterations: of the full length.
        points: of the training split.
        quick: whether this is a short version, for a first look.
    """

    experiment: ClassVar[str]
    words: ClassVar[str]
    paper: ClassVar[Recipe] = Recipe()
    looks: ClassVar[int] = 24  # at a fit, for the curves; fewer at a short one
    rates: ClassVar[Sequence[float]] = RATES

    target: str
    protocol: str
    iterations: int = 3_000
    points: int = TRAINING_POINTS
    quick: bool = False

    @property
    @abstractmethod
    def title(self) -> str:
        """The target's."""

    @abstractmethod
    def data(self, seed: int) -> Drawn:
        """Points of the target."""

    @abstractmethod
    def trial(self, name: str, seed: int, data: Drawn) -> Trial:
        """The model that a method starts with, and what it is conditioned on."""

    @abstractmethod
    def look(self, model: Constrained, trial: Trial, data: Drawn) -> tuple[float, float]:
        """The figure that decides and the share of weights on the shoulder, in the midst of training."""

    @abstractmethod
    def measured(self, model: Constrained, trial: Trial, data: Drawn) -> Outcome:
        """Figures and details of the trained model; `shoulder_share` is among the figures."""

    def untrained(self, name: str, data: Drawn) -> Outcome | None:
        """The outcome of a method without training; None for all others."""
        return None

    def watched(self, trial: Trial, data: Drawn, watch: Watcher) -> tuple[Watcher, Mapping[str, Any]]:
        """What looks at the fit besides `watch`, and the details that it will have filled."""
        return watch, {}

    @property
    def name(self) -> str:
        return f"{self.experiment}-{self.target}-{self.protocol}"

    @property
    def recipe(self) -> Recipe:
        """At the paper's step size."""
        return recipe_of(self.protocol, self.iterations, self.paper)

    def settings(self) -> dict[str, Any]:
        return {
            "experiment": self.experiment,
            "title": self.title,
            "words": self.words,
            "quick": self.quick,
            "target": self.target,
            "protocol": self.protocol,
            **recipe_settings(self.protocol, self.recipe, self.iterations, self.rates),
            "training_points": self.points,
        }

    def run(self, method: ExperimentMethod, seed: int, needed: Record | None) -> Outcome:
        data = self.data(seed)
        if (outcome := self.untrained(method.name, data)) is not None:
            return outcome
        if self.protocol == "tuning":
            return self._tuned(data, method.name, seed)
        rate = self.recipe.learning_rate if needed is None else float(needed["figures"]["learning_rate"])
        return self._fitted(data, method.name, seed, replace(self.recipe, learning_rate=rate))

    def _tuned(self, data: Drawn, name: str, seed: int) -> Outcome:
        def validated(rate: float) -> float:
            trial = self.trial(name, seed, data)
            recipe = replace(self.recipe, learning_rate=rate)
            best, _ = fit(trial.model, data.loss, data.batches(seed), recipe, condition=trial.condition, looks=1)
            return data.held_out(best, trial.reference)

        return best_rate(validated, self.rates)

    def _fitted(self, data: Drawn, name: str, seed: int, recipe: Recipe) -> Outcome:
        curve: list[tuple[float, ...]] = []
        trial = self.trial(name, seed, data)

        def look(step: int, loss: float, model: Constrained) -> None:
            found = self.look(model, trial, data)
            curve.append((step, *(float(f"{value:.4g}") for value in (loss, *found))))

        watch, more = self.watched(trial, data, look)
        looks = max(3, min(self.looks, recipe.iterations // _STEPS_A_LOOK))
        trained, seconds = fit(
            *(trial.model, data.loss, data.batches(seed), recipe),
            condition=trial.condition,
            watch=watch,
            looks=looks,
        )
        found = self.measured(trained, trial, data)
        figures = {
            **found.figures,
            "validation_loss": data.held_out(trained, trial.reference),
            "learning_rate": recipe.learning_rate,
            "parameters": float(sum(one.numel() for one in trial.model.parameters() if one.requires_grad)),
            "fit_seconds": seconds,
        }
        return Outcome(figures, {**found.details, "curve": curve, **more})


Energetic = TypeVar("Energetic", bound=EnergyData)


class EnergyTask(FitTask[Energetic]):
    """An energy under a protocol."""

    rates = ENERGY_RATES

    def settings(self) -> dict[str, Any]:
        """Those of every energy with them."""
        own = {
            "batch": BATCH,
            "validation_points": VALIDATION_POINTS,
            "energy": {"hidden_features": [WIDTH] * LAYERS, **ENERGY},
        }
        return super().settings() | own | ({} if self.protocol == "paper" else {"coordinates": "standardised"})

    def placed(self, data: Energetic) -> Energetic:
        """The data in the protocol's coordinates."""
        return data if self.protocol == "paper" else data.standardised()


class LineTask(EnergyTask[Data]):
    """An energy on the line under a protocol."""

    @property
    def title(self) -> str:
        return TARGETS[self.target].title

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"grid_points": GRID_POINTS}

    def data(self, seed: int) -> Data:
        return self.placed(Data.drawn(TARGETS[self.target], seed, points=self.points))

    def look(self, model: Constrained, trial: Trial, data: Data) -> tuple[float, float]:
        grid, density, weights = data.density(model, trial.reference)
        return divergences(density, grid, data.target)["total_variation"], shoulder_share(weights)

    def measured(self, model: Constrained, trial: Trial, data: Data) -> Outcome:
        grid, density, weights = data.density(model, trial.reference)
        figures = {**divergences(density, grid, data.target), "shoulder_share": shoulder_share(weights)}
        return Outcome(figures, {"density": kept(grid, density)})


def recipe_of(protocol: str, iterations: int, paper: Recipe | None = None) -> Recipe:
    """The recipe of a protocol at the paper's step size.

    Args:
        protocol: "paper", "tuned" or "tuning", which takes a third of the length.
        iterations: of the full length.
        paper: the paper's own; None for the defaults.

    Example:
        >>> recipe_of("tuning", 3_000).iterations, recipe_of("paper", 3_000).cosine
        (1000, False)
    """
    if protocol == "paper":
        return replace(paper or Recipe(), iterations=iterations)
    length = iterations // 3 if protocol == "tuning" else iterations
    return Recipe(iterations=length, cosine=True, averaging=0.02)


def recipe_settings(protocol: str, recipe: Recipe, iterations: int, rates: Sequence[float] = RATES) -> dict[str, Any]:
    """What a task's settings say of it: a step size that is chosen is none of them, how it is chosen is."""
    shown: dict[str, Any] = {"recipe": dict(vars(recipe))}
    if protocol != "paper":
        del shown["recipe"]["learning_rate"]
        shown["tuning"] = {"rates": list(rates), "seed": TUNING_SEED, "iterations": iterations // 3}
    return shown


def best_rate(validated: Callable[[float], float], rates: Sequence[float] = RATES) -> Outcome:
    """The step size with the least validation loss; one at which training diverges has none.

    Args:
        validated: Trains at a step size and gives the validation loss.
        rates: The step sizes.

    Raises:
        FloatingPointError: Training diverges at every one.

    Example:
        >>> best_rate(lambda rate: abs(rate - 5e-3)).figures["learning_rate"]
        0.005
    """
    losses: dict[float, float] = {}
    for rate in rates:
        try:
            losses[rate] = validated(rate)
        except FloatingPointError:
            continue
    if not losses:
        raise FloatingPointError(f"training diverges at every step size of {', '.join(map(str, rates))}")
    rate = min(losses, key=losses.__getitem__)
    told = {f"{rate:g}": losses.get(rate) for rate in rates}
    return Outcome({"learning_rate": rate, "validation_loss": losses[rate]}, {"validation_loss": told})


def kept(grid: Array, density: Array) -> list[list[float]]:
    """A density in few points, for a record."""
    places = np.linspace(0, len(grid) - 1, _KEPT_POINTS).round().astype(int)
    return [[float(f"{value:.5g}") for value in values[places]] for values in (grid, density)]


def cells_of(
    tasks: Mapping[str, ExperimentTask],
    methods: Iterable[ExperimentMethod],
    seeds: Sequence[int],
    threads: int,
    *,
    untrained: Sequence[str] = (),
) -> list[ExperimentCell]:
    """Cells of one part under both protocols; those that tune are needed by the tuned ones.

    Args:
        tasks: By protocol: paper, tuned, tuning.
        methods: All of them.
        seeds: Of data, start and batches.
        threads: Of every cell.
        untrained: Names of those that are not trained: they are the same under both protocols and stand under paper.
    """
    found = []
    for method in methods:
        found += [ExperimentCell(tasks["paper"], method, seed, threads) for seed in seeds]
        if method.name not in untrained:
            needed = ExperimentCell(tasks["tuning"], method, TUNING_SEED, threads)
            found += [ExperimentCell(tasks["tuned"], method, seed, threads, needed) for seed in seeds]
    return found
