"""Every target of `posteriors`."""

from __future__ import annotations

from collections.abc import Iterable

import posteriors
from benchmarks.posterior import PosteriorTask
from benchmarks.tasks import FULL_SECONDS, QUICK_SECONDS, Options

_DRAWS, _QUICK_DRAWS = 20_000, 4_000


def tasks(options: Options) -> Iterable[PosteriorTask]:
    """One for each name of the catalogue."""
    for name in posteriors.names():
        yield PosteriorTask(
            features=posteriors.load(name).dim,
            target=name,
            draws=_QUICK_DRAWS if options.quick else _DRAWS,
            budget_seconds=QUICK_SECONDS if options.quick else FULL_SECONDS,
            quick=options.quick,
            cache=options.cache,
        )
