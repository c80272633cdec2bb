"""Maximum likelihood of an energy: E at the data plus log ∫exp(−E), as a training objective."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from ot_lift.batches import Batches, StreamBatches
from ot_lift.constrained import Bound
from ot_lift.densities_normalizer import Normalizer, importance_sampling, on_lattice, place, quadrature
from ot_lift.densities_proposal import Proposal
from ot_lift.io import joined, part
from ot_lift.likelihood import blurred, weighted_mean
from ot_lift.maps import in_blocks
from ot_lift.positivity import marked_parameters
from ot_lift.rows import open_rows
from ot_lift.training import Objective

_LATTICE = {1: 1024, 2: 2584}  # points of a training step
_TRAINING_DROP = 12.0  # nats below the peak up to which a training step integrates
_HELD_OUT_TOLERANCE = 1e-4
_DRAWS, _HELD_OUT_DRAWS = 512, 4096  # of a proposal: in a training step, and to evaluate with


class Integral(Protocol):
    """How log ∫exp(−E) is estimated while E is trained."""

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Points ``(m, features)`` and logs of what each stands for ``(m,)``: Σ exp(log − E) estimates the integral."""

    def held_out(self, model: nn.Module) -> Normalizer:
        """The integral for a plain model; deterministic given the model."""

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as tensors."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore `state`."""


class LatticeIntegral(Integral):
    """In one and two dimensions: a lattice shifted at random, in a box that holds the data and the model's mass.

    Args:
        points: whitened data ``(n, features)``, of the dtype and on the device of training.
        generator: source of the shifts; its state belongs to a checkpoint.
    """

    def __init__(self, points: Tensor, generator: torch.Generator) -> None:
        self._home, self._generator = points[:0], generator
        self._data = torch.stack([points.amin(0), points.amax(0)]).double().cpu()
        self._box = self._data
        self.features = points.shape[1]

    def next_batch(self) -> tuple[Tensor, Tensor]:
        shift = torch.rand(self.features, generator=self._generator, dtype=torch.float64)
        points, log_volume = on_lattice(self._box, _LATTICE[self.features], shift)
        return points.to(self._home), self._home.new_full((len(points),), log_volume)

    def held_out(self, model: nn.Module) -> Normalizer:
        def energy(x: Tensor) -> Tensor:
            value: Tensor = model(x.to(self._home))
            return value.double().cpu()

        box = place(energy, self.features, drop=_TRAINING_DROP)
        self._box = torch.stack([torch.minimum(box[0], self._data[0]), torch.maximum(box[1], self._data[1])])
        return quadrature(energy, self.features, tolerance=_HELD_OUT_TOLERANCE)

    def state(self) -> dict[str, Tensor]:
        return {"generator": self._generator.get_state(), "box": self._box}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._generator.set_state(state["generator"])
        self._box = state["box"]


class DrawnIntegral(Integral):
    """In more dimensions: self-normalised importance weights of a proposal's draws, most of which come again.

    Args:
        proposal: in whitened coordinates.
        home: an empty tensor ``(0, features)`` of the dtype and on the device of training.
        generator: source of the draws; its state belongs to a checkpoint.
    """

    def __init__(self, proposal: Proposal, home: Tensor, generator: torch.Generator) -> None:
        def sampler(count: int, generator: torch.Generator) -> Tensor:
            points = proposal.draw(count, generator)
            return torch.cat([points, proposal.log_prob(points)[:, None]], 1)

        self._home = home
        self._held_out = self._split(sampler(_HELD_OUT_DRAWS, generator))
        rows = open_rows(sampler, name="proposal")
        self._batches = StreamBatches(rows, lambda drawn: drawn.to(home), batch_size=_DRAWS, generator=generator)

    def _split(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        drawn = drawn.to(self._home)
        return drawn[:, :-1], -drawn[:, -1] - math.log(len(drawn))

    def next_batch(self) -> tuple[Tensor, Tensor]:
        return self._split(self._batches.next()[1])

    def held_out(self, model: nn.Module) -> Normalizer:
        points, log_share = self._held_out
        log_weight = log_share + math.log(len(points)) - in_blocks(model, points)
        return importance_sampling(log_weight.cpu())

    def state(self) -> dict[str, Tensor]:
        return self._batches.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._batches.load_state(state)


class EnergyLikelihood(Objective):
    """Mean negative log-likelihood of exp(−E)/∫exp(−E), in nats a point.

    Its gradient in the weights is E_data[∂E] − E_model[∂E], the second mean by the integral's weights.

    Args:
        batches: of the training points.
        held_out: ``(m, features)``.
        held_out_weight: ``(m,)`` or None.
        integral: of exp(−E).
        generator: source of noise; its state belongs to a checkpoint.
        blur: root ``(features, features)`` of the covariance of normal noise that every batch gets, or None.
        log_volume: log |det| of the coordinates that the points are in, so that values are in the units of the data.
    """

    def __init__(
        self,
        batches: Batches,
        held_out: Tensor,
        held_out_weight: Tensor | None = None,
        *,
        integral: Integral,
        generator: torch.Generator,
        blur: Tensor | None = None,
        log_volume: float = 0.0,
    ) -> None:
        self.batches, self.held_out_x, self.held_out_weight, self.integral = (
            batches,
            held_out,
            held_out_weight,
            integral,
        )
        self._generator, self._blur, self._log_volume = generator, blur, log_volume
        self._normalizer: Normalizer | None = None

    def next_batch(self) -> Tensor:
        self._x = blurred(self.batches.next()[1], self._blur, self._generator)
        return self._x

    def loss(self, model: Bound) -> Tensor:
        points, log_share = self.integral.next_batch()
        energy = model(torch.cat([self._x, points]))
        at_data, at_points = energy[: len(self._x)], energy[len(self._x) :]
        return at_data.mean() + torch.logsumexp(log_share - at_points, 0) - self._log_volume

    @torch.no_grad()
    def held_out(self, model: nn.Module) -> float:
        make_convex_(model)
        values = in_blocks(model, self.held_out_x).double()
        self._normalizer = self.integral.held_out(model)
        mean = weighted_mean(values, self.held_out_weight)
        return mean + self._normalizer.log_value - self._log_volume

    def report(self) -> dict[str, float]:
        found = self._normalizer
        if found is None:
            return {}
        figures = {"log_normalizer_standard_error": found.standard_error}
        if found.effective_sample_size is not None:
            figures["effective_share"] = found.effective_sample_size / found.points
        return figures

    def state(self) -> dict[str, Tensor]:
        tensors = joined({"batches": self.batches.state(), "integral": self.integral.state()})
        return tensors | {"generator": self._generator.get_state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._generator.set_state(state["generator"])
        self.batches.load_state(part(state, "batches"))
        self.integral.load_state(part(state, "integral"))


@torch.no_grad()
def make_convex_(model: nn.Module) -> None:
    """Raise negative entries of marked weights to 0: the iterates of ADMM, which are read like that."""
    for weight in marked_parameters(model).values():
        weight.clamp_min_(0)
