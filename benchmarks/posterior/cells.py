"""A cell of a posterior task: fit or sample within the budget, draw, and hold moments against the reference."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import norm

from benchmarks.cells_child import BudgetCell, Outcome, Reach
from benchmarks.posterior import Draws, PosteriorMethod, PosteriorTask
from benchmarks.posterior.moments import Moments, entries, moments_of
from ot_lift.errors import DataError
from ot_lift.isolation import PeakMemory
from ot_lift.posterior_weights import pareto_smooth

_REFERENCE_SECONDS = 4 * 3600.0  # for reference draws that nobody has made yet
_PER, _EFFECTIVE = 10_000, 1_000  # draws, and effective ones, that times are told for
_EXCEEDED = 0.05  # how often exact draws exceed the null level, at most


@dataclass(frozen=True)
class PosteriorCell(BudgetCell):
    """A posterior, a method and a seed.

    Example:
        >>> from benchmarks.posterior.methods.laplace import LaplaceMethod
        >>> task = PosteriorTask(features=11, budget_seconds=1.0, target="gamma_pumps", draws=100)
        >>> cell = PosteriorCell(task, LaplaceMethod(), 0, 1)
        >>> str(cell.path), cell.alone
        ('posterior-gamma-pumps/Laplace/0.json', False)
    """

    task: PosteriorTask
    method: PosteriorMethod

    @property
    def limits(self) -> dict[str, float]:
        """Seconds by phase."""
        budget = self.task.budget_seconds
        return {
            "start": 300.0,  # for a machine that has to read the libraries from a cold disk
            "fit": 2 * budget + 120 if self.method.keeps_budget else budget + 60,  # a compiler takes what it takes
            "drawing": max(120.0, 2 * budget),
            "evaluation": _REFERENCE_SECONDS,
        }

    def measured(self, reach: Reach) -> Outcome:
        return measure(self.task, self.method, self.seed, reach)


def measure(task: PosteriorTask, method: PosteriorMethod, seed: int, reach: Reach) -> Outcome:
    """Fit and judge one method.

    Args:
        task: What it is judged on.
        method: Not fitted yet.
        seed: Of fit and draws.
        reach: Called at the end of a phase.

    Returns:
        Figures by their names in `benchmarks.metrics`.

    Raises:
        DataError: The method's draws are not finite.
    """
    posterior = task.posterior()
    memory = PeakMemory()
    memory.start()
    reach("start")
    began, cpu = time.perf_counter(), time.process_time()
    method.fit(posterior, random_state=seed, max_seconds=task.budget_seconds)
    seconds = time.perf_counter() - began
    figures: dict[str, float] = {
        "fit_seconds": seconds,
        "fit_compiled_seconds": max(0.0, seconds - method.compile_seconds),
        "fit_cpu_seconds": time.process_time() - cpu,
    }
    reach("fit")
    drawn = method.draw(task.draws, random_state=seed + 1)
    reach("drawing")
    if (grown := memory.grown()) is not None:
        figures["peak_memory_bytes"] = grown
    notes, moments = list(method.notes), None
    try:
        moments = moments_of(posterior, folder=task.cache)
    except RuntimeError as error:  # chains that are not long enough; the other figures stand without them
        notes.append(f"no reference: {error}")
    if moments is None:
        notes.append("errors of moments are left out; --cache FOLDER makes reference draws of this target")
    return Outcome(figures | judged(drawn, moments, task.draws), {}, tuple(notes))


def judged(drawn: Draws, moments: Moments | None, count: int) -> dict[str, float]:
    """Figures of draws: errors of their moments, and what the draws are worth.

    `moment_error` is the larger of `mean_error` and `sd_error`; `moment_error_null` is a level that `count` independent
    draws of the posterior itself exceed once in twenty times or less (Bonferroni over entries).

    Args:
        drawn: What a method gave.
        moments: What they are held against; None leaves the errors out.
        count: How many independent draws were asked for.

    Raises:
        DataError: The draws are not finite.
    """
    points = entries(drawn.sites, 1)
    if bad := int((~np.isfinite(points).all(1)).sum()):
        raise DataError(f"{bad} of {len(points)} draws are not finite")
    effective = float(len(points)) if drawn.effective is None else drawn.effective
    figures = {"sample_seconds": _PER / len(points) * drawn.seconds}
    if drawn.log_weights is not None:
        smoothed = pareto_smooth(torch.from_numpy(drawn.log_weights))
        figures |= {"k_hat": smoothed.k_hat, "importance_share": smoothed.effective / len(points)}
        effective = smoothed.effective
    figures["effective_seconds"] = _EFFECTIVE / effective * drawn.seconds
    if moments is not None:
        errors = moments.errors(points, effective)
        level = norm.isf(_EXCEEDED / (4 * len(moments.mean)))  # of both errors of every entry, on both sides
        null = level * max(float(error.max()) for error in moments.standard_errors(count))
        worst = max(errors["mean"], errors["sd"])
        figures |= {"mean_error": errors["mean"], "sd_error": errors["sd"]}
        figures |= {"moment_error": worst, "moment_error_null": float(null)}
    return figures
