"""Convex-potential flows and the ways to keep their weights non-negative, the same in every experiment that fits them.

The gradient of an input-convex network takes points to N(0, I); the density is exact by the change of variables, and
the loss is the negative log-likelihood.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from benchmarks.experiments.cells import ExperimentMethod, Outcome
from benchmarks.experiments.energies import Trial
from benchmarks.experiments.protocols import FitTask
from benchmarks.experiments.training import HalvedRecipe, Recipe, shoulder_share
from ot_lift import ICNN, Lift
from ot_lift.constrained import BoundPotential, Constrained
from ot_lift.errors import ConvergenceError
from ot_lift.flows_whitening import Whitening
from ot_lift.likelihood import log_density
from ot_lift.logdet import value_gradient_log_det
from ot_lift.positivity import Positivity, Projection, Softplus, marked_parameters
from ot_lift.starts import align_with_identity_

POINTS, FRESH_POINTS = 50_000, 10_000
BATCH = 128
NETWORK: Mapping[str, Any] = {"sharpness": 8.0, "squared": True, "strong_convexity": 1e-3}
FLOW_LIFT: Mapping[str, Any] = {"summary_features": (64, 64), "code_features": 96, "readout_std": 1.0}
FLOW_LIFT_SETTINGS: Mapping[str, Any] = {**FLOW_LIFT, "summary_features": [64, 64]}  # as JSON types
WIDE, GAUSSIAN = "wide softplus", "Gaussian"
WORDS = (
    "All start at the same weights, and the lift's slack at those too. Three multiply softplus, or the projected "
    "number, by one over the width of a layer: in such units weights start at "
    "about one, off the shoulder. Unscaled softplus does not, and starts with nearly all of them on it. The lift emits "
    "the constrained weights alone. Data are whitened by the mean and covariance of the training points; Gaussian is "
    "the normal density with these. ADMM is left out: its iterates may be negative, and then there is no likelihood. "
    "Wide softplus has as many trained parameters as the lift; where a step of it takes too long it is left out."
)
_LOOK_POINTS = 2_000  # for the curves


class Law(Protocol):
    """A density that is known."""

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Points `(count, features)`, float64."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density `(n,)` at `(n, features)`, nats."""


class Scaled(Positivity):
    """Another positivity's weight times a number, which the step size then does not see.

    Args:
        inner: The other.
        scale: The number.

    Example:
        >>> half = Scaled(Softplus(), 0.5)
        >>> round(half.weight(half.right_inverse(torch.tensor([3.0]))).item(), 6)
        3.0
    """

    def __init__(self, inner: Positivity, scale: float) -> None:
        super().__init__()
        self.inner, self.scale = inner, scale
        self.keeps_convex, self.emittable = inner.keeps_convex, inner.emittable

    def attach(self, raw: Tensor) -> None:
        self.inner.attach(raw)

    def weight(self, raw: Tensor) -> Tensor:
        return self.scale * self.inner.weight(raw)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return self.inner.right_inverse(weight / self.scale)

    def final(self, raw: Tensor) -> Tensor:
        return self.scale * self.inner.final(raw)

    def penalty(self, raw: Tensor) -> Tensor:
        return self.inner.penalty(raw)

    def after_step(self, raw: Tensor) -> None:
        self.inner.after_step(raw)


def _lift(network: ICNN, seed: int, gain: float) -> Constrained:
    generator = torch.Generator().manual_seed(seed)
    psi = Scaled(Softplus(), gain)
    return Lift(network, features=network.features, positivity=psi, generator=generator, **FLOW_LIFT)


def _softplus(network: ICNN, seed: int, gain: float) -> Constrained:
    return Constrained(network, lambda: Scaled(Softplus(), gain))


MODELS: Mapping[str, Callable[[ICNN, int, float], Constrained]] = {
    "lift": _lift,
    "softplus": _softplus,
    "projection": lambda network, seed, gain: Constrained(network, lambda: Scaled(Projection(), gain)),
    "unscaled softplus": lambda network, seed, gain: Constrained(network, "softplus"),
    WIDE: _softplus,
}


