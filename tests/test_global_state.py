"""Importing and using the library changes nothing that the rest of the process shares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from global_state import SHARED, changed_since, put_back, snapshot

TESTS = Path(__file__).parent

# What the peers and tools change on their own import is not ours: they are imported before the snapshot.
BEFORE = """
import contextlib, importlib, io, json, pkgutil, sys, warnings
import numpy as np
import torch
import ot, pandas, pyarrow, scipy.stats, sklearn.utils.estimator_checks
import matplotlib.pyplot
from global_state import changed_since, snapshot

torch.manual_seed(20)  # states other than the defaults, so that a reset to a default shows
np.random.seed(21)
torch.set_num_threads(1)
torch.set_printoptions(precision=3)
np.set_printoptions(precision=5)
changed = {}
"""

USES = {
    "import": """
import ot_lift
for module in pkgutil.walk_packages(ot_lift.__path__, "ot_lift."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
""",
    "fit a map": """
from ot_lift import BrenierMap
rng = np.random.default_rng(0)
x, y = rng.normal(size=(80, 2)), 1 + 2 * rng.normal(size=(90, 2))
with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
    warnings.simplefilter("ignore")
    # seeded: by scikit-learn's convention, random_state=None draws from NumPy's global stream
    settings = {"hidden_features": (8,), "max_steps": 3, "batch_size": 16, "progress": True}
    fitted = BrenierMap(**settings, random_state=3).fit(x, y)
    fitted.invert(fitted.transport(x[:4]))
    fitted.interpolate(x[:4], 0.5), fitted.potential(x[:4]), fitted.conjugate(y[:4]), fitted.score(x, y)
    str(fitted.certificate_)
""",
    "fit a density": """
from ot_lift import ConvexPotentialFlow, LogConcaveDensity
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    settings = {"hidden_features": (8,), "max_steps": 3, "batch_size": 16}
    fitted = ConvexPotentialFlow(**settings).fit(np.random.default_rng(0).normal(size=(80, 2)))
    fitted.invert(fitted.sample(4)), fitted.log_prob(fitted.sample(4)), fitted.distribution()
    fitted = LogConcaveDensity(**settings).fit(np.random.default_rng(0).normal(size=(80, 3)))
    fitted.sample(4), fitted.log_prob(fitted.sample(4))
""",
    "lift a module": """
from ot_lift import Lift, mark_nonnegative
network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Softplus(), torch.nn.Linear(4, 1))
mark_nonnegative(network[2].weight)
points = torch.zeros(5, 2)
before = snapshot()  # the layers above drew from the global stream, as torch.nn does
lifted = Lift(network, features=2)
lifted(points).sum().backward()
lifted.bake(points)(points)
""",
}


def run_python(program: str) -> str:
    """What a program prints in a fresh interpreter that finds the library and these tests."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def changed() -> dict[str, list[str]]:
    """For each use, the pieces of global state that it changed, all in one interpreter."""
    steps = [f"before = snapshot(){code}changed[{name!r}] = changed_since(before)\n" for name, code in USES.items()]
    return json.loads(run_python(BEFORE + "".join(steps) + "print(json.dumps(changed))").splitlines()[-1])


@pytest.mark.parametrize("use", USES)
def test_the_process_is_left_as_it_was(use: str, changed: dict[str, list[str]]) -> None:
    assert changed[use] == []


def test_importing_the_library_imports_nothing_that_only_reports_and_bridges_need() -> None:
    heavy = {"matplotlib", "jax", "numpyro", "arviz", "ot", "typer", "jinja2"}
    heavy |= {"sklearn.covariance", "sklearn.linear_model", "sklearn.metrics"}
    assert heavy & set(run_python("import sys, ot_lift; print(*sys.modules)").split()) == set()


def test_the_guard_sees_a_change_and_puts_it_back() -> None:
    before = snapshot()
    torch.set_default_dtype(torch.float64)
    torch.rand(1)
    changed = changed_since(before)
    assert changed == ["torch's default dtype", "torch's random state"]
    put_back(before, changed)
    assert changed_since(before) == []
    assert all(shared.read() == before[name] for name, shared in SHARED.items())
