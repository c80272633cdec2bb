"""Posterior tasks, methods and cells of the benchmarks: moments against closed forms, weights, and who wins."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_records import record

import posteriors
from benchmarks.cells_child import Outcome
from benchmarks.metrics import quality_of
from benchmarks.posterior import Draws, PosteriorTask, find_methods, find_tasks
from benchmarks.posterior.cells import PosteriorCell, judged, measure
from benchmarks.posterior.compiling import counting
from benchmarks.posterior.methods.guides import GUIDES, GuideMethod
from benchmarks.posterior.methods.laplace import LaplaceMethod
from benchmarks.posterior.methods.nuts import NutsMethod
from benchmarks.posterior.methods.ours import PosteriorMapMethod
from benchmarks.posterior.moments import FILE, Moments, entries, moments_of, write_moments
from benchmarks.runner import chosen_cells
from benchmarks.site import write_site
from benchmarks.site_words import verdict
from benchmarks.step_sizes import GRID
from benchmarks.tasks import Options
from ot_lift.errors import DataError
from posteriors.reference import Reference

LINEAR = PosteriorTask(features=11, budget_seconds=2.0, target="linear_diabetes", draws=2000)
NORMAL = ("mean-field", "full-rank")
SMALL = PosteriorTask(features=2, budget_seconds=2.0, target="weibull_leukaemia", draws=2000, quick=True)
numpyro = pytest.mark.skipif(find_spec("numpyro") is None or find_spec("arviz") is None, reason="no NumPyro or ArviZ")


def silent(phase: str) -> None:
    """A cell's phases, unheard."""


def normal_moments(features: int) -> Moments:
    """Of N(0, I), known exactly."""
    many = np.full(features, np.inf)
    return Moments(np.zeros(features), np.ones(features), np.full(features, 3.0), many, many)


# ---------------------------------------------------------------------------------------- tasks
def test_every_target_of_the_catalogue_is_a_task() -> None:
    tasks, missing = find_tasks(Options(cache=Path("somewhere")))
    assert [task.target for task in tasks] == list(posteriors.names()) and not missing
    for task in tasks:
        assert re.fullmatch(r"posterior(-[a-z0-9]+)+", task.name)
        assert task.features == task.posterior().dim and task.cache == Path("somewhere")
        settings = task.settings()
        assert settings["kind"] == "posterior" and "cache" not in settings
        assert json.loads(json.dumps(settings)) == settings


def test_a_quick_look_covers_every_target_and_every_method() -> None:
    quick, full = (find_tasks(Options(quick=quick))[0] for quick in (True, False))
    by_task = [{method.name for method in find_methods(task)[0]} for task in quick]
    assert all({"Laplace", "ot-lift"} <= names for names in by_task)
    assert set.union(*by_task) == {method.name for method in find_methods(full[0])[0]}
    assert sum(len(names) > 2 for names in by_task) == 1


# -------------------------------------------------------------------------------------- moments
def test_the_moments_of_a_normal_posterior_are_the_closed_form() -> None:
    posterior = posteriors.load("linear_diabetes")
    moments = moments_of(posterior, folder=None)
    assert moments is not None and posterior.mean is not None and posterior.covariance is not None
    order = entries({name: value[None] for name, value in posterior.constrain(np.arange(11.0)[None]).items()}, 2)
    place = order[0, 0].round().astype(int)
    scale = np.sqrt(np.diag(posterior.covariance))[place]
    mean_error, spread_error = moments.standard_errors(np.inf)
    assert (np.abs(moments.mean - posterior.mean[place]) / scale < 5 * mean_error).all()
    assert (np.abs(moments.deviation / scale - 1) < 5 * spread_error).all()


def test_moments_of_another_density_are_not_used() -> None:
    posterior = posteriors.load("linear_diabetes")
    other = replace(posterior, log_density=lambda x: posterior.log_density(x) - 0.1 * x.square().sum(-1))
    assert moments_of(other, folder=None) is None


