"""Ways to sample a posterior; every module here offers one or more."""

from __future__ import annotations

from benchmarks.posterior import PosteriorTask

_ALL_METHODS = "weibull_leukaemia"  # the target that every method sees in a quick look


def every_method(task: PosteriorTask) -> bool:
    """Whether peers and variants run on a task: in a quick look on one, as JAX compiles for longer than a quick fit."""
    return not task.quick or task.target == _ALL_METHODS
