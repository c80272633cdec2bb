"""Flows and energies of points in several dimensions, fitted by maximum likelihood under every positivity.

All networks work in coordinates in which the training points' shrinkage Gaussian is N(0, I), so that what they gain is
what a Gaussian cannot say: columns are brought to variance 1, then their covariance is shrunk (Ledoit & Wolf 2004). A
negative log-likelihood is in nats and the units of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn

from benchmarks.experiments.densities1d import Array
from benchmarks.experiments.energies import ADMMS, ENERGY, LIFT, Trial
from benchmarks.experiments.flows import FLOW_LIFT
from ot_lift import ICNN, Lift
from ot_lift.constrained import Constrained
from ot_lift.densities_normalizer import Normalizer, importance_sampling
from ot_lift.densities_objective import DrawnIntegral
from ot_lift.densities_proposal import FlowProposal
from ot_lift.densities_start import fit_proposal
from ot_lift.errors import ConvergenceError
from ot_lift.flows import ConvexPotentialFlow
from ot_lift.flows_whitening import Whitening
from ot_lift.likelihood import block_rows, log_density
from ot_lift.logdet import log_det_for_training, value_gradient_log_det
from ot_lift.maps import in_blocks
from ot_lift.potentials import Potential
from ot_lift.standardizer import Standardizer
from ot_lift.starts import align_with_identity_

BATCH = 128
FLOW: Mapping[str, Any] = {"hidden_features": (64, 64), "sharpness": 8.0, "strong_convexity": 1e-3}
ENERGY_WIDTHS = (128, 128, 128)
PROPOSAL: Mapping[str, Any] = {"hidden_features": (32, 32), "positivity": "softplus", "max_steps": 400}
GAUSSIANS = ("Gaussian", "shrinkage Gaussian")
_ALIGNMENT_ROWS = 2_048
_TEST_DRAWS = 1 << 14
_PROPOSAL_ROWS = 1 << 16  # at most, that the proposal is fitted to


@dataclass(frozen=True)
class Points:
    """Three splits in whitened coordinates, float32.

    Attributes:
        training: `(n, features)`.
        validation: `(m, features)`.
        test: `(k, features)`.
        coordinates: from the units of the data and back.
        log_volume: log |det| of them.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> points = Points.of(*(3 + 2 * rng.normal(size=(1_000, 2)) for _ in range(3)))
        >>> round(float(points.training.std()), 1), round(points.log_volume, 1)  # −2 log 2
        (1.0, -1.4)
    """

    training: Tensor
    validation: Tensor
    test: Tensor
    coordinates: Standardizer
    log_volume: float

    @classmethod
    def of(cls, training: Array, validation: Array, test: Array) -> Points:
        """Whitened by the training split's mean, deviations and shrunk correlations."""
        training = np.asarray(training, dtype=np.float64)
        deviation = training.std(0)
        shrunk = LedoitWolf().fit(training / deviation).covariance_ * np.outer(deviation, deviation)
        units = Whitening.of_moments(torch.from_numpy(training.mean(0)), torch.from_numpy(shrunk))
        first, second, third = (
            units.coordinates.source(torch.from_numpy(np.array(one, dtype=np.float64))).float()
            for one in (training, validation, test)
        )
        return cls(first, second, third, units.coordinates, units.log_volume)

    @property
    def features(self) -> int:
        """Their dimension."""
        return self.training.shape[1]

    def batches(self, seed: int, size: int = BATCH) -> Callable[[], Tensor]:
        """Draws `(size, features)` of the training points, with replacement."""
        generator = torch.Generator().manual_seed(seed)
        return lambda: self.training[torch.randint(len(self.training), (size,), generator=generator)]


