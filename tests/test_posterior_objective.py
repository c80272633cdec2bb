"""The training objectives: their values, and the derivative of the reverse KL."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from instances import make_cubic, make_icnn
from targets import log_gamma
from torch import Tensor

from ot_lift.conjugate import conjugate
from ot_lift.constrained import ConstrainedPotential
from ot_lift.posterior_latent import log_normal
from ot_lift.posterior_mode import Laplace
from ot_lift.posterior_objective import ReverseKL, _factor
from ot_lift.posterior_target import Target
from ot_lift.potentials import ICNN

DIRECTIONS = ("forward", "inverse")


def make_objective(direction: str, *, batch_size: int = 64) -> tuple[ReverseKL, ConstrainedPotential]:
    units = replace(Laplace.gaussian(torch.ones(2), torch.tensor([[1.0, 0.3], [0.3, 0.5]])), log_density=0.0)
    objective = ReverseKL(
        Target(log_gamma(2)),
        units,
        direction=direction,
        batch_size=batch_size,
        held_out=torch.zeros(2, 2, dtype=torch.float64),
        generator=torch.Generator().manual_seed(0),
    )
    network: ICNN = make_cubic(2, torch.float64) if direction == "forward" else make_icnn(2, (6, 5), torch.float64)
    return objective, ConstrainedPotential(network, "softplus")


def gradients(loss: Tensor, model: ConstrainedPotential) -> list[Tensor]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return list(torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True))


def total(objective: ReverseKL, model: ConstrainedPotential, z: Tensor) -> Tensor:
    """The mean of log q − log π with all of its derivative, by autograd through the map and its log-determinant."""
    bound = model.bind(batch=z)
    if objective.direction == "forward":
        u, hessian = bound.value_gradient_hessian(z)[1:]
        log_det = torch.linalg.slogdet(hessian)[1]
    else:
        u = conjugate(bound, z, tol=1e-12).argmax
        log_det = -torch.linalg.slogdet(bound.value_gradient_hessian(u)[2])[1]
    return -(objective.target.log_density(objective.units.to_user(u)) + log_det).mean()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_value_is_that_of_the_divergence(direction: str) -> None:
    objective, model = make_objective(direction)
    z = objective.next_batch()
    assert objective.loss(model.bind(batch=z)).item() == pytest.approx(total(objective, model, z).item(), abs=1e-4)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_path_derivative_is_the_whole_one_less_the_score(direction: str) -> None:
    """The score, ∂ log q at a fixed draw, has mean zero: what is left out is exactly that."""
    objective, model = make_objective(direction)
    z = objective.next_batch()
    path = gradients(objective.loss(model.bind(batch=z)), model)
    whole = gradients(total(objective, model, z), model)
    bound = model.bind(batch=z)
    if direction == "forward":
        u = bound.gradient(z).detach()
        x = conjugate(bound, u, z, tol=1e-12).argmax
        log_q = log_normal(x) - torch.linalg.slogdet(bound.value_gradient_hessian(x)[2])[1]
    else:
        u = conjugate(bound, z, tol=1e-12).argmax.detach()
        log_q = log_normal(bound.gradient(u)) + torch.linalg.slogdet(bound.value_gradient_hessian(u)[2])[1]
    score = gradients(log_q.mean(), model)
    for ours, all_of_it, left_out in zip(path, whole, score, strict=True):
        torch.testing.assert_close(ours, all_of_it - left_out, rtol=1e-3, atol=1e-4)


def test_eigenvalues_lost_to_rounding_are_put_back_at_the_bound() -> None:
    hessian = torch.stack([torch.diag(torch.tensor([4.0, 1.0])), torch.diag(torch.tensor([4.0, -1e-7]))])
    factor = _factor(hessian, 0.01)
    torch.testing.assert_close(factor.diagonal(dim1=1, dim2=2).square(), torch.tensor([[4.0, 1.0], [4.0, 0.01]]))
