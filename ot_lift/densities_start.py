"""The flow that proposes for a log-concave density, and how its normaliser is estimated in training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ot_lift.densities_objective import DrawnIntegral, Integral, LatticeIntegral
from ot_lift.densities_proposal import FlowProposal
from ot_lift.errors import ConvergenceWarning
from ot_lift.flows import ConvexPotentialFlow
from ot_lift.flows_map import FlowMap
from ot_lift.flows_start import identity_blocks
from ot_lift.flows_whitening import Whitening

_FEWEST = 60  # points: with fewer the proposal is the Gaussian
_SHARED = ("hidden_features", "activation", "sharpness", "max_steps", "batch_size", "patience")
_ALWAYS = ("progress", "device", "dtype")


def fit_proposal(
    x: Tensor, flow: ConvexPotentialFlow | None, settings: Mapping[str, Any], *, seed: int, folder: Path | None
) -> tuple[FlowMap, str]:
    """Fit a flow to whitened points, in half of the time budget.

    Args:
        x: ``(n, features)``, float64.
        flow: whose settings to take; it stays as it is. None: those of the density.
        settings: parameters of the density, by name.
        seed: of the fit.
        folder: for checkpoints, or None.

    Returns:
        Its map, and why its training ended. A poor proposal is no error: it shows in the effective sample size.
    """
    features = x.shape[1]
    if len(x) < _FEWEST:
        units = Whitening.of_moments(torch.zeros(features), torch.eye(features)).coordinates
        return FlowMap(identity_blocks(features), units), ""
    names = _ALWAYS if flow is not None else _SHARED + _ALWAYS
    given = {} if flow is None else flow.get_params()
    seconds = None if settings["max_seconds"] is None else 0.5 * settings["max_seconds"]
    options = given | {name: settings[name] for name in names} | {"random_state": seed, "max_seconds": seconds}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = ConvexPotentialFlow(**options).fit(x, resume=None if folder is None else folder / "proposal")
    return fitted.map_, fitted.stop_reason_


def make_integral(x: Tensor, map_: FlowMap | None, generator: torch.Generator) -> Integral:
    """How log Z is estimated in training, for whitened points ``(n, features)``."""
    return LatticeIntegral(x, generator) if map_ is None else DrawnIntegral(FlowProposal(map_), x[:0], generator)
