"""Log-likelihood of the densities where the truth is known: `python -m benchmarks.density_quality gaussian planar`.

`gaussian`: 50,000 points of N(m, Σ), Σ of condition number 10⁴, with the estimators' defaults, against the analytic
log-density. `planar`: four densities in the plane, the flow and zuko's under the same wall-clock time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from benchmarks.density.tasks.gaussian import CONDITION, draw, gaussian
from benchmarks.density_peers import PEERS, tuned_peer, two_sample_accuracy, zuko_is_there
from benchmarks.planar import PLANAR
from benchmarks.quality import EVALUATION_SEED, defaults, timed_fit
from benchmarks.record import figure, write_record
from ot_lift import ConvexPotentialFlow, LogConcaveDensity

_ROWS, _EVALUATION_ROWS, _TWO_SAMPLE_ROWS = 50_000, 1 << 15, 5_000
_MARGIN = 4.0  # seconds of the flow's budget that are kept for whitening and for the choice at the end
_ESTIMATORS = (ConvexPotentialFlow, LogConcaveDensity)
_LEARNING_RATES = (1e-3, 3e-3)  # of the peers, each with the whole budget


def run_gaussian(kind: Any, d: int, seed: int) -> dict[str, Any]:
    """One fit: how far its mean log-density of fresh points is from the analytic one, in nats a dimension."""
    law = gaussian(d, seed)
    fresh = draw(law, _EVALUATION_ROWS, EVALUATION_SEED)
    fitted, seconds = timed_fit(lambda: kind(random_state=seed).fit(draw(law, _ROWS, seed)))
    gap = (law.log_prob(fresh) - fitted.log_prob(fresh)) / d
    return {
        "gap": float(gap.mean()),
        "gap_standard_error": float(gap.std()) / _EVALUATION_ROWS**0.5,
        "seconds": seconds,
        "used_network": fitted.used_network_,
        "log_normalizer_standard_error": getattr(fitted, "log_normalizer_standard_error_", 0.0),
    }


def gaussian_part(seeds: Sequence[int], dimensions: Sequence[int]) -> None:
    """Run and write the record."""
    figures, details = [], {}
    for kind in _ESTIMATORS:
        for d in dimensions:
            runs = [run_gaussian(kind, d, seed) for seed in seeds]
            details[f"{kind.__name__}, d = {d}"] = runs
            gaps, seconds = [abs(run["gap"]) for run in runs], [run["seconds"] for run in runs]
            name = f"{kind.__name__}, Gaussian, d = {d}: worst log-likelihood gap (nats a dimension)"
            figures.append(figure(name, max(gaps), at_most=0.01, spread=gaps))
            figures.append(figure("  the same: longest fit (s)", max(seconds), spread=seconds))
            print(kind.__name__, d, runs, flush=True)
    settings = {"defaults": both_defaults(), "rows": _ROWS, "condition": CONDITION}
    write_record("density_quality-gaussian", settings=settings, seeds=seeds, figures=figures, details=details)


def run_planar(name: str, seconds: float, seed: int) -> dict[str, dict[str, float]]:
    """The flow, its peers and a Gaussian on one density: test NLL, how far above the truth's, two-sample accuracy."""
    law = PLANAR[name]
    x = law.sample(_ROWS, torch.Generator().manual_seed(seed))
    test = law.sample(_EVALUATION_ROWS, torch.Generator().manual_seed(EVALUATION_SEED))
    other = law.sample(_TWO_SAMPLE_ROWS, torch.Generator().manual_seed(EVALUATION_SEED + 1))
    truth = law.log_prob(test)

    def row(log_prob: Tensor, drawn: Tensor, took: float) -> dict[str, float]:
        accuracy, error = two_sample_accuracy(drawn, other, seed=seed)
        loss = truth - log_prob
        return {
            "nll": -float(log_prob.mean()),
            "above_truth": float(loss.mean()),
            "standard_error": float(loss.std()) / len(loss) ** 0.5,
            "two_sample_accuracy": accuracy,
            "two_sample_standard_error": error,
            "seconds": took,
        }

    budget: dict[str, Any] = {
        "max_steps": 10_000_000,
        "max_seconds": max(seconds - _MARGIN, 0.5 * seconds),
        "patience": None,
    }
    flow = ConvexPotentialFlow(**budget, random_state=seed)
    _, took = timed_fit(lambda: flow.fit(x))
    rows = {"flow": row(flow.log_prob(test), torch.from_numpy(flow.sample(_TWO_SAMPLE_ROWS, random_state=seed)), took)}
    for kind in PEERS if zuko_is_there() else ():
        peer = tuned_peer(kind, x, seconds=seconds, learning_rates=_LEARNING_RATES, seed=seed)
        rows[kind] = row(peer.log_prob(test), peer.sample(_TWO_SAMPLE_ROWS, seed), peer.seconds)
    normal = MultivariateNormal(x.mean(0), torch.cov(x.T))
    rows["Gaussian"] = row(normal.log_prob(test), draw(normal, _TWO_SAMPLE_ROWS, seed), 0.0)
    return rows


def planar_part(seeds: Sequence[int], names: Sequence[str], seconds: float) -> None:
    """Run and write the record."""
    figures, details = [], {}
    for name in names:
        runs = [run_planar(name, seconds, seed) for seed in seeds]
        details[name] = runs
        peers = [kind for kind in runs[0] if kind in PEERS]
        if peers:
            losses = [run["flow"]["nll"] - min(run[kind]["nll"] for kind in peers) for run in runs]
            title = f"{name}, {seconds:g} s: the flow's NLL above the best of zuko's {' and '.join(peers)} (nats)"
            figures.append(figure(title, median(losses), at_most=0.05, spread=losses))
        for which in runs[0]:
            above = [run[which]["above_truth"] for run in runs]
            figures.append(figure(f"  {name}, {which}: NLL above the truth's (nats)", median(above), spread=above))
            accuracy = [run[which]["two_sample_accuracy"] for run in runs]
            figures.append(figure(f"  {name}, {which}: two-sample accuracy", median(accuracy), spread=accuracy))
        print(name, runs, flush=True)
    settings = {"defaults": both_defaults(), "rows": _ROWS, "seconds": seconds, "learning_rates": _LEARNING_RATES}
    write_record("density_quality-planar", settings=settings, seeds=seeds, figures=figures, details=details)


def both_defaults() -> dict[str, dict[str, Any]]:
    """Default parameters of both estimators."""
    return {kind.__name__: defaults(kind) for kind in _ESTIMATORS}


def main() -> None:
    """Run the parts asked for and write their records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=["gaussian", "planar"], default=["gaussian", "planar"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--dimensions", type=int, nargs="*", default=[2, 8, 21], help="of the Gaussians")
    parser.add_argument("--sets", nargs="*", choices=list(PLANAR), default=list(PLANAR), help="in the plane")
    parser.add_argument("--seconds", type=float, default=60.0, help="of every fit in the plane")
    options = parser.parse_args()
    if "gaussian" in options.parts:
        gaussian_part(options.seeds, options.dimensions)
    if "planar" in options.parts:
        planar_part(options.seeds, options.sets, options.seconds)


if __name__ == "__main__":
    main()
