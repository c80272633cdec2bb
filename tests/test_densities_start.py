"""The flow that proposes, and which integral goes with which dimension."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch

from ot_lift import ConvexPotentialFlow
from ot_lift.densities_objective import DrawnIntegral, LatticeIntegral
from ot_lift.densities_start import fit_proposal, make_integral
from ot_lift.flows_map import FlowMap

SETTINGS: dict[str, Any] = {
    "hidden_features": (4,),
    "activation": "softplus",
    "sharpness": 8.0,
    "max_steps": 3,
    "batch_size": 16,
    "patience": None,
    "progress": False,
    "device": None,
    "dtype": "float32",
    "max_seconds": None,
}


@pytest.fixture
def x(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(100, 3, generator=generator, dtype=torch.float64)


def test_the_densitys_settings_are_the_flows(x: torch.Tensor) -> None:
    with mock.patch.object(ConvexPotentialFlow, "fit", autospec=True, side_effect=_unfitted) as fit:
        fit_proposal(x, None, SETTINGS | {"max_seconds": 8.0}, seed=5, folder=None)
        fit_proposal(x, ConvexPotentialFlow(max_steps=9, blocks=2), SETTINGS, seed=6, folder=None)
    own, given = (call.args[0].get_params() for call in fit.call_args_list)
    assert (own["max_steps"], own["hidden_features"], own["max_seconds"], own["random_state"]) == (3, (4,), 4.0, 5)
    assert (given["max_steps"], given["blocks"], given["max_seconds"], given["random_state"]) == (9, 2, None, 6)


def _unfitted(flow: ConvexPotentialFlow, x: torch.Tensor, resume: Any) -> ConvexPotentialFlow:
    flow.map_, flow.stop_reason_ = None, ""  # type: ignore[assignment]
    return flow


def test_few_points_are_proposed_for_by_the_gaussian(x: torch.Tensor) -> None:
    map_, ended = fit_proposal(x[:40], None, SETTINGS, seed=0, folder=None)
    assert torch.equal(map_(x), x) and ended == ""


def test_a_flow_is_fitted_and_proposes_above_two_dimensions(x: torch.Tensor, generator: torch.Generator) -> None:
    map_, ended = fit_proposal(x, None, SETTINGS, seed=0, folder=None)
    assert isinstance(map_, FlowMap) and ended == "max_steps"
    assert isinstance(make_integral(x, map_, generator), DrawnIntegral)
    assert isinstance(make_integral(x[:, :2], None, generator), LatticeIntegral)
