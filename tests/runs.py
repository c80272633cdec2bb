"""Short training runs that a test can interrupt, break and compare to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from instances import make_icnn, normal
from torch import Tensor, nn

from ot_lift.batches import FiniteBatches
from ot_lift.constrained import Bound, BoundPotential, Constrained
from ot_lift.lift import constrain
from ot_lift.losses import plan_regression
from ot_lift.objectives import SemiDual
from ot_lift.potentials import Potential
from ot_lift.rows import open_rows
from ot_lift.training import Objective, Trained, TrainingOptions, train

FEATURES = 2


class Regression:
    """Regression of ∇φ towards x ↦ (3x₀, x₁/2): a cheap objective whose hooks a test may replace."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        self.generator, self.dtype = torch.Generator().manual_seed(seed), dtype
        self.fixed = normal(64, FEATURES, seed=7, dtype=dtype)
        self.steps = 0
        self.before_loss: Callable[[int, Bound], None] = lambda step, model: None
        self.change_loss: Callable[[int, Tensor], Tensor] = lambda step, loss: loss
        self.change_held_out: Callable[[int, float], float] = lambda step, value: value

    def _image(self, x: Tensor) -> Tensor:
        return x * torch.tensor([3.0, 0.5], dtype=x.dtype)

    def next_batch(self) -> Tensor:
        self.x = torch.randn(16, FEATURES, generator=self.generator, dtype=self.dtype)
        return self.x

    def loss(self, model: Bound) -> Tensor:
        assert isinstance(model, BoundPotential)
        self.before_loss(self.steps, model)
        loss = plan_regression(model, self.x, self._image(self.x))
        self.steps += 1
        return self.change_loss(self.steps, loss)

    @torch.no_grad()
    def held_out(self, model: nn.Module) -> float:
        assert isinstance(model, Potential)
        value = float(plan_regression(model, self.fixed, self._image(self.fixed)))
        return self.change_held_out(self.steps, value)

    def report(self) -> dict[str, float]:
        return {"extra": 1.0}

    def state(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state(), "steps": torch.tensor(self.steps)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])
        self.steps = int(state["steps"])


def make_model(positivity: str = "softplus", dtype: torch.dtype = torch.float32) -> Constrained:
    generator = torch.Generator().manual_seed(0)
    return constrain(make_icnn(FEATURES, (8, 6), dtype), positivity, features=FEATURES, generator=generator)


def options(**changes: Any) -> TrainingOptions:
    settings = {"max_steps": 60, "evaluate_every": 10, "warmup_steps": 5, "patience": None, **changes}
    return TrainingOptions(**settings)


def fit(objective: Objective | None = None, positivity: str = "softplus", **arguments: Any) -> Trained:
    arguments.setdefault("options", options())
    return train(make_model(positivity), objective or Regression(), **arguments)


def weights(module: nn.Module) -> list[Tensor]:
    return [parameter.detach() for parameter in module.parameters()]


def same(first: Trained, second: Trained) -> bool:
    """Whether two runs ended alike to the last bit, in everything but the time they took."""
    timeless = [
        [{k: v for k, v in record.items() if k != "seconds"} for record in run.history] for run in (first, second)
    ]
    equal = all(map(torch.equal, weights(first.module), weights(second.module)))
    ends = (first.stop_reason, first.held_out) == (second.stop_reason, second.held_out)
    return equal and ends and repr(timeless[0]) == repr(timeless[1])  # as text, so that NaN equals NaN


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def small_semi_dual() -> SemiDual:
    """A semi-dual between 300 points a side, with everything that a checkpoint of a fit must hold."""

    def side(seed: int) -> FiniteBatches:
        rows = open_rows((1 + seed) * normal(300, FEATURES, seed=seed), name="X")
        generator = torch.Generator().manual_seed(seed)
        return FiniteBatches(rows, torch.arange(300), lambda x: x.float(), batch_size=64, generator=generator)

    held_out = [(1 + seed) * normal(50, FEATURES, seed=9 + seed).float() for seed in (0, 1)]
    return SemiDual(side(0), side(1), *held_out)


def fit_semi_dual(folder: Path, *, checkpoint_seconds: float) -> Trained:
    """The run that is killed: in this process or, by its name, in another."""
    settings = options(max_steps=150, learning_rate=3e-3, checkpoint_seconds=checkpoint_seconds)
    return train(make_model("lift"), small_semi_dual(), settings, resume=folder, fingerprint="killed")
