"""Initial weights keep the statistics of pre-activations from layer to layer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ot_lift.initialisers import Activation, activation_moments, folded_normal_, principled_

RHO = 0.5
WIDTH, ROWS, NETWORKS = 128, 64, 40


def softplus_4(s: Tensor) -> Tensor:
    return functional.softplus(4 * s) / 4


# What the network computes, and what the initialiser is told.
ACTIVATIONS = [
    pytest.param(torch.relu, None, id="relu"),
    pytest.param(softplus_4, softplus_4, id="softplus-4"),
    pytest.param(functional.softplus, functional.softplus, id="softplus-1"),
]


def statistics(s: Tensor) -> tuple[float, float, float]:
    """Mean, variance and pairwise correlation of units (last axis) over everything else."""
    width = s.shape[-1]
    mean, square = s.mean(), s.square().mean()
    pairs = (s.sum(-1).square() - s.square().sum(-1)).mean() / (width * (width - 1))
    variance = square - mean**2
    return float(mean), float(variance), float((pairs - mean**2) / variance)


def correlated_normal(generator: torch.Generator) -> Tensor:
    """Pre-activations at the fixed point: N(0, 1), correlation ½, (networks, rows, width)."""
    shared = torch.randn(NETWORKS, ROWS, 1, generator=generator)
    own = torch.randn(NETWORKS, ROWS, WIDTH, generator=generator)
    return math.sqrt(RHO) * shared + math.sqrt(1 - RHO) * own


def principled_layers(generator: torch.Generator, **options: Any) -> tuple[Tensor, Tensor]:
    weight, bias = torch.empty(NETWORKS, WIDTH, WIDTH), torch.empty(NETWORKS, 1, WIDTH)
    for w, b in zip(weight, bias, strict=True):
        principled_(w, b[0], generator, **options)
    return weight, bias


@pytest.mark.parametrize(("activation", "told"), ACTIVATIONS)
@pytest.mark.parametrize("skip_variance", [0.0, 0.3])
def test_principled_maps_the_fixed_point_to_itself(
    activation: Activation, told: Activation | None, skip_variance: float, generator: torch.Generator
) -> None:
    s = correlated_normal(generator)
    weight, bias = principled_layers(generator, activation=told, skip_variance=skip_variance)
    s = torch.baddbmm(bias, activation(s), weight.transpose(1, 2))
    s = s + math.sqrt(skip_variance) * torch.randn(s.shape, generator=generator)
    mean, variance, correlation = statistics(s)
    # 2,560 draws of the shared part with slope at most 2 scatter the mean by 0.03; heavy-tailed weights the
    # variance.
    assert abs(mean) < 0.15
    assert variance == pytest.approx(1.0, abs=0.25)
    assert correlation == pytest.approx(RHO, abs=0.12)


@pytest.mark.parametrize(("activation", "told"), ACTIVATIONS)
def test_principled_keeps_statistics_near_the_fixed_point_through_five_layers_with_skips(
    activation: Activation, told: Activation | None, generator: torch.Generator
) -> None:
    features, skip_variance = 8, 0.45
    x = torch.randn(ROWS, features, generator=generator)

    def skips(variance: float) -> Tensor:
        maps = torch.randn(NETWORKS, features, WIDTH, generator=generator)
        return x @ maps * math.sqrt(variance / features)

    s = skips(1.0)
    for _ in range(5):
        weight, bias = principled_layers(generator, activation=told, skip_variance=skip_variance)
        s = torch.baddbmm(bias, activation(s), weight.transpose(1, 2)) + skips(skip_variance)
        mean, variance, correlation = statistics(s)
        assert abs(mean) < 0.6
        assert 0.4 < variance < 1.5
        assert -0.01 < correlation < RHO + 0.15
    assert correlation > 0.1  # from 0 at the first layer towards the fixed point


def test_a_folded_he_initialisation_explodes(generator: torch.Generator) -> None:
    s = correlated_normal(generator)
    for _ in range(5):
        weight = torch.empty(WIDTH, WIDTH).normal_(0, (2 / WIDTH) ** 0.5, generator=generator).abs_()
        s = torch.relu(s) @ weight.T
    assert statistics(s)[0] > 100


def test_principled_matches_the_closed_form_of_the_paper() -> None:
    n = 1000
    weight, bias = torch.empty(2000, n, dtype=torch.float64), torch.empty(2000, dtype=torch.float64)
    principled_(weight, bias, torch.Generator().manual_seed(0))
    scale = 6 * (math.pi - 1) + (n - 1) * (3 * math.sqrt(3) + 2 * math.pi - 6)
    assert weight.min() > 0
    assert weight.mean().item() == pytest.approx(math.sqrt(6 * math.pi / (n * scale)), rel=0.02)
    assert weight.square().mean().item() == pytest.approx(1 / n + 6 * math.pi / (n * scale), rel=0.2)
    assert bias.unique().item() == pytest.approx(-math.sqrt(3 * n / scale), rel=1e-12)


def test_moments_by_quadrature_agree_with_relu_in_closed_form() -> None:
    exact, quadrature = activation_moments(None, 0.5), activation_moments(torch.relu, 0.5)
    for name in ("mean", "square", "product"):
        assert getattr(quadrature, name) == pytest.approx(getattr(exact, name), abs=2e-3)


def test_folded_normal_keeps_the_mean_of_a_layer() -> None:
    weight = folded_normal_(torch.empty(50, 5000), torch.Generator().manual_seed(0))
    assert weight.min() >= 0
    assert weight.sum(1).mean().item() == pytest.approx(1.0, abs=5 * 0.755 / math.sqrt(50 * 5000))


@pytest.mark.parametrize("shape", [(7,), (3, 7), (3, 7, 2, 2)])
def test_same_generator_same_weights_and_the_global_state_is_untouched(shape: tuple[int, ...]) -> None:
    before = torch.random.get_rng_state()
    for fill in (principled_, folded_normal_):
        first = fill(torch.empty(shape), generator=torch.Generator().manual_seed(3))
        second = fill(torch.empty(shape), generator=torch.Generator().manual_seed(3))
        assert torch.equal(first, second)
        assert torch.isfinite(first).all()
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.usefixtures("forked_rng")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_are_written_in_place(dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(4, 3, dtype=dtype)
    address = layer.weight.data_ptr()
    principled_(layer.weight, layer.bias, torch.Generator().manual_seed(0))
    assert layer.weight.data_ptr() == address
    assert layer.weight.requires_grad and layer.weight.grad_fn is None
    assert layer.weight.dtype == dtype and bool((layer.weight > 0).all()) and bool((layer.bias < 0).all())


def test_bad_arguments_are_refused_in_words() -> None:
    weight = torch.empty(2, 2)
    with pytest.raises(ValueError, match="correlation strictly between 0 and 1, got 1"):
        principled_(weight, correlation=1.0)
    with pytest.raises(ValueError, match="skip_variance"):
        principled_(weight, skip_variance=0.5)
    with pytest.raises(ValueError, match="std > 0, got 0"):
        folded_normal_(weight, std=0.0)
    with pytest.raises(ValueError, match=r"\(out, in, ...\)"):
        folded_normal_(torch.empty(3, 0))
