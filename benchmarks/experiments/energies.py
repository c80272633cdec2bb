"""Log-concave energies and the ways to keep their weights non-negative, the same in every experiment; data on the line.

The model is p(x) = exp(−E(x))/Z on the target's support, E an input-convex network with 0.02·‖x‖²/2 in it. It is
fitted by the forward Kullback–Leibler divergence: the mean of E over a batch plus log Z by quadrature.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.experiments.densities1d import GRID_POINTS, Array, Target, kullback_leibler, normalised, total_variation
from ot_lift import ICNN, Lift
from ot_lift.constrained import Constrained
from ot_lift.positivity import ADMM, PositivityLike, marked_parameters

TRAINING_POINTS, VALIDATION_POINTS = 200_000, 20_000
BATCH = 256
WIDTH, LAYERS, STRONG_CONVEXITY = 128, 3, 0.02
ENERGY: Mapping[str, Any] = {"sharpness": 1.0, "squared": False, "strong_convexity": STRONG_CONVEXITY}
LIFT: Mapping[str, Any] = {
    "emit": "all",
    "slack": -2.0,
    "readout": "sum",
    "readout_std": 0.1,
    "summary_features": (64, 64),
    "code_features": 96,
}
LIFT_SETTINGS: Mapping[str, Any] = {**LIFT, "summary_features": list(LIFT["summary_features"])}  # as JSON types
_RHO, _SCHEDULES = 10.0, ("fixed", "balanced", "doubling")
ADMMS: Mapping[str, Callable[[], ADMM]] = {
    f"ADMM {schedule}": functools.partial(ADMM, _RHO, schedule) for schedule in _SCHEDULES
}


def energy(seed: int, width: int = WIDTH, features: int = 1) -> ICNN:
    """A fresh network, `(n, features)` to `(n,)`.

    Example:
        >>> sum(parameter.numel() for parameter in energy(0).parameters())
        33667
    """
    return ICNN(features, (width,) * LAYERS, generator=torch.Generator().manual_seed(seed), **ENERGY)


def lifted(network: ICNN, seed: int, **options: Any) -> Lift:
    """The lift as the paper sets it up for energies; `options` in place of its own."""
    generator = torch.Generator().manual_seed(seed)
    return Lift(network, features=network.features, generator=generator, **{**LIFT, **options})


@functools.cache
def wide_width() -> int:
    """The width at which a network on the line has about as many trained parameters as the lift of the narrow one.

    Example:
        >>> width = wide_width()
        >>> wide = sum(parameter.numel() for parameter in energy(0, width).parameters())
        >>> trained = sum(one.numel() for one in lifted(energy(0), 0).parameters() if one.requires_grad)
        >>> abs(wide / trained - 1) < 1e-3
        True
    """
    lift = lifted(energy(0), 0)
    trained = sum(parameter.numel() for parameter in lift.parameters() if parameter.requires_grad)
    middle = 2 * LAYERS + 1  # input weights and biases of every layer, and the readout, are one column of numbers each
    squares = LAYERS - 1
    return round((-middle + math.sqrt(middle**2 + 4 * squares * trained)) / (2 * squares))


class Maker(Protocol):
    """Makes an energy with its positivity."""

    def __call__(self, seed: int, features: int = 1) -> Constrained:
        """Fresh, `(n, features)` to `(n,)`."""


def _kept(positivity: PositivityLike) -> Maker:
    return lambda seed, features=1: Constrained(energy(seed, features=features), positivity)


def _low_softplus(seed: int, features: int = 1) -> Constrained:
    """Softplus whose weights start where the lift's slack does."""
    model = Constrained(energy(seed, features=features), "softplus")
    with torch.no_grad():
        for raw in model.raw:
            raw.fill_(LIFT["slack"])
    return model


MODELS: Mapping[str, Maker] = {
    "lift": lambda seed, features=1: lifted(energy(seed, features=features), seed),
    "softplus": _kept("softplus"),
    "softplus from -2": _low_softplus,
    "projection": _kept("projection"),
    **{name: _kept(admm) for name, admm in ADMMS.items()},
    "wide softplus": lambda seed, features=1: Constrained(energy(seed, wide_width(), features), "softplus"),
}
SETTINGS: Mapping[str, Mapping[str, Any]] = {  # of methods, beside the name
    "lift": LIFT_SETTINGS,
    **{f"ADMM {schedule}": {"rho": _RHO, "schedule": schedule} for schedule in _SCHEDULES},
}


@dataclass(frozen=True)
class Trial:
    """A model before training.

    Attributes:
        model: with its positivity.
        reference: what a lift emits from when it is evaluated, `(n, features)`.
        condition: what a lift emits from in a step, given the batch of that step.
        gain: what softplus, or a projected number, is multiplied by; a weight of the shoulder is as many times smaller.
    """

    model: Constrained
    reference: Tensor
    condition: Callable[[Tensor], Tensor] = lambda batch: batch
    gain: float = 1.0


