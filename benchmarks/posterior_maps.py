"""Posterior maps beside NUTS on the catalogue: `python -m benchmarks.posterior_maps`.

For every target: errors of means and standard deviations of 100,000 draws against long NUTS runs, without and with a
correction; and how long the fit and 4,000 effective draws take, where a draw of the map counts by importance ESS,
beside NUTS until its smallest bulk ESS is 4,000, with and without compilation. Reference draws are made once and kept.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import posteriors
from benchmarks.posterior.moments import Moments, bulk_ess, entries
from benchmarks.record import figure, write_record
from ot_lift import PosteriorMap
from ot_lift.posterior_trust import TrustWarning
from posteriors.target import Posterior

_DRAWS, _CORRECTED, _EFFECTIVE = 100_000, 20_000, 4_000
_JUDGED_UP_TO = 64  # dimensions with figures to reach
_MCSE = 3.0  # standard errors that a corrected error may reach


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """A result and its wall-clock seconds."""
    began = time.perf_counter()
    return function(), time.perf_counter() - began


def nuts(posterior: Posterior, seed: int) -> dict[str, float]:
    """Seconds of NUTS, four vectorised chains in float64: compiled first, then timed with other keys."""
    import jax
    from numpyro.infer import MCMC, NUTS

    with jax.enable_x64(True):
        sampler = MCMC(
            NUTS(posterior.model),
            num_warmup=1000,
            num_samples=1000,
            num_chains=4,
            chain_method="vectorized",
            progress_bar=False,
        )

        def both(key: Any) -> tuple[float, float]:
            """Seconds of warm-up and of sampling; the draws are in the sampler."""
            sampler.post_warmup_state = None
            _, warm = timed(lambda: jax.block_until_ready(sampler.warmup(key, *posterior.arguments)))
            _, sampled = timed(lambda: sampler.run(key, *posterior.arguments))
            return warm, sampled

        first, second = (both(jax.random.PRNGKey(seed + k)) for k in (0, 1))
        draws = {name: np.asarray(value) for name, value in sampler.get_samples(group_by_chain=True).items()}
    effective = float(bulk_ess(entries(draws, 2)).min())
    warm, sampled = second
    return {
        "compilation": max(0.0, sum(first) - sum(second)),
        "effective draws a second": effective / sampled,
        "seconds": warm + _EFFECTIVE * sampled / effective,
    }


def one(name: str, *, seed: int, cache: Path) -> dict[str, Any]:
    """All that is measured of one target."""
    posterior = posteriors.load(name)
    reference = posteriors.reference(name, folder=cache)
    moments = Moments.of(reference)
    chain = nuts(posterior, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)  # the verdict is in the record
        fitted, fit_seconds = timed(lambda: PosteriorMap(random_state=seed).fit(posterior))
        draws, draw_seconds = timed(lambda: fitted.sample(_DRAWS, random_state=seed + 1))
        corrected = fitted.sample(_CORRECTED, correct="importance", random_state=seed + 2)
    diagnosis = fitted.diagnosis_
    share = diagnosis.effective / diagnosis.draws
    plain = moments.errors(entries(posterior.constrain(draws), 1), _DRAWS)
    # Importance correction resamples from four times as many draws: both samplings have their error.
    worth = 1 / (1 / _CORRECTED + 1 / (4 * _CORRECTED * share))
    exact = moments.errors(entries(posterior.constrain(corrected), 1), worth)
    effective_a_second = share * _DRAWS / draw_seconds
    return {
        "target": name,
        "d": posterior.dim,
        "verdict": diagnosis.verdict,
        "k_hat": diagnosis.k_hat,
        "importance ESS share": share,
        "used_network": fitted.used_network_,
        "errors": plain,
        "errors, corrected": exact,
        "fit seconds": fit_seconds,
        "map seconds": fit_seconds + _EFFECTIVE / effective_a_second,
        "map effective draws a second": effective_a_second,
        "NUTS": chain,
        "reference": {"r_hat": reference.r_hat, "bulk_ess": reference.bulk_ess, "divergences": reference.divergences},
    }


def rows_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of record."""
    judged = [one for one in found if one["d"] <= _JUDGED_UP_TO]

    def worst(kind: str, error: str) -> list[float]:
        return [max(0.0, one[kind][error]) for one in judged]

    def share(wins: list[bool]) -> float:
        return sum(wins) / len(wins)

    with_compilation = [one["map seconds"] <= one["NUTS"]["seconds"] + one["NUTS"]["compilation"] for one in found]
    without = [one["map seconds"] <= one["NUTS"]["seconds"] for one in found]
    speed = [one["map effective draws a second"] / one["NUTS"]["effective draws a second"] for one in found]
    place = f"catalogue, d ≤ {_JUDGED_UP_TO}"
    rows = []
    for kind, error, words, bar in (
        ("errors", "mean beyond", "largest error of a mean beyond 3 MCSE (posterior sd)", 0.05),
        ("errors", "sd beyond", "largest relative error of an sd beyond 3 MCSE", 0.05),
        ("errors, corrected", "mean in MCSE", "corrected, largest error of a mean (MCSE)", _MCSE),
        ("errors, corrected", "sd in MCSE", "corrected, largest error of an sd (MCSE)", _MCSE),
    ):
        spread = worst(kind, error)
        rows.append(figure(f"{place}: {words}", max(spread), at_most=bar, spread=spread))
    k_hats = [one["k_hat"] if math.isfinite(one["k_hat"]) else 0.0 for one in judged]
    rows.append(figure(f"{place}: largest k-hat", max(k_hats), at_most=0.7, spread=k_hats))
    title = "share of targets on which fit + 4,000 effective draws take no longer than NUTS"
    rows.append(figure(f"{title}, compilation counted", share(with_compilation), at_least=0.75))
    rows.append(figure(f"{title}, compiled before", share(without), at_least=0.75))
    rows.append(
        figure("effective draws a second after the fit, over NUTS (median)", median(speed), at_least=100, spread=speed)
    )
    return rows


def main() -> None:
    """Run and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder of reference draws, made where missing")
    parser.add_argument("--names", nargs="*", default=list(posteriors.names()), help="default: the whole catalogue")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--busy", action="store_true", help="say in the record that other work shared the machine")
    options = parser.parse_args()
    found = []
    for name in options.names:
        found.append(one(name, seed=options.seed, cache=options.cache))
        print(found[-1], flush=True)
    rows = rows_of(found)
    for row in rows:
        print(row, flush=True)
    settings = {
        "targets": options.names,
        "draws": _DRAWS,
        "corrected": _CORRECTED,
        "defaults": PosteriorMap().get_params(),
        "alone": not options.busy,
    }
    write_record("posterior_maps", settings=settings, seeds=[options.seed], figures=rows, details={"targets": found})


if __name__ == "__main__":
    main()
