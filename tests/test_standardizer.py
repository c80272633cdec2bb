"""Moments and coordinates lose no digits, and turn a map back into the units of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ot_lift.errors import DataError
from ot_lift.rows import open_rows
from ot_lift.standardizer import Standardizer, weighted_moments


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_chunked_moments_keep_their_digits(offset: float, scale: float, rng: np.random.Generator) -> None:
    noise = rng.standard_normal((1000, 3)) @ rng.standard_normal((3, 3))
    data = scale * (noise + offset)
    weight = rng.random(1000)
    weight[:300] = 0
    mean, covariance = weighted_moments(open_rows(data, name="X"), torch.from_numpy(weight), chunk_rows=128)
    # the shift is undone as exactly as the data allows: its own rounding at the offset stays
    tolerance = 1e-12 + 4 * offset * np.finfo(float).eps
    expected = np.cov(noise.T, aweights=weight, ddof=0)
    assert np.allclose(covariance.numpy() / scale**2, expected, rtol=1e-12, atol=tolerance)
    assert np.allclose(mean.numpy() / scale, np.average(noise, 0, weight) + offset, rtol=1e-14, atol=1e-14)


def test_moments_of_chosen_rows_weigh_those_rows(rng: np.random.Generator) -> None:
    data, weight, index = rng.standard_normal((50, 2)), rng.random(50), np.array([40, 3, 17, 5])
    mean, covariance = weighted_moments(
        torch.from_numpy(data), torch.from_numpy(weight), index=torch.from_numpy(index), chunk_rows=3
    )
    assert np.allclose(mean, np.average(data[index], 0, weight[index]))
    assert np.allclose(covariance, np.cov(data[index].T, aweights=weight[index], ddof=0))


def test_moments_refuse_what_float64_cannot_hold() -> None:
    with pytest.raises(DataError, match="rescale"):
        weighted_moments(torch.tensor([[1e200], [-1e200]], dtype=torch.float64))
    with pytest.raises(DataError, match="positive weight"):
        weighted_moments(torch.zeros(3, 1), torch.zeros(3))


def spd(features: int, generator: torch.Generator, condition: float = 100.0) -> torch.Tensor:
    basis, _ = torch.linalg.qr(torch.randn(features, features, generator=generator, dtype=torch.float64))
    values = torch.logspace(0, -float(np.log10(condition)), features, dtype=torch.float64)
    return (basis * values) @ basis.T


def bures_matrix(cov_x: torch.Tensor, cov_y: torch.Tensor) -> torch.Tensor:
    import scipy.linalg

    root = scipy.linalg.sqrtm(cov_x.numpy()).real
    inverse = np.linalg.inv(root)
    return torch.from_numpy(inverse @ scipy.linalg.sqrtm(root @ cov_y.numpy() @ root).real @ inverse)


@pytest.mark.parametrize("features", [1, 2, 8, 32])
@pytest.mark.parametrize(("scale_x", "scale_y"), [(1.0, 1.0), (1e12, 1e-12), (1e-12, 1e12), (1e12, 1e12)])
def test_bures_coordinates_make_the_gaussian_map_the_identity(
    features: int, scale_x: float, scale_y: float, generator: torch.Generator
) -> None:
    cov_x, cov_y = spd(features, generator), spd(features, generator)
    mean_x, mean_y = (torch.randn(features, generator=generator, dtype=torch.float64) for _ in range(2))
    units = Standardizer.bures(mean_x * scale_x, cov_x * scale_x**2, mean_y * scale_y, cov_y * scale_y**2)
    noise = torch.randn(2000, features, generator=generator, dtype=torch.float64)
    x = noise @ torch.linalg.cholesky(cov_x).T + mean_x
    y = (x - mean_x) @ bures_matrix(cov_x, cov_y) + mean_y
    inner = units.source(x * scale_x)
    assert torch.allclose(units.target_inverse(inner) / scale_y, y, rtol=1e-9, atol=1e-9)
    assert torch.allclose(units.target(y * scale_y), inner, rtol=1e-9, atol=1e-9)
    assert torch.allclose(units.source_inverse(inner) / scale_x, x, rtol=1e-9, atol=1e-9)
    standardised = units.matrix @ (cov_x * scale_x**2) @ units.matrix.T
    assert standardised.trace().item() / features == pytest.approx(1)


@pytest.mark.parametrize("case", ["constant", "duplicated", "constant source only", "all constant", "collinear"])
def test_degenerate_columns_keep_the_coordinates_invertible(case: str, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((200, 3)) + 1e6, 5 * rng.standard_normal((150, 3))
    if case in ("constant", "constant source only", "all constant"):
        x[:, 2] = 0.1
    if case == "constant":
        y[:, 2] = -7.3
    if case == "duplicated":
        x[:, 2], y[:, 2] = x[:, 1], y[:, 1]
    if case == "collinear":
        x[:, 2], y[:, 2] = x[:, 0] + x[:, 1] - 1e6, y[:, 0] - 2 * y[:, 1]
    if case == "all constant":
        x[:], y[:] = 0.1, 0.3
    moments = [weighted_moments(open_rows(side, name="X")) for side in (x, y)]
    units = Standardizer.bures(*moments[0], *moments[1])
    points, targets = torch.from_numpy(x), torch.from_numpy(y)
    assert torch.allclose(units.source_inverse(units.source(points)), points, rtol=1e-12, atol=1e-6)
    assert torch.allclose(units.target_inverse(units.target(targets)), targets, rtol=1e-12, atol=1e-6)
    assert torch.allclose(units.matrix @ units.inverse, torch.eye(3, dtype=torch.float64), atol=1e-5)
    assert float(units.source(points).abs().max()) < 10
    image = units.target_inverse(units.source(points))
    assert torch.allclose(image.mean(0), targets.mean(0), atol=1e-3)
    if case == "constant":
        assert torch.allclose(image[:, 2], targets[0, 2], atol=1e-9)
    if case == "duplicated":
        assert torch.allclose(image[:, 1], image[:, 2], atol=1e-4)


def test_shifts_happen_before_the_cast(rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.standard_normal((100, 2)) + 1e6)
    units = Standardizer.scalar(x.mean(0), x.mean(0), 2.0, 4.0)
    assert units.source(x, dtype=torch.float32).dtype == torch.float32
    assert torch.allclose(units.source(x, dtype=torch.float32).double(), (x - x.mean(0)) / 2, rtol=1e-6, atol=1e-7)
    assert torch.allclose(units.target(x), (x - x.mean(0)) / 4)
    assert torch.allclose(units.target_inverse(units.target(x)), x, rtol=1e-15)
    with pytest.raises(ValueError, match="positive finite"):
        Standardizer.scalar(x.mean(0), x.mean(0), 0.0)


@pytest.mark.parametrize("kind", ["scalar", "bures"])
def test_the_map_in_data_units_is_the_gradient_of_the_potential(kind: str, generator: torch.Generator) -> None:
    features = 3
    mean_x, mean_y = (torch.randn(features, generator=generator, dtype=torch.float64) for _ in range(2))
    cov_x, cov_y = 9 * spd(features, generator), spd(features, generator)
    units = (
        Standardizer.scalar(mean_x, mean_y, 3.0, 0.5)
        if kind == "scalar"
        else Standardizer.bures(mean_x, cov_x, mean_y, cov_y)
    )
    curvature = spd(features, generator, condition=4.0)  # φ̃(x̃) = ½ x̃ᵀ C x̃, φ̃*(ỹ) = ½ ỹᵀ C⁻¹ ỹ
    x = torch.randn(20, features, generator=generator, dtype=torch.float64).requires_grad_()
    inner = units.source(x)
    phi = units.potential(x, ((inner @ curvature) * inner).sum(1) / 2)
    y = units.target_inverse(inner @ curvature)
    assert torch.allclose(torch.autograd.grad(phi.sum(), x, retain_graph=True)[0], y, rtol=1e-12)
    outer = units.target(y)
    dual = units.conjugate(y, (torch.linalg.solve(curvature, outer.T).T * outer).sum(1) / 2)
    assert torch.allclose(phi + dual, (x * y).sum(1), rtol=1e-11, atol=1e-11)  # Fenchel–Young with equality
    hessian = units.scale * units.matrix.T @ curvature @ units.matrix
    weakest = float(torch.linalg.eigvalsh(curvature)[0])
    assert 0 < units.strong_convexity(weakest) <= float(torch.linalg.eigvalsh(hessian)[0]) * (1 + 1e-12)
    assert units.to("cpu").matrix.device.type == "cpu"
