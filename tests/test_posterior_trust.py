"""Verdicts: never good on what no map of ours can fit, good on log-concave targets; weights as ArviZ has them."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from targets import Density, cauchy, funnel, gumbel, linear_model, log_gamma, logistic, two_modes
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from ot_lift.errors import ConvergenceWarning
from ot_lift.posterior import PosteriorMap
from ot_lift.posterior_mode import find_mode
from ot_lift.posterior_target import Target
from ot_lift.posterior_trust import TrustWarning
from ot_lift.posterior_weights import Evidence, metropolis, pareto_smooth, resample

SMALL = {"hidden_features": (16, 16), "max_steps": 200}


def fit(target: Density, **options: object) -> PosteriorMap:
    """A small map, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        return PosteriorMap(**{**SMALL, "random_state": 0, **options}).fit(target)


# --- verdicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("distance", [5.0, 8.0, 20.0, 60.0])
@pytest.mark.parametrize("dim", [1, 2, 10])
def test_two_separated_modes_are_never_good(dim: int, distance: float, seed: int) -> None:
    diagnosis = fit(two_modes(dim, distance), random_state=seed, max_steps=5).diagnosis_
    assert diagnosis.verdict == "reject"
    assert diagnosis.modes == 2
    assert "2 separate modes" in str(diagnosis)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("target", [funnel(3), cauchy(2), cauchy(10)], ids=["funnel", "cauchy", "cauchy10"])
def test_a_funnel_and_a_cauchy_product_are_never_good(target: Density, seed: int) -> None:
    posterior = fit(target, random_state=seed, max_steps=30)
    for draws in (500, 4096):
        diagnosis = posterior.diagnose(draws=draws, random_state=seed)
        assert diagnosis.verdict != "good"
        assert diagnosis.hessian_violations > 0
        assert "not log-concave" in str(diagnosis)


@pytest.mark.parametrize("target", [linear_model(), log_gamma(2)], ids=["Gaussian", "log Gamma"])
def test_log_concave_targets_are_good(target: Density) -> None:
    diagnosis = fit(target).diagnosis_
    assert diagnosis.verdict == "good", str(diagnosis)
    assert diagnosis.reasons == ()
    assert (diagnosis.modes, diagnosis.agreement) == (1, 1.0)
    assert diagnosis.chord_violations == diagnosis.hessian_violations == 0.0
    assert diagnosis.residual < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("direction", "seed"), [("forward", 0), ("inverse", 1)])
@pytest.mark.parametrize("target", [gumbel(3), logistic(3), log_gamma(5)], ids=["Gumbel", "logistic", "log Gamma"])
def test_log_concave_targets_are_good_at_the_defaults(target: Density, direction: str, seed: int) -> None:
    diagnosis = PosteriorMap(direction=direction, random_state=seed).fit(target).diagnosis_
    assert diagnosis.verdict == "good", str(diagnosis)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("target", [funnel(3), cauchy(2)], ids=["funnel", "cauchy"])
def test_a_good_fit_of_what_is_not_log_concave_is_not_good_either(target: Density, direction: str) -> None:
    with pytest.warns(TrustWarning, match="not log-concave"):
        posterior = PosteriorMap(direction=direction, random_state=0).fit(target)
    assert posterior.diagnosis_.verdict != "good"


def test_the_text_begins_with_the_verdict_and_ends_with_the_reasons() -> None:
    diagnosis = fit(cauchy(2), max_steps=5).diagnosis_
    assert str(diagnosis).startswith(diagnosis.verdict)
    assert all(f"\n- {reason}" in str(diagnosis) for reason in diagnosis.reasons)


# --- warnings ------------------------------------------------------------------------------------------------------


