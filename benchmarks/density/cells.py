"""A cell of a density task: fit, score points that the fit did not see, sample, and try to tell samples from them."""

from __future__ import annotations

import base64
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.cells_child import BudgetCell, Outcome, Reach
from benchmarks.density import DensityMethod, DensityProblem, DensityTask
from benchmarks.density_peers import two_sample_accuracy
from benchmarks.tasks import Array
from ot_lift.errors import DataError
from ot_lift.isolation import PeakMemory

_PER = 10_000  # points that times of scores and samples are told for
_CLASSIFIED = 3_000  # of each kind, by the classifier
_NULL = 1.645  # standard errors above one half, which a classifier of equal samples exceeds once in twenty times
_PIXELS, _DRAWN = 64, 400


@dataclass(frozen=True)
class DensityCell(BudgetCell):
    """A density, a method and a seed.

    Example:
        >>> from benchmarks.density.methods.gaussian import GaussianMethod
        >>> from benchmarks.density.tasks.gaussian import GaussianDensity
        >>> task = GaussianDensity(features=2, rows=50, test_rows=20, budget_seconds=1.0)
        >>> cell = DensityCell(task, GaussianMethod(), 0, 1)
        >>> str(cell.path), cell.alone
        ('density-gaussian-d2/Gaussian/0.json', False)
    """

    task: DensityTask
    method: DensityMethod

    @property
    def limits(self) -> dict[str, float]:
        """Seconds by phase."""
        budget = self.task.budget_seconds
        return {
            "start": 300.0,  # for a machine that has to read the libraries from a cold disk
            "fit": self.task.fit_limit(keeps_budget=self.method.keeps_budget),
            "evaluation": max(120.0, 2 * budget),
        }

    def measured(self, reach: Reach) -> Outcome:
        return measure(self.task, self.method, self.seed, reach)


def measure(task: DensityTask, method: DensityMethod, seed: int, reach: Reach) -> Outcome:
    """Fit and judge one method.

    Args:
        task: What it is judged on.
        method: Not fitted yet.
        seed: Of data, fit and samples.
        reach: Called at the end of a phase.

    Returns:
        Figures by their names in `benchmarks.metrics`; in two dimensions the density on a grid is among the details.

    Raises:
        DataError: The method's log-densities or draws are not finite numbers of the right shape.
    """
    problem = task.problem(seed)
    memory = PeakMemory()
    memory.start()
    reach("start")
    began, cpu = time.perf_counter(), time.process_time()
    method.fit(problem.train, random_state=seed, max_seconds=task.budget_seconds)
    figures: dict[str, float] = {
        "fit_seconds": time.perf_counter() - began,
        "fit_cpu_seconds": time.process_time() - cpu,
    }
    reach("fit")
    log_prob, seconds = _scored(method, problem.test)
    figures["score_seconds"] = _PER / len(problem.test) * seconds
    drawn, seconds = _drawn(method, len(problem.test), task.features, seed)
    figures["sample_seconds"] = _PER / len(problem.test) * seconds
    if (grown := memory.grown()) is not None:
        figures["peak_memory_bytes"] = grown
    figures |= judged(problem, log_prob, drawn, seed)
    details = {"density": pictured(method, problem)} if task.features == 2 else {}
    return Outcome(figures, details, tuple(method.notes))


def judged(problem: DensityProblem, log_prob: Array, drawn: Array, seed: int) -> dict[str, float]:
    """Figures of log-densities `(k,)` of the test points and of as many draws `(k, features)`.

    `nll` is the mean negative log-density with its standard error; `excess` is what it has above that of the true
    density on the same points; `two_sample` is the accuracy of a classifier at telling draws from test points, which
    `two_sample_null` is exceeded by once in twenty times where both are of one law.
    """
    count = len(log_prob)
    figures = {"nll": -float(log_prob.mean()), "nll_error": float(log_prob.std(ddof=1)) / math.sqrt(count)}
    if problem.truth is not None:
        loss = problem.truth - log_prob
        figures |= {"excess": float(loss.mean()), "excess_error": float(loss.std(ddof=1)) / math.sqrt(count)}
    rng = np.random.default_rng(seed)
    few = rng.choice(count, min(count, _CLASSIFIED), replace=False)
    accuracy, error = two_sample_accuracy(drawn[few], problem.test[few], seed=seed)
    return {**figures, "two_sample": accuracy, "two_sample_null": 0.5 + _NULL * error}


def _scored(method: DensityMethod, points: Array) -> tuple[Array, float]:
    began = time.perf_counter()
    found = np.asarray(method.log_prob(points), dtype=np.float64)
    seconds = time.perf_counter() - began
    if found.shape != (len(points),):
        raise DataError(f"expected log-densities of shape ({len(points)},), got {found.shape}")
    if bad := int((~np.isfinite(found)).sum()):
        raise DataError(f"{bad} of {len(found)} log-densities of test points are not finite")
    return found, seconds


def _drawn(method: DensityMethod, count: int, features: int, seed: int) -> tuple[Array, float]:
    began = time.perf_counter()
    found = np.asarray(method.sample(count, random_state=seed), dtype=np.float64)
    seconds = time.perf_counter() - began
    if found.shape != (count, features):
        raise DataError(f"expected draws of shape ({count}, {features}), got {found.shape}")
    if bad := int((~np.isfinite(found).all(1)).sum()):
        raise DataError(f"{bad} of {count} draws are not finite")
    return found, seconds


def pictured(method: DensityMethod, problem: DensityProblem) -> dict[str, Any]:
    """The density on a square grid over the test points as bytes of its share of the peak, and some of the points."""
    low, high = problem.test.min(0), problem.test.max(0)
    margin = 0.05 * (high - low)
    low, high = low - margin, high + margin
    axes = [np.linspace(*ends, _PIXELS) for ends in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
    density = np.exp(np.nan_to_num(np.asarray(method.log_prob(grid), dtype=np.float64), nan=-np.inf))
    peak = float(density.max()) or 1.0
    return {
        "low": np.round(low, 4).tolist(),
        "high": np.round(high, 4).tolist(),
        "pixels": _PIXELS,
        "peak": float(f"{peak:.4g}"),
        "share": base64.b64encode(np.round(255 * density / peak).astype(np.uint8).tobytes()).decode("ascii"),
        "points": np.round(problem.test[:_DRAWN], 3).tolist(),
    }
