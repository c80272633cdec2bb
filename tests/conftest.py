"""Fixtures of every test: seeded randomness of its own, and a guard that it leaves the process as it was."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import numpy as np
import ot  # noqa: F401  its first import draws from the global streams
import pytest
import torch
from global_state import changed_since, put_back, snapshot

import ot_lift.compare

with suppress(ImportError):
    import jax  # noqa: F401  likewise; POT imports it unless it is told not to


def _seed(request: pytest.FixtureRequest) -> int:
    """A number that depends on the test's name alone, so that adding a test changes no other."""
    return zlib.crc32(request.node.nodeid.encode())


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    """A torch generator, seeded by the test's name."""
    return torch.Generator().manual_seed(_seed(request))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A NumPy generator, seeded by the test's name."""
    return np.random.default_rng(_seed(request))


@pytest.fixture
def forked_rng(request: pytest.FixtureRequest) -> Iterator[None]:
    """Torch's global stream, seeded by the test's name and put back: what torch.nn's layers draw from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(request))
        yield


@pytest.fixture(scope="session", autouse=True)
def brief_timings() -> Iterator[None]:
    """Comparisons time every transport for fiftieths of a second: how long it takes is the benchmarks' to ask."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ot_lift.compare.Job", partial(ot_lift.compare.Job, timing_seconds=0.02))
        yield


@pytest.fixture(autouse=True)
def leaves_global_state_alone() -> Iterator[None]:
    """Fail a test that changes state shared by the whole process, and put that state back."""
    before = snapshot()
    yield
    changed = changed_since(before)
    put_back(before, changed)
    if changed:
        pytest.fail(
            f"the test, or what it called, changed {', '.join(changed)}. Pass a Generator to what draws "
            "(fixtures `generator`, `rng`); layers of torch.nn draw globally: use the fixture `forked_rng`.",
            pytrace=False,
        )