def test_fit_and_sample_warn_of_a_map_that_is_rejected() -> None:
    with pytest.warns(TrustWarning, match="reject") as seen:
        posterior = PosteriorMap(max_steps=5, random_state=0).fit(two_modes(2, 8.0))
    assert seen[0].filename == __file__
    for correct in (None, "importance"):
        with pytest.warns(TrustWarning, match="2 separate modes") as seen:
            posterior.sample(3, correct=correct)
        assert seen[0].filename == __file__


def test_a_correction_that_the_verdict_asks_for_does_not_warn() -> None:
    posterior = fit(Density(1, lambda x: (0.3 * torch.cos(2 * x) - 0.5 * x.square()).sum(-1)))  # one mode, light tails
    assert posterior.diagnosis_.verdict == "correct"
    with pytest.warns(TrustWarning, match="^correct"):
        posterior.sample(3)
    assert posterior.sample(3, correct="metropolis").shape == (3, 1)  # pytest turns a warning into an error


# --- diagnose never raises -----------------------------------------------------------------------------------------


class Failing:
    """A normal target that raises once it is told to."""

    dim = 2
    broken = False

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        if self.broken:
            raise ArithmeticError("the simulator crashed")
        return -0.5 * x.square().sum(-1)


def test_an_error_of_the_target_is_a_reason_and_not_raised() -> None:
    target = Failing()
    posterior = PosteriorMap(random_state=0).fit(target)
    target.broken = True
    diagnosis = posterior.diagnose()
    assert diagnosis.verdict == "reject"
    assert "importance weights could not be checked: ArithmeticError: the simulator crashed" in str(diagnosis)


def test_a_density_that_is_not_finite_at_draws_is_said() -> None:
    truncated = Density(1, lambda x: torch.where(x[:, 0] > -1.0, -0.5 * x[:, 0].square(), -torch.inf))
    diagnosis = fit(truncated, max_steps=5).diagnosis_
    assert diagnosis.verdict != "good"
    assert "not finite at" in str(diagnosis)


# --- modes ---------------------------------------------------------------------------------------------------------


def test_the_mode_is_found_from_many_starts_and_is_exact() -> None:
    line = linear_model()
    found = find_mode(Target(line), torch.Generator().manual_seed(0))
    deviation = np.sqrt(np.diag(line.covariance))
    np.testing.assert_allclose((found.mode.numpy() - line.mean) / deviation, 0.0, atol=1e-8)
    covariance = (found.root @ found.root.T).numpy()
    units = np.outer(deviation, deviation)
    np.testing.assert_allclose(covariance / units, line.covariance / units, atol=1e-9)
    assert (found.agreement, len(found.other_modes)) == (1.0, 0)
    assert found.residual < 1e-6


def test_the_mode_is_exact_where_rounding_hides_the_last_steps() -> None:
    centre, scale = torch.tensor([0.3, -1.7, 2.1]).double(), torch.tensor([0.5, 1.0, 3.0]).double()
    raised = Density(3, lambda x: 1e4 - 0.5 * ((x - centre) / scale).square().sum(-1))  # told to 2e-12 nats, so 2e-6
    found = find_mode(Target(raised), torch.Generator().manual_seed(0))
    torch.testing.assert_close((found.mode - centre) / scale, torch.zeros(3).double(), atol=1e-9, rtol=0)


def test_the_highest_mode_is_taken_wherever_the_search_begins() -> None:
    def log_density(x: torch.Tensor) -> torch.Tensor:
        near, far = -0.5 * x.square().sum(-1), 3.0 - 0.5 * (x - 10.0).square().sum(-1)
        return torch.logaddexp(near, far)

    found = find_mode(Target(Density(1, log_density)), torch.Generator().manual_seed(0))
    assert found.mode.item() == pytest.approx(10.0, abs=1e-6)
    assert found.other_modes.flatten().tolist() == pytest.approx([0.0], abs=1e-3)


