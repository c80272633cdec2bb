"""How a posterior map's potential is trained: options, the Gaussian start, and the choice between the two."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ot_lift.estimators import (
    check_keeps_convex,
    check_training,
    significantly_better,
    training_device,
    training_dtype,
    training_options,
)
from ot_lift.lift import constrain
from ot_lift.positivity import PositivityLike
from ot_lift.posterior_latent import Direction
from ot_lift.posterior_mode import Laplace
from ot_lift.posterior_objective import DrawLikelihood, ReverseKL
from ot_lift.posterior_potential import CubicICNN
from ot_lift.posterior_target import Target
from ot_lift.potentials import ICNN, Potential, Quadratic
from ot_lift.starts import align_with_identity_
from ot_lift.training import Callback, TrainingOptions, train

_SHARPNESS = 1.0  # of the activation: in its coordinates a posterior bends over distances of about one
_HELD_OUT = 2048
# Of the steps so far: at the start every step is noise about the best Gaussian, which a shorter average would keep.
_AVERAGING = 0.2
# Log weights that spread by less leave about 0.0002 nats of KL: nothing more is to be won.
_SOLVED = 0.02
_RESOLUTION = 0.25  # of the standard error of the start's held-out value: about that of the fitted one's
# Nats between evaluations that count as progress towards a density: the importance ESS goes with exp(−2 KL), so that
# less adds not one effective draw in ten, which more draws give at once.
_WORTH = 0.05


@dataclass(frozen=True)
class FitOptions:
    """Options of the fit, checked; they mean what they mean in :class:`~ot_lift.posterior.PosteriorMap`.

    Raises:
        ValueError: for an option out of range.
    """

    direction: Direction
    hidden_features: Sequence[int]
    positivity: PositivityLike
    strong_convexity: float
    max_steps: int
    max_seconds: float | None
    batch_size: int
    learning_rate: float
    patience: int | None
    progress: bool
    device: str | torch.device | None
    dtype: str

    def __post_init__(self) -> None:
        if self.direction not in ("forward", "inverse"):
            raise ValueError(f"expected direction 'forward' or 'inverse', got {self.direction!r}")
        training_dtype(self.dtype)
        check_training(vars(self))
        check_keeps_convex(self.positivity, otherwise="the log-determinant may not exist")

    @property
    def tensors(self) -> dict[str, Any]:
        """Where and in which dtype to train."""
        return {"device": training_device(self.device, None), "dtype": training_dtype(self.dtype)}


@dataclass(frozen=True)
class Fitted:
    """A trained potential in float64 on the CPU, and how it came about.

    Attributes:
        potential: the network, or the start.
        history: one record per held-out evaluation.
        stop_reason: of the loop; ``"laplace"`` if there was nothing to train, ``"solved"`` if nothing was left.
        used_network: False if the start was kept.
    """

    potential: Potential
    history: list[dict[str, float]]
    stop_reason: str
    used_network: bool


def fit_to_target(
    target: Target,
    units: Laplace,
    options: FitOptions,
    *,
    init: torch.Generator,
    latents: torch.Generator,
    resume: Path | None = None,
) -> Fitted:
    """Minimise the reverse KL divergence to a target, from the Gaussian of its coordinates.

    Args:
        target: the log density.
        units: its coordinates.
        options: how.
        init: source of the held-out latents and the initial weights.
        latents: source of the training latents.
        resume: folder for checkpoints.
    """
    half = torch.randn(_HELD_OUT // 2, target.dim, generator=init, dtype=torch.float64)
    held_out = torch.cat([half, -half]).to(**options.tensors)
    objective = ReverseKL(
        target,
        units,
        direction=options.direction,
        batch_size=options.batch_size,
        held_out=held_out,
        generator=latents,
    )
    start = _start(target.dim, options)
    with torch.no_grad():
        before = objective.log_weights(start, held_out)
    if float(before.std()) < _SOLVED:
        return Fitted(start.cpu().double(), [], "laplace", False)
    fingerprint = _fingerprint(options, units.mode, before)
    training = training_options(vars(options), tolerance=max(_WORTH, _resolution(before)))
    network, history, reason = _train(
        objective,
        held_out,
        options,
        replace(training, averaging=_AVERAGING),
        init,
        resume=resume,
        fingerprint=fingerprint,
        callbacks=[_solved],
    )
    with torch.no_grad():
        after = objective.log_weights(network, held_out)
    return _choose(network, start, before, after, history, reason)


def fit_to_draws(u: Tensor, options: FitOptions, *, init: torch.Generator, batches: torch.Generator) -> Fitted:
    """Maximise the likelihood of standardised draws ``(n, d)``; the first fifth of them is held out."""
    u = u.to(**options.tensors)
    count = max(4, len(u) // 5)
    objective = DrawLikelihood(
        u[count:], u[:count], direction=options.direction, batch_size=2 * options.batch_size, generator=batches
    )
    start = _start(u.shape[1], options)
    with torch.no_grad():
        before = objective.log_densities(start)
    training = training_options(vars(options), tolerance=_resolution(before))
    network, history, reason = _train(objective, u[count:][:_HELD_OUT], options, training, init)
    with torch.no_grad():
        after = objective.log_densities(network)
    return _choose(network, start, before, after, history, reason)


def _start(features: int, options: FitOptions) -> Quadratic:
    """The identity."""
    return Quadratic(features, strong_convexity=options.strong_convexity).to(**options.tensors)


def _resolution(before: Tensor) -> float:
    """What can be seen of an improvement on the start's held-out values; 0 where those are not finite."""
    spread = float(before.std())
    return _RESOLUTION * spread / math.sqrt(len(before)) if math.isfinite(spread) else 0.0


