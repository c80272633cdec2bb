"""The Hessian of an input-convex network and how it changes from point to point: closed forms without autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ot_lift.hessians import Constants, Network, triangle


@torch.no_grad()
def hessian_with_slope(network: Network, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    r"""∇²φ(x), and third derivatives of φ as the map M ↦ ∇ₓ⟨M, ∇²φ(x)⟩ of symmetric matrices M.

    In the notation of :class:`~ot_lift.potentials.ICNN`,

    .. math::
        \langle M, \nabla^2\varphi\rangle = \langle M, Q\rangle + \sum_k
            (p_k\sigma''_k)^\top\mathrm{diag}(J_kMJ_k^\top) + 2(p_k\sigma'_k)^\top\mathrm{diag}(C_kMC_k^\top) ,

    which is differentiated back through the Jacobians J, forward through the adjoints p, which begin at the readout,
    and back again through the units u.

    Args:
        network: any network.
        x: points ``(n, features)``.

    Returns:
        The Hessians ``(n, features, features)``, and a function of matrices of that shape to ``(n, features)``.

    Example:
        >>> from ot_lift.potentials import ICNN
        >>> phi = ICNN(1, (1,), squared=False, sharpness=1.0, strong_convexity=0.0)  # softplus(x) + x²/2
        >>> with torch.no_grad():
        ...     _ = phi.inputs[0].fill_(1.0), phi.readout.fill_(1.0)
        >>> hessian, slope = hessian_with_slope(phi, torch.tensor([[3.0]]).log())  # where σ′ = ¾
        >>> round(hessian.item(), 5), round(slope(torch.ones(1, 1, 1)).item(), 5)  # 1 + ¾·¼, and ¾·¼·(1 − 2·¾)
        (1.1875, -0.09375)
    """
    point = _Point(network, x)
    return point.hessian(), point.slope


class _Point:
    """What both need of given points: figures of units are ``(n, width)``, Jacobians ``(n, features, width)``."""

    def __init__(self, network: Network, x: Tensor) -> None:
        self.x, self.constants, self.activation = x, Constants.of(network), network.activation
        self.inputs, self.squares = list(network.inputs), list(network.squares)
        self.down, self.up = list(network.weights), self.constants.weights
        self.layers = range(len(self.inputs))
        self.s = [x @ c.T for c in self.squares]
        self.first: list[Tensor] = []  # σ′, σ″ and σ‴ of the units
        self.second: list[Tensor] = []
        self.third: list[Tensor] = []
        below = x
        for k in self.layers:
            below = self._units(k, below, network.biases[k], network.sharpness(k))
        self.p = [network.readout.expand(len(x), -1)]
        for k in reversed(self.layers[1:]):
            self.p.insert(0, (self.p[0] * self.first[k]) @ self.down[k - 1])
        self.bends = [p * second for p, second in zip(self.p, self.second, strict=True)]
        self.jacobians: list[Tensor] = []
        for k in self.layers:
            self.jacobians.append(self._jacobian(k))

    def _units(self, k: int, below: Tensor, bias: Tensor, beta: Tensor | float) -> Tensor:
        """σ(u) of a layer; its derivatives are kept."""
        u = torch.addmm(bias, self.x, self.inputs[k].T)
        if self.s:
            u.addcmul_(self.s[k], self.s[k])
        if k:
            u.addmm_(below, self.up[k - 1])
        first = self.activation.slope(u, beta)
        second = self.activation.curvature(u, first, beta)
        self.first.append(first)
        self.second.append(second)
        self.third.append(self.activation.third(u, first, second, beta))
        return self.activation.value(u, beta)

    def _jacobian(self, k: int) -> Tensor:
        direct = self.constants.inputs[k].expand(len(self.x), -1, -1)
        if self.s:
            direct = torch.addcmul(direct, self.s[k][:, None], self.constants.squares[k])
        if k == 0:
            return direct
        below = self.jacobians[-1] * self.first[k - 1][:, None]
        return torch.addmm(direct.flatten(0, 1), below.flatten(0, 1), self.up[k - 1]).view_as(direct)

    def hessian(self) -> Tensor:
        t = [p * first for p, first in zip(self.p, self.first, strict=True)]
        hessian = self.constants.sum_outer(self.constants.columns(self.s, t, self.bends), len(self.x))
        for k in self.layers:
            if k or not self.constants.first_in_table:
                hessian.baddbmm_(self.jacobians[k] * self.bends[k][:, None], self.jacobians[k].mT)
        return hessian

    @torch.no_grad()
    def slope(self, matrix: Tensor) -> Tensor:
        """∇ₓ⟨M, ∇²φ(x)⟩ ``(n, features)`` for symmetric M ``(n, features, features)``."""
        bend, first, s = self._through_jacobians(matrix)
        through_t = self._through_squares(matrix)
        through_p: Tensor | None = None
        for k in self.layers:  # p of a layer is t = pσ′ of the one above, by its weights
            if through_p is not None:
                through_t[k] = through_t[k] + through_p @ self.up[k - 1]
            first[k] = torch.addcmul(first[k], through_t[k], self.p[k])
            through_p = torch.addcmul(bend[k] * self.second[k], through_t[k], self.first[k])
        slope = torch.zeros_like(self.x)
        u: Tensor | None = None
        for k in reversed(self.layers):
            below = first[k] * self.second[k] + bend[k] * self.p[k] * self.third[k]
            u = below if u is None else torch.addcmul(below, u @ self.down[k], self.first[k])
            slope.addmm_(u, self.inputs[k])
            if self.s:
                slope.addmm_(torch.addcmul(s[k], u, self.s[k], value=2), self.squares[k])
        return slope

    def _through_jacobians(self, matrix: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Derivatives of ⟨M, ΣJ′diag(pσ″)J⟩ in pσ″, in σ′ and in s = Cx of every layer."""
        bend: list[Tensor] = []
        first: list[Tensor] = []
        s: list[Tensor] = []
        above: Tensor | None = None  # that in the Jacobian of the layer above
        for k in reversed(self.layers):
            jacobian = self.jacobians[k]
            turned = torch.bmm(matrix, jacobian)
            bend.insert(0, (turned * jacobian).sum(1))
            turned.mul_(2 * self.bends[k][:, None])
            first.insert(0, torch.zeros_like(self.first[k]))
            if above is not None:
                below = (above.flatten(0, 1) @ self.down[k]).view_as(turned)
                turned.addcmul_(below, self.first[k][:, None])
                first[0] = below.mul_(jacobian).sum(1)
            above = turned
            if self.s:
                s.insert(0, (turned * self.constants.squares[k]).sum(1))
        return bend, first, s

    def _through_squares(self, matrix: Tensor) -> list[Tensor]:
        """Derivatives of ⟨M, Σ2C′diag(t)C⟩ in t = pσ′ of every layer."""
        if not self.s:
            return [torch.zeros_like(first) for first in self.first]
        rows, columns, _ = triangle(matrix.shape[1], matrix.device)
        triangles = matrix[:, rows, columns] * torch.where(rows == columns, 1.0, 2.0).to(matrix)
        return [triangles @ table.T for table in self.constants.tables[: len(self.squares)]]
