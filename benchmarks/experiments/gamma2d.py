"""A log-concave density in the plane, two independent Gamma(2, 1), by every way to keep an energy convex.

In full, with three seeds: about 30 minutes of CPU time (49 fits of 32 or, with the lift, 55 s). Quick: under a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.experiments import Experiment
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod, Outcome
from benchmarks.experiments.densities2d import PLANE_TARGETS, PlaneTarget, divergences
from benchmarks.experiments.energies import (
    MODELS,
    SETTINGS,
    VALIDATION_POINTS,
    EnergyData,
    Trial,
)
from benchmarks.experiments.gamma2d_page import page
from benchmarks.experiments.protocols import QUICK, EnergyTask, cells_of
from benchmarks.experiments.training import shoulder_share
from benchmarks.tasks import Options
from ot_lift.constrained import Constrained
from ot_lift.maps import in_blocks
from ot_lift.positivity import marked_parameters

NAME = "gamma2d"
GAUSSIAN = "Gaussian"
WORDS = (
    "The energy of gallery1d in two dimensions, under its two protocols (tuned with three step sizes), fitted to "
    "p(x, y) = xy·exp(−x − y) on the rectangle that holds all but 2 in a million of each coordinate, which every "
    "method knows: two independent Gamma(2, 1), whose mode is (1, 1). Log Z is a quadrature with 900 nodes in "
    "training; figures are from a grid of 64 × 64 nodes of another one. Softplus widened to the lift's number of "
    "parameters is left to gallery1d, most of whose time it takes. Gaussian is the normal density with the points' "
    "mean and covariance."
)
METHODS = (*(name for name in MODELS if name != "wide softplus"), GAUSSIAN)
_QUICK_METHODS = ("lift", "softplus", "projection", GAUSSIAN)
PICTURE_SIDE = 60  # points a side of a density that a record keeps
_ROWS = 2_000  # at a time: the layers of so many stay in the cache

Energy = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PlaneData(EnergyData):
    """Points in the plane, `(n, 2)`, with 900 nodes.

    Attributes:
        target: where they are from.
    """

    target: PlaneTarget

    @classmethod
    def drawn(cls, target: PlaneTarget, seed: int, *, points: int, validation: int = VALIDATION_POINTS) -> PlaneData:
        """Independent points; equal seeds give equal points."""
        rng = np.random.default_rng(seed)
        training, held_out = (torch.from_numpy(target.sample(count, rng)).float() for count in (points, validation))
        nodes, log_weights = (torch.from_numpy(one).float() for one in target.quadrature())
        return cls(training, held_out, nodes, log_weights, target)

    def exact(self) -> PlaneData:
        nodes, log_weights = map(torch.from_numpy, self.target.quadrature(fine=True))
        return replace(self, nodes=self.coordinates(nodes), log_weights=log_weights)

    def divergences(self, energy: Energy) -> dict[str, float]:
        """Figures of exp(−E)/Z, E of points `(n, 2)` in float64."""
        fine, (nodes, _) = self.exact(), self.target.quadrature(fine=True)
        truth = fine.log_weights.exp().numpy() * self.target.density(nodes)
        mass = torch.softmax(fine.log_weights - in_blocks(energy, fine.nodes, rows=_ROWS), 0).numpy()
        return divergences(truth / truth.sum(), mass)

    def picture(self, energy: Energy) -> list[float]:
        """The density on the target's window."""
        fine, points = self.exact(), self.coordinates(torch.from_numpy(self.target.window(PICTURE_SIDE)))
        energies, at = (in_blocks(energy, x, rows=_ROWS) for x in (fine.nodes, points))
        density = (-at - torch.logsumexp(fine.log_weights - energies, 0)).exp()
        return [float(f"{value:.4g}") for value in density.tolist()]

    def gaussian(self) -> Energy:
        """−log of the normal density with the training points' mean and covariance, but for a constant."""
        values = self.training.double()
        mean, precision = values.mean(0), torch.linalg.inv(torch.cov(values.T))
        return lambda x: ((x - mean) @ precision * (x - mean)).sum(1) / 2


class PlaneTask(EnergyTask[PlaneData]):
    """The target under a protocol, for every positivity."""

    experiment: ClassVar[str] = NAME
    words: ClassVar[str] = WORDS

    @property
    def title(self) -> str:
        return PLANE_TARGETS[self.target].title

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"quadrature": [900, 4096], "picture_side": PICTURE_SIDE}

    def data(self, seed: int) -> PlaneData:
        return self.placed(PlaneData.drawn(PLANE_TARGETS[self.target], seed, points=self.points))

    def trial(self, name: str, seed: int, data: PlaneData) -> Trial:
        return Trial(MODELS[name](seed, 2), data.training)

    def untrained(self, name: str, data: PlaneData) -> Outcome | None:
        if name != GAUSSIAN:
            return None
        return Outcome(data.divergences(data.gaussian()), {"density": data.picture(data.gaussian())})

    def look(self, model: Constrained, trial: Trial, data: PlaneData) -> tuple[float, float]:
        plain = model.bake(trial.reference).double()
        return data.divergences(plain)["total_variation"], _shoulder(plain)

    def measured(self, model: Constrained, trial: Trial, data: PlaneData) -> Outcome:
        plain = model.bake(trial.reference).double()
        figures = {**data.divergences(plain), "shoulder_share": _shoulder(plain)}
        return Outcome(figures, {"density": data.picture(plain)})


def _shoulder(plain: nn.Module) -> float:
    return shoulder_share([weight.detach() for weight in marked_parameters(plain).values()])


def methods() -> list[ExperimentMethod]:
    """Every method with what it is made of."""
    return [ExperimentMethod(name, {"positivity": name, **SETTINGS.get(name, {})}) for name in METHODS]


def cells(options: Options, seeds: Sequence[int], threads: int) -> list[ExperimentCell]:
    """Every protocol, method and seed; the Gaussian, which is not trained, under one protocol alone.

    Args:
        options: A quick run has 150 steps and four methods.
        seeds: Of data, start and batches.
        threads: Of every cell.
    """
    short = QUICK if options.quick else {}
    tasks = {protocol: PlaneTask("gamma", protocol, **short) for protocol in ("paper", "tuned", "tuning")}
    own = [method for method in methods() if not options.quick or method.name in _QUICK_METHODS]
    return cells_of(tasks, own, seeds, threads, untrained=(GAUSSIAN,))


EXPERIMENT = Experiment(NAME, "A Gamma density in the plane", WORDS, (0, 1, 2), cells, page)
