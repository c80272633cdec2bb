"""Whether to believe a posterior map: what importance weights say, and what they cannot see."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ot_lift.posterior_latent import LatentMap
from ot_lift.posterior_mode import Laplace
from ot_lift.posterior_target import Target
from ot_lift.posterior_weights import Evidence, pareto_smooth

Verdict = Literal["good", "correct", "reject"]

_K_GOOD, _K_USABLE = 0.7, 1.0  # Vehtari et al. 2024: above 0.7 unreliable; at 1 the weights have no mean
# k-hat has no scale: where weights are this even it is the shape of noise, and the shift of moments speaks instead.
_EVEN = 0.95
_SHIFT, _SPREAD = 0.05, 0.05  # in posterior standard deviations, and relative: errors that call for a correction
_ERRORS = 3.0  # standard errors beyond which an estimate counts as seen
_CHORD_PAIRS, _POOL, _WIDE = 512, 64, 3.0
_HESSIANS = 32
_ROUNDING = 1e-9  # of log densities, relative to their size
_NEGATIVE = 1e-6  # of an eigenvalue, relative to the largest
_RESIDUAL = 1e-5  # of a latent that was pushed and pulled back


class TrustWarning(UserWarning):
    """A posterior map is not to be believed as it is; its diagnosis says why."""


@dataclass(frozen=True)
class Diagnosis:
    """What :meth:`~ot_lift.posterior.PosteriorMap.diagnose` found; ``str`` begins with the verdict.

    Attributes:
        verdict: ``"good"``: draws may be used as they are; ``"correct"``: with ``correct=``; ``"reject"``: not at all.
        reasons: what speaks against the map, in words; empty for ``"good"``.
        k_hat: PSIS k̂. It has no scale: where the importance ESS is at least 95% of the draws, weights are nearly equal,
            k̂ is the shape of what little they differ by, and it does not count against the map.
        effective: importance ESS of the draws.
        draws: how many draws were looked at.
        elbo_gap: log-evidence estimate − ELBO, in nats: about KL(q ‖ π).
        mean_shift: largest change of a mean by importance weights, in standard deviations, after three standard
            errors are taken off.
        spread_shift: likewise the largest relative change of a standard deviation.
        residual: largest error of a latent that was pushed to parameters and pulled back.
        modes: separate maxima found.
        agreement: share of overdispersed starts that ended at the mode.
        chord_violations: share of chords below which the log density falls: 0 for a log-concave one.
        hessian_violations: share of points at which its Hessian has a positive eigenvalue.
    """

    verdict: Verdict = "reject"
    reasons: tuple[str, ...] = ()
    k_hat: float = math.inf
    effective: float = 0.0
    draws: int = 0
    elbo_gap: float = math.inf
    mean_shift: float = math.inf
    spread_shift: float = math.inf
    residual: float = math.inf
    modes: int = 0
    agreement: float = 0.0
    chord_violations: float = 1.0
    hessian_violations: float = 1.0

    def __str__(self) -> str:
        share = self.effective / self.draws if self.draws else 0.0
        figures = (
            f"k-hat {self.k_hat:.2f}, importance ESS {share:.0%} of {self.draws} draws, ELBO gap {self.elbo_gap:.3g} "
            f"nats, {self.modes} mode(s), chords {self.chord_violations:.1%}, Hessians {self.hessian_violations:.1%}"
        )
        return "\n- ".join([f"{self.verdict} ({figures})", *self.reasons])

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Diagnosis:
        """The record that :meth:`to_dict` made the dictionary of."""
        return cls(**{**values, "reasons": tuple(values["reasons"])})


@dataclass
class _Findings:
    """Figures and objections as the checks find them."""

    figures: dict[str, Any] = field(default_factory=dict)
    evidence: Evidence | None = None
    correctable: list[str] = field(default_factory=list)
    fatal: list[str] = field(default_factory=list)

    def record(self) -> Diagnosis:
        verdict: Verdict = "reject" if self.fatal else "correct" if self.correctable else "good"
        return Diagnosis(verdict, (*self.fatal, *self.correctable), **self.figures)


def diagnose(target: Target, latent: LatentMap, *, draws: int, generator: torch.Generator) -> Diagnosis:
    """Judge a map against its target; it never raises.

    Args:
        target: the log density.
        latent: the map; its units hold the modes and starts of the search.
        draws: draws to weigh.
        generator: source of them.

    Returns:
        The record. An error of the target is one of its reasons.

    References:
        Vehtari et al. 2024 (arXiv 1507.02646); Yao, Vehtari, Simpson & Gelman 2018 (arXiv 1802.02538).
    """
    return judge(target, latent, draws=draws, generator=generator)[0]


def judge(target: Target, latent: LatentMap, *, draws: int, generator: torch.Generator) -> tuple[Diagnosis, Evidence]:
    """What :func:`diagnose` returns, and the evidence by the same draws: −inf if the target cannot weigh them."""
    found = _Findings()

    def attempt(name: str, check: Callable[[], None]) -> None:
        try:
            check()
        except Exception as error:  # what a user's own target may raise cannot be listed; the record shows it
            found.fatal.append(f"{name} could not be checked: {type(error).__name__}: {error}")

    z = torch.randn(draws, target.dim, generator=generator, dtype=torch.float64)
    sample: list[Tensor] = []

    def weigh() -> None:
        theta, log_q = latent.push(z)
        sample.append(theta)
        _weigh(found, latent, theta, target.value(theta) - log_q)

    attempt("importance weights", weigh)
    theta = sample[0] if sample else latent.units.mode[None]
    attempt("the round trip", lambda: _round_trip(found, latent, z[:_POOL]))
    attempt("modes", lambda: _modes(found, latent.units))
    points = _pool(latent.units, theta)
    attempt("chords", lambda: _chords(found, target, points, generator))
    attempt("Hessians", lambda: _hessians(found, target, latent.units, points))
    return found.record(), found.evidence or Evidence.of(torch.full((draws,), -torch.inf))


def _weigh(found: _Findings, latent: LatentMap, theta: Tensor, log_weights: Tensor) -> None:
    """k̂, ESS, the ELBO gap, and how far weights would move the moments."""
    smoothed, evidence = pareto_smooth(log_weights), Evidence.of(log_weights)
    found.evidence = evidence
    found.figures |= {
        "k_hat": smoothed.k_hat,
        "effective": smoothed.effective,
        "draws": len(theta),
        "elbo_gap": evidence.log_evidence - evidence.elbo,
    }
    if (outside := int((~torch.isfinite(log_weights)).sum())) > 0:
        found.correctable.append(f"the log density is not finite at {outside} of {len(theta)} draws")
    even = smoothed.effective >= _EVEN * len(theta)
    if not even and not smoothed.k_hat < _K_USABLE:
        found.fatal.append(f"k-hat {smoothed.k_hat:.2f} >= {_K_USABLE}: importance weights have no finite mean")
    elif not even and not smoothed.k_hat < _K_GOOD:
        found.correctable.append(f"k-hat {smoothed.k_hat:.2f} >= {_K_GOOD}: the map's tails are too light")
    mean_shift, spread_shift = _moment_shifts(latent.units.from_user(theta), smoothed.log_weights.exp())
    found.figures |= {"mean_shift": mean_shift, "spread_shift": spread_shift}
    if mean_shift > _SHIFT:
        found.correctable.append(f"importance weights move a mean by {mean_shift:.2f} standard deviations or more")
    if spread_shift > _SPREAD:
        found.correctable.append(f"importance weights change a standard deviation by {spread_shift:.0%} or more")


def _moment_shifts(u: Tensor, weight: Tensor) -> tuple[float, float]:
    """Change of means (in standard deviations) and of log standard deviations by weights, beyond sampling error."""
    excess = len(u) * weight[:, None] - 1.0
    centred = (u - u.mean(0)) / u.std(0)
    squares = centred.square() - 1.0

    def seen(values: Tensor) -> float:
        terms = values * excess
        return float((terms.mean(0).abs() - _ERRORS * terms.std(0) / math.sqrt(len(u))).max().clamp_min(0.0))

    return seen(centred), 0.5 * seen(squares)


def _round_trip(found: _Findings, latent: LatentMap, z: Tensor) -> None:
    residual = float((latent.latents(latent.parameters(z)) - z).abs().max())
    found.figures["residual"] = residual
    if not residual < _RESIDUAL:
        found.fatal.append(f"a latent comes back {residual:.1e} away from where it was")


def _modes(found: _Findings, units: Laplace) -> None:
    found.figures |= {"modes": 1 + len(units.other_modes), "agreement": units.agreement}
    if len(units.other_modes):
        found.fatal.append(
            f"{1 + len(units.other_modes)} separate modes: {1 - units.agreement:.0%} of the starts ended elsewhere"
        )


def _pool(units: Laplace, theta: Tensor) -> Tensor:
    """Draws, draws three times as far out, starts and other modes."""
    near = theta[:_POOL]
    wide = units.mode + _WIDE * (theta[_POOL : 2 * _POOL] - units.mode)
    return torch.cat([near, wide, units.starts, units.other_modes])


def _chords(found: _Findings, target: Target, points: Tensor, generator: torch.Generator) -> None:
    """Concavity of the log density between pairs of points."""
    left, right = torch.randint(len(points), (2, _CHORD_PAIRS), generator=generator)
    different = left != right
    left, right = points[left[different]], points[right[different]]
    ends = torch.stack([target.value(left), target.value(right)])
    broken = torch.zeros(len(left), dtype=torch.bool)
    for share in (0.25, 0.5, 0.75):
        middle = target.value(torch.lerp(left, right, share))
        line = torch.lerp(ends[0], ends[1], share)
        size = 1.0 + torch.maximum(ends.abs().amax(0), middle.abs().nan_to_num(posinf=0.0))
        broken |= torch.isfinite(line) & (middle < line - _ROUNDING * size)
    found.figures["chord_violations"] = float(broken.double().mean())
    if bool(broken.any()):
        found.correctable.append(
            f"not log-concave: the log density sags below {int(broken.sum())} of {len(left)} chords between draws, "
            "widened draws and starts"
        )


def _hessians(found: _Findings, target: Target, units: Laplace, points: Tensor) -> None:
    """Signs of the Hessian at a few of the draws and widened draws."""
    some = torch.cat([points[: _HESSIANS // 2], points[_POOL : _POOL + _HESSIANS // 2]])
    hessian = units.root.T @ target.hessian(some) @ units.root
    hessian = hessian[torch.isfinite(hessian).all(dim=(1, 2))]
    values = torch.linalg.eigvalsh(hessian)
    largest = values.abs().amax(1).clamp_min(torch.finfo(torch.float64).tiny)
    broken = values[:, -1] > _NEGATIVE * largest
    found.figures["hessian_violations"] = float(broken.double().mean()) if len(broken) else 1.0
    if bool(broken.any()):
        found.correctable.append(
            f"not log-concave: the Hessian has a positive eigenvalue at {int(broken.sum())} of {len(broken)} points"
        )


def undiagnosed(reason: str) -> Diagnosis:
    """The record of a map that cannot be judged.

    Example:
        >>> print(str(undiagnosed("no target")).splitlines()[-1])
        - no target
    """
    return Diagnosis("reject", (reason,))
