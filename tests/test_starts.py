"""A start is the Gaussian map or a translation, whatever the units; a network joins it without changing it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from instances import normal
from torch import Tensor
from torch.testing import assert_close

from ot_lift.maps import StandardisedPotential
from ot_lift.potentials import ICNN, Quadratic
from ot_lift.sides import Side
from ot_lift.starts import align_with_identity_, coordinates, plan_images


def side(mean: Tensor, covariance: Tensor) -> Side:
    """A side of which only the moments are known."""
    return cast(Side, SimpleNamespace(mean=mean, covariance=covariance))


def gaussians(features: int, *, scale: float = 1.0, offset: float = 0.0) -> tuple[Side, Side]:
    roots = [normal(features, features, seed=seed) + torch.eye(features).double() for seed in (1, 2)]
    means = [offset + scale * normal(features, seed=seed) for seed in (3, 4)]
    return cast(
        tuple[Side, Side],
        tuple(side(mean, scale**2 * root @ root.T) for mean, root in zip(means, roots, strict=True)),
    )


def root_of(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.sqrt()) @ vectors.T


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e12, 0.0), (1e-12, 0.0), (1.0, 1e6)])
@pytest.mark.parametrize("features", [1, 2, 8])
def test_in_bures_coordinates_the_identity_is_the_gaussian_map(features: int, scale: float, offset: float) -> None:
    source, target = gaussians(features, scale=scale, offset=offset)
    units = coordinates(source, target, start="gaussian")
    identity = Quadratic(features, strong_convexity=1.0, dtype=torch.float64)
    x = source.mean + scale * normal(20, features, seed=5)
    root = root_of(source.covariance / scale**2)
    inverse = torch.linalg.inv(root)
    linear = inverse @ root_of(root @ (target.covariance / scale**2) @ root) @ inverse
    expected = target.mean + (x - source.mean) @ linear
    with torch.no_grad():
        found = StandardisedPotential(identity, units).gradient(x)
    assert_close(found, expected, rtol=0.0, atol=scale * 1e-7 + abs(offset) * 1e-14)
    standard = units.matrix @ source.covariance @ units.matrix.T
    assert_close(float(standard.trace()) / features, 1.0, rtol=1e-6, atol=0.0)


def test_both_sides_look_alike_in_bures_coordinates() -> None:
    source, target = gaussians(5)
    units = coordinates(source, target, start="plan")
    matrix, inverse = units.matrix, torch.linalg.inv(units.matrix)
    ours = matrix @ source.covariance @ matrix.T
    theirs = inverse.T @ target.covariance @ inverse / units.scale**2
    assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_identity_start_is_a_translation() -> None:
    source, target = gaussians(3, scale=50.0, offset=7.0)
    units = coordinates(source, target, start="identity")
    identity = Quadratic(3, strong_convexity=1.0, dtype=torch.float64)
    x = source.mean + 50 * normal(20, 3, seed=5)
    with torch.no_grad():
        found = StandardisedPotential(identity, units).gradient(x)
    assert_close(found, x - source.mean + target.mean)
    constant = side(torch.ones(2).double(), torch.zeros(2, 2).double())
    assert float(coordinates(constant, constant, start="identity").scale) == 1.0


@pytest.mark.parametrize("activation", ["softplus", "celu", "squareplus"])
@pytest.mark.parametrize("features", [1, 2, 16])
@pytest.mark.parametrize("mu", [0.0, 0.01, 0.5])
def test_an_aligned_network_is_the_identity_on_average(features: int, activation: str, mu: float) -> None:
    options = {"activation": activation, "strong_convexity": mu, "dtype": torch.float64}
    network = ICNN(features, (32, 32), **options)  # type: ignore[arg-type]
    x = 0.3 + normal(2000, features, seed=1)
    align_with_identity_(network, x)
    with torch.no_grad():
        _, gradient, hessian = network.value_gradient_hessian(x)
    assert_close(hessian.mean(0), torch.eye(features).double(), rtol=0.0, atol=1e-6)
    assert_close(gradient.mean(0), x.mean(0), rtol=0.0, atol=1e-6)
    error = (gradient - x).square().sum(1).mean() / x.square().sum(1).mean()
    assert float(error) < 0.1
    assert bool((network.readout >= 0).all())
    assert float(hessian.sub(torch.eye(features).double()).abs().max()) > 1e-3  # the network does take part


def test_a_network_is_aligned_in_single_precision_too() -> None:
    network = ICNN(2, (32, 32), sharpness=8.0)
    x = normal(500, 2, seed=1).float()
    align_with_identity_(network, x)
    with torch.no_grad():
        assert_close(network.hessian(x).mean(0), torch.eye(2), rtol=0.0, atol=1e-4)


def test_a_network_is_aligned_in_blocks_of_hessians(monkeypatch: pytest.MonkeyPatch) -> None:
    """In many dimensions those of all points are more than memory holds."""
    whole, parts = (ICNN(3, (8, 8), dtype=torch.float64) for _ in range(2))
    x = normal(50, 3, seed=1)
    align_with_identity_(whole, x)
    monkeypatch.setattr("ot_lift.hessians._BLOCK_BYTES", 7 * 3**2 * 8)
    align_with_identity_(parts, x)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert_close(one, other, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------------------------------- plans
def test_plan_images_of_equal_sizes_are_the_optimal_matching() -> None:
    x, y = torch.linspace(-1, 1, 30)[:, None], torch.linspace(5, 9, 30)[:, None].flip(0)
    points, images = plan_images(x, y, torch.Generator().manual_seed(0))
    order = points[:, 0].argsort()
    assert torch.equal(points[order], x) and points.dtype == images.dtype == torch.float32
    assert_close(images[order], y.flip(0))


def test_plan_images_are_means_over_the_plan_for_unequal_sizes() -> None:
    x = torch.tensor([[0.0], [1.0]]).double()
    y = torch.tensor([[10.0], [11.0], [12.0], [13.0]]).double()
    points, images = plan_images(x, y, torch.Generator().manual_seed(0))
    order = points[:, 0].argsort()
    assert_close(images[order], torch.tensor([[10.5], [12.5]]).double())


def test_plan_images_keep_the_mean_and_are_subsampled(monkeypatch: pytest.MonkeyPatch) -> None:
    import ot_lift.starts

    monkeypatch.setattr(ot_lift.starts, "_PLAN_POINTS", 40)
    x, y = normal(100, 2, seed=1), 3 + normal(90, 2, seed=2)
    points, images = plan_images(x, y, torch.Generator().manual_seed(0))
    assert points.shape == images.shape == (40, 2)
    rows = {tuple(row) for row in x.tolist()}
    assert all(tuple(point) in rows for point in points.tolist())
    assert np.isclose(float(images.mean()), 3.0, atol=0.5)
    again = plan_images(x, y, torch.Generator().manual_seed(0))
    assert torch.equal(points, again[0]) and torch.equal(images, again[1])
