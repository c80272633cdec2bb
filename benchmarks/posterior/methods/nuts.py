"""NumPyro's NUTS until the budget ends (optional: the extra `posteriors`)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Self

import numpy as np

from benchmarks.posterior import BasePosteriorMethod, Draws, PosteriorMethod, PosteriorTask
from benchmarks.posterior.compiling import counting
from benchmarks.posterior.methods import every_method
from benchmarks.posterior.moments import bulk_ess, entries
from benchmarks.tasks import Unavailable
from posteriors.target import Posterior


class NutsMethod(BasePosteriorMethod):
    """Vectorised chains in float64: a warm-up, then legs of draws while there is time, one at least.

    Args:
        chains: At once.
        warm_up: Steps a chain; they are not broken off.
        leg: Draws a chain between two looks at the clock.

    References:
        Hoffman and Gelman 2014 (arXiv 1111.4246); Phan, Pradhan, Jankowiak 2019 (arXiv 1912.11554).
    """

    name = "NUTS"

    def __init__(self, *, chains: int = 4, warm_up: int = 1000, leg: int = 250) -> None:
        super().__init__(chains=chains, warm_up=warm_up, leg=leg)

    def fit(self, posterior: Posterior, *, random_state: int, max_seconds: float) -> Self:
        """Sample; what `draw` gives is made here."""
        import jax
        from numpyro.infer import MCMC, NUTS

        began = time.perf_counter()
        legs: list[dict[str, Any]] = []
        divergences = 0
        with counting() as clock:
            sampler = MCMC(
                NUTS(posterior.model),
                num_warmup=self.settings["warm_up"],
                num_samples=self.settings["leg"],
                num_chains=self.settings["chains"],
                chain_method="vectorized",
                progress_bar=False,
            )
            sampler.warmup(jax.random.PRNGKey(random_state), *posterior.arguments)
            warm, compiled = time.perf_counter(), clock.seconds
            while not legs or time.perf_counter() - began < max_seconds:
                sampler.run(sampler.post_warmup_state.rng_key, *posterior.arguments)
                legs.append({name: np.asarray(v) for name, v in sampler.get_samples(group_by_chain=True).items()})
                divergences += int(np.asarray(sampler.get_extra_fields()["diverging"]).sum())
                sampler.post_warmup_state = sampler.last_state
            self._seconds = time.perf_counter() - warm - (clock.seconds - compiled)
            self.compile_seconds = clock.seconds
        self._sites = {name: np.concatenate([leg[name] for leg in legs], axis=1) for name in legs[0]}
        self.notes = [
            f"{len(legs) * self.settings['leg']:,} draws a chain after a warm-up of {warm - began:.1f} s",
            f"{divergences} divergent transitions",
        ]
        return self

    def draw(self, count: int, *, random_state: int) -> Draws:
        """All draws, with the smallest bulk ESS of any entry."""
        effective = float(np.nan_to_num(bulk_ess(entries(self._sites, 2)).min(), nan=1.0))
        flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in self._sites.items()}
        return Draws(flat, self._seconds, effective=effective)


def methods(task: PosteriorTask) -> Iterable[PosteriorMethod]:
    """Four chains, shorter ones in a quick look."""
    if find_spec("numpyro") is None or find_spec("arviz") is None:
        raise Unavailable("NumPyro or ArviZ is not installed; pip install 'ot-lift[posteriors]'")
    if every_method(task):
        yield NutsMethod(warm_up=300, leg=100) if task.quick else NutsMethod()
