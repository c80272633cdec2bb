"""Log-concave densities on disk: saved and loaded bit for bit, copies, and fits that broke off and resumed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from density_fits import FITS, Fitted, few_draws, gaussian_fit, gumbel_points, quick

from ot_lift import ConvexPotentialFlow, LogConcaveDensity
from ot_lift.errors import DataError
from ot_lift.training import TrainingOptions


@pytest.fixture(params=FITS)
def fit(request: pytest.FixtureRequest) -> Fitted:
    return FITS[request.param]()


def test_a_loaded_density_gives_the_same_bits(fit: Fitted, tmp_path: Path) -> None:
    fit.density.save(tmp_path / "one")
    loaded = LogConcaveDensity.load(tmp_path / "one")
    np.testing.assert_array_equal(loaded.log_prob(fit.X), fit.density.log_prob(fit.X))
    np.testing.assert_array_equal(loaded.sample(50, random_state=0), fit.density.sample(50, random_state=0))
    names = {name for name in vars(fit.density) if name.endswith("_")}
    assert {name for name in vars(loaded) if name.endswith("_")} == names
    assert loaded.normalizer_ == fit.density.normalizer_
    loaded.save(tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda density: pickle.loads(pickle.dumps(density))])
def test_copies_are_the_same_density(duplicate: Callable[[Any], Any], fit: Fitted) -> None:
    other = duplicate(fit.density)
    np.testing.assert_array_equal(other.sample(50, random_state=0), fit.density.sample(50, random_state=0))


class Killed(Exception):
    """A process that ends in mid-fit, as far as the files can tell."""


@pytest.mark.parametrize("features", [1, 2, 3])
def test_a_fit_that_broke_off_ends_where_an_unbroken_one_does(
    features: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = partial(TrainingOptions, checkpoint_seconds=0.0, evaluate_every=4)
    monkeypatch.setattr("ot_lift.estimators.TrainingOptions", options)
    X = gumbel_points(features)

    def kill(record: dict[str, float], energy: Any) -> None:
        if record["step"] == 8:
            raise Killed

    with few_draws():
        unbroken = quick(max_steps=16).fit(X, resume=tmp_path / "unbroken")
        with pytest.raises(Killed):
            quick(max_steps=16, callbacks=[kill]).fit(X, resume=tmp_path / "broken")
        steps: list[float] = []
        follow = [lambda record, energy: steps.append(record["step"])]
        resumed = quick(max_steps=16, callbacks=follow).fit(X, resume=tmp_path / "broken")
    assert steps[0] >= 8
    np.testing.assert_array_equal(resumed.log_prob(X), unbroken.log_prob(X))
    with pytest.raises(DataError, match="is of another fit"):
        quick(max_steps=17).fit(X, resume=tmp_path / "broken")


def test_a_folder_that_is_no_density_is_refused_in_words(tmp_path: Path) -> None:
    gaussian_fit().density.save(tmp_path / "density")
    with pytest.raises(DataError, match=r"saved convex-potential-flow .*got a saved log-concave-density"):
        ConvexPotentialFlow.load(tmp_path / "density")
    tensors = tmp_path / "density" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged"):
        LogConcaveDensity.load(tmp_path / "density")
