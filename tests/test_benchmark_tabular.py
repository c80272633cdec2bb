"""Tabular sets: loaders on small files in the published formats, against the authors' steps; cells and the page."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import benchmark_records
import numpy as np
import pytest

from benchmarks.experiments import experiment_cells, find_experiment, zenodo
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod
from benchmarks.experiments.likelihood_page import draw_gains
from benchmarks.experiments.published import PUBLISHED, few_repeats, miniboone_text, uncorrelated
from benchmarks.experiments.tabular import SHIPPED, TabularTask, shipped
from benchmarks.site import write_site
from benchmarks.tasks import Options
from ot_lift.errors import DataError
from ot_lift.report_theme import LIGHT

RNG = np.random.default_rng(0)


# --------------------------------------------------------------------------------- published formats
def sizes(splits: Any) -> list[tuple[int, ...]]:
    return [one.shape for one in splits]


def save(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def test_power_is_shuffled_freed_from_rounding_and_standardised(tmp_path: Path) -> None:
    raw = RNG.integers(0, 50, size=(200, 8)).astype(float)
    save(tmp_path / "power/data.npy", raw)
    training, validation, test = PUBLISHED["power"].load(tmp_path)
    assert sizes((training, validation, test)) == [(162, 6), (18, 6), (20, 6)]
    both = np.vstack([training, validation])
    np.testing.assert_allclose([both.mean(0), both.std(0)], [[0] * 6, [1] * 6], atol=1e-12)
    # the authors' code, line by line
    rng, data = np.random.RandomState(42), raw.copy()
    rng.shuffle(data)
    data = np.delete(np.delete(data, 3, axis=1), 1, axis=1)
    voltage, active, meters = 0.01 * rng.rand(200, 1), 0.001 * rng.rand(200, 1), rng.rand(200, 3)
    data = data + np.hstack((active, voltage, meters, np.zeros((200, 1))))
    mean, deviation = data[:180].mean(0), data[:180].std(0)
    np.testing.assert_allclose(test, (data[180:] - mean) / deviation)


def write_gas(folder: Path) -> np.ndarray[Any, Any]:
    """Nineteen columns with a header in words, a space in it; two of the sensors nearly repeat the first."""
    data = RNG.normal(size=(100, 19))
    data[:, 5] = 3 * data[:, 3] + 1e-3 * data[:, 5]
    data[:, 7] = 2 * data[:, 3] + 1e-3 * data[:, 7]
    folder.joinpath("gas").mkdir(parents=True)
    header = "Time (seconds), CO conc (ppm), Ethylene conc (ppm), sensor readings (16 channels)"
    np.savetxt(folder / "gas/ethylene_CO.txt", data, fmt="%.6f", header=header, comments="")
    return data


def test_gas_is_read_from_text_without_columns_that_repeat(tmp_path: Path) -> None:
    data = write_gas(tmp_path)
    training, validation, test = PUBLISHED["gas"].load(tmp_path)
    assert sizes((training, validation, test)) == [(81, 14), (9, 14), (10, 14)]
    kept = data[:, [4, *range(6, 19)]]  # the first of close ones go first: 3, then 5; 7 stays
    expected = (kept - kept.mean(0)) / kept.std(0, ddof=1)
    np.testing.assert_allclose(np.vstack([training, validation, test]), expected, atol=1e-5)


def test_the_pickle_of_gas_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gas").mkdir()
    (tmp_path / "gas/ethylene_CO.pickle").write_bytes(b"\x80\x04.")
    assert not PUBLISHED["gas"].is_in(tmp_path)
    with pytest.raises(DataError, match="a pickle can run any code: put UCI's own text there"):
        PUBLISHED["gas"].load(tmp_path)


def test_hepmass_keeps_the_signal_and_columns_of_many_values(tmp_path: Path) -> None:
    folder = tmp_path / "hepmass"
    folder.mkdir()
    tables = {}
    for name, rows in (("train", 300), ("test", 100)):
        data = np.column_stack([RNG.integers(0, 2, size=rows), RNG.normal(size=(rows, 4))])
        data[:, 2] = data[:, 2].round()  # its least value may come once: it stays
        data[:, 3] = data[:, 3].clip(0, None)  # half of it is its least value
        if name == "test":
            data = np.column_stack([data, RNG.normal(size=rows)])  # the published test file has one column more
        header = ",".join(["# label", *(f"f{k}" for k in range(data.shape[1] - 1))])
        np.savetxt(folder / f"1000_{name}.csv", data, fmt="%.18e", delimiter=",", header=header, comments="")
        tables[name] = data[data[:, 0] == 1, 1:5]
    training, validation, test = PUBLISHED["hepmass"].load(tmp_path)
    own = tables["train"]
    kept = [k for k in range(4) if (own[:, k] == own[:, k].min()).sum() <= 5]
    assert 2 not in kept and len(validation) == len(own) // 10
    standard = (own - own.mean(0)) / own.std(0, ddof=1)
    np.testing.assert_allclose(np.vstack([training, validation]), standard[:, kept])
    np.testing.assert_allclose(test, ((tables["test"] - own.mean(0)) / own.std(0, ddof=1))[:, kept])


def test_miniboone_is_the_archives_and_can_be_made_from_text(tmp_path: Path) -> None:
    data = RNG.normal(size=(60, 5))
    data[3, 0] = -999.0
    data[:20, 4] = data[:, 4].min()
    path = tmp_path / "MiniBooNE_PID.txt"
    np.savetxt(path, data, header=" 40 20", comments="")
    made = miniboone_text(path)
    np.testing.assert_allclose(made, np.delete(data[:40], 3, axis=0)[:, :4])
    save(tmp_path / "miniboone/data.npy", made)
    splits = PUBLISHED["miniboone"].load(tmp_path)
    assert sizes(splits) == [(33, 4), (3, 4), (3, 4)]
    np.testing.assert_allclose(np.vstack(splits[:2]).mean(0), 0, atol=1e-12)


def test_bsds300_is_used_as_it_is(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "BSDS300").mkdir()
    parts = {name: RNG.normal(size=(rows, 63)) for name, rows in (("train", 9), ("validation", 5), ("test", 4))}
    with h5py.File(tmp_path / "BSDS300/BSDS300.hdf5", "w") as file:
        for name, values in parts.items():
            file[name] = values
    for loaded, values in zip(PUBLISHED["bsds300"].load(tmp_path), parts.values(), strict=True):
        np.testing.assert_array_equal(loaded, values)


def test_what_is_missing_or_something_else_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected power/data.npy in .* got none; .*zenodo FOLDER"):
        PUBLISHED["power"].load(tmp_path)
    save(tmp_path / "power/data.npy", np.zeros((9, 3)))
    with pytest.raises(DataError, match=r"expected \(rows, 8\) in .*, got \(9, 3\)"):
        PUBLISHED["power"].load(tmp_path)
    save(tmp_path / "miniboone/data.npy", np.array([{}]))  # written by pickle, and not read so
    with pytest.raises(DataError, match="expected an array of numbers in"):
        PUBLISHED["miniboone"].load(tmp_path)
    save(tmp_path / "miniboone/data.npy", np.zeros((5, 3)))
    with pytest.raises(DataError, match="expected at least 12 rows, got 5"):
        PUBLISHED["miniboone"].load(tmp_path)


def test_columns_are_judged_as_the_authors_code_does() -> None:
    repeats = np.column_stack([np.repeat([1.0, 2, 3], [5, 5, 10]), np.repeat([1.0, 2, 3], [6, 7, 7])])
    assert few_repeats(repeats).tolist() == [True, False]
    x = RNG.normal(size=(50, 1))
    assert uncorrelated(np.hstack([x, -x])).shape == (50, 2)  # a negative correlation does not count


# --------------------------------------------------------------------------------------- the archive
def write_record(folder: Path, *, wrong_sum: bool = False) -> str:
    """A record and an archive like Zenodo's, as addresses of files."""
    content = io.BytesIO()
    np.save(content, np.ones((20, 8)))
    with tarfile.open(folder / "source.tar.gz", "w:gz") as archive:
        for name in ("data/power/data.npy", "data/gas/ethylene_CO.pickle", "../outside.npy"):
            info = tarfile.TarInfo(name)
            info.size = content.tell()
            archive.addfile(info, io.BytesIO(content.getvalue()))
    digest = hashlib.md5((folder / "source.tar.gz").read_bytes(), usedforsecurity=False).hexdigest()
    address = (folder / "source.tar.gz").as_uri()
    entry = {"key": "data.tar.gz", "checksum": f"md5:{'0' * 32 if wrong_sum else digest}", "links": {"self": address}}
    (folder / "record.json").write_text(json.dumps({"files": [entry]}), encoding="utf-8")
    return (folder / "record.json").as_uri()


