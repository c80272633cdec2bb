"""Posterior maps beside NUTS on the catalogue: `python -m benchmarks.posterior_maps`.

For every target: errors of means and standard deviations of 100,000 draws against long NUTS runs, without and with a
correction; and how long the fit and 4,000 effective draws take, where a draw of the map counts by importance ESS,
beside NUTS until its smallest bulk ESS is 4,000, with and without compilation. Reference draws are made once and kept.
The inverse direction, whose draws invert the map, is reported up to the same dimension, and with `--posteriordb` the
errors against posteriordb's gold-standard draws.

Above `--reference-up-to` dimensions a long NUTS run takes hours. There the map is held against a short one in its own
latent space, which has the posterior as its target whatever the map: the record shows whether that has converged. It
is a record of its own, `posterior_maps-large`, of the first seed.
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
from ot_lift.numpyro import from_numpyro
from ot_lift.posterior_trust import TrustWarning
from posteriors import posteriordb
from posteriors.reference import Reference, convergence
from posteriors.target import Posterior

_DRAWS, _CORRECTED, _EFFECTIVE, _INVERTED = 100_000, 20_000, 4_000, 10_000
_CORRECTED_LARGE = 4_000  # a corrected draw costs four Hessians
_JUDGED_UP_TO = 64  # dimensions with figures to reach
_MCSE = 3.0  # standard errors that a corrected error may reach
_CONVERGED = 1.01
_LATENT_WARM_UP, _LATENT_DRAWS, _CHAINS = 200, 1500, 4  # of NUTS in a latent space, where it needs few


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
            num_chains=_CHAINS,
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


def latent_nuts(fitted: PosteriorMap, posterior: Posterior, seed: int) -> tuple[Reference, float]:
    """Draws of NUTS in the latent space of a map, by the posterior's sites, and seconds with compilation."""
    import jax
    from numpyro.infer import MCMC, NUTS

    with jax.enable_x64(True):
        target = from_numpyro(posterior.model, *posterior.arguments)
        sampler = MCMC(
            NUTS(fitted.precondition(target=target).model),
            num_warmup=_LATENT_WARM_UP,
            num_samples=_LATENT_DRAWS,
            num_chains=_CHAINS,
            chain_method="vectorized",
            progress_bar=False,
        )
        _, seconds = timed(lambda: sampler.run(jax.random.PRNGKey(seed)))
        samples = sampler.get_samples(group_by_chain=True)
        draws = {name: np.asarray(samples[name]) for name in target.sites}
        divergences = int(np.asarray(sampler.get_extra_fields()["diverging"]).sum())
    return Reference(draws, *convergence(draws), divergences), seconds


def inverse(posterior: Posterior, moments: Moments, seed: int) -> dict[str, Any]:
    """What is measured of the direction whose draws invert the map."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        fitted, fit_seconds = timed(lambda: PosteriorMap(direction="inverse", random_state=seed).fit(posterior))
        draws, draw_seconds = timed(lambda: fitted.sample(_INVERTED, random_state=seed + 1))
    diagnosis = fitted.diagnosis_
    return {
        "verdict": diagnosis.verdict,
        "k_hat": diagnosis.k_hat,
        "errors": moments.errors(entries(posterior.constrain(draws), 1), _INVERTED),
        "fit seconds": fit_seconds,
        "effective draws a second": diagnosis.effective / diagnosis.draws * _INVERTED / draw_seconds,
    }


def gold_standard(name: str, *, seed: int, checkout: Path) -> dict[str, Any]:
    """Errors of a map against posteriordb's draws."""
    entry = posteriordb.load(checkout, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)  # a half-Cauchy prior is not log-concave
        fitted = PosteriorMap(random_state=seed).fit(entry)
        sites = entry.constrain(fitted.sample(_DRAWS, random_state=seed + 1))
    if entry.reference is None:
        raise ValueError(f"expected gold-standard draws of {name} in {checkout}, got none: pass a whole checkout")
    pairs = [(sites[site], *moments) for site, moments in entry.reference.summary().items()]
    return {
        "posterior": name,
        "seed": seed,
        "d": entry.dim,
        "verdict": fitted.diagnosis_.verdict,
        "mean": max(float((np.abs(own.mean(0) - mean) / deviation).max()) for own, mean, deviation in pairs),
        "sd": max(float(np.abs(own.std(0) / deviation - 1).max()) for own, _, deviation in pairs),
    }


