"""NUTS on a target's NumPyro model, timed in parts: what a posterior map is compared with."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ot_lift.numpyro import NumPyroTarget, float64

_CHAINS = 4


@dataclass(frozen=True)
class NutsRun:
    """Draws of NUTS and what they cost.

    Attributes:
        sites: draws ``(chains, draws, *shape)`` by latent site, float64.
        seconds: wall-clock time of it all, compilation and warm-up included.
        sampling_seconds: of the second half of the draws alone, when everything was compiled.
        min_ess: smallest effective sample size of any entry, by NumPyro.
        r_hat: largest split R̂ of any entry, by NumPyro.
        divergences: divergent transitions.

    Example:
        >>> NutsRun({}, seconds=9.0, sampling_seconds=2.0, min_ess=400.0, r_hat=1.0, divergences=0).ess_per_second
        100.0
    """

    sites: dict[str, npt.NDArray[np.float64]]
    seconds: float
    sampling_seconds: float
    min_ess: float
    r_hat: float
    divergences: int

    @property
    def ess_per_second(self) -> float:
        """Effective draws a second once it is warm."""
        return 0.5 * self.min_ess / self.sampling_seconds

    @property
    def draws(self) -> dict[str, npt.NDArray[np.float64]]:
        """Draws of all chains behind one another, ``(chains · draws, *shape)`` by site."""
        return {name: values.reshape(-1, *values.shape[2:]) for name, values in self.sites.items()}


def run_nuts(target: NumPyroTarget, *, draws: int = 1000, warm_up: int = 1000, seed: int = 0) -> NutsRun:
    """Four vectorised chains of NUTS in float64, in two legs, so that the second one is timed without compilation.

    Args:
        target: from :func:`~ot_lift.numpyro.from_numpyro`.
        draws: a chain; rounded up to an even number.
        warm_up: steps a chain.
        seed: of the chains.
    """
    jax, infer = importlib.import_module("jax"), importlib.import_module("numpyro.infer")
    legs: list[dict[str, Any]] = []
    divergences, leg_seconds = 0, 0.0
    began = time.monotonic()
    with float64(jax):
        sampler = infer.MCMC(
            infer.NUTS(target.model),
            num_warmup=warm_up,
            num_samples=(draws + 1) // 2,
            num_chains=_CHAINS,
            chain_method="vectorized",
            progress_bar=False,
        )
        key = jax.random.PRNGKey(seed)
        for _ in range(2):
            leg_began = time.monotonic()
            sampler.run(key, *target.arguments, **target.keywords)
            samples = sampler.get_samples(group_by_chain=True)
            legs.append({name: np.asarray(samples[name]) for name in target.sites})
            leg_seconds = time.monotonic() - leg_began
            divergences += int(np.asarray(sampler.get_extra_fields()["diverging"]).sum())
            sampler.post_warmup_state = sampler.last_state
            key = sampler.post_warmup_state.rng_key
    seconds = time.monotonic() - began
    sites = {name: np.concatenate([leg[name] for leg in legs], axis=1) for name in target.sites}
    summary = importlib.import_module("numpyro.diagnostics").summary(sites)
    ess = min(float(np.min(figures["n_eff"])) for figures in summary.values())
    r_hat = max(float(np.max(figures["r_hat"])) for figures in summary.values())
    return NutsRun(sites, seconds, leg_seconds, ess, r_hat, divergences)
