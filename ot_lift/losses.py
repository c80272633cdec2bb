"""Loss functions of convex potentials: pure functions of a potential and points."""

from __future__ import annotations

import torch
from torch import Tensor

from ot_lift.potentials import Potential


def semi_dual(potential: Potential, x: Tensor, argmax: Tensor) -> Tensor:
    r"""Mean φ(x) − mean φ(x̂(y)): the part of the semi-dual with a gradient in the potential's parameters.

    The semi-dual of quadratic-cost optimal transport is :math:`E\varphi(x) + E\varphi^*(y)` with
    :math:`\varphi^*(y) = \langle\hat x, y\rangle - \varphi(\hat x)`; by the envelope theorem its gradient takes the
    maximisers x̂ as constants, so no second-order graph is needed.

    Args:
        potential: φ.
        x: source points ``(n, features)``.
        argmax: maximisers x̂ of target points ``(m, features)``, not differentiated.

    Returns:
        A scalar.

    References:
        Taghvaei & Jalali 2019 (arXiv 1902.07197); Makkuva et al. 2020 (arXiv 1908.10347).

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> semi_dual(Quadratic(1), torch.tensor([[2.0]]), torch.tensor([[1.0]])).item()  # ½·4 − ½·1
        1.5
    """
    values = potential(torch.cat([x, argmax.detach()]))
    return values[: len(x)].mean() - values[len(x) :].mean()


def plan_regression(potential: Potential, x: Tensor, image: Tensor) -> Tensor:
    """Mean ‖∇φ(x) − image‖²: regression of the map to a coupling's barycentric projection.

    Args:
        potential: φ.
        x: source points ``(n, features)``.
        image: where a discrete plan sends them, ``(n, features)``.

    Returns:
        A scalar, in squared units of the image.

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> plan_regression(Quadratic(1), torch.tensor([[2.0]]), torch.tensor([[5.0]])).item()
        9.0
    """
    return (potential.gradient(x) - image).square().sum(1).mean()
