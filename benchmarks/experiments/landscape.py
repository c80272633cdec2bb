"""The loss on the plane of a trajectory: in the space of weights and in the space that the lift trains in.

In full: three losses, five planes, three seeds; about 15 minutes of CPU time. There is one protocol, the paper's: the
planes are those of its fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.experiments import Experiment
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod, ExperimentTask, Outcome, Record
from benchmarks.experiments.densities1d import TARGETS
from benchmarks.experiments.energies import BATCH, ENERGY, LAYERS, LIFT, MODELS, WIDTH, Data, Trial
from benchmarks.experiments.landscape_page import page
from benchmarks.experiments.likelihoods import FlowLikelihood, Points, constrained_by
from benchmarks.experiments.planes import Plane, basin_share, loss_of, not_convex_share, sides, surface
from benchmarks.experiments.training import Loss, Recipe, fit
from benchmarks.planar import PLANAR
from benchmarks.tasks import Options
from ot_lift import ICNN
from ot_lift.constrained import Constrained
from ot_lift.densities_objective import make_convex_

NAME = "landscape"
WORDS = (
    "A fit is watched, and a plane is laid through its end along the two principal directions of its path; the loss on "
    "that plane, with one batch held fixed, is drawn. Losses: the energy of gallery1d on Gumbel; an energy on the "
    "product of two Gamma(2, 1); a convex potential flow on one moon. Planes: softplus and projection in what they "
    "train, negative weights of projection raised to 0; lift in what it trains, its summary, readout and slack, which "
    "is the lifted space; lift's weights, the same path in the raw weights that the lift emits, which is the "
    "constrained space; ends, the slice of the space of weights through the ends of projection, which is its origin, "
    "softplus and lift, negative weights raised to 0. The paper's recipes, 1,000 steps."
)
METHODS = ("softplus", "projection", "lift", "lift's weights", "ends")
_ENDS = ("lift", "softplus", "projection")  # the last one is the origin
_LOOKS = 15
_JUDGED = 1_024  # points of the batch that surfaces are drawn with
_PANELS, _NODES = 6, 6  # of the quadrature on each axis of the two gammas


@dataclass(frozen=True)
class Setting:
    """What is fitted.

    Attributes:
        trial: a fresh network with a positivity, by name.
        loss: of a network and a batch.
        next_batch: of training.
        judged: the batch that surfaces are drawn with, `(n, features)`.
        learning_rate: of the paper.
    """

    trial: Callable[[str], Trial]
    loss: Loss
    next_batch: Callable[[], Tensor]
    judged: Tensor
    learning_rate: float = Recipe.learning_rate


def gumbel(seed: int) -> Setting:
    """An energy on the line, as in gallery1d."""
    data = Data.drawn(TARGETS["gumbel"], seed, points=20_000, validation=_JUDGED)
    return Setting(
        lambda name: Trial(MODELS[name](seed), data.training), data.loss, data.batches(seed), data.validation
    )


def gammas(seed: int) -> Setting:
    """An energy in the plane, log Z by a product of two quadratures."""
    target, rng = TARGETS["gamma"], np.random.default_rng(seed)
    points = torch.from_numpy(np.stack([target.sample(20_000 + _JUDGED, rng) for _ in "xy"], 1)).float()
    places, weights = (torch.from_numpy(one).float() for one in target.quadrature(_PANELS, _NODES))
    nodes = torch.cartesian_prod(places, places)
    log_weights = (weights[:, None] + weights).flatten()
    training, judged = points[:-_JUDGED], points[-_JUDGED:]
    generator = torch.Generator().manual_seed(seed)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        energies: Tensor = model(torch.cat([batch, nodes]))
        return energies[: len(batch)].mean() + torch.logsumexp(log_weights - energies[len(batch) :], 0)

    def trial(name: str) -> Trial:
        own = torch.Generator().manual_seed(seed)
        network = ICNN(2, (WIDTH,) * LAYERS, generator=own, **ENERGY)
        return Trial(constrained_by(name, network, own, LIFT), training)

    def next_batch() -> Tensor:
        return training[torch.randint(len(training), (BATCH,), generator=generator)]

    return Setting(trial, loss, next_batch, judged)


def moon(seed: int) -> Setting:
    """A convex potential flow in the plane."""
    generator = torch.Generator().manual_seed(seed)
    splits = (PLANAR["one_moon"].sample(rows, generator).numpy() for rows in (20_000, _JUDGED, _JUDGED))
    likelihood = FlowLikelihood(Points.of(*splits))
    points = likelihood.points
    return Setting(
        lambda name: likelihood.trial(name, seed), likelihood.loss, points.batches(seed), points.validation, 5e-3
    )


PLACES: Mapping[str, Callable[[int], Setting]] = {"gumbel": gumbel, "gammas": gammas, "moon": moon}


@dataclass(frozen=True)
class LandscapeTask(ExperimentTask):
    """A loss.

    Attributes:
        place: a name in `PLACES`.
        iterations: of a fit.
        grid: points of a side of a surface.
        quick: whether this is a short version, for a first look.
    """

    place: str
    iterations: int = 1_000
    grid: int = 25
    quick: bool = False

    @property
    def name(self) -> str:
        return f"{NAME}-{self.place}"

    def settings(self) -> dict[str, Any]:
        return {
            "experiment": NAME,
            "title": self.place,
            "words": WORDS,
            "quick": self.quick,
            "place": self.place,
            "iterations": self.iterations,
            "grid": self.grid,
            "looks": _LOOKS,
        }

    def run(self, method: ExperimentMethod, seed: int, needed: Record | None) -> Outcome:
        if method.name == "ends":
            return self._between_ends(seed)
        setting = PLACES[self.place](seed)
        constrained_space = method.name == "lift's weights"
        name = "lift" if constrained_space else method.name

        def seen(model: Constrained) -> Constrained:
            return Constrained(model.bake(setting.judged), "softplus") if constrained_space else model

        path: list[Tensor] = []
        trained = self._fitted(setting, name, lambda model: path.append(_vector(seen(model))))
        model = seen(trained)

        def evaluate() -> Tensor:
            model.after_step()
            return setting.loss(model.bind(model.weights(setting.judged)), setting.judged)

        return self._drawn(loss_of(model, evaluate, _trained(model)), Plane.through(path), path)

    def _fitted(self, setting: Setting, name: str, look: Callable[[Constrained], None]) -> Constrained:
        recipe = Recipe(iterations=self.iterations, learning_rate=setting.learning_rate)
        looks = min(_LOOKS, self.iterations)
        return fit(
            setting.trial(name).model,
            *(setting.loss, setting.next_batch, recipe),
            watch=lambda step, loss, model: look(model),
            looks=looks,
        )[0]

    def _between_ends(self, seed: int) -> Outcome:
        """Every end in the weights that it has; the space is that of the network's own parameters."""
        ends: list[nn.Module] = []
        for name in _ENDS:
            setting = PLACES[self.place](seed)
            ends.append(self._fitted(setting, name, lambda model: None).bake(setting.judged))
        plain = ends[-1]
        points = [nn.utils.parameters_to_vector(end.parameters()).detach().clone() for end in ends]

        def evaluate() -> Tensor:
            make_convex_(plain)
            return setting.loss(plain, setting.judged)

        value = loss_of(plain, evaluate, list(plain.parameters()))
        return self._drawn(value, Plane.through(points), points)

    def _drawn(self, value: Callable[[Tensor], float], plane: Plane, path: Sequence[Tensor]) -> Outcome:
        places = [plane.coordinates(point) for point in path]
        first, second = sides(places, self.grid)
        losses = surface(value, plane, first, second)
        figures = {
            "end_loss": value(path[-1]),
            "plane_share": plane.share,
            "not_convex_share": not_convex_share(losses),
            "basin_share": basin_share(losses),
        }
        details = {
            "surface": [[float(f"{one:.6g}") if np.isfinite(one) else None for one in row] for row in losses],
            "first": _short(first),
            "second": _short(second),
            "path": [_short(place) for place in places],
        }
        return Outcome(figures, details)


def _short(values: Sequence[float] | np.ndarray[Any, Any]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _trained(model: Constrained) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _vector(model: Constrained) -> Tensor:
    return nn.utils.parameters_to_vector(_trained(model)).detach().clone()


def cells(options: Options, seeds: Sequence[int], threads: int) -> list[ExperimentCell]:
    """Every loss, plane and seed.

    Args:
        options: A quick run has 60 steps, small grids and no gammas.
        seeds: Of points, starts and batches.
        threads: Of every cell.
    """
    short: dict[str, Any] = {"iterations": 60, "grid": 11, "quick": True} if options.quick else {}
    return [
        ExperimentCell(LandscapeTask(place, **short), ExperimentMethod(name, {"plane": name}), seed, threads)
        for place in PLACES
        if not (options.quick and place == "gammas")
        for name in METHODS
        for seed in seeds
    ]


EXPERIMENT = Experiment(NAME, "Loss surfaces", WORDS, (0, 1, 2), cells, page)
