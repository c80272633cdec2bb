"""OTT-JAX's neural dual, trained for the budget (optional: the extra `peers`)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.centred import CentredMethod, in_blocks
from benchmarks.tasks import Array, Task, Unavailable
from ot_lift.errors import DataError
from ot_lift.methods import Method

_ROWS = 1024
_NO_LIMIT_ON_STEPS = 10_000_000


class _BudgetSpentError(Exception):
    """Leaves OTT's training loop, which has no budget of time; its state stays in the solver."""


class OTTNeuralDualMethod(CentredMethod):
    """`W2NeuralDual` of two input-convex networks that start at the map between Gaussians, ended by the clock.

    Time that JAX compiles for is part of the budget. A step takes seconds in eight dimensions, and is not broken off.

    Args:
        hidden_features: Widths of both networks.
        batch_size: Points a side and step.
        learning_rate: Of Adam with OTT's own decay rates.

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
        learning_rate: float = 1e-3,
    ) -> None:
        settings = {"hidden_features": list(hidden_features), "batch_size": batch_size, "learning_rate": learning_rate}
        super().__init__(max_points=None, **settings)

    def _fit(self, x: Array, y: Array, rng: np.random.Generator, max_seconds: float | None) -> None:
        import jax

        if max_seconds is None:
            raise DataError("expected max_seconds, got None: this training has no other end")
        began = time.monotonic()
        sides = [side.astype(np.float32) for side in (x, y)]
        solver = self._solver(sides, int(rng.integers(2**31)))
        batches = [self._batches(side, stream) for stream in rng.spawn(2) for side in sides]
        steps = 0

        def watch_the_clock(step: int, potentials: Any) -> None:
            nonlocal steps
            steps = step + 1
            if time.monotonic() - began > max_seconds:
                raise _BudgetSpentError

        try:
            solver(*batches, callback=watch_the_clock)
        except _BudgetSpentError:
            self.notes.append(f"{steps:,} steps within the budget")
        potentials = solver.to_dual_potentials()
        self._map = jax.jit(potentials.transport)

    def _solver(self, sides: list[npt.NDArray[np.float32]], seed: int) -> Any:
        import jax
        import optax
        from ott.neural.methods.neuraldual import W2NeuralDual
        from ott.neural.networks.icnn import ICNN

        source, target = map(jax.numpy.asarray, sides)
        features = source.shape[1]
        rate = self.settings["learning_rate"]

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


def methods(task: Task) -> Iterable[Method]:
    """With the task's budget; in a quick look only in eight dimensions, as JAX compiles for longer than that budget."""
    if missing := [name for name in ("ott", "flax", "optax") if find_spec(name) is None]:
        raise Unavailable(f"{', '.join(missing)} not installed; pip install 'ot-lift[peers]'")
    return [OTTNeuralDualMethod()] if task.features == 8 or not task.quick else []
