"""Latents of digits: splits that share no image, likelihoods with closed forms, cells, and a page that counts."""

from __future__ import annotations

import gzip
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import benchmark_records
import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from benchmarks.experiments import experiment_cells, find_experiment
from benchmarks.experiments.autoencoder import CODE, fit_autoencoder
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod, Outcome
from benchmarks.experiments.images import COPIES, MNIST_FILES, Images, digits, has_mnist, mnist, read_idx, shaken
from benchmarks.experiments.latents import LatentsTask, methods
from benchmarks.experiments.likelihood_task import Kept
from benchmarks.experiments.likelihoods import EnergyLikelihood, FlowLikelihood, Points, gaussian_nll
from benchmarks.experiments.protocols import RATES
from benchmarks.site import write_site
from benchmarks.tasks import Options
from ot_lift.constrained import Constrained
from ot_lift.errors import DataError
from ot_lift.potentials import ICNN


# -------------------------------------------------------------------------------------------- images
def test_no_image_has_copies_in_two_splits() -> None:
    pixels = torch.arange(50.0).view(50, 1, 1).expand(50, 8, 8) / 50  # every image of one level, which moves keep
    images = Images.split(pixels, torch.arange(50) % 5, 0, copies=4)
    levels = [set((50 * part[:, 4, 4]).round().int().tolist()) for part in images.pixels]
    assert [len(part) for part in levels] == [30, 10, 10] and len(set.union(*levels)) == 50
    for part, classes in zip(images.pixels, images.classes, strict=True):
        assert ((50 * part[:, 4, 4]).round().int() % 5 == classes).all()


def test_moves_are_small_and_differ() -> None:
    places = torch.arange(15.0)
    bell = torch.exp(-((places - 7) ** 2) / 8)
    moved = shaken(torch.outer(bell, bell)[None], 200, torch.Generator().manual_seed(0))
    across, down = ((moved.sum(axis) @ places) / moved.sum((1, 2)) - 7 for axis in (1, 2))
    squares = across**2 + down**2  # the turn leaves them alone
    assert float(squares.max()) < 0.5 + 1e-2
    error = float(squares.std()) / math.sqrt(len(squares))
    assert float(squares.mean()) == pytest.approx(2 / 12, abs=4 * error)  # of two uniform numbers on [−½, ½]


def test_digits_are_all_there() -> None:
    images = digits(0)
    assert sum(len(part) for part in images.pixels) == 1797 * COPIES and images.side == 8
    assert all(float(part.min()) >= 0 and float(part.max()) <= 1 for part in images.pixels)


def write_idx(path: Path, values: np.ndarray[Any, Any], *, packed: bool) -> None:
    content = b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    path = path.with_name(path.name + ".gz") if packed else path
    path.write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_from_its_own_files(tmp_path: Path, packed: bool) -> None:
    assert not has_mnist(tmp_path) and not has_mnist(None)
    pixels = np.repeat(np.arange(20, dtype=np.uint8), 6).reshape(20, 2, 3)
    for name, values in zip(MNIST_FILES, (pixels, np.arange(20, dtype=np.uint8) % 2), strict=True):
        write_idx(tmp_path / name, values, packed=packed)
    assert has_mnist(tmp_path)
    images = mnist(tmp_path, 0)
    assert [len(part) for part in images.pixels] == [12, 4, 4]
    assert sorted((255 * torch.cat(images.pixels)[:, 0, 0]).round().int().tolist()) == list(range(20))
    kinds = {one.task.name for one in experiment_cells(["latents-mnist"], Options(tmp_path), seeds=[0], threads=1)[0]}
    assert len(kinds) == 30 and "latents-mnist-3-tuned" in kinds


def test_files_that_are_not_idx_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("0 1 2", encoding="utf-8")
    with pytest.raises(DataError, match="expected an idx file of bytes"):
        read_idx(tmp_path / "text")
    write_idx(tmp_path / "cut", np.zeros(9, dtype=np.uint8), packed=False)
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-1])
    with pytest.raises(DataError, match="expected 9 bytes after the header"):
        read_idx(tmp_path / "cut")
    with pytest.raises(DataError, match="got neither"):
        mnist(tmp_path, 0)


def test_an_autoencoder_is_the_same_for_the_same_seed() -> None:
    images = torch.rand(100, 16, generator=torch.Generator().manual_seed(0))
    first, second = (fit_autoencoder(images, 0, steps=3) for _ in "ab")
    assert torch.equal(first(images), second(images))


