"""The certificate of a fitted map: bounds on W2² that hold whatever the map is, and figures of its quality.

With cost ‖x − y‖² and W = W2²(source, target), for any convex φ and any map T:

- lower: E‖x‖² + E‖y‖² − 2E[φ(x) + φ*(y)] ≤ W (weak duality). φ*(y) = sup ⟨x, y⟩ − φ(x) is replaced by its
  upper bound ⟨x̂, y⟩ − φ(x̂) + ‖r‖²/(2μ), r = ∇φ(x̂) − y, so an inexact conjugation cannot break the bound.
- upper: W ≤ (√E‖x − T(x)‖² + W2(T#source, target))² (triangle inequality), and W ≤ E[W2² of two samples]
  (joint convexity).

The points must be new to the map: used neither for training nor for stopping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ot_lift.bounds import CONFIDENCE, HeldOut, dual_estimate, primal_estimate, upper_limit
from ot_lift.diagnostics import pushforward_error
from ot_lift.errors import DataError

__all__ = ["Certificate", "certify"]

Array = npt.NDArray[np.float64]

# Where a figure is called poor.
_CONVERGED = 1e-6  # conjugation residual over the target's root-mean-square spread
_GAP = 0.01  # primal minus dual over the target's variance, beyond three standard errors
_WIDE = 0.25  # width of the bounds over the upper one
_FEW_POINTS = 50
_SIMPLEX_STOPPED = "Exact transport stopped before its optimum: the upper limit holds but is loose."


@dataclass(frozen=True)
class Certificate:
    """What is known about a map from points that it never saw. Data units throughout; W2² = E‖x − T(x)‖².

    Attributes:
        w2_squared_lower: One-sided 95% lower confidence limit of W2², squared data units: the dual value less
            a quantile times its error, or 0 if that is negative.
        w2_squared_lower_error: Standard error of the dual value.
        w2_squared_upper: One-sided 95% upper confidence limit: the smaller of two limits, each
            taken at 97.5% so that choosing between them costs no confidence.
        w2_squared_upper_error: Standard error of the estimate behind the limit that was chosen.
        primal_cost: Mean ‖x − T(x)‖²: W2² between the source and the map's *own image*, not the target.
        primal_cost_error: Its standard error.
        pushforward_energy: Energy distance between transported points and target points.
        pushforward_null: 95% level of the same between two halves of the target.
        pushforward_sliced_w2: Sliced W2 (the root) between transported points and target points.
        sliced_w2_null: Its 95% level.
        inversion_residual: Largest ‖∇φ(x̂) − y‖ over the target points.
        smallest_hessian_eigenvalue: Smallest eigenvalue of ∇²φ seen, at as many source points as have 128 MiB of
            Hessians (4,096 in 64 dimensions); 0 or less means not convex.
        converged: Whether every inversion met its tolerance.
        n_source: Source points used.
        n_target: Target points used.
        words: A sentence for each figure that is poor; empty if none is.
        dual_value: E‖x‖² + E‖y‖² − 2E[φ(x) + φ*(y)] itself, the estimate under the lower limit.
        upper_basis: Which upper bound was the smaller: "exact transport" between the two samples, or
            "triangle".
        image_w2_squared: Exact W2² between samples of the map's image and of the target; biased upward.
        strong_convexity: μ of the potential.
        transport_points: Points of each side in exact transport (the most it was given).

    The inequalities hold for any map. What is approximate: both limits take estimates to be normal (Student-t
    with Welch's degrees of freedom, finite variances), the upper one with the plug-in variance of the
    empirical optimal cost (see `ot_lift.discrete.exact_transport`). Finite samples bias the upper estimate
    upward, which keeps it an upper bound and makes it loose in many dimensions.

    References:
        Villani (2009), Optimal Transport, Theorems 4.8 and 5.10; del Barrio, Loubes (2019), arXiv 1705.01299;
        Makkuva, Taghvaei, Oh, Lee (2020), arXiv 1908.10962 (the semi-dual).

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(200, 1))
        >>> found = certify(  # φ = ½‖x‖² between a sample and itself
        ...     x=x, y=x, phi_x=0.5 * (x**2).sum(1), transported=x, x_hat=x, phi_x_hat=0.5 * (x**2).sum(1),
        ...     residual=0 * x, strong_convexity=1.0, smallest_eigenvalue=1.0)
        >>> found.primal_cost, found.w2_squared_lower, found.words
        (0.0, 0.0, ())
    """

    w2_squared_lower: float
    w2_squared_lower_error: float
    w2_squared_upper: float
    w2_squared_upper_error: float
    primal_cost: float
    primal_cost_error: float
    pushforward_energy: float
    pushforward_null: float
    pushforward_sliced_w2: float
    sliced_w2_null: float
    inversion_residual: float
    smallest_hessian_eigenvalue: float
    converged: bool
    n_source: int
    n_target: int
    words: tuple[str, ...] = ()
    dual_value: float = 0.0
    upper_basis: str = "exact transport"
    image_w2_squared: float = 0.0
    strong_convexity: float = 0.0
    transport_points: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types (words as a list)."""
        return {**asdict(self), "words": list(self.words)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Certificate:
        """The record that `to_dict` wrote; names that this version does not know are ignored."""
        known = {field.name for field in fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        return cls(**{**kept, "words": tuple(kept.get("words", ()))})

    def __str__(self) -> str:
        rows = [
            (
                "W2², 95% lower limit",
                f"{self.w2_squared_lower:.6g}  (standard error {self.w2_squared_lower_error:.2g})",
            ),
            (
                "W2², 95% upper limit",
                f"{self.w2_squared_upper:.6g}  (standard error {self.w2_squared_upper_error:.2g}, "
                f"by {self.upper_basis})",
            ),
            (
                "E‖x − T(x)‖², to the map's own image",
                f"{self.primal_cost:.6g} ± {self.primal_cost_error:.2g}",
            ),
            ("dual value", f"{self.dual_value:.6g}"),
            (
                "energy distance T(x), y",
                f"{self.pushforward_energy:.3g}  (noise level {self.pushforward_null:.3g})",
            ),
            (
                "sliced W2 T(x), y",
                f"{self.pushforward_sliced_w2:.3g}  (noise level {self.sliced_w2_null:.3g})",
            ),
            ("inversion residual, largest", f"{self.inversion_residual:.2g}"),
            ("smallest Hessian eigenvalue", f"{self.smallest_hessian_eigenvalue:.3g}"),
            ("points", f"{self.n_source} source, {self.n_target} target"),
        ]
        width = max(len(name) for name, _ in rows)
        table = [f"{name:<{width}}  {value}" for name, value in rows]
        verdict = [f"! {word}" for word in self.words] or ["No figure is poor."]
        return "\n".join([*table, *verdict])


def certify(
    *,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    phi_x: npt.ArrayLike,
    transported: npt.ArrayLike,
    x_hat: npt.ArrayLike,
    phi_x_hat: npt.ArrayLike,
    residual: npt.ArrayLike,
    strong_convexity: float,
    smallest_eigenvalue: float,
    converged: bool | None = None,
    max_transport_points: int = 2000,
    generator: torch.Generator | None = None,
) -> Certificate:
    """Build the certificate of a map from points it has not seen. Everything in data units, float64.

    Args:
        x: Source points, `(n, features)`, n ≥ 2.
        y: Target points, `(m, features)`, m ≥ 2; n and m may differ.
        phi_x: φ(x), `(n,)`.
        transported: ∇φ(x), `(n, features)`.
        x_hat: Approximate maximisers of ⟨x, y⟩ − φ(x), `(m, features)`.
        phi_x_hat: φ(x̂), `(m,)`.
        residual: r = ∇φ(x̂) − y, `(m, features)`.
        strong_convexity: μ > 0 with φ − ½μ‖·‖² convex.
        smallest_eigenvalue: Smallest eigenvalue of ∇²φ over the points.
        converged: Whether all inversions met their tolerance; judged from the residual if not given.
        max_transport_points: Exact transport uses at most this many points a side (a random subset).
        generator: Source of subsamples, directions and halvings.

    Returns:
        The certificate.

    Raises:
        DataError: Shapes do not agree, fewer than two points on a side, NaN or infinite entries, μ ≤ 0.
    """
    inputs = _check(x=x, y=y, phi_x=phi_x, transported=transported, x_hat=x_hat, phi_x_hat=phi_x_hat, residual=residual)
    if not strong_convexity > 0:
        raise DataError(f"expected strong_convexity > 0, got {strong_convexity}; without it φ* has no upper bound")
    scale = _scale(inputs)
    return _certificate(
        _rescale(inputs, scale),
        scale,
        strong_convexity=strong_convexity,
        smallest_eigenvalue=smallest_eigenvalue,
        converged=converged,
        max_transport_points=max_transport_points,
        generator=generator or torch.Generator(),
    )


def _certificate(
    unit: HeldOut,
    scale: float,
    *,
    strong_convexity: float,
    smallest_eigenvalue: float,
    converged: bool | None,
    max_transport_points: int,
    generator: torch.Generator,
) -> Certificate:
    """Of points in units of `scale`, in data units."""
    costs = ((unit.x - unit.transported) ** 2).sum(1)
    primal = primal_estimate(costs)
    dual, rounding = dual_estimate(unit, strong_convexity)
    upper = upper_limit(unit, costs, max_transport_points=max_transport_points, generator=generator)
    push = pushforward_error(unit.transported, unit.y, generator=generator)
    residual_norm = float(np.linalg.norm(unit.residual, axis=1).max())
    lower = dual.value - dual.quantile(CONFIDENCE) * dual.error() - rounding
    found = Certificate(
        w2_squared_lower=scale**2 * max(0.0, lower),
        w2_squared_lower_error=scale**2 * dual.error(),
        w2_squared_upper=scale**2 * upper.limit,
        w2_squared_upper_error=scale**2 * upper.error,
        primal_cost=scale**2 * primal.value,
        primal_cost_error=scale**2 * primal.error(),
        pushforward_energy=scale * push.energy,
        pushforward_null=scale * push.energy_null,
        pushforward_sliced_w2=scale * push.sliced_w2,
        sliced_w2_null=scale * push.sliced_w2_null,
        inversion_residual=scale * residual_norm,
        smallest_hessian_eigenvalue=float(smallest_eigenvalue),
        converged=residual_norm <= _CONVERGED * _spread(unit.y) if converged is None else bool(converged),
        n_source=len(unit.x),
        n_target=len(unit.y),
        dual_value=scale**2 * dual.value,
        upper_basis=upper.basis,
        image_w2_squared=scale**2 * upper.image,
        strong_convexity=float(strong_convexity),
        transport_points=upper.points,
    )
    noise = primal.minus(dual).error()
    words = _judge(found, variance=(scale * _spread(unit.y)) ** 2, noise=scale**2 * noise, features=unit.x.shape[1])
    return replace(found, words=words if upper.converged else (*words, _SIMPLEX_STOPPED))


def _judge(found: Certificate, *, variance: float, noise: float, features: int) -> tuple[str, ...]:
    """A sentence for each poor figure. `variance` is the target's, `noise` the error of primal minus dual."""
    words = [word for word in (_pushforward_word(found), _gap_word(found, variance, noise)) if word]
    words += _width_words(found, variance, features, poor=bool(words))
    if found.dual_value < -2 * found.w2_squared_lower_error - 1e-9 * variance:
        words.append(f"The dual value is negative ({found.dual_value:.3g}): the potential gives no lower bound.")
    if not found.smallest_hessian_eigenvalue > 0:
        words.append(
            f"The potential is not convex everywhere: a Hessian eigenvalue of "
            f"{found.smallest_hessian_eigenvalue:.3g} was seen, so transport is no optimal map there."
        )
    if not found.converged:
        words.append(
            f"Some inversions stopped short (largest residual {found.inversion_residual:.3g}): the lower "
            "limit allows for it, `invert` is off by up to the residual over the strong convexity."
        )
    fewest = min(found.n_source, found.n_target)
    if fewest < _FEW_POINTS:
        words.append(f"Only {fewest} held-out points on a side: limits and noise levels are rough.")
    return tuple(words)


def _pushforward_word(found: Certificate) -> str | None:
    figures = (
        ("energy distance", found.pushforward_energy, found.pushforward_null),
        ("sliced W2", found.pushforward_sliced_w2, found.sliced_w2_null),
    )
    poor = [(name, value, null) for name, value, null in figures if value > null * (1 + 1e-9)]
    if not poor:
        return None
    name, value, null = max(poor, key=lambda row: row[1] / row[2] if row[2] else np.inf)
    how = "strongly" if value > 5 * null else "clearly" if value > 2 * null else "slightly"
    return (
        f"Transported points differ {how} from the target: {name} {value:.3g}, where two halves of the "
        f"target stay below {null:.3g}. Train longer or widen the network."
    )


def _gap_word(found: Certificate, variance: float, noise: float) -> str | None:
    """The primal cost equals the dual value for the optimal map, up to noise."""
    gap = found.primal_cost - found.dual_value
    if abs(gap) <= 3 * noise + _GAP * variance:
        return None
    return (
        f"Primal and dual disagree by {abs(gap):.3g} (E‖x − T(x)‖² is {found.primal_cost:.4g}, the dual "
        f"value {found.dual_value:.4g}): the potential is not optimal for this pair yet."
    )


def _width_words(found: Certificate, variance: float, features: int, *, poor: bool) -> list[str]:
    lower, upper = found.w2_squared_lower, found.w2_squared_upper
    if lower > upper:
        return [
            f"The lower limit {lower:.4g} exceeds the upper {upper:.4g}: too few points, or tails too heavy "
            "for standard errors to hold."
        ]
    if upper - lower <= max(_WIDE * upper, _GAP * variance):
        return []
    why = (
        "A better map would raise the lower one."
        if poor
        else f"Exact transport of {found.transport_points} points in {features} features is biased upward, "
        "so the upper one is loose even where the map is good."
    )
    return [f"The bounds are wide ({lower:.4g} to {upper:.4g}). {why}"]


def _spread(points: Array) -> float:
    """Root-mean-square distance from the mean."""
    return float(np.sqrt(((points - points.mean(0)) ** 2).sum(1).mean()))


def _scale(inputs: HeldOut) -> float:
    """One length for both sides: their spreads, the map's and the distance between their means."""
    shift = float(np.linalg.norm(inputs.x.mean(0) - inputs.y.mean(0)))
    return max(_spread(inputs.x), _spread(inputs.y), _spread(inputs.transported), shift) or 1.0


def _rescale(inputs: HeldOut, scale: float) -> HeldOut:
    """Divide lengths by `scale` and potentials by its square: μ and the Hessian stay as they are."""
    powers = {"phi_x": 2, "phi_x_hat": 2}
    values = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    return HeldOut(**{name: array / scale ** powers.get(name, 1) for name, array in values.items()})


def _check(**arrays: npt.ArrayLike) -> HeldOut:
    """float64 arrays of agreeing shapes with finite entries."""
    found = {name: np.asarray(values, dtype=np.float64) for name, values in arrays.items()}
    x, y = found["x"], found["y"]
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise DataError(
            f"expected x of shape (n, features) and y of shape (m, features) with at least 2 rows each, got "
            f"{x.shape} and {y.shape}; a certificate needs held-out points of both sides"
        )
    shapes = {
        **dict.fromkeys(("transported",), x.shape),
        **dict.fromkeys(("x_hat", "residual"), y.shape),
        "phi_x": (len(x),),
        "phi_x_hat": (len(y),),
    }
    for name, shape in shapes.items():
        if found[name].shape != shape:
            raise DataError(f"expected {name} of shape {shape}, got {found[name].shape}")
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise DataError(f"expected {name} without NaN or infinity, got some; the map failed at these points")
    return HeldOut(**found)
