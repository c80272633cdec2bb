"""Every potential, wrapper, map and positivity holds every law that applies to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import instances
import laws
import pytest
import torch
from laws import Law, PositivityLaw

from ot_lift.potentials import AutogradPotential, Quadratic


def _pairs(rules: Iterable[Any], names: Iterable[str]) -> Iterator[Any]:
    names = list(names)
    return (pytest.param(rule, name, id=f"{rule.__name__}-{name}") for rule in rules for name in names)


@pytest.mark.parametrize(("law", "name"), _pairs(laws.POTENTIAL_LAWS, instances.POTENTIALS))
def test_potential(law: Law, name: str, generator: torch.Generator) -> None:
    law(instances.POTENTIALS[name], generator)


@pytest.mark.parametrize(("law", "name"), _pairs(laws.MAP_LAWS, instances.POTENTIALS))
def test_gradient_map(law: Law, name: str, generator: torch.Generator) -> None:
    law(instances.POTENTIALS[name], generator)


STORED = {**instances.PLAIN, **instances.CONSTRAINED, **instances.STANDARDISED}


@pytest.mark.parametrize(("law", "name"), _pairs(laws.FILE_LAWS, STORED))
def test_stored_potential(law: Law, name: str, generator: torch.Generator) -> None:
    law(STORED[name], generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", instances.WRAPPERS)
def test_baked_module_equals_the_wrapper(name: str, dtype: torch.dtype) -> None:
    laws.baked_module_equals_the_wrapper(instances.WRAPPERS[name], dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("law", "name"), _pairs(laws.POSITIVITY_LAWS, laws.POSITIVITIES))
def test_positivity(law: PositivityLaw, name: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    law(name, dtype, generator)


class _Saddle(torch.nn.Module):
    """x₀² − x₁², which is not convex."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0] ** 2 - x[:, 1] ** 2


class _Mixed(torch.nn.Module):
    """Convex, but every value depends on the mean of the batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(0)).square().sum(1)


@pytest.mark.parametrize(
    ("law", "module"),
    [
        (laws.is_convex_along_chords, _Saddle()),
        (laws.hessian_is_symmetric_and_at_least_mu, _Saddle()),
        (laws.prediction_never_depends_on_batch_mates, _Mixed()),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_a_law_catches_what_breaks_it(law: Law, module: torch.nn.Module, generator: torch.Generator) -> None:
    with pytest.raises(AssertionError):
        law(lambda dtype: AutogradPotential(module, 2, strong_convexity=0.1), generator)


class _Wrong(Quadratic):
    """A quadratic whose derivatives are too large by a thousandth."""

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        return super().gradient(x) * 1.001

    def value_gradient_hessian(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        value, gradient, hessian = super().value_gradient_hessian(x)
        return value, gradient, hessian * 1.002


@pytest.mark.parametrize(
    "law",
    [
        laws.gradient_leaves_a_second_order_remainder,
        laws.hessian_leaves_a_second_order_remainder,
        laws.every_derivative_agrees_with_autograd,
        laws.hessian_slope_agrees_with_autograd,
        laws.derivatives_differentiate_in_points_and_parameters,
    ],
)
def test_a_law_catches_a_derivative_that_is_wrong_by_a_thousandth(law: Law, generator: torch.Generator) -> None:
    with pytest.raises(AssertionError):
        law(lambda dtype: _Wrong(2, dtype=dtype), generator)