@functools.cache
def wide_width(features: int, hidden: tuple[int, ...]) -> int:
    """The width at which a network of as many layers has about as many trained parameters as the lift of this one.

    Args:
        features: Of the points.
        hidden: Equal widths of at least two layers.

    Example:
        >>> width = wide_width(2, (64, 64))
        >>> wide = sum(parameter.numel() for parameter in ICNN(2, (width, width), **NETWORK).parameters())
        >>> lift = _lift(ICNN(2, (64, 64), **NETWORK), 0, 1.0)
        >>> trained = sum(parameter.numel() for parameter in lift.parameters() if parameter.requires_grad)
        >>> abs(wide / trained - 1) < 2e-3
        True
    """
    lift = _lift(ICNN(features, hidden, **NETWORK), 0, 1.0)
    trained = sum(parameter.numel() for parameter in lift.parameters() if parameter.requires_grad)
    quadratic = features**2 + features + 1
    # Input weights, squares and a bias of every layer, and the readout, are columns of numbers as long as a layer.
    column, squares = len(hidden) * (2 * features + 1) + 1, len(hidden) - 1
    return round((-column + math.sqrt(column**2 + 4 * squares * (trained - quadratic))) / (2 * squares))


def network_for(x: Tensor, hidden: Sequence[int], seed: int) -> ICNN:
    """A fresh network whose gradient is the identity on average over points.

    Args:
        x: Whitened, `(n, features)`, float32.
        hidden: Widths of its layers.
        seed: Of its weights.
    """
    generator = torch.Generator().manual_seed(seed)
    network = ICNN(x.shape[1], hidden, generator=generator, **NETWORK)
    align_with_identity_(network, x)
    return network


def negative_log_likelihood(model: nn.Module, x: Tensor) -> Tensor:
    """Mean over points `(n, features)`, nats.

    Args:
        model: A potential whose gradient takes points to N(0, I).
        x: The points.

    Raises:
        FloatingPointError: The potential is not strictly convex at a point, to rounding.

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> bound = BoundPotential(Quadratic(2), {})
        >>> round(negative_log_likelihood(bound, torch.zeros(3, 2)).item(), 4)  # log 2π
        1.8379
    """
    return -log_density_of(model, x).mean()


def log_density_of(model: nn.Module, x: Tensor) -> Tensor:
    """Log-density `(n,)` at points `(n, features)`; arguments and errors are those of `negative_log_likelihood`.

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> round(log_density_of(BoundPotential(Quadratic(2), {}), torch.zeros(1, 2)).item(), 4)  # −log 2π
        -1.8379
    """
    assert isinstance(model, BoundPotential | ICNN)  # for the type checker: networks here are potentials
    try:
        _, latent, log_det = value_gradient_log_det(model, x)
    except ConvergenceError as error:
        raise FloatingPointError(str(error)) from error
    return log_density(latent, log_det)


