"""Six log-concave densities on the line, by every way to keep an energy convex: the paper's first figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from benchmarks.experiments import Experiment
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod, ExperimentTask, Outcome, Record
from benchmarks.experiments.densities1d import GRID_POINTS, TARGETS, Array
from benchmarks.experiments.energies import (
    BATCH,
    ENERGY,
    LAYERS,
    LIFT,
    MODELS,
    TRAINING_POINTS,
    VALIDATION_POINTS,
    WIDTH,
    Data,
    divergences,
    gaussian_density,
    wide_width,
)
from benchmarks.experiments.gallery1d_page import page
from benchmarks.experiments.training import Recipe, fit, shoulder_share
from benchmarks.tasks import Options
from ot_lift.constrained import Constrained

NAME = "gallery1d"
RATES = (1e-3, 5e-3, 3e-2)  # tried for every method in the tuned protocol
TUNING_SEED = 99  # no result has it
WIDE, WIDE_TARGETS = "wide softplus", ("gumbel", "beta")
GAUSSIAN = "Gaussian"
WORDS = (
    "An energy E, an input-convex network of three layers of 128, is fitted to six densities p ∝ exp(−E) by the "
    "forward Kullback–Leibler divergence, 3,000 steps of Adam with batches of 256. Protocol paper: step size 10⁻³ "
    "throughout. Protocol tuned: the best of three step sizes for every method, by validation (one seed that no result "
    "has, a third of the length), a cosine schedule and averaged weights. The density is normalised on the interval of "
    "the target (all but 2 in a million of it), which every method knows. A lift is evaluated at the weights that it "
    "emits once from the whole training split. Gaussian is the normal density with the points' mean and variance."
)
_LOOKS = 24  # at the fit, for the curves
_KEPT_POINTS = 250  # of a density, for the pictures
_QUICK_TARGETS, _QUICK_METHODS = ("gumbel", "beta"), ("lift", "softplus", "projection", GAUSSIAN)


@dataclass(frozen=True)
class GalleryTask(ExperimentTask):
    """A target under a protocol.

    Attributes:
        target: a name in `TARGETS`.
        protocol: "paper", "tuned" or "tuning", which finds the step size of "tuned".
        iterations: of the full length.
        points: of the training split.
        quick: whether this is a short version, for a first look.
    """

    target: str
    protocol: str
    iterations: int = 3_000
    points: int = TRAINING_POINTS
    quick: bool = False

    @property
    def name(self) -> str:
        return f"{NAME}-{self.target}-{self.protocol}"

    @property
    def recipe(self) -> Recipe:
        """At the paper's step size."""
        if self.protocol == "paper":
            return Recipe(iterations=self.iterations)
        length = self.iterations // 3 if self.protocol == "tuning" else self.iterations
        return Recipe(iterations=length, cosine=True, averaging=0.02)

    def settings(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "experiment": NAME,
            "title": TARGETS[self.target].title,
            "words": WORDS,
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
        if method.name == GAUSSIAN:
            grid, density = gaussian_density(data)
            return Outcome(divergences(density, grid, data.target), {"density": _kept(grid, density)})
        if self.protocol == "tuning":
            return self._tuned(data, method, seed)
        rate = self.recipe.learning_rate if needed is None else float(needed["figures"]["learning_rate"])
        return _fitted(data, method, seed, replace(self.recipe, learning_rate=rate))

    def _tuned(self, data: Data, method: ExperimentMethod, seed: int) -> Outcome:
        """The step size with the least validation loss; one at which training diverges has none."""
        losses: dict[float, float] = {}
        for rate in RATES:
            recipe = replace(self.recipe, learning_rate=rate)
            try:
                model, _ = fit(MODELS[method.name](seed), data.loss, data.batches(seed), recipe, looks=1)
                losses[rate] = data.held_out(model)
            except FloatingPointError:
                continue
        if not losses:
            raise FloatingPointError(f"training diverges at every step size of {', '.join(map(str, RATES))}")
        best = min(losses, key=losses.__getitem__)
        told = {f"{rate:g}": losses.get(rate) for rate in RATES}
        return Outcome({"learning_rate": best, "validation_loss": losses[best]}, {"validation_loss": told})


def _fitted(data: Data, method: ExperimentMethod, seed: int, recipe: Recipe) -> Outcome:
    curve: list[tuple[float, ...]] = []

    def watch(step: int, loss: float, model: Constrained) -> None:
        grid, density, weights = data.density(model)
        found = divergences(density, grid, data.target)["total_variation"], shoulder_share(weights)
        curve.append((step, *(float(f"{value:.4g}") for value in (loss, *found))))

    model = MODELS[method.name](seed)
    trained, seconds = fit(model, data.loss, data.batches(seed), recipe, watch=watch, looks=_LOOKS)
    grid, density, weights = data.density(trained)
    figures = {
        **divergences(density, grid, data.target),
        "validation_loss": data.held_out(trained),
        "shoulder_share": shoulder_share(weights),
        "learning_rate": recipe.learning_rate,
        "parameters": float(_trained_numbers(model)),
        "fit_seconds": seconds,
    }
    return Outcome(figures, {"density": _kept(grid, density), "curve": curve})


def _trained_numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _kept(grid: Array, density: Array) -> list[list[float]]:
    places = np.linspace(0, len(grid) - 1, _KEPT_POINTS).round().astype(int)
    return [[float(f"{value:.5g}") for value in values[places]] for values in (grid, density)]


def methods() -> list[ExperimentMethod]:
    """Every method with what it is made of."""
    own: dict[str, Mapping[str, Any]] = {
        "lift": {**LIFT, "summary_features": list(LIFT["summary_features"])},
        WIDE: {"width": wide_width()},
        **{f"ADMM {schedule}": {"rho": 10.0, "schedule": schedule} for schedule in ("fixed", "balanced", "doubling")},
    }
    return [ExperimentMethod(name, {"positivity": name, **own.get(name, {})}) for name in (*MODELS, GAUSSIAN)]


def cells(options: Options, seeds: Sequence[int], threads: int) -> list[ExperimentCell]:
    """Every target, protocol, method and seed; the Gaussian, which is not trained, under one protocol alone.

    Args:
        options: A quick run has 150 steps, two targets and four methods.
        seeds: Of data, start and batches.
        threads: Of every cell.
    """
    short: dict[str, Any] = {"iterations": 150, "points": 20_000, "quick": True} if options.quick else {}
    found = []
    for target in _QUICK_TARGETS if options.quick else TARGETS:
        paper, tuned, tuning = (GalleryTask(target, protocol, **short) for protocol in ("paper", "tuned", "tuning"))
        for method in methods():
            if options.quick and method.name not in _QUICK_METHODS:
                continue
            if method.name == WIDE and target not in WIDE_TARGETS:
                continue
            found += [ExperimentCell(paper, method, seed, threads) for seed in seeds]
            if method.name != GAUSSIAN:
                needed = ExperimentCell(tuning, method, TUNING_SEED, threads)
                found += [ExperimentCell(tuned, method, seed, threads, needed) for seed in seeds]
    return found


EXPERIMENT = Experiment(NAME, "Log-concave densities on the line", WORDS, tuple(range(5)), cells, page)
