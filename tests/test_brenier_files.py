"""Maps on disk: saved and loaded bit for bit, damage named, copies, and fits that are killed and resumed."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from fits import Fitted, bent_fit, gaussian_fit, quick, resumable_fit
from forks import Forks, forks
from sklearn.base import clone
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ot_lift import ICNN, BrenierMap
from ot_lift.errors import DataError, ExtrapolationWarning
from ot_lift.io import load_folder, save_folder
from ot_lift.potentials import AutogradPotential
from ot_lift.training import TrainingOptions

FITS: dict[str, Callable[[], Fitted]] = {"start kept": gaussian_fit, "network used": bent_fit}
TESTS = Path(__file__).parent


@pytest.fixture(params=FITS)
def fit(request: pytest.FixtureRequest) -> Fitted:
    return FITS[request.param]()


def answers(fitted: BrenierMap, fit: Fitted) -> dict[str, Any]:
    """What a map says about the points it was fitted on."""
    return {
        "transport": fitted.transport(fit.X),
        "transport, float32": fitted.transport(fit.X.astype(np.float32)),
        "transport, torch": fitted.transport(torch.from_numpy(fit.X)).numpy(),
        "invert": fitted.invert(fit.Y),
        "potential": fitted.potential(fit.X),
        "conjugate": fitted.conjugate(fit.Y),
        "interpolate": fitted.interpolate(fit.X, 0.3),
        "score": fitted.score(fit.X, fit.Y),
    }


def assert_same(one: BrenierMap, other: BrenierMap, fit: Fitted) -> None:
    first, second = answers(one, fit), answers(other, fit)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


# ------------------------------------------------------------------------------------------- save and load
def test_a_loaded_map_gives_the_same_bits(fit: Fitted, tmp_path: Path) -> None:
    fit.map.save(tmp_path / "map")
    loaded = BrenierMap.load(str(tmp_path / "map"))
    assert_same(loaded, fit.map, fit)
    for name in ("certificate_", "stop_reason_", "fit_seconds_", "n_features_in_", "used_network_"):
        assert getattr(loaded, name) == getattr(fit.map, name), name
    assert str(loaded.history_) == str(fit.map.history_)  # its NaN are not equal to themselves
    # JSON has no tuples.
    assert {**loaded.get_params(), "hidden_features": tuple(loaded.hidden_features)} == fit.map.get_params()
    fitted_names = [{name for name in vars(either) if name.endswith("_")} for either in (loaded, fit.map)]
    assert fitted_names[0] == fitted_names[1]


def test_saving_a_loaded_map_writes_the_same_files(fit: Fitted, tmp_path: Path) -> None:
    fit.map.save(tmp_path / "one")
    BrenierMap.load(tmp_path / "one").save(tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_loaded_map_still_warns_and_can_be_fitted_again(fit: Fitted, tmp_path: Path) -> None:
    fit.map.save(tmp_path / "map")
    loaded = BrenierMap.load(tmp_path / "map")
    with pytest.warns(ExtrapolationWarning):
        loaded.transport(fit.X + 1e4)
    assert_same(clone(loaded).fit(fit.X, fit.Y), fit.map, fit)


def test_a_fresh_interpreter_gives_the_same_bits(tmp_path: Path) -> None:
    fit = bent_fit()
    fit.map.save(tmp_path / "map")
    np.save(tmp_path / "x.npy", fit.X)
    program = (
        "import numpy as np; from ot_lift import BrenierMap\n"
        "np.save('image.npy', BrenierMap.load('map').transport(np.load('x.npy')))"
    )
    run_python(program, tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "image.npy"), fit.map.transport(fit.X))


def test_no_file_is_a_pickle_or_an_archive(fit: Fitted, tmp_path: Path) -> None:
    fit.map.save(tmp_path / "map")
    files = {file.name: file.read_bytes() for file in (tmp_path / "map").iterdir()}
    assert sorted(files) == ["config.json", "manifest.json", "tensors.safetensors"]
    assert json.loads(files["config.json"])["certificate"] == fit.map.certificate_.to_dict()
    for content in files.values():
        assert not content.startswith((b"PK", b"\x80", b"\x1f\x8b"))
        with pytest.raises(pickle.UnpicklingError):
            pickle.Unpickler(io.BytesIO(content)).load()


def test_double_precision_fits_and_other_options_come_back(tmp_path: Path) -> None:
    fit = bent_fit()
    options = {"dtype": "float64", "activation": "celu", "positivity": "softplus", "start": "identity"}
    fitted = quick(max_steps=60, strong_convexity=0.1, sharpness=2.0, **options).fit(fit.X, 4 * fit.Y)
    assert fitted.used_network_
    fitted.save(tmp_path / "map")
    assert_same(BrenierMap.load(tmp_path / "map"), fitted, fit)


def test_a_network_of_ones_own_is_loaded_into_a_copy(tmp_path: Path, generator: torch.Generator) -> None:
    def network(*widths: int) -> AutogradPotential:
        return AutogradPotential(ICNN(2, widths, generator=generator), 2, strong_convexity=0.05)

    fit = bent_fit()
    fitted = quick(network=network(8), max_steps=60, start="identity").fit(fit.X, 4 * fit.Y)
    assert fitted.used_network_
    fitted.save(tmp_path / "map")
    with pytest.raises(DataError, match=r"was fitted with network=.*; pass the same structure to load"):
        BrenierMap.load(tmp_path / "map")
    with pytest.raises(DataError, match=r"expected a network of the structure that the map .* was fitted with"):
        BrenierMap.load(tmp_path / "map", network=network(9))
    given = network(8)
    before = copy.deepcopy(given.state_dict())
    assert_same(BrenierMap.load(tmp_path / "map", network=given), fitted, fit)
    for name, value in given.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_saving_replaces_an_earlier_map_and_nothing_else(tmp_path: Path) -> None:
    fit = gaussian_fit()
    bent_fit().map.save(tmp_path / "map")
    fit.map.save(tmp_path / "map")
    assert_same(BrenierMap.load(tmp_path / "map"), fit.map, fit)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("words")
    with pytest.raises(DataError, match="expected an empty folder or an earlier save"):
        fit.map.save(tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["map", "config.json", "manifest.json", "tensors.safetensors", "mine", "thesis.tex"]
    )


def _overwrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(change(content))

    return damage


def _newer(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 99}))


def _foreign(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    (folder / "model.pt").write_bytes(b"PK")


def _of_another_kind(folder: Path) -> None:
    save_folder(folder, kind="checkpoint", config={}, tensors={})


def _a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a truncated file of tensors": (_overwrite("tensors.safetensors", lambda c: c[:-9]), "instead of"),
    "an empty file of tensors": (_overwrite("tensors.safetensors", lambda c: b""), "instead of"),
    "a flipped bit": (_overwrite("tensors.safetensors", lambda c: c[:-1] + bytes([c[-1] ^ 1])), "checksum"),
    "changed settings": (_overwrite("config.json", lambda c: c.replace(b"gaussian", b"identity")), "config.json"),
    "settings that are missing": (lambda folder: (folder / "config.json").unlink(), "no readable config.json"),
    "tensors that are missing": (lambda folder: (folder / "tensors.safetensors").unlink(), "no readable tensors"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "without manifest.json"),
    "half a manifest": (_overwrite("manifest.json", lambda c: c[: len(c) // 2]), "not JSON"),
    "a newer format": (_newer, "newer ot-lift; upgrade"),
    "another kind": (_of_another_kind, "got a saved checkpoint"),
    "a foreign folder": (_foreign, "without manifest.json"),
    "an empty folder": (lambda folder: [file.unlink() for file in folder.iterdir()] and None, "without manifest.json"),
    "a file": (_a_file, "got a file there"),
    "nothing": (shutil.rmtree, "got nothing there"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_map_gives_one_clear_sentence(case: str, tmp_path: Path) -> None:
    damage, words = DAMAGE[case]
    folder = tmp_path / "map"
    gaussian_fit().map.save(folder)
    damage(folder)
    with pytest.raises(DataError, match=words) as error:
        BrenierMap.load(folder)
    message = str(error.value)
    assert message.startswith("expected ")
    assert str(folder) in message
    assert "\n" not in message


# ------------------------------------------------------------------------------------------------- copies
@pytest.mark.parametrize(
    "duplicate",
    [
        pytest.param(lambda fitted, _: pickle.loads(pickle.dumps(fitted)), id="pickle"),
        pytest.param(lambda fitted, _: copy.deepcopy(fitted), id="deepcopy"),
        pytest.param(lambda fitted, folder: joblib.load(joblib.dump(fitted, folder / "map.joblib")[0]), id="joblib"),
    ],
)
def test_copies_of_an_estimator_are_the_same_map(
    duplicate: Callable[[BrenierMap, Path], BrenierMap], fit: Fitted, tmp_path: Path
) -> None:
    copied = duplicate(fit.map, tmp_path)
    assert copied is not fit.map
    assert_same(copied, fit.map, fit)
    assert copied.certificate_ == fit.map.certificate_
    assert copied.get_params() == fit.map.get_params()
    x = torch.from_numpy(fit.X[:5])
    torch.testing.assert_close(copied.map_(x), fit.map.map_(x), rtol=0, atol=0)
    unfitted = duplicate(quick(), tmp_path)
    assert unfitted.fit(fit.X, fit.Y).n_features_in_ == 2


# ------------------------------------------------------------------------------------------------- resume
class Killed(Exception):
    """Ends a fit from within, as a kill from without does."""


@pytest.fixture
def eager_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step, an evaluation after every tenth, and small streams."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # no power is cut here
    eager = functools.partial(TrainingOptions, checkpoint_seconds=0.0, evaluate_every=10)
    monkeypatch.setattr("ot_lift.estimators.TrainingOptions", eager)
    monkeypatch.setattr("ot_lift.brenier_fit._PLAN_STEPS", 20)
    monkeypatch.setattr("ot_lift.sides.HELD_OUT_ROWS", 200)
    monkeypatch.setattr("ot_lift.sides._MOMENT_ROWS", 2048)
    monkeypatch.setattr("ot_lift.batches._POOL_BATCHES", 8)


def sampler(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, 2, generator=generator)


def _bent() -> tuple[Any, Any]:
    return bent_fit().X, bent_fit().Y


RESUMED: dict[str, tuple[dict[str, Any], Callable[[], tuple[Any, Any]], dict[str, Any]]] = {
    "lift": ({}, _bent, {}),
    "softplus": ({"positivity": "softplus"}, _bent, {}),
    "projection in float64": ({"positivity": "projection", "dtype": "float64"}, _bent, {}),
    "from a plan, without a seed": ({"start": "plan", "random_state": None}, _bent, {}),
    "weights": ({}, _bent, {"source_weight": np.linspace(0, 1, 1500), "target_weight": np.linspace(1, 0, 1200)}),
    "samplers": ({"batch_size": 32}, lambda: (sampler, sampler), {}),
    "a network": ({"network": ICNN(2, (8,), generator=torch.Generator().manual_seed(0))}, _bent, {}),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_fit_that_broke_off_ends_where_an_unbroken_one_does(
    case: str, tmp_path: Path, eager_checkpoints: None
) -> None:
    options, data, weights = RESUMED[case]
    options = {"start": "identity", "max_steps": 70, **options}
    X, Y = data()
    unbroken = quick(**options).fit(X, Y, resume=tmp_path / "unbroken", **weights)

    def killer(at: int) -> Callable[..., None]:
        def callback(record: dict[str, float], potential: Any) -> None:
            if record["step"] == at:
                raise Killed

        return callback

    for at in (20, 50):
        with pytest.raises(Killed):
            quick(callbacks=[killer(at)], **options).fit(X, Y, resume=tmp_path / "broken", **weights)
    steps: list[float] = []
    follow = [lambda record, potential: steps.append(record["step"])]
    resumed = quick(callbacks=follow, **options).fit(X, Y, resume=str(tmp_path / "broken"), **weights)
    assert steps[0] >= 40  # it did go on from a checkpoint
    first, second = unbroken.potential_.state_dict(), resumed.potential_.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resumed.certificate_ == unbroken.certificate_
    for one, other in zip(resumed.history_, unbroken.history_, strict=True):
        assert {**one, "seconds": 0.0} == pytest.approx({**other, "seconds": 0.0}, nan_ok=True, rel=0, abs=0)


def test_resuming_a_finished_fit_gives_it_at_once(tmp_path: Path, eager_checkpoints: None) -> None:
    fit, steps = bent_fit(), []
    first = quick(max_steps=30).fit(fit.X, fit.Y, resume=tmp_path / "run")
    again = quick(max_steps=30, callbacks=[lambda *record: steps.append(record)]).fit(
        fit.X, fit.Y, resume=tmp_path / "run"
    )
    assert_same(again, first, fit)
    assert steps == []
    assert again.stop_reason_ == first.stop_reason_ == "max_steps"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda fit: (quick(learning_rate=0.02), fit.X, fit.Y), id="settings"),
        pytest.param(lambda fit: (quick(random_state=1), fit.X, fit.Y), id="seed"),
        pytest.param(lambda fit: (quick(), fit.X + 1e-6, fit.Y), id="source"),
        pytest.param(lambda fit: (quick(), fit.X, fit.Y[:-1]), id="target"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(
    change: Callable[[Fitted], tuple[BrenierMap, Any, Any]], tmp_path: Path, eager_checkpoints: None
) -> None:
    fit = gaussian_fit()
    quick().fit(fit.X, fit.Y, resume=tmp_path)
    other, X, Y = change(fit)
    with pytest.raises(DataError, match=r"is of another fit \(other data or settings\).*choose an empty folder"):
        other.fit(X, Y, resume=tmp_path)


def test_a_damaged_checkpoint_is_refused_in_words(tmp_path: Path, eager_checkpoints: None) -> None:
    fit = gaussian_fit()
    quick().fit(fit.X, fit.Y, resume=tmp_path)
    tensors = tmp_path / "checkpoint" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"expected a whole folder saved by ot-lift .* it is damaged"):
        quick().fit(fit.X, fit.Y, resume=tmp_path)


def test_a_place_where_no_checkpoint_can_be_is_refused_before_training(tmp_path: Path) -> None:
    fit, seen = gaussian_fit(), []
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=r"expected resume to be a folder .* got .*file"):
        quick(callbacks=[lambda *record: seen.append(record)]).fit(fit.X, fit.Y, resume=tmp_path / "file")
    assert seen == []


def test_a_loader_whose_position_no_checkpoint_holds_is_refused(tmp_path: Path) -> None:
    fit = gaussian_fit()
    loader = DataLoader(TensorDataset(torch.from_numpy(fit.Y)), batch_size=50)
    with pytest.raises(DataError, match=r"got a DataLoader; pass its dataset as an array"):
        quick().fit(fit.X, loader, resume=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_not_a_pickle_either(tmp_path: Path, eager_checkpoints: None) -> None:
    fit = gaussian_fit()
    quick().fit(fit.X, fit.Y, resume=tmp_path)
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["config.json", "manifest.json", "tensors.safetensors"]
    assert load_folder(tmp_path / "checkpoint", kind="checkpoint")[0]["progress"]["step"] == 12


# ------------------------------------------------------------------------------------------------ SIGKILL
def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}


def run_python(program: str, folder: Path) -> None:
    """Run a program in a fresh interpreter that finds the library and these tests."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def _step(folder: Path) -> int:
    """The step of the newest checkpoint; -1 if there is none to read at this moment."""
    try:
        return int(json.loads((folder / "checkpoint" / "config.json").read_bytes())["progress"]["step"])
    except (OSError, ValueError):
        return -1


def _kill_at(step: int, runs: Forks, folder: Path) -> None:
    """Start a fit, and SIGKILL it once a checkpoint of that step or a later one is there."""
    process = runs.start()
    deadline = time.monotonic() + 120
    while _step(folder / "broken") < step:
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    assert runs.end() == -signal.SIGKILL, "the fit ended before it was killed"


@pytest.mark.slow
def test_a_fit_killed_again_and_again_resumes_to_the_same_weights(tmp_path: Path) -> None:
    settings = {"steps": 130, "seconds": 0.0}  # a checkpoint after every step: many kills come while one is written
    unbroken = resumable_fit(tmp_path / "unbroken", **settings)
    victim = f"from fits import resumable_fit\nvictim = lambda _: resumable_fit('broken', **{settings})\n"
    with forks(victim, tmp_path) as runs:
        for at in (1, 33, 40, 110):
            _kill_at(at, runs, tmp_path)
    resumed = resumable_fit(tmp_path / "broken", **settings)
    first, second = unbroken.potential_.state_dict(), resumed.potential_.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
