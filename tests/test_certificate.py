"""The certificate: its bounds hold for good and bad maps, and its words tell one from the other."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from ot_lift.certificate import Certificate, certify
from ot_lift.discrete import exact_transport
from ot_lift.errors import DataError

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclasses.dataclass(frozen=True)
class QuadraticMap:
    """φ(x) = ½xᵀAx + ⟨b, x⟩, whose transport, inverse and W2² are known."""

    matrix: Array
    shift: Array

    @classmethod
    def between(cls, source: Array, target: Array, shift: Array) -> QuadraticMap:
        """The optimal map between N(0, source) and N(shift, target): A = S^-½(S^½ T S^½)^½S^-½."""
        root = _square_root(source)
        inverse = np.linalg.inv(root)
        return cls(inverse @ _square_root(root @ target @ root) @ inverse, shift)

    def potential(self, x: Array) -> Array:
        return 0.5 * ((x @ self.matrix) * x).sum(1) + x @ self.shift

    def transport(self, x: Array) -> Array:
        return x @ self.matrix + self.shift

    def invert(self, y: Array) -> Array:
        return np.linalg.solve(self.matrix, (y - self.shift).T).T

    def arguments(self, x: Array, y: Array, *, off: float = 0.0) -> dict[str, Any]:
        """What `certify` takes; the inverse is wrong by `off` in every coordinate."""
        x_hat = self.invert(y) + off
        eigenvalue = float(np.linalg.eigvalsh(self.matrix)[0])
        return {
            "x": x,
            "y": y,
            "phi_x": self.potential(x),
            "transported": self.transport(x),
            "x_hat": x_hat,
            "phi_x_hat": self.potential(x_hat),
            "residual": self.transport(x_hat) - y,
            "strong_convexity": eigenvalue,
            "smallest_eigenvalue": eigenvalue,
        }


def _square_root(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values)) @ vectors.T


def _covariance(rng: np.random.Generator, features: int) -> Array:
    factor = rng.normal(size=(features, features))
    return factor @ factor.T / features + 0.2 * np.eye(features)


def _bures(source: Array, target: Array, shift: Array) -> float:
    root = _square_root(source)
    return float(shift @ shift + np.trace(source + target - 2 * _square_root(root @ target @ root)))


def _identity(features: int) -> QuadraticMap:
    return QuadraticMap(np.eye(features), np.zeros(features))


@pytest.mark.parametrize(("features", "n", "m"), [(1, 600, 600), (2, 600, 900), (8, 900, 600)])
def test_gaussians_with_the_exact_map_lie_inside(
    rng: np.random.Generator, generator: torch.Generator, features: int, n: int, m: int
) -> None:
    source, target, shift = _covariance(rng, features), _covariance(rng, features), rng.normal(size=features)
    truth = _bures(source, target, shift)
    x = rng.multivariate_normal(np.zeros(features), source, size=n)
    y = rng.multivariate_normal(shift, target, size=m)
    exact = QuadraticMap.between(source, target, shift)
    found = certify(**exact.arguments(x, y), generator=generator)
    assert found.w2_squared_lower <= truth <= found.w2_squared_upper
    assert abs(found.dual_value - truth) <= 4 * found.w2_squared_lower_error
    assert abs(found.primal_cost - truth) <= 4 * found.primal_cost_error
    assert found.converged
    assert (found.n_source, found.n_target) == (n, m)
    assert not [word for word in found.words if not word.startswith("The bounds are wide")]


def test_each_limit_fails_at_most_as_often_as_it_says(rng: np.random.Generator) -> None:
    exact = QuadraticMap(1.5 * np.eye(2), np.array([0.5, 0.0]))
    truth = 0.25 * 2 + 0.25
    too_high = too_low = 0
    for _ in range(80):
        x, y = rng.normal(size=(40, 2)), exact.transport(rng.normal(size=(60, 2)))
        found = certify(**exact.arguments(x, y))
        too_high += found.w2_squared_lower > truth
        too_low += found.w2_squared_upper < truth
    assert too_high <= 12  # 4 ± 2 expected at 5%
    assert too_low <= 12


def test_the_identity_against_a_shifted_gaussian_does_not_exclude_the_truth(
    rng: np.random.Generator, generator: torch.Generator
) -> None:
    x, y = rng.normal(size=(500, 2)), rng.normal(size=(400, 2)) + np.array([3.0, 0.0])
    found = certify(**_identity(2).arguments(x, y), generator=generator)
    assert found.w2_squared_lower <= 9 <= found.w2_squared_upper
    assert found.primal_cost == 0  # which is W2² to its own image, and says nothing of the target
    assert any("differ strongly from the target" in word for word in found.words)
    assert any("A better map would raise the lower one" in word for word in found.words)


def test_a_poor_map_is_told_in_words_and_its_bounds_hold(rng: np.random.Generator, generator: torch.Generator) -> None:
    half_way = QuadraticMap(2 * np.eye(3), np.zeros(3))  # where the target is 4x + 2
    x, y = rng.normal(size=(400, 3)), 4 * rng.normal(size=(400, 3)) + 2
    truth = 9 * 3 + 4 * 3
    found = certify(**half_way.arguments(x, y), generator=generator)
    assert found.w2_squared_lower <= truth <= found.w2_squared_upper
    assert any("differ strongly" in word for word in found.words)
    assert any("Primal and dual disagree" in word for word in found.words)
    assert "No figure is poor" not in str(found)


def test_a_potential_that_is_far_off_has_a_lower_limit_of_zero_and_says_so(rng: np.random.Generator) -> None:
    wrong = QuadraticMap(np.eye(2), np.array([-50.0, 0.0]))
    found = certify(**wrong.arguments(rng.normal(size=(100, 2)), rng.normal(size=(100, 2))))
    assert found.w2_squared_lower == 0
    assert found.dual_value < 0
    assert any("The dual value is negative" in word for word in found.words)


def test_an_inexact_inverse_lowers_the_lower_bound_and_never_breaks_it(rng: np.random.Generator) -> None:
    exact = QuadraticMap(np.diag([0.5, 2.0]), np.zeros(2))
    x, y = rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) * [0.5, 2.0]
    good, poor = (certify(**exact.arguments(x, y, off=off)) for off in (0.0, 0.3))
    # With r = A·δ: φ*(y) is overstated by (‖r‖²/μ − δᵀAδ)/2, which for δ = 0.3 is known.
    overstated = ((0.15**2 + 0.6**2) / 0.5 - 0.3**2 * 2.5) / 2
    assert good.dual_value - poor.dual_value == pytest.approx(2 * overstated)
    assert poor.inversion_residual == pytest.approx(np.hypot(0.15, 0.6))
    assert not poor.converged
    assert any("inversions stopped short" in word for word in poor.words)


def test_convergence_as_the_caller_saw_it_is_kept(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(2, 60, 2))
    assert not certify(**_identity(2).arguments(x, y), converged=False).converged


def test_a_potential_that_is_not_convex_is_told_in_words(rng: np.random.Generator) -> None:
    arguments = {**_identity(2).arguments(*rng.normal(size=(2, 60, 2))), "smallest_eigenvalue": -0.1}
    assert any("not convex" in word for word in certify(**arguments).words)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_a_change_of_units_changes_figures_and_no_judgement(rng: np.random.Generator, scale: float) -> None:
    exact = QuadraticMap(np.diag([0.7, 1.6]), np.array([1.0, -1.0]))
    x, y = rng.normal(size=(80, 2)), exact.transport(rng.normal(size=(120, 2)))
    scaled = QuadraticMap(exact.matrix, scale * exact.shift)
    plain = certify(**exact.arguments(x, y)).to_dict()
    found = certify(**scaled.arguments(scale * x, scale * y)).to_dict()
    for name in ("w2_squared_lower", "w2_squared_upper", "primal_cost_error", "dual_value"):
        assert found[name] == pytest.approx(scale**2 * plain[name], rel=1e-6, abs=0)
    for name in ("pushforward_energy", "pushforward_null", "pushforward_sliced_w2", "sliced_w2_null"):
        assert found[name] == pytest.approx(scale * plain[name], rel=1e-6, abs=0)
    assert len(found["words"]) == len(plain["words"])
    assert found["converged"]


def test_an_offset_of_a_million_costs_digits_and_no_more(rng: np.random.Generator) -> None:
    exact, centre = QuadraticMap(1.5 * np.eye(2), np.zeros(2)), np.full(2, 1e6)
    x, y = rng.normal(size=(2, 200, 2))
    far = QuadraticMap(exact.matrix, centre - exact.matrix @ centre)  # the same map, seen from far away
    plain, found = (certify(**one.arguments(x + c, y + c)) for one, c in ((exact, 0 * centre), (far, centre)))
    for name in ("w2_squared_lower", "w2_squared_upper", "dual_value", "pushforward_energy"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), abs=0.02)
    assert found.converged


def test_exact_transport_uses_no_more_points_than_told(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(300, 2)), rng.normal(size=(200, 2))
    found = certify(**_identity(2).arguments(x, y), max_transport_points=50)
    assert found.transport_points == 50
    assert found.w2_squared_upper > exact_transport(x, y).value


def test_twelve_points_and_one_column_get_a_certificate_that_calls_itself_rough(
    rng: np.random.Generator,
) -> None:
    x, y = rng.normal(size=(4, 1)), rng.normal(size=(2, 1))
    found = certify(**_identity(1).arguments(x, y))
    assert any("Only 2 held-out points" in word for word in found.words)
    assert np.isfinite([value for value in found.to_dict().values() if isinstance(value, float)]).all()


def test_points_that_are_all_equal_get_finite_figures() -> None:
    found = certify(**_identity(2).arguments(np.zeros((60, 2)), np.zeros((60, 2))))
    assert found.w2_squared_lower == found.w2_squared_upper == 0
    assert found.words == ()


def test_the_same_generator_gives_the_same_certificate(rng: np.random.Generator) -> None:
    arguments = _identity(2).arguments(*rng.normal(size=(2, 80, 2)))
    first, second = (certify(**arguments, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert first == second


def test_the_record_survives_json(rng: np.random.Generator) -> None:
    found = certify(**_identity(2).arguments(rng.normal(size=(60, 2)), 3 + rng.normal(size=(60, 2))))
    assert found.words
    assert Certificate.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert Certificate.from_dict({**found.to_dict(), "of a later version": 1}) == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros((1, 2))}, "at least 2 rows"),
        ({"y": np.zeros((5, 3))}, "of shape"),
        ({"phi_x": np.zeros((5, 1))}, r"expected phi_x of shape \(5,\), got \(5, 1\)"),
        ({"residual": np.zeros(5)}, r"expected residual of shape \(5, 2\)"),
        ({"transported": np.full((5, 2), np.nan)}, "expected transported without NaN"),
        ({"strong_convexity": 0.0}, "strong_convexity > 0"),
    ],
)
def test_bad_arguments_are_refused_in_words(changes: dict[str, Any], message: str) -> None:
    arguments = _identity(2).arguments(np.zeros((5, 2)), np.zeros((5, 2)))
    with pytest.raises(DataError, match=message):
        certify(**{**arguments, **changes})