def test_the_file_has_the_moments_of_most_of_the_catalogue() -> None:
    known = json.loads(FILE.read_text(encoding="utf-8"))
    assert set(known) <= set(posteriors.names()) and len(known) >= 11
    for name, found in known.items():
        assert found["r_hat"] < 1.01 and min(found["ess"]) > 10_000, name


def test_moments_are_written_beside_those_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("arviz")
    draws = np.random.default_rng(0).normal(size=(4, 500, 2))
    reference = Reference({"intercept": draws[..., 0], "slopes": draws[..., 1:]}, 1.0, 2000.0, 0)
    monkeypatch.setattr(posteriors, "reference", lambda name, folder: reference)
    path = tmp_path / "moments.json"
    path.write_text('{"gamma_pumps": {"mean": []}}', encoding="utf-8")
    write_moments(["weibull_leukaemia"], folder=tmp_path, path=path)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert list(found) == ["gamma_pumps", "weibull_leukaemia"]
    assert found["weibull_leukaemia"]["mean"] == pytest.approx(draws.reshape(-1, 2).mean(0), rel=1e-6)
    with pytest.raises(DataError, match="expected names of"):
        write_moments(["eight_schools"], folder=tmp_path, path=path)


# ---------------------------------------------------------------------------------------- judging
def test_exact_draws_are_within_the_null_level_and_others_are_not(rng: np.random.Generator) -> None:
    points, even = rng.normal(size=(4000, 3)), np.zeros(4000)
    figures = judged(Draws({"x": points}, 2.0, even), normal_moments(3), 4000)
    assert figures["moment_error"] == max(figures["mean_error"], figures["sd_error"]) < figures["moment_error_null"]
    assert (figures["k_hat"], figures["importance_share"]) == (-math.inf, pytest.approx(1.0))
    assert figures["effective_seconds"] == pytest.approx(0.5) and figures["sample_seconds"] == 5.0
    shifted = judged(Draws({"x": points + np.array([0, 0.5, 0])}, 2.0, even), normal_moments(3), 4000)
    assert shifted["mean_error"] == pytest.approx(0.5, abs=0.05) and shifted["moment_error"] > 0.4
    narrow = judged(Draws({"x": 0.7 * points}, 2.0, even), normal_moments(3), 4000)
    assert narrow["sd_error"] == pytest.approx(0.3, abs=0.05)


def test_a_chain_is_worth_its_effective_draws(rng: np.random.Generator) -> None:
    figures = judged(Draws({"x": rng.normal(size=(400, 2))}, 3.0, effective=100.0), normal_moments(2), 400)
    assert figures["effective_seconds"] == pytest.approx(30.0)
    assert "k_hat" not in figures


def test_uneven_weights_leave_few_draws(rng: np.random.Generator) -> None:
    points = 0.5 * rng.normal(size=(3000, 1))
    weights = 0.5 * (4 - 1) * points[:, 0] ** 2  # of N(0, 1) over N(0, ¼)
    figures = judged(Draws({"x": points}, 1.0, weights), None, 3000)
    assert figures["importance_share"] < 0.5 and figures["k_hat"] > 0.4
    assert "moment_error" not in figures


def test_draws_that_are_not_finite_fail() -> None:
    with pytest.raises(DataError, match="1 of 2 draws are not finite"):
        judged(Draws({"x": np.array([[0.0], [np.nan]])}, 1.0), None, 2)


# ---------------------------------------------------------------------------------------- methods
def test_laplace_is_exact_where_the_posterior_is_normal() -> None:
    figures = measure(LINEAR, LaplaceMethod(), 0, silent).figures
    assert figures["importance_share"] == pytest.approx(1.0, abs=1e-6)
    assert figures["moment_error"] < figures["moment_error_null"]
    assert figures["fit_seconds"] == figures["fit_compiled_seconds"]


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_ours_weighs_its_draws_by_its_own_density(direction: str) -> None:
    few = {"hidden_features": (8, 8), "batch_size": 64, "max_steps": 60, "patience": None}
    outcome = measure(SMALL, PosteriorMapMethod(direction=direction, **few), 0, silent)
    assert outcome.figures["importance_share"] > 0.9 and outcome.figures["moment_error"] < 0.15
    assert outcome.notes[0].startswith("its own diagnosis: ")


