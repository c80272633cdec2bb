"""The best Gaussian of a posterior: closed forms, affine targets, and what it does where gradients fail."""

from __future__ import annotations

import math

import torch
from targets import Density, log_gamma

from ot_lift.posterior_gaussian import best_gaussian
from ot_lift.posterior_mode import Laplace, find_mode
from ot_lift.posterior_target import Target


def of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_gaussian_is_found_from_elsewhere() -> None:
    root = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [-1.0, 0.3, 4.0]], dtype=torch.float64)
    mean, precision = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64), torch.linalg.inv(root @ root.T)
    target = Density(3, lambda x: -0.5 * (((x - mean) @ precision) * (x - mean)).sum(-1))
    found = best_gaussian(Target(target), Laplace.gaussian(torch.zeros(3), torch.eye(3)), of(0))
    inverse = torch.linalg.inv(root)
    covariance = inverse @ found.root @ found.root.T @ inverse.T
    divergence = 0.5 * (covariance.trace() - 3 - torch.linalg.slogdet(covariance)[1])
    divergence += 0.5 * (inverse @ (found.centre - mean)).square().sum()
    assert float(divergence) < 2e-3
    torch.testing.assert_close(found.inverse_root @ found.root, torch.eye(3, dtype=torch.float64))


def test_the_best_gaussian_of_log_gammas_is_the_closed_form() -> None:
    target, generator = Target(log_gamma(5)), of(0)
    units = find_mode(target, generator)
    found = best_gaussian(target, units, generator)
    covariance = found.root @ found.root.T
    torch.testing.assert_close(covariance, torch.eye(5, dtype=torch.float64) / 3, atol=0.03, rtol=0)
    expected = torch.full((5,), math.log(3) - 1 / 6, dtype=torch.float64)  # E eˣ = 3, the variance is 1/3
    torch.testing.assert_close(found.centre, expected, atol=0.03, rtol=0)
    assert torch.equal(found.mode, units.mode)


def test_where_the_laplace_approximation_is_best_it_stays() -> None:
    target = Target(Density(2, lambda x: -0.5 * x.square().sum(-1)))
    units = find_mode(target, of(0))
    assert best_gaussian(target, units, of(0)) is units


def test_where_the_density_is_zero_at_draws_the_laplace_approximation_stays() -> None:
    def log_density(x: torch.Tensor) -> torch.Tensor:
        return torch.where((x > 0).all(-1), (x.clamp_min(1e-9).log() - x).sum(-1), -torch.inf)

    target = Target(Density(1, log_density))
    units = Laplace.gaussian(torch.ones(1), torch.eye(1))
    assert best_gaussian(target, units, of(0)) is units