def one(name: str, *, seed: int, cache: Path, reference_up_to: int) -> dict[str, Any]:
    """All that is measured of one target."""
    posterior = posteriors.load(name)
    long = posterior.dim <= reference_up_to
    chain = nuts(posterior, seed) if long else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)  # the verdict is in the record
        fitted, fit_seconds = timed(lambda: PosteriorMap(random_state=seed).fit(posterior))
        draws, draw_seconds = timed(lambda: fitted.sample(_DRAWS, random_state=seed + 1))
        wanted = _CORRECTED if long else _CORRECTED_LARGE
        corrected = fitted.sample(wanted, correct="importance", random_state=seed + 2)
    reference, latent_seconds = (
        (posteriors.reference(name, folder=cache), None) if long else latent_nuts(fitted, posterior, seed)
    )
    moments = Moments.of(reference)
    # Of as many draws as are judged: by the fit's own 4,096, k-hat varies by 0.1 from one sample to the next.
    diagnosis = fitted.diagnose(draws=_DRAWS, random_state=seed + 1) if long else fitted.diagnosis_
    share = diagnosis.effective / diagnosis.draws
    plain = moments.errors(entries(posterior.constrain(draws), 1), _DRAWS)
    # Importance correction resamples from four times as many draws: both samplings have their error.
    worth = 1 / (1 / wanted + 1 / (4 * wanted * share))
    exact = moments.errors(entries(posterior.constrain(corrected), 1), worth)
    effective_a_second = share * _DRAWS / draw_seconds
    return {
        "target": name,
        "seed": seed,
        "d": posterior.dim,
        "verdict": diagnosis.verdict,
        "k_hat": diagnosis.k_hat,
        "k_hat of the fit's own diagnosis": fitted.diagnosis_.k_hat,
        "importance ESS share": share,
        "used_network": fitted.used_network_,
        "errors": plain,
        "errors, corrected": exact,
        "fit seconds": fit_seconds,
        "map seconds": fit_seconds + _EFFECTIVE / effective_a_second,
        "map effective draws a second": effective_a_second,
        "NUTS": chain,
        "inverse": inverse(posterior, moments, seed) if long else None,
        "reference": {
            "kind": "NUTS" if long else "NUTS in the latent space",
            "r_hat": reference.r_hat,
            "bulk_ess": reference.bulk_ess,
            "divergences": reference.divergences,
            "seconds": latent_seconds,
        },
    }


def rows_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of record."""
    beside_nuts = [one for one in found if one["NUTS"] is not None]
    rows = _judged_rows([one for one in found if one["d"] <= _JUDGED_UP_TO])
    rows += _speed_rows(beside_nuts)
    rows += _inverse_rows(beside_nuts)
    for one in found:
        if one["d"] > _JUDGED_UP_TO:
            rows += _large_rows(one)
    return rows


def _judged_rows(judged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Errors and k-hat of the targets that have figures to reach."""
    if not judged:
        return []
    place = f"catalogue, d ≤ {_JUDGED_UP_TO}"
    rows = []
    for kind, error, words, bar in (
        ("errors", "mean beyond", "largest error of a mean beyond 3 MCSE (posterior sd)", 0.05),
        ("errors", "sd beyond", "largest relative error of an sd beyond 3 MCSE", 0.05),
        ("errors, corrected", "mean in MCSE", "corrected, largest error of a mean (MCSE)", _MCSE),
        ("errors, corrected", "sd in MCSE", "corrected, largest error of an sd (MCSE)", _MCSE),
    ):
        spread = [max(0.0, one[kind][error]) for one in judged]
        rows.append(figure(f"{place}: {words}", max(spread), at_most=bar, spread=spread))
    k_hats = [one["k_hat"] if math.isfinite(one["k_hat"]) else 0.0 for one in judged]
    return [*rows, figure(f"{place}: largest k-hat", max(k_hats), at_most=0.7, spread=k_hats)]


def _speed_rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Times beside NUTS's."""
    if not found:
        return []
    speed = [one["map effective draws a second"] / one["NUTS"]["effective draws a second"] for one in found]
    share = "share of targets on which fit + 4,000 effective draws take no longer than NUTS"
    rate = "effective draws a second after the fit, over NUTS (median)"
    rows = []
    for words, factor in (("compilation counted", 1.0), ("compiled before", 0.0)):
        by_seed: dict[int, list[bool]] = {}
        for one in found:
            limit = one["NUTS"]["seconds"] + factor * one["NUTS"]["compilation"]
            by_seed.setdefault(one["seed"], []).append(one["map seconds"] <= limit)
        shares = [sum(won) / len(won) for won in by_seed.values()]
        rows.append(figure(f"{share}, {words}", median(shares), at_least=0.75, spread=shares))
    return [*rows, figure(rate, median(speed), at_least=100, spread=speed)]


