"""What estimators share: checks in words, seeds that leave global state alone, folders, answers, warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ot_lift import ConvexPotentialFlow, LogConcaveDensity
from ot_lift.errors import ConvergenceWarning, DataError, ExtrapolationWarning
from ot_lift.estimators import (
    check_count,
    check_keeps_convex,
    fingerprint,
    numbers_of,
    open_checkpoints,
    plain_settings,
    seed_of,
    significantly_better,
    training_device,
    training_dtype,
    warn_of_end,
    warn_of_extrapolation,
)
from ot_lift.estimators_density import answer
from ot_lift.sides import Reach, Side


@pytest.mark.parametrize("value", [1, 7, np.int32(3)])
def test_counts_are_whole_and_positive(value: Any) -> None:
    check_count("n", value)
    for bad in (0, -value, 1.5, "1", None):
        with pytest.raises(ValueError, match=r"expected n to be a whole number > 0, got"):
            check_count("n", bad)


def test_a_positivity_whose_iterates_may_be_negative_is_refused() -> None:
    check_keeps_convex("softplus", otherwise="")
    with pytest.raises(ValueError, match=r"got 'admm'.*and then nothing works; use 'lift'"):
        check_keeps_convex("admm", otherwise="nothing works")


def test_dtypes_and_devices_are_found_by_name() -> None:
    assert training_dtype(torch.float64) is training_dtype("float64") is torch.float64
    assert training_device("cpu", None) == training_device(None, torch.zeros(1)) == torch.device("cpu")
    with pytest.raises(ValueError, match="got 'int8'"):
        training_dtype("int8")
    with pytest.raises(ValueError, match=r"expected a device of this machine, got 'cuda:99' .*leave it out"):
        training_device("cuda:99", None)


def test_seeds_are_numbers_of_a_random_state() -> None:
    assert seed_of(3) == seed_of(3) == seed_of(np.random.RandomState(3)) != seed_of(4)
    assert seed_of(None) != seed_of(None)
    assert seed_of(None, resumable=True) == 0
    with pytest.raises(ValueError, match="cannot be used to seed"):
        seed_of("three")


def test_a_fingerprint_tells_settings_seeds_and_data_apart(generator: torch.Generator) -> None:
    x = torch.randn(50, 2, generator=generator, dtype=torch.float64)

    def side(points: Tensor) -> Side:
        split = torch.Generator().manual_seed(0)
        return Side.open(points, name="X", features=None, weight=None, generator=split)

    same = fingerprint({"a": 1, "progress": True}, 0, side(x))
    assert same == fingerprint({"a": 1, "progress": False, "callbacks": [print]}, 0, side(x))
    others = [
        fingerprint({"a": 2}, 0, side(x)),
        fingerprint({"a": 1}, 1, side(x)),
        fingerprint({"a": 1}, 0, side(x + 1)),
        fingerprint({"a": 1}, 0, side(x), side(x)),
    ]
    assert len({same, *others}) == 5

    def of_a_part(steps: int, callbacks: list[Any]) -> str:
        part = ConvexPotentialFlow(max_steps=steps, callbacks=callbacks)
        return fingerprint(LogConcaveDensity(proposal=part).get_params(), 0, side(x))

    assert of_a_part(5, [print]) == of_a_part(5, [len]) != of_a_part(6, [len])


def test_a_folder_for_checkpoints_is_made_or_refused(tmp_path: Path) -> None:
    assert open_checkpoints(str(tmp_path / "a" / "b"), [[1.0]]).is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"got .*file .*choose another"):
        open_checkpoints(tmp_path / "file", None)
    with pytest.raises(DataError, match="got a DataLoader; pass its dataset"):
        open_checkpoints(tmp_path, [[1.0]], DataLoader([1.0]))  # type: ignore[arg-type]


def test_objects_that_are_numbers_are_taken_as_such() -> None:
    assert numbers_of(np.array([["1", 2]], dtype=object)).tolist() == [[1.0, 2.0]]
    data = [[1, 2]]
    assert numbers_of(data) is data
    with pytest.raises(DataError, match="got objects that are none"):
        numbers_of(np.array([["a", 2]], dtype=object))


def test_answers_come_in_the_callers_kind_and_are_worked_out_in_double_precision() -> None:
    seen: list[Tensor] = []

    def double(x: Tensor) -> Tensor:
        seen.append(x)
        return 2 * x

    points = np.arange(10, dtype=np.float32).reshape(5, 2)
    found = answer(double, points, name="X", features=2, rows=2)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, 2 * points)
    assert [len(block) for block in seen] == [2, 2, 1] and seen[0].dtype == torch.float64
    checked: list[Tensor] = []
    answer(double, torch.ones(3, 2), name="X", features=2, rows=9, check=checked.append)
    assert checked[0].dtype == torch.float64
    with pytest.raises(DataError, match=r"expected Z of shape \(n, 2\)"):
        answer(double, [[1.0]], name="Z", features=2, rows=9)


@pytest.mark.parametrize(("reason", "words"), [("diverged", "lower learning_rate"), ("interrupted", "best state")])
def test_an_end_that_should_not_be_is_warned_about(reason: str, words: str) -> None:
    with pytest.warns(ConvergenceWarning, match=words):
        warn_of_end(reason)
    warn_of_end("max_steps")


def test_points_far_out_are_counted() -> None:
    reach = Reach.of(torch.zeros(1).double(), torch.eye(1).double(), torch.tensor([[1.0], [-1.0]]).double())
    with pytest.warns(ExtrapolationWarning, match="1 of 2 points of Z lie more than twice as far out"):
        warn_of_extrapolation(reach, torch.tensor([[0.5], [2.5]]), name="Z", stacklevel=1)
    warn_of_extrapolation(reach, torch.tensor([[1.9]]), name="Z", stacklevel=1)


def test_what_json_cannot_hold_is_left_out() -> None:
    assert plain_settings({"a": None, "b": [1, "x"], "c": print, "d": [print], "e": True}) == {
        "a": None,
        "b": [1, "x"],
        "e": True,
    }


def test_the_start_is_kept_unless_the_gain_is_beyond_chance() -> None:
    assert significantly_better(2.01, 1.0, points=100_000) and not significantly_better(1.99, 1.0, points=100_000)
    assert not significantly_better(2.01, 1.0, points=20) and not significantly_better(float("nan"), 1.0, points=20)
