"""OTT-JAX's neural dual, trained for the budget (optional: the extra `peers`)."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.centred import CentredMethod, in_blocks
from benchmarks.methods import QUICK_TASK, Watcher
from benchmarks.step_sizes import RULE, choose_step_size
from benchmarks.tasks import Array, Task, Unavailable
from ot_lift.diagnostics import pushforward_error
from ot_lift.errors import DataError
from ot_lift.methods import Method

_ROWS = 1024
_MOST_HELD_OUT = 1000
_QUICK: Mapping[str, Any] = {"learning_rate": 1e-3, "hidden_features": (16,)}  # compiles in a fraction of the time
_LOOKS = 30  # at a fit
_INNER_STEPS = 10  # of the conjugate's network, for each of the potential's
_INITIAL_STD = 0.01  # of the weights
_NO_LIMIT_ON_STEPS = 10_000_000


# Both at once would cancel: without a solver the conjugate's network has a part in the loss of the potential's.
_AMORTISED: Mapping[str, Any] = {
    "conjugate_solver": None,
    "amortization_loss": "objective",
    "parallel_updates": False,
    "num_inner_iters": _INNER_STEPS,
}


_Transport = Callable[[Any], Any]


class _BudgetSpentError(Exception):
    """Leaves OTT's training loop, which has no budget of time; its state stays in the solver."""


