"""The task that flows and energies in several dimensions share: both protocols, and the weights that validated best."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod, ExperimentTask, Outcome, Record
from benchmarks.experiments.energies import Trial
from benchmarks.experiments.likelihoods import BATCH, GAUSSIANS, Likelihood, Points, gaussian_nll
from benchmarks.experiments.protocols import best_rate, cells_of, recipe_of, recipe_settings
from benchmarks.experiments.training import Recipe, fit, shoulder_share
from ot_lift.constrained import Constrained
from ot_lift.positivity import marked_parameters

POSITIVITIES = ("lift", "softplus", "projection")
PROTOCOLS = ("paper", "tuned", "tuning")
_LOOKS = 20  # at a fit: the weights with the least validation loss of these are kept


@dataclass
class Kept:
    """The weights with the least validation loss so far; given to `fit` as what watches it.

    Attributes:
        likelihood: what validates.
        reference: what a lift emits from.
        curve: step, training loss, validation loss and share on the shoulder, a row a look.
        model: the baked network, or None before the first look.
        step: when it was.
        value: its validation loss.
    """

    likelihood: Likelihood
    reference: Tensor
    curve: list[tuple[float, ...]] = field(default_factory=list)
    model: nn.Module | None = None
    step: int = 0
    value: float = torch.inf

    def __call__(self, step: int, loss: float, model: Constrained) -> None:
        """Look at the model of a step."""
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            raise FloatingPointError(f"the weights are not finite after {step} steps")
        plain = model.bake(self.reference)
        value = self.likelihood.validated(plain)
        share = shoulder_share([weight.detach() for weight in marked_parameters(plain).values()])
        self.curve.append((step, *(float(f"{one:.5g}") for one in (loss, value, share))))
        if value < self.value:
            self.model, self.step, self.value = plain, step, value


@dataclass(frozen=True, kw_only=True)
class LikelihoodTask(ExperimentTask):
    """Points under a protocol.

    Attributes:
        protocol: "paper", "tuned" or "tuning", which finds the step size of "tuned".
        iterations: of the full length.
        learning_rate: of the paper's protocol.
        quick: whether this is a short version, for a first look.
    """

    experiment: ClassVar[str]
    words: ClassVar[str]

    protocol: str
    iterations: int
    learning_rate: float
    quick: bool = False

    @property
    @abstractmethod
    def place(self) -> str:
        """What tells the points from those of other tasks, in small letters with hyphens."""

    @abstractmethod
    def likelihood(self, seed: int) -> Likelihood:
        """Of the points of a seed."""

    @abstractmethod
    def points(self, seed: int) -> Points:
        """Of a seed."""

    def more(self, seed: int, method: str, model: nn.Module | None) -> dict[str, Any]:
        """Further details of a fitted network, of a Gaussian where there is none."""
        return {}

    @property
    def name(self) -> str:
        return f"{self.experiment}-{self.place}-{self.protocol}"

    @property
    def recipe(self) -> Recipe:
        """At the paper's step size."""
        return recipe_of(self.protocol, self.iterations, Recipe(learning_rate=self.learning_rate))

    def settings(self) -> dict[str, Any]:
        return {
            "experiment": self.experiment,
            "title": self.place,
            "words": self.words,
            "quick": self.quick,
            "place": self.place,
            "protocol": self.protocol,
            **recipe_settings(self.protocol, self.recipe, self.iterations),
            "batch": BATCH,
            "looks": _LOOKS,
        }

    def run(self, method: ExperimentMethod, seed: int, needed: Record | None) -> Outcome:
        if method.name in GAUSSIANS:
            value = gaussian_nll(method.name, self.points(seed))
            return Outcome({"test_nll": value}, self.more(seed, method.name, None))
        likelihood = self.likelihood(seed)
        if self.protocol == "tuning":
            return best_rate(lambda rate: self._fit(likelihood, method.name, seed, rate)[1].value)
        rate = self.learning_rate if needed is None else float(needed["figures"]["learning_rate"])
        return self._fitted(likelihood, method.name, seed, rate)

    def _fit(self, likelihood: Likelihood, name: str, seed: int, rate: float) -> tuple[Trial, Kept, float]:
        trial = likelihood.trial(name, seed)
        kept = Kept(likelihood, trial.reference)
        recipe, batches = replace(self.recipe, learning_rate=rate), likelihood.points.batches(seed)
        _, seconds = fit(
            trial.model,
            *(likelihood.loss, batches, recipe),
            condition=trial.condition,
            watch=kept,
            looks=min(_LOOKS, recipe.iterations),
        )
        return trial, kept, seconds

    def _fitted(self, likelihood: Likelihood, name: str, seed: int, rate: float) -> Outcome:
        trial, kept, seconds = self._fit(likelihood, name, seed, rate)
        if kept.model is None:
            raise FloatingPointError("no validation loss of the fit is finite")
        figures = {
            **likelihood.tested(kept.model),
            "validation_nll": kept.value,
            "kept_step": float(kept.step),
            "shoulder_share": shoulder_share([one.detach() for one in marked_parameters(kept.model).values()]),
            "learning_rate": rate,
            "parameters": float(sum(one.numel() for one in trial.model.parameters() if one.requires_grad)),
            "fit_seconds": seconds,
        }
        return Outcome(figures, {"curve": kept.curve, **self.more(seed, name, kept.model)})


def likelihood_cells(
    tasks: Mapping[str, LikelihoodTask],
    methods: Sequence[ExperimentMethod],
    seeds: Sequence[int],
    threads: int,
    *,
    gaussians: bool = True,
) -> list[ExperimentCell]:
    """Cells of one set of points; the Gaussians, which are not trained, under the paper's protocol alone.

    Args:
        tasks: By protocol; with "paper" alone, nothing is tuned.
        methods: Those that are trained.
        seeds: Of data, start and batches.
        threads: Of every cell.
        gaussians: Whether they are among the cells.
    """
    if set(tasks) == {"paper"}:
        found = [ExperimentCell(tasks["paper"], method, seed, threads) for method in methods for seed in seeds]
    else:
        found = cells_of(tasks, methods, seeds, threads)
    plain = [ExperimentMethod(name, {}) for name in GAUSSIANS if gaussians]
    return found + [ExperimentCell(tasks["paper"], method, seed, threads) for method in plain for seed in seeds]