# --------------------------------------------------------------------------------------- likelihoods
def normal_points(features: int = 3, count: int = 4_000) -> tuple[Points, np.ndarray[Any, Any], Any]:
    rng = np.random.default_rng(0)
    root = np.array([[2.0, 0, 0], [1, 1, 0], [0, 0.5, 0.1]])[:features, :features]
    splits = [1 + rng.normal(size=(count, features)) @ root.T for _ in range(3)]
    law = torch.distributions.MultivariateNormal(
        torch.ones(features).double(), covariance_matrix=torch.tensor(root @ root.T)
    )
    return Points.of(*splits), splits[2], law


def test_the_gaussian_has_the_likelihood_of_a_gaussian() -> None:
    points, test, law = normal_points()
    values = law.log_prob(torch.tensor(test))
    assert gaussian_nll("Gaussian", points) == pytest.approx(-float(values.mean()), abs=4 / math.sqrt(len(test)))


def test_the_shrinkage_gaussian_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    training, test = (rng.normal(size=(count, 5)) @ rng.normal(size=(5, 5)) for count in (12, 300))
    training /= training.std(0)
    expected = -LedoitWolf().fit(training).score(test)
    units = np.array([1.0, 10.0, 100.0, 1e3, 1e-4])  # which do not change what is shrunk: Σ log of them is log 100
    points = Points.of(training * units, test * units, test * units)
    assert gaussian_nll("shrinkage Gaussian", points) == pytest.approx(expected + math.log(100), rel=1e-5)


def network(scale: float = 1.0) -> ICNN:
    """½·scale·|x|² with weights that are kept non-negative and do nothing."""
    found = ICNN(3, (4, 4), squared=False, strong_convexity=0.0)
    with torch.no_grad():
        found.readout.zero_()
    found.quadratic.set_quadratic_(scale * torch.eye(3))
    return found


def test_a_flow_that_is_the_identity_is_the_shrinkage_gaussian() -> None:
    points, _, _ = normal_points()
    likelihood = FlowLikelihood(points)
    expected = gaussian_nll("shrinkage Gaussian", points)
    assert likelihood.tested(network())["test_nll"] == pytest.approx(expected, abs=1e-5)
    loss = likelihood.loss(Constrained(network(), "projection").bind(), points.validation).detach()
    assert float(loss) - points.log_volume == pytest.approx(likelihood.validated(network()), abs=1e-4)


def test_an_energy_is_normalised_by_draws() -> None:
    points, _, _ = normal_points(count=400)
    likelihood, flow = EnergyLikelihood(points, 0, steps=2), FlowLikelihood(points)
    found = likelihood.tested(network())  # E = ½|x|², Z = (2π)^1.5
    error = 4 * found["log_normalizer_standard_error"]
    assert 0 < error < 0.1 and 0 < found["effective_share"] <= 1
    assert found["test_nll"] == pytest.approx(flow.tested(network())["test_nll"], abs=error)
    assert likelihood.validated(network()) == pytest.approx(flow.validated(network()), abs=2 * error)  # fewer draws
    bound = Constrained(network(), "projection").bind()
    losses = [float(one.loss(bound, points.validation).detach()) for one in (likelihood, flow)]
    assert losses[0] == pytest.approx(losses[1], abs=0.5)  # 512 draws of a proposal


@pytest.mark.parametrize("name", ["lift", "softplus", "projection"])
def test_every_network_starts_near_the_gaussian(name: str) -> None:
    points, _, _ = normal_points(count=500)
    trial = FlowLikelihood(points).trial(name, 0)
    start = FlowLikelihood(points).tested(trial.model.bake(trial.reference))["test_nll"]
    assert start == pytest.approx(gaussian_nll("shrinkage Gaussian", points), abs=0.1)


def test_the_weights_that_validate_best_are_kept() -> None:
    points, _, _ = normal_points(count=200)
    likelihood = FlowLikelihood(points)
    kept = Kept(likelihood, points.training)
    for step, scale in enumerate((2.0, 1.0, 3.0)):
        kept(step, 0.0, Constrained(network(scale), "projection"))
    assert kept.step == 1 and kept.value == likelihood.validated(network())
    broken = Constrained(network(), "projection")
    with torch.no_grad():
        next(iter(broken.parameters())).fill_(math.nan)
    with pytest.raises(FloatingPointError, match="not finite after 3 steps"):
        kept(3, 0.0, broken)


# --------------------------------------------------------------------------------------------- cells
TINY: Mapping[str, Any] = {"images": "digits", "kind": 3, "iterations": 3, "autoencoder_steps": 5}