class OTTNeuralDualMethod(CentredMethod):
    """`W2NeuralDual` of two input-convex networks that start near the map between Gaussians, ended by the clock.

    The quadratic part of the networks is the map between Gaussians, the rest starts small. With OTT's own initial
    weights (LeCun's normal, then cut at zero) four layers of 64 add a gradient thirty times that of the map x to 3x
    between Gaussians in the plane, and training hardly recovers.

    The map is the gradient of the first network. `transport` of OTT's potentials is not used: in 0.6.0 it moves points
    half of the way, for the potentials are of ½‖x − y‖² and their cost is ‖x − y‖².

    Time that JAX compiles for is part of the budget. With OTT's default a step takes seconds in eight dimensions, for
    it solves for every conjugate; a step is not broken off.

    Args:
        amortised: Whether the second network stands for the conjugate as it is (Makkuva et al.), ten steps of it for
            each of the first. That seeks a saddle point, which training may leave again (in eight dimensions after a
            third of ten minutes), so the weights are kept that do best on held-out points, as ours are. By default
            OTT's solver starts where the second network points and solves (Amos); it keeps the last weights.
        hidden_features: Widths of both networks.
        batch_size: Points a side and step.
        learning_rate: Of Adam with OTT's own decay rates; None: chosen from the grid by the energy distance of held-out
            points, within the budget.

    References:
        Amos (2023), arXiv 2210.12153; Makkuva et al. (2020), arXiv 1908.10962.
    """

    keeps_budget = True

    def __init__(
        self,
        *,
        amortised: bool = False,
        hidden_features: tuple[int, ...] = (64, 64, 64, 64),
        batch_size: int = 256,
        learning_rate: float | None = None,
    ) -> None:
        self.name = "OTT neural dual" + ", amortised" * amortised
        self._tuned = learning_rate is None
        self._watcher: Watcher | None = None
        self._amortised = amortised
        settings: dict[str, Any] = {
            "hidden_features": list(hidden_features),
            "initial_std": _INITIAL_STD,
            "batch_size": batch_size,
        }
        if amortised:
            settings |= {"inner_steps": _INNER_STEPS, "kept": "the best by the energy distance of held-out points"}
        super().__init__(max_points=None, **settings, learning_rate=RULE if learning_rate is None else learning_rate)

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` in the next fit; what it takes is no part of the budget."""
        self._watcher = watcher

    def _fit(self, x: Array, y: Array, rng: np.random.Generator, max_seconds: float | None) -> None:
        if max_seconds is None:
            raise DataError("expected max_seconds, got None: this training has no other end")
        sides = [side.astype(np.float32) for side in (x, y)]
        train, held_out = map(list, zip(*(_split(side) for side in sides), strict=True))
        seed = int(rng.integers(2**31))
        rate, left = self.settings["learning_rate"], max_seconds

        def energy(transport: _Transport) -> float:
            moved = in_blocks(transport, held_out[0], rows=_ROWS)
            if not np.isfinite(moved).all():
                return math.inf
            return pushforward_error(moved, held_out[1], generator=torch.Generator().manual_seed(seed)).energy

        if self._tuned:
            choice = choose_step_size(
                lambda rate, seconds: energy(self._trained(train, seed, rate, seconds)[0]), max_seconds=max_seconds
            )
            rate, left = choice.rate, choice.seconds
            self.notes.append(choice.note)
        sides, judge = (train, energy) if self._amortised else (sides, None)
        self._map, steps = self._trained(sides, seed, rate, left, after=max_seconds - left, judge=judge)
        self.notes.append(f"{steps:,} steps within the budget")

    def _trained(
        self,
        sides: list[npt.NDArray[np.float32]],
        seed: int,
        rate: float,
        seconds: float,
        *,
        after: float | None = None,
        judge: Callable[[_Transport], float] | None = None,
    ) -> tuple[_Transport, int]:
        """The map after some seconds, with `judge` the one of thirty with the least value; and the steps.

        The time to judge is part of the seconds, that of the watcher is not. Watched if a number of seconds, `after`,
        was spent before.
        """
        import jax

        began, looks, steps = time.monotonic(), 0, 0
        solver = self._solver(sides, seed, rate)
        batches = [self._batches(side, stream) for stream in np.random.default_rng(seed).spawn(2) for side in sides]
        gradient = jax.jit(lambda weights, x: solver.state_f.potential_gradient_fn(weights)(x))
        kept, least = functools.partial(gradient, solver.state_f.params), math.inf

        def watch_the_clock(step: int, potentials: Any) -> None:
            nonlocal steps, looks, began, kept, least
            steps = step + 1
            here = functools.partial(gradient, jax.block_until_ready(solver.state_f.params))
            ended = time.monotonic() - began > seconds
            if ended or time.monotonic() - began > looks * seconds / _LOOKS:
                looks += 1
                value = -steps if judge is None else judge(here)
                if value < least:
                    kept, least = here, value
                spent = time.monotonic() - began
                if self._watcher is not None and after is not None:
                    self._watcher(after + spent, self._in_data_units(functools.partial(in_blocks, kept, rows=_ROWS)))
                    began = time.monotonic() - spent
            if ended:
                raise _BudgetSpentError

        with contextlib.suppress(_BudgetSpentError):
            solver(*batches, callback=watch_the_clock)
        return kept, steps

    def _solver(self, sides: list[npt.NDArray[np.float32]], seed: int, rate: float) -> Any:
        import jax
        import optax
        from ott.neural.methods.neuraldual import W2NeuralDual
        from ott.neural.networks.icnn import ICNN

        source, target = map(jax.numpy.asarray, sides)
        features = source.shape[1]

        def network(home: Any, away: Any) -> ICNN:
            hidden = self.settings["hidden_features"]
            return ICNN(
                dim_data=features,
                dim_hidden=hidden,
                init_fn=jax.nn.initializers.normal(_INITIAL_STD),
                pos_weights=True,
                gaussian_map_samples=(home, away),
            )

        return W2NeuralDual(
            features,
            neural_f=network(source, target),
            neural_g=network(target, source),
            optimizer_f=optax.adam(rate, b1=0.5, b2=0.9),
            optimizer_g=optax.adam(rate, b1=0.5, b2=0.9),
            num_train_iters=_NO_LIMIT_ON_STEPS,
            valid_freq=_NO_LIMIT_ON_STEPS,
            rng=jax.random.key(seed),
            **(_AMORTISED if self._amortised else {}),
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
    """Where the budget is of minutes: for every step size that is tried JAX compiles for half a minute.

    In a quick look on one task, small, untuned and not amortised.
    """
    if not (task.name == QUICK_TASK if task.quick else task.spend_budget):
        return []
    if missing := [name for name in ("ott", "flax", "optax") if find_spec(name) is None]:
        raise Unavailable(f"{', '.join(missing)} not installed; pip install 'ot-lift[peers]'")
    if task.quick:
        return [OTTNeuralDualMethod(**_QUICK)]
    return [OTTNeuralDualMethod(amortised=amortised) for amortised in (False, True)]
