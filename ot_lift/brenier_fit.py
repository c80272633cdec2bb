"""How a Brenier map's potential is trained: options, the regression to a plan, the semi-dual, and what is certified."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ot_lift.certificate import Certificate, certify
from ot_lift.constrained import Constrained
from ot_lift.errors import DataError
from ot_lift.estimators import (
    check_keeps_convex,
    check_training,
    potential_in_data_units,
    significantly_better,
    training_options,
)
from ot_lift.hessians import block_rows
from ot_lift.lift import constrain
from ot_lift.maps import StandardisedPotential
from ot_lift.objectives import PlanRegression, SemiDual
from ot_lift.positivity import PositivityLike
from ot_lift.potentials import ICNN, Potential, Quadratic
from ot_lift.sides import Side
from ot_lift.standardizer import Standardizer
from ot_lift.starts import align_with_identity_, coordinates, plan_images
from ot_lift.training import Trained, TrainingOptions, train

_ALIGNMENT_ROWS = 2048
_PLAN_STEPS = 500
# In standardised units the semi-dual is about d/2 times the map's relative error above its minimum. Slower progress
# than this a coordinate (0.004% of L2-UVP) between evaluations counts as none.
_PROGRESS = 2e-5


@dataclass(frozen=True)
class FitOptions:
    """Options of the fit, checked; they mean what they mean in :class:`~ot_lift.brenier.BrenierMap`.

    Raises:
        ValueError: for an option out of range.
    """

    hidden_features: Sequence[int]
    positivity: PositivityLike
    activation: str
    sharpness: float
    strong_convexity: float
    network: Potential | None
    start: str
    max_steps: int
    max_seconds: float | None
    batch_size: int
    learning_rate: float
    patience: int | None
    progress: bool
    callbacks: Sequence[Callable[[dict[str, float], StandardisedPotential], bool | None]] | None

    def __post_init__(self) -> None:
        if self.start not in ("gaussian", "identity", "plan"):
            raise ValueError(f"expected start 'gaussian', 'identity' or 'plan', got {self.start!r}")
        check_training(vars(self))
        check_keeps_convex(self.positivity, otherwise="the semi-dual has no conjugate")


class MapTraining:
    """The training of one map, in the standardised coordinates of its two sides.

    Args:
        options: how.
        source: side of the points that are moved.
        target: side of where they go, of as many features.
        device: where to train.
        dtype: of training.

    Attributes:
        units: the coordinates, in which the start is the identity.
    """

    def __init__(
        self, options: FitOptions, source: Side, target: Side, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.options, self.source, self.target = options, source, target
        self.device, self.dtype = device, dtype
        self.units: Standardizer = coordinates(source, target, start=options.start)

    def to_source(self, x: Tensor) -> Tensor:
        """Source points ``(n, d)`` in data units as they are trained on."""
        return self.units.source(x.cpu()).to(self.device, self.dtype)

    def to_target(self, y: Tensor) -> Tensor:
        """Target points ``(m, d)``, likewise."""
        return self.units.target(y.cpu()).to(self.device, self.dtype)

    def objective(self, left: torch.Generator, right: torch.Generator) -> SemiDual:
        """The semi-dual between batches that the two generators draw, held out on the points kept for stopping."""
        source, target, size = self.source, self.target, self.options.batch_size
        return SemiDual(
            source.batches(self.to_source, batch_size=size, generator=left),
            target.batches(self.to_target, batch_size=size, generator=right),
            self.to_source(source.stop),
            self.to_target(target.stop),
            *(None if w is None else w.to(self.device) for w in (source.stop_weight, target.stop_weight)),
        )

    def run(self, objective: SemiDual, init: torch.Generator, *, resume: Path | None, fingerprint: str) -> Trained:
        """Train a network, from the start that the options name.

        Args:
            objective: that of :meth:`objective`.
            init: source of the initial weights, and of subsamples for the start.
            resume: folder for checkpoints.
            fingerprint: what a checkpoint must belong to.

        Returns:
            The network with fixed weights, in standardised coordinates.
        """
        options, sample = self.options, self.source.sample(_ALIGNMENT_ROWS, init)
        model, stop_reason = self._make_model(self.to_source(sample), init), ""
        if options.start == "plan":
            points = self.to_target(self.target.sample(_ALIGNMENT_ROWS, init))
            x, image = plan_images(self.to_source(sample).cpu(), points.cpu(), init)
            model, stop_reason = self._fit_plan(model, x.to(self.device), image.to(self.device), init)
        if stop_reason == "interrupted":
            return Trained(model.bake(self.to_source(sample)), [], stop_reason, math.nan)
        return train(
            model,
            objective,
            training_options(vars(options), tolerance=_PROGRESS * self.source.rows.features),
            callbacks=[potential_in_data_units(callback, self.units) for callback in options.callbacks or ()],
            progress=options.progress,
            resume=resume,
            fingerprint=fingerprint,
        )

    def _make_model(self, x: Tensor, generator: torch.Generator) -> Constrained:
        options, network, d = self.options, self.options.network, x.shape[1]
        if network is None:
            network = ICNN(
                d,
                tuple(options.hidden_features),
                activation=options.activation,
                sharpness=options.sharpness,
                strong_convexity=options.strong_convexity,
                generator=generator,
                dtype=self.dtype,
            )
            align_with_identity_(network, x.cpu())
        _check_network(network, d)
        model = constrain(network, options.positivity, features=d, generator=generator)
        return model.to(device=self.device, dtype=self.dtype)

    def _fit_plan(
        self, model: Constrained, x: Tensor, image: Tensor, generator: torch.Generator
    ) -> tuple[Constrained, str]:
        """Regress to a discrete plan; the result starts the semi-dual under the same positivity. Also why it ended."""
        options = self.options
        regression = PlanRegression(x, image, batch_size=options.batch_size, generator=generator)
        seconds = None if options.max_seconds is None else 0.25 * options.max_seconds
        budget = TrainingOptions(
            max_steps=_PLAN_STEPS, max_seconds=seconds, learning_rate=options.learning_rate, patience=None
        )
        trained = train(model, regression, budget)
        start = constrain(trained.module, options.positivity, features=x.shape[1], generator=generator)
        return start.to(x.device), trained.stop_reason

    def choose(self, trained: Trained, objective: SemiDual) -> tuple[Potential, bool]:
        """The trained network, or the start if that is not significantly worse; and whether it is the network."""
        network = trained.module
        assert isinstance(network, Potential)  # for the type checker: a constrained potential bakes to one
        points = objective.held_out_x
        start = Quadratic(network.features, strong_convexity=self.options.strong_convexity, dtype=points.dtype)
        gain, error = objective.improvement(network, start.to(points.device))
        count = min(len(objective.held_out_x), len(objective.held_out_y))
        used = significantly_better(gain, error, points=count)
        return (network if used else start).cpu(), used


def _check_network(network: object, features: int) -> None:
    if not isinstance(network, Potential):
        raise ValueError(
            f"expected network to be a Potential, got {type(network).__name__}; wrap it as "
            f"AutogradPotential(network, {features}, strong_convexity=0.01)"
        )
    if not network.strong_convexity > 0:
        raise ValueError(
            f"expected a network of strong_convexity > 0, got {network.strong_convexity}: without it the map has "
            "no inverse; pass strong_convexity=0.01 to it"
        )
    if network.features != features:
        raise DataError(f"expected a network of {features} features, as X has, got one of {network.features}")


def certificate_of(potential: StandardisedPotential, x: Tensor, y: Tensor, generator: torch.Generator) -> Certificate:
    """The certificate of the map ∇φ, from points it has not seen.

    Args:
        potential: φ in data units.
        x: source points ``(n, d)``, float64.
        y: target points ``(m, d)``, float64.
        generator: see :func:`~ot_lift.certificate.certify`.
    """
    with torch.no_grad():
        value, image = potential.value_gradient(x)
        hessian = potential.hessian(x[: block_rows(x)])
        solved = potential.conjugate(y, throw=False)
        value_hat, image_hat = potential.value_gradient(solved.argmax)
    # W2² does not change when both sides shift together: without a common far offset fewer digits cancel.
    origin = potential.coordinates.shift_x
    return certify(
        x=(x - origin).numpy(),
        y=(y - origin).numpy(),
        phi_x=(value - x @ origin + 0.5 * origin @ origin).numpy(),
        transported=(image - origin).numpy(),
        x_hat=(solved.argmax - origin).numpy(),
        phi_x_hat=(value_hat - solved.argmax @ origin + 0.5 * origin @ origin).numpy(),
        residual=(image_hat - y).numpy(),
        strong_convexity=potential.strong_convexity,
        smallest_eigenvalue=float(torch.linalg.eigvalsh(hessian).min()),
        converged=bool(solved.converged.all()),
        generator=generator,
    )
