"""Blocks and FlowMap: composition, both directions, log-determinants against autograd, torch's contract."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ot_lift.constrained import BoundPotential
from ot_lift.flows_map import DIRECTIONS, Blocks, FlowMap
from ot_lift.flows_start import identity_blocks, network_blocks
from ot_lift.flows_whitening import Whitening
from ot_lift.logdet import STOCHASTIC_FROM
from ot_lift.potentials import ICNN


def networks(count: int, features: int = 2) -> list[ICNN]:
    """Small networks, each with weights of its own, float64."""
    generator = torch.Generator().manual_seed(7)
    return [ICNN(features, (6, 6), generator=generator, dtype=torch.float64) for _ in range(count)]


@pytest.fixture(params=[(d, k) for d in DIRECTIONS for k in (1, 3)], ids=lambda case: f"{case[0]}-{case[1]}")
def blocks(request: pytest.FixtureRequest) -> Blocks:
    direction, count = request.param
    return Blocks(networks(count), direction=direction)


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return torch.randn(6, 2, generator=generator, dtype=torch.float64)


def test_the_log_determinant_is_that_of_autograds_jacobian(blocks: Blocks, x: Tensor) -> None:
    latent, log_det = blocks(x)
    torch.testing.assert_close(latent, blocks.transport(x))
    for point, value in zip(x, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda row: blocks.transport(row[None])[0], point)
        assert value.item() == pytest.approx(float(torch.logdet(jacobian)), abs=1e-6)


def test_the_inverse_undoes_the_blocks_both_ways(blocks: Blocks, x: Tensor) -> None:
    torch.testing.assert_close(blocks.invert(blocks.transport(x)), x, atol=1e-7, rtol=0)
    torch.testing.assert_close(blocks.transport(blocks.invert(x)), x, atol=1e-7, rtol=0)


def test_one_direction_is_the_inverse_of_the_other(x: Tensor) -> None:
    inverse, forward = (Blocks(networks(1), direction=direction) for direction in DIRECTIONS)
    torch.testing.assert_close(forward.transport(x), inverse.invert(x))
    torch.testing.assert_close(forward(x)[1], -inverse(inverse.invert(x))[1])


def test_the_likelihood_differentiates_in_the_weights_as_finite_differences_do(blocks: Blocks, x: Tensor) -> None:
    def value() -> Tensor:
        latent, log_det = blocks(x)
        return (log_det - 0.5 * latent.square().sum(1)).sum()

    parameters = dict(blocks.named_parameters())
    gradients = dict(zip(parameters, torch.autograd.grad(value(), parameters.values(), allow_unused=True), strict=True))
    generator = torch.Generator().manual_seed(0)
    slope, step = torch.zeros(()).double(), 1e-6
    direction = {name: torch.randn(p.shape, generator=generator).double() for name, p in parameters.items()}
    for name, gradient in gradients.items():
        if gradient is not None:  # the constant of a potential moves nothing
            slope = slope + (gradient * direction[name]).sum()
    ends = []
    with torch.no_grad():
        for sign in (1, -1):
            for name, parameter in parameters.items():
                parameter += sign * step * direction[name]
            ends.append(value())
            for name, parameter in parameters.items():
                parameter -= sign * step * direction[name]
    assert slope.item() == pytest.approx((ends[0] - ends[1]).item() / (2 * step), rel=1e-4)


def test_a_solve_differentiates_at_the_weights_of_its_own_step(x: Tensor) -> None:
    (network,) = networks(1)
    doubled = {name: 2 * p.detach().requires_grad_() for name, p in network.named_parameters()}
    bound = Blocks([BoundPotential(network, doubled)], direction="forward")
    plain = Blocks(networks(1), direction="forward")
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter *= 2
    torch.testing.assert_close(bound.transport(x), plain.transport(x))


def test_from_the_crossover_on_training_takes_random_probes_and_reporting_does_not() -> None:
    features = STOCHASTIC_FROM
    blocks = Blocks(networks(1, features))
    x = torch.randn(5, features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    exact = blocks(x)[1]
    assert torch.equal(blocks(x)[1], exact)
    blocks(x, generator=generator)
    assert not torch.equal(generator.get_state(), before)


def test_a_direction_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="expected direction 'inverse' or 'forward', got 'both'"):
        Blocks(networks(1), direction="both")


# ------------------------------------------------------------------------------------------------ FlowMap
def flow_map(blocks: Blocks) -> FlowMap:
    covariance = torch.tensor([[4.0, 1.0], [1.0, 9.0]])
    return FlowMap(blocks, Whitening.of_moments(torch.tensor([1.0, -2.0]), covariance).coordinates)


def test_a_flow_map_keeps_torchs_contract(blocks: Blocks, x: Tensor) -> None:
    transform = flow_map(blocks)
    points = x.reshape(2, 3, 2)
    latent = transform(points)
    assert latent.shape == points.shape
    torch.testing.assert_close(transform.inv(latent), points, atol=1e-6, rtol=0)
    log_det = transform.log_abs_det_jacobian(points, latent)
    assert log_det.shape == (2, 3)
    jacobian = torch.autograd.functional.jacobian(transform, points[0, 0])
    assert log_det[0, 0].item() == pytest.approx(float(torch.linalg.slogdet(jacobian).logabsdet), abs=1e-6)
    torch.testing.assert_close(transform.image_and_log_det(points)[1], log_det)
    assert transform == transform.with_cache() and transform.with_cache(0) is transform
    assert hash(transform) == hash(transform.with_cache())


def test_single_precision_points_get_single_precision_answers_of_double_precision_work(blocks: Blocks) -> None:
    transform, x = flow_map(blocks), torch.ones(3, 2)
    for single, double in zip(transform.image_and_log_det(x), transform.image_and_log_det(x.double()), strict=True):
        assert single.dtype == torch.float32
        torch.testing.assert_close(single, double.float())
    assert transform.inv(x).dtype == torch.float32


def test_points_of_another_dimension_are_refused(blocks: Blocks) -> None:
    with pytest.raises(ValueError, match=r"expected points of shape \(..., 2\), got \(4, 3\)"):
        flow_map(blocks)(torch.zeros(4, 3))


# ------------------------------------------------------------------------------------------------- starts
def test_the_gaussian_start_is_the_identity_in_whitened_coordinates(x: Tensor) -> None:
    latent, log_det = identity_blocks(2)(x)
    torch.testing.assert_close(latent, x)
    torch.testing.assert_close(log_det, torch.zeros(6).double())


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_networks_start_near_the_identity_in_either_direction(direction: str, generator: torch.Generator) -> None:
    x = torch.randn(500, 3, generator=generator)
    options = {"hidden_features": (16, 16), "generator": generator, "strong_convexity": 1e-3, "sharpness": 8.0}
    blocks = network_blocks(x, 2, direction=direction, **options)
    assert len(blocks) == 2
    assert (blocks.transport(x) - x).square().mean().sqrt().item() < 0.2