@dataclass(frozen=True)
class EnergyData:
    """Points of one target and seed, float32, with a quadrature on its support, in the coordinates of the network.

    Attributes:
        training: `(200,000, features)`.
        validation: `(20,000, features)`.
        nodes: of the quadrature, `(m, features)`.
        log_weights: `(m,)`, of the target's own coordinates: losses are in nats of those.
        location: where the target's coordinates have the network's zero, `(features,)`, float64.
        scale: their length of one of the network's units, likewise.
    """

    training: Tensor
    validation: Tensor
    nodes: Tensor
    log_weights: Tensor
    location: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64), kw_only=True)
    scale: Tensor = field(default_factory=lambda: torch.ones(1, dtype=torch.float64), kw_only=True)

    def standardised(self) -> Self:
        """The same for a network whose coordinates have the training points' mean at zero and unit variances.

        Example:
            >>> points = torch.tensor([[1.0], [2.0], [3.0]])
            >>> data = EnergyData(points, points, points, torch.zeros(3)).standardised()
            >>> data.training.flatten().tolist(), data.coordinates(torch.tensor([[4.0]])).item()
            ([-1.0, 0.0, 1.0], 2.0)
        """
        values = self.training.double()
        moved = replace(self, location=values.mean(0), scale=values.std(0))
        parts = {name: moved.coordinates(getattr(self, name)) for name in ("training", "validation", "nodes")}
        return replace(moved, **parts)

    def coordinates(self, x: Tensor) -> Tensor:
        """Points of the target `(n, features)` in the network's coordinates."""
        return ((x.double() - self.location) / self.scale).to(x)

    def batches(self, seed: int, size: int = BATCH) -> Callable[[], Tensor]:
        """Draws `(size, features)` of the training points, with replacement."""
        generator = torch.Generator().manual_seed(seed)
        return lambda: self.training[torch.randint(len(self.training), (size,), generator=generator)]

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean of E over the batch plus log Z, in nats."""
        energies: Tensor = model(torch.cat([batch, self.nodes]))
        return energies[: len(batch)].mean() + torch.logsumexp(self.log_weights - energies[len(batch) :], 0)

    def exact(self) -> Self:
        """The same with the quadrature that figures are from, float64."""
        return replace(self, nodes=self.nodes.double(), log_weights=self.log_weights.double())

    @torch.no_grad()
    def held_out(self, model: Constrained, reference: Tensor) -> float:
        """The same over the validation points; a lift's weights are emitted once, from `reference`."""
        plain = model.bake(reference).double()
        return float(self.exact().loss(plain, self.validation.double()))


@dataclass(frozen=True)
class Data(EnergyData):
    """Points on the line, `(n, 1)`, with 256 nodes.

    Attributes:
        target: where they are from.
    """

    target: Target

    @classmethod
    def drawn(
        cls, target: Target, seed: int, *, points: int = TRAINING_POINTS, validation: int = VALIDATION_POINTS
    ) -> Data:
        """Independent points; equal seeds give equal points."""
        rng = np.random.default_rng(seed)
        training, held_out = (_column(target.sample(count, rng)) for count in (points, validation))
        nodes, log_weights = target.quadrature()
        return cls(training, held_out, _column(nodes), torch.from_numpy(log_weights).float(), target)

    @torch.no_grad()
    def density(self, model: Constrained, reference: Tensor) -> tuple[Array, Array, list[Tensor]]:
        """Grid and density on it, `(8,000,)` each, float64, and the constrained weights; emitted as above."""
        plain = model.bake(reference).double()
        grid = self.target.grid()
        energies: Array = plain(self.coordinates(torch.from_numpy(grid)[:, None])).numpy()
        return grid, normalised(-energies, grid), [weight.detach() for weight in marked_parameters(plain).values()]


def gaussian_density(data: Data) -> tuple[Array, Array]:
    """Grid and the density of the Gaussian with the training points' mean and variance, on the interval."""
    grid = data.target.grid(GRID_POINTS)
    values, at = data.training.double(), data.coordinates(torch.from_numpy(grid)[:, None])[:, 0].numpy()
    return grid, normalised(-((at - float(values.mean())) ** 2) / (2 * float(values.var())), grid)


def divergences(density: Array, grid: Array, target: Target) -> dict[str, float]:
    """Figures of a density on the grid."""
    return {
        "total_variation": total_variation(density, target, grid),
        "kullback_leibler": kullback_leibler(density, target, grid),
    }


def _column(values: Array) -> Tensor:
    return torch.from_numpy(values).float()[:, None]