def test_other_positivities_choose_from_the_grid_of_the_peers() -> None:
    few = {"hidden_features": (4,), "batch_size": 16, "max_steps": 3}
    method = PosteriorMapMethod("ot-lift softplus", tuned=True, positivity="softplus", **few)
    method.fit(SMALL.posterior(), random_state=0, max_seconds=20.0)
    assert method.settings["learning_rate"].startswith("the best of 0.001")
    assert method.notes[0].startswith("step size") and method.notes[0].count("with") == len(GRID)


@cache
def guide_fit(guide: str) -> tuple[GuideMethod, Outcome]:
    """Shared between tests, for compiling takes longest: never refit it. Guides that are normal get such a target."""
    method = GuideMethod(guide)
    return method, measure(LINEAR if guide in NORMAL else SMALL, method, 0, silent)


@pytest.mark.slow
@numpyro
@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_ends_near_its_budget(guide: str) -> None:
    _, outcome = guide_fit(guide)
    assert outcome.notes[0].startswith("step size") and "steps within the budget" in outcome.notes[1]
    assert 0 < outcome.figures["importance_share"] <= 1
    assert 0 < outcome.figures["fit_compiled_seconds"] < outcome.figures["fit_seconds"]


@pytest.mark.slow
@numpyro
@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_knows_its_density(guide: str) -> None:
    jax = pytest.importorskip("jax")
    method, _ = guide_fit(guide)
    training, key = method._training, jax.random.PRNGKey(3)
    with counting():
        theta, log_q = training.sampler(method._state, 3)(key)
        transform = training._guide.get_transform(training._constrain(method._state))
        base = training._guide.get_base_dist()
        z = base.sample(key, (3,))
        images, slopes = jax.jit(jax.vmap(lambda one: (transform(one), jax.jacfwd(transform)(one))))(z)
        assert np.allclose(images, theta)
        assert np.allclose(base.log_prob(z) - np.linalg.slogdet(slopes).logabsdet, log_q, atol=1e-8)


@pytest.mark.slow
@numpyro
@pytest.mark.parametrize("guide", NORMAL)
def test_a_guide_ends_at_the_best_normal_of_its_family(guide: str) -> None:
    """Reverse KL to N(m, P⁻¹) is least at N(m, P⁻¹), and with independent components at variances 1/Pᵢᵢ."""
    jax = pytest.importorskip("jax")
    posterior, (method, _) = LINEAR.posterior(), guide_fit(guide)
    assert posterior.mean is not None and posterior.covariance is not None
    precision = np.linalg.inv(posterior.covariance)
    if guide == "mean-field":
        precision = np.diag(np.diag(precision))
    training = method._training
    with counting():
        parameters, _ = training.anneal(0.03, lambda steps: steps / 16_000)
        transform = training._guide.get_transform(training._constrain(parameters))
        mean, root = (np.asarray(of(np.zeros(11))) for of in (transform, jax.jacfwd(transform)))
    white = np.linalg.cholesky(precision).T
    assert np.linalg.norm(white @ (mean - posterior.mean)) < 0.1
    assert np.abs(np.linalg.svd(white @ root, compute_uv=False) - 1).max() < 0.1


@pytest.mark.slow
@numpyro
def test_nuts_gives_draws_of_the_posterior() -> None:
    outcome = measure(SMALL, NutsMethod(warm_up=200, leg=250), 0, silent)
    assert outcome.figures["moment_error"] < 0.3
    assert "draws a chain after a warm-up" in outcome.notes[0] and "k_hat" not in outcome.figures


@numpyro
def test_what_is_compiled_is_counted() -> None:
    import jax

    with counting() as clock:
        value = jax.jit(lambda x: jax.numpy.sin(x) + 41.5)(np.float64(0.25))
        assert value.dtype == np.float64
    assert 0 < clock.seconds < 60
    seconds = clock.seconds
    jax.jit(lambda x: jax.numpy.cos(x) + 41.5)(np.float32(0.25))
    assert clock.seconds == seconds


