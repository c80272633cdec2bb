"""NumPyro's variational guides, trained for the budget (optional: the extra `posteriors`)."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
import torch

from benchmarks.posterior import BasePosteriorMethod, Draws, PosteriorMethod, PosteriorTask
from benchmarks.posterior.compiling import counting
from benchmarks.posterior.methods import every_method
from benchmarks.step_sizes import RULE, choose_step_size
from benchmarks.tasks import Unavailable
from ot_lift.errors import ConvergenceError
from ot_lift.posterior_target import Target
from posteriors.target import Posterior

GUIDES = {
    "mean-field": "AutoDiagonalNormal",  # the family of AutoNormal, over one flat vector
    "full-rank": "AutoMultivariateNormal",
    "IAF": "AutoIAFNormal",
    "BNAF": "AutoBNAFNormal",
}
_STEPS = 20  # between two looks at the clock
_LEAST_SECONDS = 1e-3


class GuideMethod(BasePosteriorMethod):
    """Reverse KL by Adam with a cosine over the time, in float64; the step size is chosen by the ELBO in the budget.

    Guide and start have NumPyro's defaults. Time that JAX compiles for is part of the budget.

    Args:
        guide: One of `GUIDES`.
        particles: Draws a step.
        judged: Draws of the ELBO that step sizes are compared by.

    References:
        Kucukelbir et al. 2017 (arXiv 1603.00788); Kingma et al. 2016 (arXiv 1606.04934); De Cao, Titov, Aziz 2019
        (arXiv 1904.04676).
    """

    def __init__(self, guide: str, *, particles: int = 16, judged: int = 256) -> None:
        self.name = f"NumPyro {guide}"
        super().__init__(guide=GUIDES[guide], particles=particles, judged=judged, learning_rate=RULE)

    def fit(self, posterior: Posterior, *, random_state: int, max_seconds: float) -> Self:
        """Try the step sizes, then train with the best from the start."""
        jax: Any = importlib.import_module("jax")
        began = time.monotonic()
        with counting() as clock:
            self._training = _Training(posterior, self.settings, jax.random.PRNGKey(random_state))
            self._training.compile()

            def trial(rate: float, seconds: float) -> float:
                return self._training.loss(self._training.train(rate, seconds)[0])

            choice = choose_step_size(trial, max_seconds=max_seconds - (time.monotonic() - began))
            self._state, steps = self._training.train(choice.rate, max(choice.seconds, 0.1 * max_seconds))
            loss = self._training.loss(self._state)
        self.compile_seconds = clock.seconds
        self.notes = [choice.note, f"{steps:,} steps within the budget, ELBO {-loss:.4g}"]
        if not math.isfinite(loss):
            raise ConvergenceError("the ELBO is not finite at the end of the training")
        self._posterior = posterior
        return self

    def draw(self, count: int, *, random_state: int) -> Draws:
        """Independent draws with their log-densities."""
        jax: Any = importlib.import_module("jax")
        with counting():
            sample = self._training.sampler(self._state, count)
            jax.block_until_ready(sample(jax.random.PRNGKey(random_state + 1)))  # compiles
            began = time.perf_counter()
            theta, log_q = jax.block_until_ready(sample(jax.random.PRNGKey(random_state)))
            seconds = time.perf_counter() - began
        points = np.array(theta, dtype=np.float64)
        log_weights = Target(self._posterior).value(torch.from_numpy(points)).numpy() - np.asarray(log_q)
        return Draws(self._posterior.constrain(points), seconds, log_weights)


class _Training:
    """A guide's training as compiled functions; the step size is an argument, so that all of them share one program."""

    def __init__(self, posterior: Posterior, settings: dict[str, Any], key: Any) -> None:
        self._jax: Any = importlib.import_module("jax")
        infer: Any = importlib.import_module("numpyro.infer")
        self._adam: Any = importlib.import_module("numpyro.optim").Adam
        autoguide: Any = importlib.import_module("numpyro.infer.autoguide")
        self._guide = getattr(autoguide, settings["guide"])(posterior.model)
        start, self._key = self._jax.random.split(key)
        svi = infer.SVI(posterior.model, self._guide, self._adam(1.0), infer.Trace_ELBO())
        state = svi.init(start, *posterior.arguments)
        self._constrain: Callable[[Any], Any] = svi.constrain_fn
        self._first = svi.optim.get_params(state.optim_state)
        self._steps = self._jax.jit(self._scan(svi, posterior, infer.Trace_ELBO(settings["particles"])))
        judge = infer.Trace_ELBO(settings["judged"])
        self._judge = self._jax.jit(self._objective(svi, posterior, judge))

    def _objective(self, svi: Any, posterior: Posterior, elbo: Any) -> Callable[[Any, Any], Any]:
        """The negative ELBO of unconstrained parameters, with a key for its draws."""

        def objective(parameters: Any, key: Any) -> Any:
            found = self._constrain(parameters)
            return elbo.loss(key, found, svi.model, svi.guide, *posterior.arguments)

        return objective

    def _scan(self, svi: Any, posterior: Posterior, elbo: Any) -> Callable[[Any, Any, Any], Any]:
        objective = self._objective(svi, posterior, elbo)

        def steps(state: Any, key: Any, rate: Any) -> Any:
            adam = self._adam(rate)

            def step(carried: Any, own_key: Any) -> tuple[Any, Any]:
                loss, slope = self._jax.value_and_grad(objective)(adam.get_params(carried), own_key)
                return adam.update(slope, carried), loss

            return self._jax.lax.scan(step, state, self._jax.random.split(key, _STEPS))[0]

        return steps

    def compile(self) -> None:
        """Take a few steps that are forgotten, so that no trial has less time than the others."""
        self.loss(self.train(0.0, 0.0)[0])

    def train(self, rate: float, seconds: float) -> tuple[Any, int]:
        """Parameters after some seconds of steps from the start, and how many steps those were."""
        began, least = time.monotonic(), max(seconds, _LEAST_SECONDS)
        return self.anneal(rate, lambda steps: (time.monotonic() - began) / least)

    def anneal(self, rate: float, spent: Callable[[int], float]) -> tuple[Any, int]:
        """The same until a share of the budget, which is a function of the steps so far, is one."""
        key, state, steps = self._key, self._adam(1.0).init(self._first), 0
        while (share := spent(steps)) < 1 or not steps:
            key, own = self._jax.random.split(key)
            annealed = rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
            state = self._jax.block_until_ready(self._steps(state, own, annealed))
            steps += _STEPS
        return self._adam(1.0).get_params(state), steps

    def loss(self, parameters: Any) -> float:
        """The negative ELBO, with the same draws every time."""
        return float(self._judge(parameters, self._key))

    def sampler(self, parameters: Any, count: int) -> Callable[[Any], tuple[Any, Any]]:
        """A compiled function of a key: draws in the model's unconstrained coordinates, and their log-densities."""
        found = self._constrain(parameters)
        base, transform = self._guide.get_base_dist(), self._guide.get_transform(found)

        def sample(key: Any) -> tuple[Any, Any]:
            z = base.sample(key, (count,))
            theta, between = transform.call_with_intermediates(z)
            return theta, base.log_prob(z) - transform.log_abs_det_jacobian(z, theta, between)

        compiled: Callable[[Any], tuple[Any, Any]] = self._jax.jit(sample)
        return compiled


def methods(task: PosteriorTask) -> Iterable[PosteriorMethod]:
    """All four."""
    if find_spec("numpyro") is None:
        raise Unavailable("NumPyro is not installed; pip install 'ot-lift[posteriors]'")
    return [GuideMethod(guide) for guide in GUIDES] if every_method(task) else []
