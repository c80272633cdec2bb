"""Training objectives of a posterior map: reverse KL to a density, and likelihood of existing draws."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ot_lift.conjugate import conjugate
from ot_lift.constrained import Bound, BoundPotential
from ot_lift.posterior_latent import Direction, log_normal, pull, push
from ot_lift.posterior_mode import Laplace
from ot_lift.posterior_target import Target
from ot_lift.potentials import Potential
from ot_lift.training import Objective

# Inversions while training: a residual r moves a point by at most r/μ, and the step's noise is far larger.
_TRAINING_TOL = 1e-4


class ReverseKL(Objective):
    r"""KL(q ‖ π) up to log Z: the mean of log q(θ) − log π(θ) over antithetic latents, exact log-determinants.

    Its derivative is the path derivative: log q enters by its slope at the draw, with its parameters held. What that
    leaves out has mean zero, and what remains vanishes draw by draw where q equals π, so that the end of training is
    not noise. The held-out value is on latents of its own; its negative is the ELBO.

    Args:
        target: the log density.
        units: standardised coordinates.
        direction: of the map.
        batch_size: latents a step, rounded up to an even number.
        held_out: latents ``(n, d)`` of the held-out value.
        generator: source of the latents.

    References:
        Roeder, Wu & Duvenaud 2017, Sticking the landing (arXiv 1703.09194).
    """

    def __init__(
        self,
        target: Target,
        units: Laplace,
        *,
        direction: Direction,
        batch_size: int,
        held_out: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.target, self.units, self.direction = target, units, direction
        self.latents, self._half, self._generator = held_out, (batch_size + 1) // 2, generator
        self._shift = units.log_density + units.log_det  # losses start near (d/2) log 2π, not at the data's size
        self._spread = 0.0

    def next_batch(self) -> Tensor:
        half = torch.randn(self._half, self.latents.shape[1], generator=self._generator, dtype=torch.float64)
        self._z = torch.cat([half, -half]).to(self.latents)
        return self._z

    def loss(self, model: Bound) -> Tensor:
        assert isinstance(model, BoundPotential)  # for the type checker: estimators constrain potentials
        z = self._z
        if self.direction == "forward":  # log q(∇φ(z)) = log N(z) − log det ∇²φ(z)
            image = model.gradient(z)
            value, slope = self._at(image.detach())
            log_det, factor, bend = _log_det_and_slope(model, z)
            excess = slope + _solve(factor, z + bend)
            moved = (excess * image).sum(1)
        else:  # log q(u) = log N(∇φ(u)) + log det ∇²φ(u); where ∇φ(u) = z is held, ∇²φ(u) du = −d∇φ(u)
            with torch.no_grad():
                u = conjugate(model, z, tol=_TRAINING_TOL, throw=False).argmax
            value, slope = self._at(u)
            log_det, factor, bend = _log_det_and_slope(model, u)
            excess = _solve(factor, slope - bend) + z
            moved, log_det = -(excess * model.gradient(u)).sum(1), -log_det
        log_ratio = value + log_det
        return -(log_ratio + moved - moved.detach()).mean()

    def _at(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Log density above that of the mode ``(n,)`` and its gradient ``(n, d)``, in standardised coordinates."""
        value, gradient = self.target.value_gradient(self.units.to_user(u.cpu()))
        return (value - self.units.log_density).to(u), (gradient @ self.units.root).to(u)

    def log_weights(self, potential: Potential, z: Tensor) -> Tensor:
        """Log π(θ) − log q(θ) ``(n,)``, π unnormalised, for the images of latents ``z``; float64."""
        u, log_det = push(potential, z, self.direction, tol=_TRAINING_TOL, throw=False)
        value = self.target.value(self.units.to_user(u.cpu()))
        return value + self.units.log_det + (log_det - log_normal(z)).double().cpu()

    @torch.no_grad()
    def held_out(self, model: nn.Module) -> float:
        assert isinstance(model, Potential)
        weights = self.log_weights(model, self.latents)
        self._spread = float(weights.std())
        return float(-weights.mean())

    def report(self) -> dict[str, float]:
        return {"log_weight_deviation": self._spread}

    def state(self) -> dict[str, Tensor]:
        return {"generator": self._generator.get_state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._generator.set_state(state["generator"])


@torch.no_grad()
def _log_det_and_slope(model: BoundPotential, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log det ∇²φ(x), a lower factor of ∇²φ(x), and the gradient of the former in x; without a graph."""
    hessian, slope = model.hessian_with_slope(x)
    factor = _factor(hessian, model.strong_convexity)
    return 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1), factor, slope(torch.cholesky_inverse(factor))


def _factor(hessian: Tensor, strong_convexity: float) -> Tensor:
    """Lower Cholesky factors; by structure no eigenvalue is below μ, so that those which are, are there by rounding."""
    factor, info = torch.linalg.cholesky_ex(hessian)
    rounded = (info != 0) & hessian.isfinite().all(dim=(1, 2))
    if bool(rounded.any()):
        values, vectors = torch.linalg.eigh(hessian[rounded].double())
        lifted = (vectors * values.clamp_min(strong_convexity)[:, None, :]) @ vectors.mT
        factor[rounded] = torch.linalg.cholesky(lifted).to(factor)
    return factor


def _solve(factor: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]


class DrawLikelihood(Objective):
    """Mean of −log q over draws of the posterior, in standardised coordinates.

    Args:
        draws: standardised draws ``(n, d)`` to train on.
        held_out: ``(m, d)``, others.
        direction: of the map.
        batch_size: draws a step.
        generator: source of the batches.
    """

    def __init__(
        self,
        draws: Tensor,
        held_out: Tensor,
        *,
        direction: Direction,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self._draws, self.points, self.direction = draws, held_out, direction
        self._batch_size, self._generator = batch_size, generator

    def next_batch(self) -> Tensor:
        rows = torch.randint(len(self._draws), (self._batch_size,), generator=self._generator)
        self._u = self._draws[rows.to(self._draws.device)]
        return self._u

    def loss(self, model: Bound) -> Tensor:
        assert isinstance(model, BoundPotential)
        z, log_det = pull(model, self._u, self.direction, tol=_TRAINING_TOL, throw=False)
        return -(log_normal(z) + log_det).mean()

    def log_densities(self, potential: Potential) -> Tensor:
        """Log q ``(m,)`` of the held-out draws, float64."""
        z, log_det = pull(potential, self.points, self.direction, tol=_TRAINING_TOL, throw=False)
        return (log_normal(z) + log_det).double()

    @torch.no_grad()
    def held_out(self, model: nn.Module) -> float:
        assert isinstance(model, Potential)
        return float(-self.log_densities(model).mean())

    def report(self) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {"generator": self._generator.get_state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._generator.set_state(state["generator"])