def _solved(record: dict[str, float], module: torch.nn.Module) -> bool:
    return record["log_weight_deviation"] < _SOLVED


def _train(
    objective: ReverseKL | DrawLikelihood,
    points: Tensor,
    options: FitOptions,
    training: TrainingOptions,
    init: torch.Generator,
    *,
    resume: Path | None = None,
    fingerprint: str = "",
    callbacks: Sequence[Callback] = (),
) -> tuple[Potential, list[dict[str, float]], str]:
    """Train a network that starts about at the identity over `points`; what it became, and why it ended."""
    features = points.shape[1]
    shape: dict[str, Any] = {"sharpness": _SHARPNESS, "strong_convexity": options.strong_convexity, "generator": init}
    # Forward, heavy tails need a gradient that grows fast; in the inverse direction, one that grows slowly.
    if options.direction == "inverse":
        shape["squared"] = False
    kind = CubicICNN if options.direction == "forward" else ICNN
    network = kind(features, tuple(options.hidden_features), **shape)
    align_with_identity_(network, points.cpu().float())
    model = constrain(network, options.positivity, features=features, generator=init).to(**options.tensors)
    trained = train(
        model,
        objective,
        training,
        callbacks=callbacks,
        progress=options.progress,
        resume=resume,
        fingerprint=fingerprint,
    )
    potential = trained.module
    assert isinstance(potential, Potential)  # for the type checker: a constrained potential bakes to one
    reason = "solved" if trained.stop_reason == "callback" else trained.stop_reason
    return potential, trained.history, reason


def _choose(
    network: Potential, start: Potential, before: Tensor, after: Tensor, history: list[dict[str, float]], reason: str
) -> Fitted:
    """The network if its held-out value is significantly better than the start's; points are paired."""
    gain = float(after.mean() - before.mean())
    error = float((after - before).std()) / math.sqrt(len(before))
    hopeless = not bool(torch.isfinite(before).all())
    used = bool(torch.isfinite(after).all()) and (hopeless or significantly_better(gain, error, points=len(before)))
    return Fitted((network if used else start).cpu().double(), history, reason, used)


def _fingerprint(options: FitOptions, mode: Tensor, values: Tensor) -> str:
    """Identifies settings and target: a density is known by its mode and its values at the held-out latents."""
    shown = {key: str(value) for key, value in asdict(options).items() if key != "progress"}
    return hashlib.sha256(json.dumps([shown, mode.tolist(), values.tolist()]).encode()).hexdigest()