def _inverse_rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The direction whose draws invert the map, for comparison: it has no figure to reach."""
    if not found:
        return []
    speed = [one["inverse"]["effective draws a second"] / one["NUTS"]["effective draws a second"] for one in found]
    errors = [one["inverse"]["errors"]["mean"] for one in found]
    return [
        figure(
            "inverse direction: effective draws a second after the fit, over NUTS (median)", median(speed), spread=speed
        ),
        figure("inverse direction: largest error of a mean (posterior sd)", max(errors), spread=errors),
    ]


def gold_rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Errors against posteriordb's draws."""
    if not found:
        return []
    place, rows = "posteriordb's gold-standard draws", []
    for key, words in (("mean", "largest error of a mean (posterior sd)"), ("sd", "largest relative error of an sd")):
        spread = [one[key] for one in found]
        rows.append(figure(f"{place}: {words}", max(spread), at_most=0.05, spread=spread))
    return rows


def _large_rows(one: dict[str, Any]) -> list[dict[str, Any]]:
    """What is reported of a target above the judged dimensions, and whether preconditioning works there."""
    place = f"{one['target']}, d = {one['d']}"
    reported = (
        ("largest error of a mean (posterior sd)", one["errors"]["mean"]),
        ("largest relative error of an sd", one["errors"]["sd"]),
        ("corrected, largest error of a mean (MCSE)", one["errors, corrected"]["mean in MCSE"]),
        ("corrected, largest error of an sd (MCSE)", one["errors, corrected"]["sd in MCSE"]),
        ("k-hat", one["k_hat"]),
        ("fit (s)", one["fit seconds"]),
    )
    rows = [figure(f"{place}: {words}", value) for words, value in reported if math.isfinite(value)]
    if one["reference"]["kind"] != "NUTS":
        words = "NUTS in the latent space"
        rows.append(figure(f"{place}: {words}, R-hat", one["reference"]["r_hat"], at_most=_CONVERGED))
        rows.append(figure(f"{place}: {words}, smallest bulk ESS", one["reference"]["bulk_ess"]))
    return rows


def main() -> None:
    """Run and write the record."""
    import jax

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder of reference draws, made where missing")
    parser.add_argument("--names", nargs="*", default=list(posteriors.names()), help="default: the whole catalogue")
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[0], help="default: 0; targets without long references have the first"
    )
    parser.add_argument("--posteriordb", type=Path, help="folder of a checkout of posteriordb")
    parser.add_argument(
        "--reference-up-to",
        type=int,
        default=_JUDGED_UP_TO,
        help="largest dimension with a long NUTS reference and NUTS's times (default: %(default)s; 256 takes hours)",
    )
    parser.add_argument("--busy", action="store_true", help="say in the record that other work shared the machine")
    options = parser.parse_args()
    long = [name for name in options.names if posteriors.load(name).dim <= options.reference_up_to]
    found, gold = [], []
    for seed in options.seeds:
        for name in long:
            jax.clear_caches()  # what was compiled for other targets; a machine allows a process so many maps of memory
            found.append(one(name, seed=seed, cache=options.cache, reference_up_to=options.reference_up_to))
            print(found[-1], flush=True)
        for name in posteriordb.names() if options.posteriordb else ():
            if posteriordb.load(options.posteriordb, name).reference is not None:
                gold.append(gold_standard(name, seed=seed, checkout=options.posteriordb))
                print(gold[-1], flush=True)
    if long:
        write("posterior_maps", found, gold, options.seeds, alone=not options.busy)
    large = []
    for name in [name for name in options.names if name not in long]:
        large.append(one(name, seed=options.seeds[0], cache=options.cache, reference_up_to=options.reference_up_to))
        print(large[-1], flush=True)
    if large:
        write("posterior_maps-large", large, [], options.seeds[:1], alone=not options.busy)


def write(name: str, found: list[dict[str, Any]], gold: list[dict[str, Any]], seeds: list[int], *, alone: bool) -> None:
    """Print the figures and write their record."""
    rows = rows_of(found) + gold_rows(gold)
    for row in rows:
        print(row, flush=True)
    settings = {
        "targets": sorted({one["target"] for one in found}),
        "draws": _DRAWS,
        "corrected": _CORRECTED,
        "corrected above the references": _CORRECTED_LARGE,
        "defaults": PosteriorMap().get_params(),
        "alone": alone,
    }
    write_record(name, settings=settings, seeds=seeds, figures=rows, details={"targets": found, "posteriordb": gold})


if __name__ == "__main__":
    main()