@dataclass(frozen=True)
class FlowData:
    """Points of one law and seed in whitened coordinates.

    Attributes:
        law: where they are from.
        training: `(50,000, features)`, float32.
        fresh: `(10,000, features)`, float64; no batch has them.
        truth: log-density of the law at the fresh points, in these coordinates, `(10,000,)`.
        units: the coordinates.
    """

    law: Law
    training: Tensor
    fresh: Tensor
    truth: Tensor
    units: Whitening

    @classmethod
    def drawn(cls, law: Law, seed: int, *, points: int = POINTS, fresh: int = FRESH_POINTS) -> FlowData:
        """Independent points; equal seeds give equal points."""
        generator = torch.Generator().manual_seed(seed)
        x, y = (law.sample(count, generator) for count in (points, fresh))
        units = Whitening.of_moments(x.mean(0), torch.cov(x.T).reshape(x.shape[1], x.shape[1]))
        source = units.coordinates.source
        return cls(law, source(x, dtype=torch.float32), source(y), law.log_prob(y) - units.log_volume, units)

    def batches(self, seed: int, size: int = BATCH) -> Callable[[], Tensor]:
        """Draws `(size, features)` of the training points, with replacement."""
        generator = torch.Generator().manual_seed(seed)
        return lambda: self.training[torch.randint(len(self.training), (size,), generator=generator)]

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Negative log-likelihood in whitened coordinates, nats."""
        return negative_log_likelihood(model, batch)

    @torch.no_grad()
    def held_out(self, model: Constrained, reference: Tensor) -> float:
        """The same at the fresh points; a lift's weights are emitted once, from `reference`."""
        return float(-log_density_of(model.bake(reference).double(), self.fresh).mean())

    def above_truth(self, log_prob: Tensor) -> dict[str, float]:
        """Figures of a log-density `(n,)` at the first n fresh points, in whitened coordinates."""
        loss = self.truth[: len(log_prob)] - log_prob
        return {
            "excess_nll": float(loss.mean()),
            "standard_error": float(loss.std()) / math.sqrt(len(loss)),
            "nll": -float(log_prob.mean()) - self.units.log_volume,
        }

    def gaussian(self) -> dict[str, float]:
        """Figures of the normal density with the training points' mean and covariance."""
        return self.above_truth(log_density(self.fresh, torch.zeros(len(self.fresh)).double()))


@dataclass(frozen=True)
class FlowTask(FitTask[FlowData]):
    """A law under a protocol, for every positivity."""

    points: int = POINTS

    hidden: ClassVar[tuple[int, ...]]
    paper: ClassVar[Recipe] = HalvedRecipe(learning_rate=5e-3)

    @abstractmethod
    def law(self) -> Law:
        """The target."""

    def settings(self) -> dict[str, Any]:
        flow = {"hidden_features": list(self.hidden), **NETWORK}
        return super().settings() | {"batch": BATCH, "fresh_points": FRESH_POINTS, "flow": flow}

    def data(self, seed: int) -> FlowData:
        return FlowData.drawn(self.law(), seed, points=self.points)

    def trial(self, name: str, seed: int, data: FlowData) -> Trial:
        hidden, x = self.hidden, data.training[:_LOOK_POINTS]
        if name == WIDE:
            hidden = (wide_width(x.shape[1], hidden),) * len(hidden)
        network, gain = network_for(x, hidden, seed), 1.0 if name.startswith("unscaled") else 1 / hidden[-1]
        return Trial(MODELS[name](network, seed, gain), data.training, gain=gain)

    def untrained(self, name: str, data: FlowData) -> Outcome | None:
        return Outcome(data.gaussian()) if name == GAUSSIAN else None

    @torch.no_grad()
    def look(self, model: Constrained, trial: Trial, data: FlowData) -> tuple[float, float]:
        plain = model.bake(trial.reference).double()
        return data.above_truth(log_density_of(plain, data.fresh[:_LOOK_POINTS]))["excess_nll"], _shoulder(plain, trial)

    @torch.no_grad()
    def measured(self, model: Constrained, trial: Trial, data: FlowData) -> Outcome:
        plain = model.bake(trial.reference).double()
        figures = {**data.above_truth(log_density_of(plain, data.fresh)), "shoulder_share": _shoulder(plain, trial)}
        return Outcome(figures)


def _shoulder(plain: nn.Module, trial: Trial) -> float:
    return shoulder_share([weight.detach() / trial.gain for weight in marked_parameters(plain).values()])


def methods() -> list[ExperimentMethod]:
    """Every method with what it is made of; where one is left out is the experiment's to say."""
    own = {"lift": FLOW_LIFT_SETTINGS}
    return [ExperimentMethod(name, {"positivity": name, **own.get(name, {})}) for name in (*MODELS, GAUSSIAN)]
