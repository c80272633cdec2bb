"""Where a map starts: coordinates of the Gaussian map, and a network aligned with the identity in them."""

from __future__ import annotations

import torch
from torch import Tensor

from ot_lift.discrete import exact_transport
from ot_lift.hessians import block_rows
from ot_lift.potentials import ICNN
from ot_lift.sides import Side
from ot_lift.standardizer import Standardizer

_NETWORK_SHARE = 0.3  # of the identity that the network's part takes at the start; the quadratic has the rest
_PLAN_POINTS = 2000


def coordinates(source: Side, target: Side, *, start: str) -> Standardizer:
    """Standardised coordinates in which the start is the identity map.

    ``"identity"`` allows shifts and one scale only, so that T starts as a translation; otherwise T starts as the
    optimal map between Gaussians of the same moments (Dowson & Landau 1982).
    """
    if start == "identity":
        variance = max(float(source.covariance.trace()), float(target.covariance.trace())) / len(source.mean)
        return Standardizer.scalar(source.mean, target.mean, variance**0.5 or 1.0)
    return Standardizer.bures(source.mean, source.covariance, target.mean, target.covariance)


@torch.no_grad()
def align_with_identity_(potential: ICNN, x: Tensor) -> None:
    """Scale the network's readout and set the quadratic so that ∇φ is the identity on average over ``x``.

    Args:
        potential: a fresh network; changed in place.
        x: standardised points ``(n, features)``.
    """
    quadratic = potential.quadratic
    mu = quadratic.strong_convexity
    quadratic.factor.zero_()
    quadratic.linear.zero_()
    gradients, sums = [], []
    for block in x.split(block_rows(x)):
        _, gradient, hessian = potential.value_gradient_hessian(block)
        gradients.append(gradient)
        sums.append(hessian.sum(0))
    gradient = torch.cat(gradients)
    eye = torch.eye(potential.features, dtype=x.dtype, device=x.device)
    curvature = torch.stack(sums).sum(0) / len(x) - mu * eye
    share = _NETWORK_SHARE / max(float(torch.linalg.eigvalsh(curvature)[-1]), torch.finfo(x.dtype).tiny)
    potential.readout.mul_(share)
    slope = (gradient - mu * x).mean(0) * share
    quadratic.set_quadratic_(eye - curvature * share, -slope + (curvature * share) @ x.mean(0))


def plan_images(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A subsample of ``x`` and its images under the barycentric projection of the exact plan to one of ``y``.

    Args:
        x: source ``(n, features)``.
        y: target ``(m, features)``.
        generator: source of the subsamples.

    Returns:
        Points and images, each ``(k, features)``.
    """
    x, y = (points[torch.randperm(len(points), generator=generator)[:_PLAN_POINTS]] for points in (x, y))
    plan = exact_transport(x.double().numpy(), y.double().numpy()).plan
    return x, torch.from_numpy(len(x) * (plan @ y.double().numpy())).to(x)
