"""Flows on disk: saved and loaded bit for bit, damage named, copies, and fits that broke off and resumed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flow_fits import FITS, Fitted, bent_points, gaussian_fit, gaussian_points, quick
from torch.utils.data import DataLoader, TensorDataset

from ot_lift import BrenierMap, ConvexPotentialFlow
from ot_lift.errors import DataError, ExtrapolationWarning
from ot_lift.training import TrainingOptions


@pytest.fixture(params=FITS)
def fit(request: pytest.FixtureRequest) -> Fitted:
    return FITS[request.param]()


# ------------------------------------------------------------------------------------------- save and load
def test_a_loaded_flow_gives_the_same_bits(fit: Fitted, tmp_path: Path) -> None:
    fit.flow.save(tmp_path / "flow")
    loaded = ConvexPotentialFlow.load(str(tmp_path / "flow"))
    latent = fit.flow.transport(fit.X)
    np.testing.assert_array_equal(loaded.transport(fit.X), latent)
    np.testing.assert_array_equal(loaded.log_prob(fit.X), fit.flow.log_prob(fit.X))
    np.testing.assert_array_equal(loaded.invert(latent), fit.flow.invert(latent))
    np.testing.assert_array_equal(loaded.sample(9, random_state=0), fit.flow.sample(9, random_state=0))
    # JSON has no tuples.
    assert {**loaded.get_params(), "hidden_features": tuple(loaded.hidden_features)} == fit.flow.get_params()
    for name, value in vars(fit.flow).items():
        if name.endswith("_") and name != "map_":
            assert str(getattr(loaded, name)) == str(value), name  # NaN are not equal to themselves
    assert {name for name in vars(loaded) if name.endswith("_")} == {n for n in vars(fit.flow) if n.endswith("_")}


def test_saving_a_loaded_flow_writes_the_same_files(fit: Fitted, tmp_path: Path) -> None:
    fit.flow.save(tmp_path / "one")
    ConvexPotentialFlow.load(tmp_path / "one").save(tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_loaded_flow_still_warns_and_can_be_fitted_again(tmp_path: Path) -> None:
    fit = gaussian_fit()
    fit.flow.save(tmp_path / "flow")
    loaded = ConvexPotentialFlow.load(tmp_path / "flow")
    with pytest.warns(ExtrapolationWarning):
        loaded.transport(1e6 * fit.X)
    np.testing.assert_array_equal(loaded.fit(fit.X).log_prob(fit.X), fit.flow.log_prob(fit.X))


def test_a_folder_that_is_no_flow_is_refused_in_words(tmp_path: Path) -> None:
    gaussian_fit().flow.save(tmp_path / "flow")
    with pytest.raises(DataError, match=r"saved brenier-map .*got a saved convex-potential-flow"):
        BrenierMap.load(tmp_path / "flow")
    with pytest.raises(DataError, match="got nothing there: check the path"):
        ConvexPotentialFlow.load(tmp_path / "absent")
    tensors = tmp_path / "flow" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged"):
        ConvexPotentialFlow.load(tmp_path / "flow")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda flow: pickle.loads(pickle.dumps(flow))])
def test_copies_of_an_estimator_are_the_same_flow(
    duplicate: Callable[[ConvexPotentialFlow], ConvexPotentialFlow], fit: Fitted
) -> None:
    other = duplicate(fit.flow)
    np.testing.assert_array_equal(other.transport(fit.X), fit.flow.transport(fit.X))
    np.testing.assert_array_equal(other.sample(9, random_state=0), fit.flow.sample(9, random_state=0))


# ----------------------------------------------------------------------------------------------- resuming
class Killed(Exception):
    """A process that ends in mid-fit, as far as the files can tell."""


@pytest.fixture
def eager_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step, an evaluation every four."""
    options = partial(TrainingOptions, checkpoint_seconds=0.0, evaluate_every=4)
    monkeypatch.setattr("ot_lift.estimators.TrainingOptions", options)


def sampler(count: int, generator: torch.Generator) -> torch.Tensor:
    """Exponential columns."""
    return -torch.rand(count, 2, generator=generator, dtype=torch.float64).log()


RESUMED: dict[str, tuple[dict[str, Any], Callable[[], Any], dict[str, Any]]] = {
    "lift": ({}, lambda: bent_points(), {}),
    "softplus in float64": ({"positivity": "softplus", "dtype": "float64"}, lambda: bent_points(), {}),
    "two blocks, latent to data": ({"blocks": 2, "direction": "forward"}, lambda: bent_points(), {}),
    "without a seed": ({"random_state": None}, lambda: bent_points(), {}),
    "weights": ({}, lambda: bent_points(), {"sample_weight": np.linspace(0, 1, 1500)}),
    "a sampler": ({"batch_size": 32}, lambda: sampler, {}),
    "noise on a constant column": ({}, lambda: np.c_[bent_points(), np.ones(1500)], {}),
    "random probes": ({"hidden_features": (8,)}, lambda: np.random.default_rng(0).exponential(size=(300, 13)), {}),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_fit_that_broke_off_ends_where_an_unbroken_one_does(
    case: str, tmp_path: Path, eager_checkpoints: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ot_lift.sides.HELD_OUT_ROWS", 300)
    options, data, weights = RESUMED[case]
    options = {"max_steps": 16, **options}
    X = data()
    unbroken = quick(**options).fit(X, resume=tmp_path / "unbroken", **weights)

    def kill(record: dict[str, float], map_: Any) -> None:
        if record["step"] == 8:
            raise Killed

    with pytest.raises(Killed):
        quick(callbacks=[kill], **options).fit(X, resume=tmp_path / "broken", **weights)
    steps: list[float] = []
    follow = [lambda record, map_: steps.append(record["step"])]
    resumed = quick(callbacks=follow, **options).fit(X, resume=str(tmp_path / "broken"), **weights)
    assert steps[0] >= 8  # it did go on from a checkpoint
    first, second = (flow.map_.blocks.state_dict() for flow in (unbroken, resumed))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resumed.held_out_log_likelihood_ == unbroken.held_out_log_likelihood_


def test_a_checkpoint_of_another_fit_and_a_loader_are_refused(tmp_path: Path, eager_checkpoints: None) -> None:
    X = gaussian_points()
    quick().fit(X, resume=tmp_path)
    for other, data in ((quick(learning_rate=0.02), X), (quick(random_state=1), X), (quick(), X + 1e-6)):
        with pytest.raises(DataError, match="is of another fit"):
            other.fit(data, resume=tmp_path)
    with pytest.raises(DataError, match="position a checkpoint can hold with resume, got a DataLoader"):
        quick().fit(DataLoader(TensorDataset(torch.from_numpy(X))), resume=tmp_path)


def test_a_place_where_no_checkpoint_can_be_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="expected resume to be a folder that can be made or written"):
        quick().fit(gaussian_points(), resume=tmp_path / "file")
