"""Amortised posteriors on four problems: `python -m benchmarks.amortized linear banana lotka-volterra darcy`.

For every problem: the NLL of fresh pairs below the Gaussian conditional's, simulation-based calibration, and how long
1,000 draws for a new observation take. On linear-Gaussian problems the divergence from the exact posterior, for the fit
and for the Gaussian conditional that it starts at; on the banana and Darcy flow a classifier against NUTS.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logsumexp, softmax

from benchmarks.amortized_problems import Banana, Darcy, LinearGaussian, LotkaVolterra, Problem
from benchmarks.quality import EVALUATION_SEED, defaults, timed_fit
from benchmarks.record import figure, write_record
from ot_lift import AmortizedPosterior
from ot_lift.amortized_map import ConditionalFlow, ConditionalMap
from ot_lift.calibration import c2st, expected_coverage, held_out_nll, rank_histograms, simulation_ranks
from ot_lift.likelihood import log_density
from ot_lift.numpyro import from_numpyro
from ot_lift.numpyro_nuts import run_nuts

Array = npt.NDArray[np.float64]

_FRESH, _SIMULATIONS, _RANKED, _OBSERVATIONS = 10_000, 1000, 99, 5
_WEIGHED = (100, 1000)  # observations, and draws for each, whose importance weights give a divergence
_NUTS_DRAWS = 1000  # a chain of four; every second one is compared with as many draws of the map
_TIMED = 1000

PROBLEMS: dict[str, Callable[[], list[Problem]]] = {
    "linear": lambda: [LinearGaussian(d) for d in (2, 10, 50)],
    "banana": lambda: [Banana()],
    "lotka-volterra": lambda: [LotkaVolterra()],
    "darcy": lambda: [Darcy()],
}


@torch.no_grad()
def gaussian_log_prob(posterior: AmortizedPosterior, theta: Array, y: Array) -> Array:
    """Log p(θ|y) under the Gaussian conditional that a fit started at."""
    start = ConditionalMap(ConditionalFlow(None, posterior.n_features_in_), posterior.map_.units)
    pairs = torch.from_numpy(theta), torch.from_numpy(y), torch.arange(len(theta))
    return log_density(*start.image_and_log_det(*pairs)).numpy()


def calibration(problem: Problem, posterior: AmortizedPosterior, theta: Array, y: Array) -> dict[str, Any]:
    """Ranks of the truth: p-values by Bonferroni over the parameters, and over the log densities too; bands."""
    joint = problem.log_joint if problem.has_joint else None
    ranks = simulation_ranks(posterior, theta, y, draws=_RANKED, log_joint=joint)
    histograms, coverage = rank_histograms(ranks), expected_coverage(ranks)
    d = problem.parameters
    return {
        "p_value": min(1.0, d * float(histograms.p_values[:d].min())),
        "p_value_of_all": histograms.p_value,
        "p_values": dict(zip(histograms.names, histograms.p_values.tolist(), strict=True)),
        "histograms_inside": histograms.inside,
        "coverage_inside": coverage.inside,
        "coverage_gap": float(np.abs(coverage.covered - coverage.levels).max()),
    }


def divergence(problem: Problem, posterior: AmortizedPosterior, y: Array) -> dict[str, float]:
    """KL from the exact posterior by importance weights of the map's draws, the mean over observations; their ESS."""
    count = _WEIGHED[1]
    draws = posterior.sample(y, count, random_state=0).reshape(-1, problem.parameters)
    beside = np.repeat(y, count, 0)
    log_weights = (problem.log_joint(draws, beside) - posterior.log_prob(draws, beside)).reshape(-1, count)
    shares = softmax(log_weights, axis=1)
    log_means = logsumexp(log_weights, axis=1) - np.log(count)
    values = (shares * log_weights).sum(1) - log_means
    return {
        "divergence": float(values.mean()) / problem.parameters,
        "divergence_standard_error": float(values.std(ddof=1)) / len(y) ** 0.5 / problem.parameters,
        "effective_share": float(np.mean(1 / (shares**2).sum(1)) / count),
    }


def nuts(problem: Problem, y: Array, seed: int) -> tuple[Array, float]:
    """Draws of the posterior of one observation, every second one of four chains, and the largest R̂."""
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions

    def model(observed: Any) -> None:
        flat = distributions.ImproperUniform(distributions.constraints.real_vector, (), (problem.parameters,))
        theta = numpyro.sample("theta", flat)
        numpyro.factor("density", problem.log_joint(theta, observed, jnp))

    run = run_nuts(from_numpyro(model, y), draws=_NUTS_DRAWS, seed=seed)
    return run.sites["theta"][:, ::2].reshape(-1, problem.parameters), run.r_hat


@torch.no_grad()
def against_nuts(problem: Problem, posterior: AmortizedPosterior, y: Array, seed: int) -> list[dict[str, float]]:
    """A classifier's accuracy at telling draws of the map from those of NUTS, and the Gaussian conditional's, by y."""
    start = ConditionalMap(ConditionalFlow(None, problem.parameters), posterior.map_.units)
    rows = []
    for at in y:
        reference, r_hat = nuts(problem, at, seed)
        ours = posterior.sample(at, len(reference), random_state=seed)
        latent = torch.from_numpy(np.random.default_rng(seed).normal(size=ours.shape))
        gaussian = start.invert(latent, torch.from_numpy(at[None]), torch.zeros(len(latent), dtype=torch.int64))
        found, baseline = c2st(ours, reference), c2st(gaussian, reference)
        rows.append(
            {
                "accuracy": found.accuracy,
                "standard_error": found.standard_error,
                "gaussian_accuracy": baseline.accuracy,
                "r_hat": r_hat,
            }
        )
    return rows


