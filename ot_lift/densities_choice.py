"""The trained energy or the Gaussian it started at, with its normaliser and how to draw from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ot_lift.densities_normalizer import QUADRATURE_UP_TO, Normalizer, importance_sampling, quadrature
from ot_lift.densities_proposal import Cells, FlowProposal, Proposal, StandardNormal
from ot_lift.densities_sampling import steps_needed
from ot_lift.estimators import significantly_better
from ot_lift.flows_map import FlowMap
from ot_lift.maps import in_blocks
from ot_lift.potentials import Potential, Quadratic

_DRAWS = 1 << 14  # of the proposal, for the normaliser and for the length of the chains


@dataclass(frozen=True)
class EnergyChoice:
    """What was chosen, in whitened coordinates.

    Attributes:
        energy: E, float64.
        normalizer: of exp(−E).
        proposal: what samples are first drawn from.
        steps: of the Metropolis chain after that.
        bound: on the total variation between the chain's last state and the density, estimated.
        used_network: whether E is the trained network.
        log_likelihood: mean log-density of the points, nats.
        standard_error: of that mean, by the points and the normaliser.
    """

    energy: Potential
    normalizer: Normalizer
    proposal: Proposal
    steps: int
    bound: float
    used_network: bool
    log_likelihood: float
    standard_error: float


def choose(trained: Potential, map_: FlowMap | None, points: Tensor, generator: torch.Generator) -> EnergyChoice:
    """Take the trained energy if its gain in log-density is significant, else that of N(0, I).

    Args:
        trained: a convex energy in whitened coordinates, float64.
        map_: of the flow that proposes, for more than two dimensions.
        points: whitened, ``(n, features)`` with n ≥ 2, used neither to train nor to stop.
        generator: source of the draws.

    Example:
        >>> wide = Quadratic(1)  # of N(0, 4): worse for points of N(0, 1)
        >>> wide.set_quadratic_(torch.tensor([[0.25]]))
        >>> generator = torch.Generator().manual_seed(0)
        >>> choose(wide.double(), None, torch.randn(100, 1, generator=generator).double(), generator).used_network
        False
    """
    features = points.shape[1]
    start = gaussian_energy(features)
    before = -start(points).detach() - closed_form(features).log_value
    proposal = make_proposal(trained, map_)
    drawn = proposal.draw(_DRAWS, generator)
    log_weight = -in_blocks(trained, drawn) - proposal.log_prob(drawn)
    normalizer = quadrature(trained, features) if features <= QUADRATURE_UP_TO else importance_sampling(log_weight)
    after = -in_blocks(trained, points) - normalizer.log_value
    gain, error = _mean_and_error(after - before, normalizer.standard_error)
    if significantly_better(gain, error, points=len(points)):
        mean, error = _mean_and_error(after, normalizer.standard_error)
        return EnergyChoice(trained, normalizer, proposal, *steps_needed(log_weight), True, mean, error)
    mean, error = _mean_and_error(before, 0.0)
    return EnergyChoice(start, closed_form(features), StandardNormal(features), 0, 0.0, False, mean, error)


def gaussian_energy(features: int) -> Quadratic:
    """E of N(0, I): ½‖x‖²."""
    return Quadratic(features, strong_convexity=1.0).double()


def closed_form(features: int) -> Normalizer:
    """The normaliser of :func:`gaussian_energy`.

    Example:
        >>> closed_form(2).log_value == math.log(2 * math.pi)
        True
    """
    return Normalizer(0.5 * features * math.log(2 * math.pi), 0.0, None, 0, "closed form")


def make_proposal(energy: Potential, map_: FlowMap | None) -> Proposal:
    """The flow's mixture, or cells of a grid where there is no flow."""
    return Cells(energy, energy.features) if map_ is None else FlowProposal(map_)


def _mean_and_error(values: Tensor, further: float) -> tuple[float, float]:
    return float(values.mean()), math.hypot(float(values.std()) / len(values) ** 0.5, further)