@pytest.mark.parametrize("power", [1.0, 4.0])
def test_where_curvature_says_nothing_the_width_is_measured(power: float) -> None:
    kink = Density(2, lambda x: -x.abs().pow(power).sum(-1))
    found = find_mode(Target(kink), torch.Generator().manual_seed(0))
    fall = -kink.log_density(found.to_user(torch.eye(2).double()))
    np.testing.assert_allclose(fall, 0.5, rtol=1e-3)  # half a nat at one standard deviation


def test_the_search_for_a_mode_leaves_the_cores_to_torch() -> None:
    """SciPy's own threads would spin beside it."""

    def threads() -> set[int]:
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    def log_density(x: torch.Tensor) -> torch.Tensor:
        seen.append(threads())
        return -0.5 * x.square().sum(-1)

    seen: list[set[int]] = []
    if not threads():
        pytest.skip("this BLAS does not tell its threads")
    with threadpool_limits(2, user_api="blas"):
        find_mode(Target(Density(2, log_density)), torch.Generator().manual_seed(0))
        assert threads() == {2}
    assert {1} in seen


def test_a_targets_own_hessian_is_used() -> None:
    class Own(Failing):
        calls = 0

        def hessian(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return -torch.eye(2).double().expand(len(x), 2, 2)

    target = Own()
    PosteriorMap(random_state=0).fit(target)
    assert target.calls > 0


# --- importance weights --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_k_hat_and_smoothed_weights_are_those_of_arviz(scale: float) -> None:
    arviz = pytest.importorskip("arviz", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")
    if int(arviz.__version__.split(".")[0]) >= 1:
        pytest.skip("psislw is of ArviZ before 1.0")
    log_weights = scale * np.random.default_rng(1).standard_exponential(2000)
    theirs, k_hat = arviz.psislw(log_weights.copy())
    ours = pareto_smooth(torch.from_numpy(log_weights))
    assert ours.k_hat == pytest.approx(float(k_hat), abs=1e-9)
    np.testing.assert_allclose(ours.log_weights, theirs, atol=1e-9)


@pytest.mark.parametrize("shape", [0.2, 0.7, 1.2])
def test_k_hat_is_the_shape_of_the_tail(shape: float, generator: torch.Generator) -> None:
    uniform = torch.rand(100_000, generator=generator, dtype=torch.float64)
    assert pareto_smooth(-shape * uniform.log()).k_hat == pytest.approx(shape, abs=0.15)


def test_weights_that_are_all_zero_have_no_finite_k_hat() -> None:
    nothing = pareto_smooth(torch.full((10,), -torch.inf))
    assert (nothing.k_hat, nothing.effective) == (math.inf, 0.0)
    assert Evidence.of(torch.full((10,), -torch.inf)).log_evidence == -math.inf


def test_evidence_of_log_normal_weights(generator: torch.Generator) -> None:
    log_weights = -0.125 + 0.5 * torch.randn(100_000, generator=generator, dtype=torch.float64)  # E w = 1
    evidence = Evidence.of(log_weights)
    assert abs(evidence.elbo + 0.125) < 4 * evidence.elbo_standard_error
    assert abs(evidence.log_evidence) < 4 * evidence.log_evidence_standard_error
    assert evidence.effective == pytest.approx(100_000 * math.exp(-0.25), rel=0.05)


def test_resampling_and_metropolis_reach_the_weights(generator: torch.Generator) -> None:
    share = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    chosen = resample(share.log(), 1000, generator)
    assert torch.bincount(chosen).tolist() == [500, 300, 200]
    proposals = torch.randint(3, (4000, 32), generator=generator)
    path, rate = metropolis(share.log()[proposals], torch.arange(32), generator)
    visited = torch.bincount(proposals.reshape(-1)[path[100:].reshape(-1)], minlength=3)
    torch.testing.assert_close(visited / visited.sum(), share.float(), atol=0.01, rtol=0)
    accepted = sum(p * min(1.0, q / p) / 3 for p in share.tolist() for q in share.tolist())
    assert rate == pytest.approx(accepted, abs=0.01)