def test_the_archive_is_checked_unpacked_and_not_fetched_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    address = write_record(tmp_path)
    assert zenodo.fetch(cache, record=address) == ["power/data.npy"]
    assert {one.name for one in cache.rglob("*")} == {"power", "data.npy", "data.tar.gz"}  # no pickle, none outside
    (tmp_path / "source.tar.gz").unlink()
    assert zenodo.fetch(cache, record=address) == ["power/data.npy"]


def test_an_archive_with_another_sum_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected md5 0+ of .*, got [0-9a-f]{32}: remove it and try again"):
        zenodo.fetch(tmp_path / "cache", record=write_record(tmp_path, wrong_sum=True))
    assert not (tmp_path / "cache/power").exists()


def test_without_a_network_it_is_said_in_a_sentence(tmp_path: Path) -> None:
    nowhere = (tmp_path / "nowhere.json").as_uri()
    with pytest.raises(DataError, match=r"cannot reach .*: fetch data.tar.gz where there is a network, and unpack it"):
        zenodo.fetch(tmp_path, record=nowhere)
    (tmp_path / "nowhere.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"expected a record with data.tar.gz and its checksum"):
        zenodo.fetch(tmp_path, record=nowhere)


# --------------------------------------------------------------------------------------------- cells
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_set_is_split_by_its_seed(name: str) -> None:
    first, again, other = (shipped(name, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    rows = np.vstack(first)
    assert min(len(np.unique(column)) for column in rows.T) >= 10
    assert np.array_equal(np.sort(rows[:, 0]), np.sort(np.vstack(other)[:, 0]))


def task(model: str, table: str = "iris", protocol: str = "paper", **more: Any) -> TabularTask:
    tiny: Mapping[str, Any] = {"iterations": 3, "proposal_steps": 3, "learning_rate": 1e-3}
    return TabularTask(table=table, model=model, protocol=protocol, **{**tiny, **more})


@pytest.mark.parametrize(("model", "method"), [("flow", "lift"), ("energy", "lift"), ("energy", "ADMM balanced")])
def test_a_record_has_its_figures(model: str, method: str) -> None:
    outcome = task(model).run(ExperimentMethod(method, {}), 0, None)
    known = {"log_normalizer_standard_error", "effective_share"} if model == "energy" else set()
    assert set(outcome.figures) == known | {
        *("test_nll", "validation_nll", "kept_step", "shoulder_share", "learning_rate", "parameters", "fit_seconds"),
    }
    assert all(np.isfinite(value) for value in outcome.figures.values())
    json.dumps([outcome.details, task(model).settings()])


def test_a_published_set_is_run_where_its_files_are(tmp_path: Path) -> None:
    save(tmp_path / "power/data.npy", RNG.normal(size=(300, 8)))
    found, _ = experiment_cells(["tabular-power"], Options(tmp_path), seeds=[0], threads=None)
    assert {one.task.name for one in found} == {
        f"tabular-power-{model}-{protocol}" for model in ("flow", "energy") for protocol in ("paper", "tuned", "tuning")
    }
    assert experiment_cells(["tabular-power"], Options(), seeds=[0], threads=None)[1] == ["tabular-power"]
    outcome = task("flow", "power", folder=tmp_path).run(ExperimentMethod("Gaussian", {}), 0, None)
    assert outcome.figures["test_nll"] == pytest.approx(6 * 0.5 * np.log(2 * np.pi * np.e), abs=1.5)


def test_cells_are_of_every_set_model_protocol_and_method() -> None:
    found, _ = experiment_cells(["tabular"], Options(), seeds=None, threads=None)
    flows, energies = (methods * (3 + 3 + 1) + 2 * 3 for methods in (3, 6))
    assert len(found) == 4 * (flows + energies) and len({one.path for one in found}) == len(found)
    quick, _ = experiment_cells(["tabular"], Options(quick=True), seeds=None, threads=None)
    assert len(quick) == 2 * 2 * 5


# --------------------------------------------------------------------------------------------- pages
def record(model: str, table: str, method: str, seed: int, value: float) -> dict[str, Any]:
    cell = ExperimentCell(task(model, table), ExperimentMethod(method, {}), seed, 1)
    figures = {"test_nll": value}
    if "Gaussian" not in method:
        figures |= {"fit_seconds": 2.0, "parameters": 10.0, "kept_step": 3.0, "shoulder_share": 0.5}
        if model == "energy":
            figures |= {"log_normalizer_standard_error": 0.01, "effective_share": 0.25}
    made = benchmark_records.record(cell.task.name, method, seed, details={"curve": [[0, None, 2.0, 0.5]]})
    return {**made, "settings": cell.settings, "figures": figures}


def test_the_page_counts_sets_by_model(tmp_path: Path) -> None:
    made = [
        record(model, table, method, seed, value + 0.1 * seed)
        for model in ("flow", "energy")
        for table, theirs in (("iris", 0.5), ("wine", 2.0))
        for method, value in (("lift", 1.0), ("softplus", theirs), ("Gaussian", 3.0))
        for seed in range(2)
    ]
    page = find_experiment("tabular").page(made)
    assert page.sentences == [
        f"{model}. Protocol paper, of 2 sets by medians over seeds (in brackets: on every seed): "
        "lift below softplus on 1 (1) and lift below Gaussian on 2 (2)."
        for model in ("Flow", "Energy")
    ]
    known = page.tables[-1][2]
    assert [cell.text for cell in known.rows[0].cells] == ["0.0100", "25.0%"] * 2
    write_site(made, tmp_path)
    assert "Normalisers of the energies" in (tmp_path / "tabular.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("places", "first"), [(4, [0]), (8, [0, 4]), (10, [0, 5])])
def test_methods_are_named_at_the_left_of_every_row_of_panels(places: int, first: list[int]) -> None:
    gains = {f"set {place}": {"lift": [-1.0, 0.0], "softplus": [1.0]} for place in range(places)}
    figure = draw_gains(gains, ["lift", "softplus"], LIGHT)
    named = [place for place, axis in enumerate(figure.axes) if axis.get_yticklabels()[0].get_text()]
    assert named == first