def test_peers_that_are_missing_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("guides", "nuts"):
        monkeypatch.setattr(f"benchmarks.posterior.methods.{module}.find_spec", lambda name: None)
    found, missing = find_methods(LINEAR)
    assert {method.name for method in found} >= {"Laplace", "ot-lift"} and len(missing) == 2
    assert all("pip install 'ot-lift[posteriors]'" in line for line in missing)


# ---------------------------------------------------------------------------------------- cells and pages
def test_a_cell_gives_a_record_and_says_where_it_has_no_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = PosteriorCell(SMALL, LaplaceMethod(), 0, 1).run(tmp_path)
    assert (found["status"], found["reason"]) == ("ok", "")
    assert found["settings"]["task"]["kind"] == "posterior" and found["figures"]["moment_error_null"] > 0
    monkeypatch.setattr("benchmarks.posterior.cells.moments_of", lambda *given, **options: None)
    outcome = measure(SMALL, LaplaceMethod(), 0, silent)
    assert "--cache FOLDER" in outcome.notes[-1] and "moment_error" not in outcome.figures

    def too_short(*given: Any, **options: Any) -> None:
        raise RuntimeError("expected R-hat < 1.01")

    monkeypatch.setattr("benchmarks.posterior.cells.moments_of", too_short)
    assert "no reference: expected R-hat < 1.01" in measure(SMALL, LaplaceMethod(), 0, silent).notes


def test_names_choose_posteriors_among_all_kinds() -> None:
    cells, _ = chosen_cells(["posterior", "Laplace", "EMD"], Options(quick=True), seeds=[0], threads=1)
    assert [cell.task.name for cell in cells] == [task.name for task in find_tasks(Options(quick=True))[0]]


def seeds_of(task: str, method: str, errors: list[float], **more: float) -> list[dict[str, Any]]:
    """Records of a posterior with these largest errors."""
    found = []
    for seed, error in enumerate(errors):
        figures = {"moment_error": error, "moment_error_null": 0.03, "fit_seconds": 2.0, "k_hat": 0.2}
        one = record(task, method, seed, **figures | more)
        one["settings"]["task"] |= {"kind": "posterior", "features": 2}
        found.append(one)
    return found


def test_the_largest_error_decides_against_what_exact_draws_reach() -> None:
    found = [*seeds_of("t", "Laplace", [0.4, 0.41]), *seeds_of("t", "ot-lift", [0.02, 0.01])]
    told = verdict(found)
    assert told[0].startswith("ot-lift wins with largest error 0.0150")
    assert told[1].endswith("independent draws of the posterior itself reach 0.0300, so the difference matters.")
    exact = [*seeds_of("t", "NUTS", [0.02, 0.025]), *seeds_of("t", "ot-lift", [0.02, 0.01])]
    assert verdict(exact)[1].endswith("that independent draws of the posterior itself reach: no difference in use.")


def test_without_a_reference_k_hat_decides() -> None:
    found = [*seeds_of("t", "Laplace", [0.4, 0.4], k_hat=0.9), *seeds_of("t", "ot-lift", [0.1, 0.1])]
    for one in found:
        del one["figures"]["moment_error"]
    assert quality_of(found).key == "k_hat"
    assert verdict(found)[0].startswith("ot-lift wins with k-hat 0.200")


def test_the_site_has_a_page_for_a_posterior(tmp_path: Path) -> None:
    found = [*seeds_of("posterior-x", "Laplace", [0.4, 0.41]), *seeds_of("posterior-x", "ot-lift", [0.02, 0.01])]
    overview = write_site(found, tmp_path).read_text(encoding="utf-8")
    assert "Posteriors: every method" in overview and "Maps: every" not in overview
    page = (tmp_path / "posterior-x.html").read_text(encoding="utf-8")
    assert page.count("<img") == 1 and "null level 0.0300" in page and "k-hat" in page