def test_a_record_has_its_figures_curve_and_samples() -> None:
    task = LatentsTask(protocol="paper", **TINY)
    outcome = task.run(ExperimentMethod("lift", {}), 0, None)
    assert set(outcome.figures) == {
        *("test_nll", "validation_nll", "kept_step", "shoulder_share", "learning_rate", "parameters", "fit_seconds"),
    }
    assert outcome.figures["learning_rate"] == 5e-3
    assert [row[0] for row in outcome.details["curve"]] == [0, 1, 2, 3]
    assert np.shape(outcome.details["samples"]) == (4, 8, 8)
    plain = task.run(ExperimentMethod("shrinkage Gaussian", {}), 0, None)
    assert set(plain.figures) == {"test_nll"} and np.shape(plain.details["samples"]) == (4, 8, 8)
    json.dumps([outcome.details, plain.details])
    assert task.points(0).features == CODE


def test_the_step_size_is_chosen_by_validation() -> None:
    outcome = LatentsTask(protocol="tuning", **TINY).run(ExperimentMethod("projection", {}), 99, None)
    assert outcome.figures["learning_rate"] in RATES
    assert outcome.figures["validation_loss"] == min(outcome.details["validation_loss"].values())


def test_cells_are_of_every_class_protocol_method_and_seed() -> None:
    found, _ = experiment_cells(["latents"], Options(), seeds=None, threads=None)
    assert len(found) == 10 * (3 * (3 + 3 + 1) + 2 * 3) and len({one.path for one in found}) == len(found)
    assert {one.task.settings()["recipe"]["iterations"] for one in found} == {600, 200}
    quick, _ = experiment_cells(["latents"], Options(quick=True), seeds=None, threads=None)
    assert len(quick) == 3 * 5 and all(one.task.settings()["quick"] for one in quick)
    json.dumps([one.settings for one in found])


# --------------------------------------------------------------------------------------------- pages
def record(kind: int, method: str, seed: int, value: float, protocol: str = "paper") -> dict[str, Any]:
    task = LatentsTask(protocol=protocol, **{**TINY, "kind": kind})
    figures = {"test_nll": value, "fit_seconds": 2.0, "parameters": 10.0, "kept_step": 3.0, "shoulder_share": 0.5}
    details = {"curve": [[0, None, 2.0, 0.5], [3, 1.0, value, 0.5]], "samples": [[[0] * 8] * 8] * 4}
    outcome = Outcome(figures if "Gaussian" not in method else {"test_nll": value}, details)
    cell = ExperimentCell(task, ExperimentMethod(method, {}), seed, 1)
    made = benchmark_records.record(task.name, method, seed, details=outcome.details)
    return {**made, "settings": cell.settings, "figures": {**outcome.figures}}


def records() -> list[dict[str, Any]]:
    """Class 0 is as the paper says; on class 1 projection is above the Gaussian."""
    found = []
    for kind, projection in ((0, 1.5), (1, 3.5)):
        values = {"lift": 1.0, "softplus": 1.2, "projection": projection, "Gaussian": 3.0, "shrinkage Gaussian": 2.0}
        found += [record(kind, name, seed, value + 0.1 * seed) for name, value in values.items() for seed in range(2)]
    return found


def test_the_page_counts_the_classes_on_which_the_order_holds(tmp_path: Path) -> None:
    made = records()
    page = find_experiment("latents").page(made)
    assert page.sentences[0].startswith(
        "Protocol paper, of 2 classes by medians over seeds (in brackets: on every seed): "
        "lift below projection below Gaussian on 1 (1), lift below projection on 2 (2)"
    )
    table = page.tables[0][2]
    assert [row.name for row in table.rows] == ["digits-0", "digits-1"]
    assert (table.rows[1].cells[2].text, table.rows[1].cells[2].small) == ("3.55", "3.50 · 3.60")
    assert [plot.key for plot in page.plots] == ["gains-paper", "validation-paper", "samples-digits-paper"]
    write_site(made, tmp_path)
    text = (tmp_path / "latents.html").read_text(encoding="utf-8")
    assert text.count("<img") >= 3 and "Decoded samples" in text


def test_a_failure_is_said() -> None:
    made = records()
    made[0] |= {"status": "failed", "reason": "FloatingPointError: no luck", "figures": {}}
    assert find_experiment("latents").page(made).sentences[-1] == (
        "latents-digits-0-paper × lift, seed 0: FloatingPointError: no luck"
    )


def test_every_method_says_what_it_is_made_of() -> None:
    assert [one.name for one in methods()] == ["lift", "softplus", "projection"]
    assert methods()[0].settings["code_features"] == 96