def run(problem: Problem, seed: int) -> dict[str, Any]:
    """All that is measured of one fit."""
    theta, y = problem.simulate(problem.pairs, np.random.default_rng(seed))
    fresh_theta, fresh_y = problem.simulate(_FRESH, np.random.default_rng(EVALUATION_SEED + seed))
    posterior, seconds = timed_fit(lambda: AmortizedPosterior(random_state=seed, **problem.options).fit(theta, y))
    held_out = held_out_nll(posterior, fresh_theta, fresh_y)
    start = gaussian_log_prob(posterior, fresh_theta, fresh_y)
    gain = -held_out.values - start
    few = slice(_SIMULATIONS)
    found: dict[str, Any] = {
        "used_network": posterior.used_network_,
        "seconds": seconds,
        "steps": posterior.history_[-1]["step"],
        "stop_reason": posterior.stop_reason_,
        "nll": held_out.nll,
        "gaussian_nll": -float(start.mean()),
        "gain": float(gain.mean()),
        "gain_standard_error": float(gain.std(ddof=1)) / len(gain) ** 0.5,
        "calibration": calibration(problem, posterior, fresh_theta[few], fresh_y[few]),
        "draws_seconds": seconds_of_draws(posterior, fresh_y[:3]),
    }
    if isinstance(problem, LinearGaussian):
        exact = problem.log_posterior(fresh_theta, fresh_y)
        for name, values in (("divergence", -held_out.values), ("start_divergence", start)):
            gap = (exact - values) / problem.parameters
            found[name] = float(gap.mean())
            found[f"{name}_standard_error"] = float(gap.std(ddof=1)) / len(gap) ** 0.5
    elif problem.has_joint:
        found |= divergence(problem, posterior, fresh_y[: _WEIGHED[0]])
        found["two_sample"] = against_nuts(problem, posterior, fresh_y[:_OBSERVATIONS], seed)
    return found


def seconds_of_draws(posterior: AmortizedPosterior, y: Array) -> float:
    """Of 1,000 draws for an observation, the median over observations that the posterior sees for the first time."""
    times = []
    for at in y:
        began = time.perf_counter()
        posterior.sample(at, _TIMED, random_state=0)
        times.append(time.perf_counter() - began)
    return median(times)


def figures_of(problem: Problem, runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of record, the worst of all seeds."""
    rows = []

    def row(
        title: str, values: list[float], *, worst: Callable[[list[float]], float] = max, **target: float | None
    ) -> None:
        rows.append(figure(f"{problem.name}: {title}", worst(values), spread=values, **target))

    if isinstance(problem, LinearGaussian):
        row("KL to the exact posterior (nats a dimension)", [one["divergence"] for one in runs], at_most=0.02)
        row("  the same, of the start", [one["start_divergence"] for one in runs])
        row("held-out NLL below the Gaussian conditional's (nats)", [one["gain"] for one in runs], worst=min)
    else:
        sure = [one["gain"] - 2 * one["gain_standard_error"] for one in runs]
        title = "held-out NLL below the Gaussian conditional's, less two standard errors (nats)"
        row(title, sure, worst=min, at_least=0.0)
        if problem.has_joint:
            row(
                "  KL to the exact posterior, by importance weights (nats a dimension)",
                [one["divergence"] for one in runs],
            )
    p_values = [one["calibration"]["p_value"] for one in runs]
    row("ranks of the parameters are uniform, p by Bonferroni", p_values, worst=min, at_least=0.01)
    p_values = [one["calibration"]["p_value_of_all"] for one in runs]
    row("  the same with the log densities", p_values, worst=min)
    row("  largest gap of expected coverage", [one["calibration"]["coverage_gap"] for one in runs])
    if "two_sample" in runs[0]:
        for name, key, target in (
            ("C2ST against NUTS", "accuracy", 0.6),
            ("  of the start", "gaussian_accuracy", None),
        ):
            accuracy = [max(each[key] for each in one["two_sample"]) for one in runs]
            row(f"{name}, the worst observation", accuracy, at_most=target)
    limit = 1.0 if problem.parameters == 10 else None
    row(f"{_TIMED:,} draws for a new observation (s)", [one["draws_seconds"] for one in runs], at_most=limit)
    row("longest fit (s)", [one["seconds"] for one in runs])
    return rows


def part(name: str, seeds: Sequence[int], *, busy: bool) -> None:
    """Run one kind of problem and write its record."""
    figures, details = [], {}
    for problem in PROBLEMS[name]():
        runs = [run(problem, seed) for seed in seeds]
        details[problem.name] = runs
        rows = figures_of(problem, runs)
        figures += rows
        print(*runs, *rows, sep="\n", flush=True)
    settings = {
        "defaults": defaults(AmortizedPosterior),
        "pairs": [problem.pairs for problem in PROBLEMS[name]()],
        "options": [dict(problem.options) for problem in PROBLEMS[name]()],
        "fresh": _FRESH,
        "simulations": _SIMULATIONS,
        "draws": _RANKED,
        "observations": _OBSERVATIONS,
        "alone": not busy,
    }
    write_record(f"amortized-{name}", settings=settings, seeds=seeds, figures=figures, details=details)


def main() -> None:
    """Run the problems asked for and write their records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problems", nargs="*", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--busy", action="store_true", help="say in the record that other work shared the machine")
    options = parser.parse_args()
    for name in options.problems:
        part(name, options.seeds, busy=options.busy)


if __name__ == "__main__":
    main()