class Likelihood(Protocol):
    """How likely points are under a network, and the networks that it is asked of."""

    points: Points

    def trial(self, name: str, seed: int) -> Trial:
        """The network that a method starts with; ValueError for a name that it has no network for."""

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Of a training step, `(n, features)` to a scalar; up to a constant the mean negative log-likelihood."""

    def validated(self, plain: nn.Module) -> float:
        """Mean negative log-likelihood of the validation points."""

    def tested(self, plain: nn.Module) -> dict[str, float]:
        """`test_nll`, of the test points, and how well it is known."""


@dataclass(frozen=True)
class FlowLikelihood(Likelihood):
    """The change of variables under ∇φ, x ↦ N(0, I); values are exact and in float64.

    Attributes:
        points: what it is fitted to.
        probes: of the log-determinant's derivative in a training step.
    """

    points: Points
    probes: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def trial(self, name: str, seed: int) -> Trial:
        generator = torch.Generator().manual_seed(seed)
        network = ICNN(self.points.features, generator=generator, **FLOW)
        align_with_identity_(network, self.points.training[:_ALIGNMENT_ROWS])
        return Trial(constrained_by(name, network, generator, FLOW_LIFT), self.points.training)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        assert isinstance(model, Potential)  # for the type checker: networks here are potentials
        try:
            _, latent, log_det = log_det_for_training(model, batch, generator=self.probes)
        except ConvergenceError as error:
            raise FloatingPointError(f"training has diverged: {error}") from error
        return -log_density(latent, log_det).mean()

    def validated(self, plain: nn.Module) -> float:
        return self._nll(plain, self.points.validation)

    def tested(self, plain: nn.Module) -> dict[str, float]:
        return {"test_nll": self._nll(plain, self.points.test)}

    @torch.no_grad()
    def _nll(self, plain: nn.Module, points: Tensor) -> float:
        assert isinstance(plain, Potential)  # for the type checker, as above
        try:
            plain, blocks = plain.double(), points.double().split(block_rows(points.shape[1]))
            values = torch.cat([log_density(*value_gradient_log_det(plain, block)[1:]) for block in blocks])
        except ConvergenceError as error:
            raise FloatingPointError(f"training has diverged: {error}") from error
        return -float(values.mean()) - self.points.log_volume


class EnergyLikelihood(Likelihood):
    """exp(−E)/Z, log Z by importance sampling under a flow that is fitted before, the same for every method.

    The paper trains that flow jointly with the energy. Draws of training steps, of validation and of the test differ.

    Args:
        points: What it is fitted to.
        seed: Of the proposal and its draws.
        steps: Of the proposal's fit.
    """

    def __init__(self, points: Points, seed: int, steps: int = PROPOSAL["max_steps"]) -> None:
        self.points = points
        flow = ConvexPotentialFlow(**{**PROPOSAL, "max_steps": steps}, batch_size=BATCH)
        settings = {"max_seconds": None, "progress": False, "device": None, "dtype": "float32"}
        map_, _ = fit_proposal(points.training[:_PROPOSAL_ROWS].double(), flow, settings, seed=seed, folder=None)
        draws, self._fresh = (torch.Generator().manual_seed(2 * seed + k) for k in range(2))
        self._proposal = FlowProposal(map_)
        self._integral = DrawnIntegral(self._proposal, points.training[:0], draws)

    def trial(self, name: str, seed: int) -> Trial:
        generator = torch.Generator().manual_seed(seed)
        network = ICNN(self.points.features, ENERGY_WIDTHS, generator=generator, **ENERGY)
        return Trial(constrained_by(name, network, generator, LIFT), self.points.training)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        drawn, log_share = self._integral.next_batch()
        energies: Tensor = model(torch.cat([batch, drawn]))
        return energies[: len(batch)].mean() + torch.logsumexp(log_share - energies[len(batch) :], 0)

    @torch.no_grad()
    def validated(self, plain: nn.Module) -> float:
        found = self._integral.held_out(plain.float())
        return self._nll(plain, self.points.validation, found)

    @torch.no_grad()
    def tested(self, plain: nn.Module) -> dict[str, float]:
        drawn = self._proposal.draw(_TEST_DRAWS, self._fresh)  # that nothing was chosen by
        log_weight = -in_blocks(plain.double(), drawn) - self._proposal.log_prob(drawn)
        found = importance_sampling(log_weight)
        return {
            "test_nll": self._nll(plain, self.points.test.double(), found),
            "log_normalizer_standard_error": found.standard_error,
            "effective_share": (found.effective_sample_size or 0.0) / found.points,
        }

    def _nll(self, plain: nn.Module, points: Tensor, normalizer: Normalizer) -> float:
        return float(in_blocks(plain, points).double().mean()) + normalizer.log_value - self.points.log_volume


def constrained_by(name: str, network: ICNN, generator: torch.Generator, lift: Mapping[str, Any]) -> Constrained:
    """A network with a positivity.

    Args:
        name: "lift", one of `ADMMS` or what `Constrained` takes.
        network: Copied.
        generator: Of a lift's start.
        lift: Arguments of a lift.

    Example:
        >>> type(constrained_by("projection", ICNN(2, (4,)), torch.Generator(), {})).__name__
        'ConstrainedPotential'
    """
    if name == "lift":
        return Lift(network, features=network.features, generator=generator, **lift)
    return Constrained(network, ADMMS.get(name, name))


def gaussian_nll(name: str, points: Points) -> float:
    """Mean negative log-likelihood of the test points under a Gaussian fitted to the training points, nats.

    Args:
        name: "Gaussian", with their mean and covariance, or "shrinkage Gaussian", which the coordinates are made of.
        points: Which.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> points = Points.of(*(2 * rng.normal(size=(20_000, 1)) for _ in range(3)))
        >>> round(gaussian_nll("Gaussian", points), 1)  # of N(0, 4): ½ log 8πe
        2.1
    """
    training, test = points.training.double(), points.test.double()
    mean, root = torch.zeros(points.features).double(), torch.eye(points.features).double()
    if name == "Gaussian":
        mean, covariance = training.mean(0), torch.cov(training.T, correction=0).reshape(2 * [points.features])
        root = torch.linalg.cholesky(covariance)
    latent = torch.linalg.solve_triangular(root, (test - mean).T, upper=False).T
    log_det = -root.diagonal().log().sum().expand(len(test))
    return -float(log_density(latent, log_det).mean()) - points.log_volume
