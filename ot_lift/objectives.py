"""Training objectives of a map between two datasets, in standardised coordinates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ot_lift.batches import Batches
from ot_lift.conjugate import conjugate
from ot_lift.constrained import Bound, BoundPotential
from ot_lift.io import joined, part
from ot_lift.losses import plan_regression, semi_dual
from ot_lift.potentials import Potential
from ot_lift.training import Objective

# Conjugation while training: a residual r changes the loss only by r²/2μ, so it need not be small.
_TRAINING_TOL, _TRAINING_STEPS = 1e-3, 24
_HELD_OUT_TOL, _HELD_OUT_STEPS = 1e-4, 60
_TINY = 1e-30  # a strong convexity of zero bounds nothing: an unsolved φ* is then as good as infinite
# Beyond this many bytes of remembered maximisers a target point is solved from scratch at every visit.
_MEMORY_BYTES = 1 << 30


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    values = values.double()
    return values.mean() if weight is None else (values * weight).sum() / weight.sum()


class SemiDual(Objective):
    """E φ(x) + E φ*(y) with exact conjugation, warm-started at each target point's last solution.

    Args:
        source: batches of x.
        target: batches of y.
        held_out_x: ``(n, features)``.
        held_out_y: ``(m, features)``.
        held_out_x_weight: ``(n,)`` or None.
        held_out_y_weight: ``(m,)`` or None.
    """

    def __init__(
        self,
        source: Batches,
        target: Batches,
        held_out_x: Tensor,
        held_out_y: Tensor,
        held_out_x_weight: Tensor | None = None,
        held_out_y_weight: Tensor | None = None,
    ) -> None:
        self.source, self.target = source, target
        self.held_out_x, self.held_out_y = held_out_x, held_out_y
        self.held_out_x_weight, self.held_out_y_weight = held_out_x_weight, held_out_y_weight
        width = held_out_y.shape[1] * held_out_y.element_size()
        remember = target.size * width <= _MEMORY_BYTES
        self._memory = held_out_y.new_full((target.size if remember else 0, held_out_y.shape[1]), float("nan"))
        self._held_out_argmax = torch.full_like(held_out_y, float("nan"))
        self._steps: list[Tensor] = []
        self._unsolved: list[Tensor] = []

    def next_batch(self) -> Tensor:
        _, self._x = self.source.next()
        self._slots, self._y = self.target.next()
        if self.target.renewed is not None and len(self._memory):
            self._memory[self.target.renewed] = float("nan")
        return self._x

    def loss(self, model: Bound) -> Tensor:
        assert isinstance(model, BoundPotential)  # for the type checker: estimators constrain potentials
        slots = self._slots.to(self._memory.device)
        start = self._memory[slots] if len(self._memory) else None
        with torch.no_grad():
            solved = conjugate(model, self._y, start, tol=_TRAINING_TOL, max_steps=_TRAINING_STEPS, throw=False)
        if len(self._memory):
            self._memory[slots] = solved.argmax
        self._steps.append(solved.steps.float().mean())
        self._unsolved.append((~solved.converged).float().mean())
        return semi_dual(model, self._x, solved.argmax)

    @torch.no_grad()
    def held_out(self, model: nn.Module) -> float:
        assert isinstance(model, Potential)
        phi, phi_star = self.held_out_values(model)
        return float(_mean(phi, self.held_out_x_weight) + _mean(phi_star, self.held_out_y_weight))

    @torch.no_grad()
    def held_out_values(self, potential: Potential) -> tuple[Tensor, Tensor]:
        """φ(x) ``(n,)`` and φ*(y) ``(m,)`` at the held-out points, from above where φ* could not be solved for."""
        solved = conjugate(
            potential,
            self.held_out_y,
            self._held_out_argmax,
            tol=_HELD_OUT_TOL,
            max_steps=_HELD_OUT_STEPS,
            throw=False,
        )
        self._held_out_argmax = solved.argmax
        # ⟨x̂, y⟩ − φ(x̂) is below φ*(y): left like that, a network that cannot be solved would look better than it is.
        above = solved.residual.square() * potential.features / (2 * max(potential.strong_convexity, _TINY))
        value = torch.where(solved.converged, solved.value, solved.value + above)
        return potential(self.held_out_x), value

    def improvement(self, potential: Potential, start: Potential) -> tuple[float, float]:
        """How much lower the held-out semi-dual is than at ``start``, and its standard error (points are paired)."""
        gain, variance = 0.0, 0.0
        weights = (self.held_out_x_weight, self.held_out_y_weight)
        both = zip(self.held_out_values(start), self.held_out_values(potential), weights, strict=True)
        for before, after, weight in both:
            difference = before.double() - after.double()
            mean = _mean(difference, weight)
            share = torch.ones_like(difference) if weight is None else weight
            spread = (share * (difference - mean)).square().sum() / share.sum().square()
            spread = spread * len(share) / max(1, len(share) - 1)
            gain, variance = gain + float(mean), variance + float(spread)
        return gain, variance**0.5

    def report(self) -> dict[str, float]:
        figures = {}
        if self._steps:
            figures["newton_steps"] = float(torch.stack(self._steps).mean())
            figures["unsolved"] = float(torch.stack(self._unsolved).mean())
        self._steps.clear()
        self._unsolved.clear()
        return figures

    def state(self) -> dict[str, Tensor]:
        tensors = joined({"source": self.source.state(), "target": self.target.state()})
        tensors |= {"memory": self._memory.clone(), "held_out_argmax": self._held_out_argmax}
        if self._steps:  # for the averages of the next report
            tensors |= {"steps": torch.stack(self._steps), "unsolved": torch.stack(self._unsolved)}
        return tensors

    def load_state(self, state: dict[str, Tensor]) -> None:
        for side, batches in (("source", self.source), ("target", self.target)):
            batches.load_state(part(state, side))
        self._memory = state["memory"].to(self._memory, copy=True)
        self._held_out_argmax = state["held_out_argmax"].to(self._held_out_argmax)
        none = torch.empty(0)
        self._steps, self._unsolved = (
            list(state.get(name, none).to(self._memory.device)) for name in ("steps", "unsolved")
        )


class PlanRegression(Objective):
    """Regression of ∇φ to the barycentric projection of a discrete plan: a start for :class:`SemiDual`.

    Args:
        x: source points ``(n, features)``.
        image: where the plan sends them ``(n, features)``.
        batch_size: rows a batch.
        generator: source of randomness.
    """

    def __init__(self, x: Tensor, image: Tensor, *, batch_size: int, generator: torch.Generator) -> None:
        held_out = max(1, len(x) // 10)
        self._held_out = (x[:held_out], image[:held_out])
        self._x, self._image = x[held_out:], image[held_out:]
        self._batch_size, self._generator = min(batch_size, len(self._x)), generator

    def next_batch(self) -> Tensor:
        self._slots = torch.randint(len(self._x), (self._batch_size,), generator=self._generator)
        return self._x[self._slots]

    def loss(self, model: Bound) -> Tensor:
        assert isinstance(model, BoundPotential)
        return plan_regression(model, self._x[self._slots], self._image[self._slots])

    @torch.no_grad()
    def held_out(self, model: nn.Module) -> float:
        assert isinstance(model, Potential)
        return float(plan_regression(model, *self._held_out))

    def report(self) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {"generator": self._generator.get_state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._generator.set_state(state["generator"])
