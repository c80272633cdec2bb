"""L2-UVP between Gaussians, where the optimal map is linear and known: `python -m benchmarks.gaussian`.

Covariances are random with condition numbers up to 100. Fits have the default settings; from `start="identity"` the
network has to learn the linear map.
"""

from __future__ import annotations

import argparse
from statistics import median

import torch
from torch import Tensor

from benchmarks.quality import defaults, l2_uvp, timed_fit
from benchmarks.record import figure, write_record
from ot_lift import BrenierMap
from ot_lift.standardizer import Standardizer

_ROWS, _EVALUATION_ROWS = 100_000, 1 << 15
_CONDITION = 100.0
_SECONDS = 60.0


def random_covariance(d: int, generator: torch.Generator) -> Tensor:
    """Random rotation of eigenvalues that are log-uniform between 1 and the condition number, both ends taken."""
    exponents = torch.rand(d, generator=generator, dtype=torch.float64)
    exponents[0], exponents[-1] = 0.0, 1.0
    basis = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    return (basis * _CONDITION**exponents) @ basis.T


def sample(mean: Tensor, covariance: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """Points of N(mean, covariance), ``(rows, d)`` float64."""
    noise = torch.randn(rows, len(mean), generator=generator, dtype=torch.float64)
    return mean + noise @ torch.linalg.cholesky(covariance).T


def run(d: int, seed: int, start: str) -> dict[str, float]:
    """One pair: L2-UVP on fresh points of the fit, of its start and of the identity, and the seconds."""
    generator = torch.Generator().manual_seed(1000 + seed)
    means = [torch.randn(d, generator=generator, dtype=torch.float64) for _ in range(2)]
    covariances = [random_covariance(d, generator) for _ in range(2)]
    x, y = (sample(m, c, _ROWS, generator) for m, c in zip(means, covariances, strict=True))
    exact = Standardizer.bures(means[0], covariances[0], means[1], covariances[1])
    fresh = sample(means[0], covariances[0], _EVALUATION_ROWS, generator)
    truth = exact.target_inverse(exact.source(fresh))
    fitted, seconds = timed_fit(lambda: BrenierMap(start=start, random_state=seed).fit(x, y))
    units = fitted.potential_.coordinates  # in them the start is the identity
    return {
        "l2_uvp": l2_uvp(fitted.transport(fresh), truth),
        "seconds": seconds,
        "its start": l2_uvp(units.target_inverse(units.source(fresh)), truth),
        "used_network": fitted.used_network_,
        "identity": l2_uvp(fresh, truth),
    }


def main() -> None:
    """Run and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args()
    figures, details = [], {}
    for start, target in (("gaussian", 0.1), ("identity", 1.0)):
        for d in (2, 8, 32):
            runs = [run(d, seed, start) for seed in options.seeds]
            details[f"{start}, d = {d}"] = runs
            values, seconds = ([one[key] for one in runs] for key in ("l2_uvp", "seconds"))
            name = f"Gaussian pair, d = {d}, start={start}: worst L2-UVP (%)"
            figures.append(figure(name, max(values), at_most=target, spread=values))
            limit = _SECONDS if start == "gaussian" else None
            figures.append(figure("  the same: longest fit (s)", max(seconds), at_most=limit, spread=seconds))
            known = {which: median(one[which] for one in runs) for which in ("its start", "identity")}
            figures += [figure(f"  the same, {which}", value) for which, value in known.items()]
            print(start, d, runs, flush=True)
    settings = {"defaults": defaults(), "rows": _ROWS, "condition": _CONDITION}
    write_record("gaussian", settings=settings, seeds=options.seeds, figures=figures, details=details)


if __name__ == "__main__":
    main()
