"""A run continues from its checkpoint bit for bit, whenever it was broken off, and from no other run's."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import Regression, fit, fit_semi_dual, interrupt, options, same
from torch import nn

from ot_lift.errors import DataError
from ot_lift.io import load_folder


@pytest.mark.parametrize("stop", [1, 7, 15])
@pytest.mark.parametrize("positivity", ["softplus", "projection", "lift", "admm"])
def test_an_interrupted_run_resumes_as_if_unbroken(positivity: str, stop: int, tmp_path: Path) -> None:
    settings = options(max_steps=18, evaluate_every=4, checkpoint_seconds=0.0, clip=1.0)
    unbroken = fit(positivity=positivity, options=settings)
    objective = Regression()
    objective.before_loss = lambda step, model: interrupt() if step == stop else None
    broken = fit(objective, positivity, options=settings, resume=tmp_path, fingerprint="a")
    assert broken.stop_reason == "interrupted"
    resumed = fit(positivity=positivity, options=settings, resume=tmp_path, fingerprint="a")
    assert same(resumed, unbroken)


def test_a_plateau_survives_a_resume(tmp_path: Path) -> None:
    def flat(broken: bool) -> Regression:
        objective = Regression()
        objective.change_held_out = lambda step, value: max(0.0, 10.0 - step)
        if broken:
            objective.before_loss = lambda step, model: interrupt() if step == 18 else None
        return objective

    settings = options(max_steps=10_000, evaluate_every=2, patience=3, checkpoint_seconds=0.0)
    fit(flat(True), options=settings, resume=tmp_path)
    assert same(fit(flat(False), options=settings, resume=tmp_path), fit(flat(False), options=settings))


def test_a_finished_run_is_read_and_not_run_again(tmp_path: Path) -> None:
    finished = fit(resume=tmp_path)
    objective = Regression()
    objective.before_loss = interrupt  # type: ignore[assignment]
    again = fit(objective, resume=tmp_path)
    assert same(again, finished)


def test_checkpoints_are_as_rare_as_asked_for_and_there_at_the_end(tmp_path: Path) -> None:
    for name, seconds in (("rare", 1e9), ("every step", 0.0)):
        seen: list[bool] = []
        folder = tmp_path / name / "checkpoint"

        def there(record: dict[str, float], module: nn.Module, place: Path = folder) -> None:
            seen.append(place.exists())  # noqa: B023 (called within this turn of the loop)

        settings = options(max_steps=6, evaluate_every=2, checkpoint_seconds=seconds)
        fit(resume=folder.parent, options=settings, callbacks=[there])
        assert seen == [name == "every step"] * 3
        assert load_folder(folder, kind="checkpoint")[0]["progress"]["step"] == 6


def test_a_diverged_state_is_no_checkpoint(tmp_path: Path) -> None:
    objective = Regression()
    objective.change_loss = lambda step, loss: loss * math.nan if step >= 9 else loss
    fit(objective, resume=tmp_path, options=options(checkpoint_seconds=0.0))
    config, tensors = load_folder(tmp_path / "checkpoint", kind="checkpoint")
    assert config["progress"]["step"] == 8 and config["progress"]["stop_reason"] == ""
    assert all(bool(torch.isfinite(t).all()) for name, t in tensors.items() if name.startswith("model."))


def test_a_checkpoint_of_another_fit_is_refused_and_left_alone(tmp_path: Path) -> None:
    fit(resume=tmp_path, fingerprint="a")
    before = {file.name: file.read_bytes() for file in (tmp_path / "checkpoint").iterdir()}
    with pytest.raises(DataError, match=r"of another fit \(other data or settings\); resume with those"):
        fit(resume=tmp_path, fingerprint="b")
    assert {file.name: file.read_bytes() for file in (tmp_path / "checkpoint").iterdir()} == before


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    fit(resume=tmp_path)
    tensors = tmp_path / "checkpoint" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"damaged"):
        fit(resume=tmp_path)


def test_a_kill_between_the_two_renames_of_a_checkpoint_loses_nothing(tmp_path: Path) -> None:
    settings = options(max_steps=12, checkpoint_seconds=0.0)
    objective = Regression()
    objective.before_loss = lambda step, model: interrupt() if step == 9 else None
    fit(objective, options=settings, resume=tmp_path)
    (tmp_path / "checkpoint").rename(tmp_path / ".checkpoint.replaced")
    objective = Regression()
    first: list[int] = []
    objective.before_loss = lambda step, model: first.append(step)
    assert same(fit(objective, options=settings, resume=tmp_path), fit(options=settings))
    assert first[0] == 9


def test_a_killed_run_resumes_to_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from runs import fit_semi_dual; "
        f"fit_semi_dual(Path({str(tmp_path / 'killed')!r}), checkpoint_seconds=0.0)"
    )
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    victim = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        checkpoint = tmp_path / "killed" / "checkpoint"
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and victim.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(np.random.default_rng().uniform(0.0, 0.8))  # at a moment that no seed chooses
        victim.send_signal(signal.SIGKILL)
    finally:
        victim.kill()
    assert victim.wait() == -signal.SIGKILL, "the run was over before it was killed"
    resumed = fit_semi_dual(tmp_path / "killed", checkpoint_seconds=1e9)
    unbroken = fit_semi_dual(tmp_path / "unbroken", checkpoint_seconds=1e9)
    assert same(resumed, unbroken)
