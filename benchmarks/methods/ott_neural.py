"""OTT-JAX's neural dual, trained for the budget (optional: the extra `peers`)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.centred import CentredMethod, in_blocks
from benchmarks.step_sizes import RULE, choose_step_size
from benchmarks.tasks import Array, Task, Unavailable
from ot_lift.diagnostics import pushforward_error
from ot_lift.errors import DataError
from ot_lift.methods import Method

_ROWS = 1024
_MOST_HELD_OUT = 1000
_IN_A_QUICK_LOOK, _QUICK_RATE = "gaussian-d8", 1e-3
_NO_LIMIT_ON_STEPS = 10_000_000


class _BudgetSpentError(Exception):
    """Leaves OTT's training loop, which has no budget of time; its state stays in the solver."""


class OTTNeuralDualMethod(CentredMethod):
    """`W2NeuralDual` of two input-convex networks that start at the map between Gaussians, ended by the clock.

    Time that JAX compiles for is part of the budget. A step takes seconds in eight dimensions, and is not broken off.

    Args:
        hidden_features: Widths of both networks.
        batch_size: Points a side and step.
        learning_rate: Of Adam with OTT's own decay rates; None: chosen from the grid by the energy distance of held-out
            points, within the budget.

    References:
        Amos (2023), arXiv 2210.12153; Makkuva et al. (2020), arXiv 1908.10962.
    """

    name = "OTT neural dual"
    keeps_budget = True

    def __init__(
        self,
        *,
        hidden_features: tuple[int, ...] = (64, 64, 64, 64),
        batch_size: int = 256,
        learning_rate: float | None = None,
    ) -> None:
        self._tuned = learning_rate is None
        settings = {"hidden_features": list(hidden_features), "batch_size": batch_size}
        super().__init__(max_points=None, **settings, learning_rate=RULE if learning_rate is None else learning_rate)

    def _fit(self, x: Array, y: Array, rng: np.random.Generator, max_seconds: float | None) -> None:
        if max_seconds is None:
            raise DataError("expected max_seconds, got None: this training has no other end")
        sides = [side.astype(np.float32) for side in (x, y)]
        seed = int(rng.integers(2**31))
        rate, left = self.settings["learning_rate"], max_seconds
        if self._tuned:
            train, held_out = zip(*(_split(side) for side in sides), strict=True)

            def trial(rate: float, seconds: float) -> float:
                transport, _ = self._trained(list(train), seed, rate, seconds)
                moved = in_blocks(transport, held_out[0], rows=_ROWS)
                return pushforward_error(moved, held_out[1], generator=torch.Generator().manual_seed(seed)).energy

            choice = choose_step_size(trial, max_seconds=max_seconds)
            rate, left = choice.rate, choice.seconds
            self.notes.append(choice.note)
        self._map, steps = self._trained(sides, seed, rate, left)
        self.notes.append(f"{steps:,} steps within the budget")

    def _trained(
        self, sides: list[npt.NDArray[np.float32]], seed: int, rate: float, seconds: float
    ) -> tuple[Callable[[Any], Any], int]:
        """The map after some seconds, and its steps."""
        import jax

        began = time.monotonic()
        solver = self._solver(sides, seed, rate)
        batches = [self._batches(side, stream) for stream in np.random.default_rng(seed).spawn(2) for side in sides]
        steps = 0

        def watch_the_clock(step: int, potentials: Any) -> None:
            nonlocal steps
            steps = step + 1
            if time.monotonic() - began > seconds:
                raise _BudgetSpentError

        with contextlib.suppress(_BudgetSpentError):
            solver(*batches, callback=watch_the_clock)
        return jax.jit(solver.to_dual_potentials().transport), steps

    def _solver(self, sides: list[npt.NDArray[np.float32]], seed: int, rate: float) -> Any:
        import jax
        import optax
        from ott.neural.methods.neuraldual import W2NeuralDual
        from ott.neural.networks.icnn import ICNN

        source, target = map(jax.numpy.asarray, sides)
        features = source.shape[1]

        def network(home: Any, away: Any) -> ICNN:
            hidden = self.settings["hidden_features"]
            return ICNN(dim_data=features, dim_hidden=hidden, pos_weights=True, gaussian_map_samples=(home, away))

        return W2NeuralDual(
            features,
            neural_f=network(source, target),
            neural_g=network(target, source),
            optimizer_f=optax.adam(rate, b1=0.5, b2=0.9),
            optimizer_g=optax.adam(rate, b1=0.5, b2=0.9),
            num_train_iters=_NO_LIMIT_ON_STEPS,
            valid_freq=_NO_LIMIT_ON_STEPS,
            rng=jax.random.key(seed),
        )

    def _batches(self, points: npt.NDArray[np.float32], rng: np.random.Generator) -> Iterator[npt.NDArray[np.float32]]:
        while True:
            yield points[rng.integers(len(points), size=self.settings["batch_size"])]

    def _forward(self, x: Array) -> Array:
        return in_blocks(self._map, x, rows=_ROWS)


def _split(points: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Points to train on and held-out ones; their order is random already."""
    held_out = min(_MOST_HELD_OUT, len(points) // 5)
    return points[held_out:], points[:held_out]


def methods(task: Task) -> Iterable[Method]:
    """With the task's budget; in a quick look on one task and untuned: JAX compiles for longer than that budget."""
    if missing := [name for name in ("ott", "flax", "optax") if find_spec(name) is None]:
        raise Unavailable(f"{', '.join(missing)} not installed; pip install 'ot-lift[peers]'")
    if task.quick:
        return [OTTNeuralDualMethod(learning_rate=_QUICK_RATE)] if task.name == _IN_A_QUICK_LOOK else []
    return [OTTNeuralDualMethod()]
