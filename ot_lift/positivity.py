"""How a weight stays non-negative: softplus, square, projection, ADMM; and which parameters must.

A positivity is to a tensor what a `torch.nn.utils.parametrize` parametrisation is, with two more hooks for
methods that act on the trained tensor itself: a penalty in the loss, and an edit after every optimizer step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

MARK = "_pos_required"
# Beyond this argument softplus and its argument agree to double precision; torch's own default (20) does not.
_SOFTPLUS_THRESHOLD = 40.0


def mark_nonnegative(*parameters: nn.Parameter) -> None:
    """Mark parameters that must stay ≥ 0; `Lift` and `Constrained` find them by the mark.

    Args:
        *parameters: parameters of any shape, holding the weights that the network multiplies by.

    Raises:
        TypeError: if something else than a parameter is passed.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> mark_nonnegative(layer.weight)
        >>> list(marked_parameters(layer))
        ['weight']
    """
    for parameter in parameters:
        if not isinstance(parameter, nn.Parameter):
            raise TypeError(
                f"expected torch.nn.Parameter objects, got {type(parameter).__name__}; "
                "pass the parameter itself, as in mark_nonnegative(net.fc2.weight)"
            )
        setattr(parameter, MARK, True)


def marked_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a module that are marked as non-negative, by their `named_parameters()` names.

    Any parameter with a truthy attribute ``_pos_required`` counts; a parameter shared by several layers is
    named once.

    Raises:
        ValueError: if nothing is marked.
    """
    marked = {name: p for name, p in module.named_parameters() if getattr(p, MARK, False)}
    if not marked:
        names = ", ".join(name for name, _ in module.named_parameters()) or "none at all"
        raise ValueError(
            f"expected {type(module).__name__} to have parameters marked as non-negative, got none; "
            f"mark them with ot_lift.mark_nonnegative(net.layer.weight, ...) (its parameters: {names})"
        )
    return marked


def copy_with_marks(module: nn.Module) -> nn.Module:
    """Deep-copy a module with its marks, which `copy.deepcopy` of a parameter drops."""
    duplicate = copy.deepcopy(module)
    for original, copied in zip(module.parameters(), duplicate.parameters(), strict=True):
        if getattr(original, MARK, False):
            setattr(copied, MARK, True)
    return duplicate


def _check_weight(weight: Tensor) -> None:
    if not bool((weight >= 0).all()):
        raise ValueError(
            f"expected weights >= 0 without NaN, got a minimum of {float(weight.min()):.3g}; "
            "fold (abs) or clamp them before taking the right inverse"
        )


class Positivity(nn.Module):
    """How one tensor stays ≥ 0; the default hooks do nothing.

    ``keeps_convex`` says whether the weight is ≥ 0 at every step of training (and not only once it is baked);
    ``emittable`` whether `weight` alone keeps it ≥ 0, elementwise, so that a `Lift` can emit the raw tensor.

    Example:
        >>> for name in ("softplus", "square", "projection", "admm"):
        ...     positivity = make_positivity(name)
        ...     raw = positivity.right_inverse(torch.tensor([0.5, 2.0]))
        ...     print(name, [round(w, 6) for w in positivity.weight(raw).tolist()])
        softplus [0.5, 2.0]
        square [0.5, 2.0]
        projection [0.5, 2.0]
        admm [0.5, 2.0]
    """

    keeps_convex = True
    emittable = False

    def attach(self, raw: Tensor) -> None:
        """Called once, with the raw tensor at its start, by the wrapper that takes this positivity."""

    def weight(self, raw: Tensor) -> Tensor:
        """Effective weight of a raw tensor, same shape."""
        raise NotImplementedError(f"{type(self).__name__} must define weight(raw)")

    def right_inverse(self, weight: Tensor) -> Tensor:
        """A raw tensor whose effective weight is the one given (≥ 0, same shape)."""
        raise NotImplementedError(f"{type(self).__name__} must define right_inverse(weight)")

    def final(self, raw: Tensor) -> Tensor:
        """The weight ≥ 0 that is kept when training ends; `weight(raw)` unless iterates may be negative."""
        return self.weight(raw)

    def penalty(self, raw: Tensor) -> Tensor:
        """Scalar to add to the loss."""
        return raw.new_zeros(())

    def after_step(self, raw: Tensor) -> None:
        """Edit the raw tensor, or this positivity's own state, after an optimizer step."""

    def forward(self, raw: Tensor) -> Tensor:
        """Same as `weight`."""
        return self.weight(raw)


class Softplus(Positivity):
    """weight = log(1 + exp(raw)).

    Its derivative σ(raw) = 1 − exp(−weight) vanishes with the weight: small weights train slowly (the
    *shoulder*, derivative < 0.05). A weight of exactly zero has no finite raw value and starts at eps².

    Example:
        >>> Softplus().weight(torch.zeros(1)).item() == torch.tensor(2.0).log().item()
        True
    """

    emittable = True

    def weight(self, raw: Tensor) -> Tensor:
        return functional.softplus(raw, threshold=_SOFTPLUS_THRESHOLD)

    def right_inverse(self, weight: Tensor) -> Tensor:
        _check_weight(weight)
        floored = weight.clamp_min(torch.finfo(weight.dtype).eps ** 2)
        return floored + torch.log(-torch.expm1(-floored))


class Square(Positivity):
    """weight = raw²."""

    emittable = True

    def weight(self, raw: Tensor) -> Tensor:
        return raw.square()

    def right_inverse(self, weight: Tensor) -> Tensor:
        _check_weight(weight)
        return weight.sqrt()


class Projection(Positivity):
    """weight = raw, clamped at 0 in place after every step (projected gradient descent)."""

    def weight(self, raw: Tensor) -> Tensor:
        return raw

    def right_inverse(self, weight: Tensor) -> Tensor:
        _check_weight(weight)
        return weight.clone()

    def final(self, raw: Tensor) -> Tensor:
        return raw.clamp_min(0)

    @torch.no_grad()
    def after_step(self, raw: Tensor) -> None:
        raw.clamp_(min=0)


class ADMM(Positivity):
    """Alternating direction method of multipliers for min L(raw) subject to raw = z ≥ 0, in scaled dual form.

    The loss gains ρ/2‖raw − z + u‖²; after every step z ← max(raw + u, 0) and u ← u + raw − z. Iterates may
    be negative (the network is then not convex); the final weight is max(raw, 0).

    Args:
        rho: ρ > 0 at the start.
        schedule: ``"fixed"``; ``"balanced"``: ρ doubles (halves) while the primal residual ‖raw − z‖ is more
            than ten times larger (smaller) than the dual residual ρ‖z − z_before‖; ``"doubling"``: ρ doubles
            every `period` steps. u is rescaled with ρ, which stays within a factor of 2¹⁰ of its start.
        period: steps between doublings.

    References:
        Boyd, Parikh, Chu, Peleato and Eckstein (2011), "Distributed optimization and statistical learning via
        the alternating direction method of multipliers", §3.1.1 (scaled form) and §3.4.1 (residual
        balancing).

    Example:
        >>> admm, raw = ADMM(rho=10.0), torch.tensor([-1.0, 2.0])
        >>> admm.after_step(raw)
        >>> admm.penalty(raw).item(), admm.final(raw).tolist()  # z = (0, 2), u = (−1, 0): 10/2·(−2)²
        (20.0, [0.0, 2.0])
    """

    keeps_convex = False
    _limit = 2.0**10

    split: Tensor | None
    dual: Tensor | None
    rho: Tensor
    steps: Tensor

    def __init__(self, rho: float = 10.0, schedule: str = "fixed", *, period: int = 500) -> None:
        super().__init__()
        if not 0.0 < rho < float("inf"):
            raise ValueError(f"expected rho > 0 and finite, got {rho}")
        if schedule not in ("fixed", "balanced", "doubling"):
            raise ValueError(f"expected schedule 'fixed', 'balanced' or 'doubling', got {schedule!r}")
        if period < 1:
            raise ValueError(f"expected period >= 1 steps, got {period}")
        self.schedule = schedule
        self.period = period
        self._rho_start = float(rho)
        self.register_buffer("rho", torch.tensor(float(rho)))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("split", None)
        self.register_buffer("dual", None)

    @torch.no_grad()
    def attach(self, raw: Tensor) -> None:
        self.split = raw.clamp_min(0)
        self.dual = torch.zeros_like(raw)
        self.rho = self.rho.to(raw)
        self.steps = self.steps.to(raw.device)

    def _state(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        if self.split is None or self.dual is None:
            self.attach(raw)
            return self._state(raw)
        return self.split, self.dual

    def weight(self, raw: Tensor) -> Tensor:
        return raw

    def right_inverse(self, weight: Tensor) -> Tensor:
        _check_weight(weight)
        return weight.clone()

    def final(self, raw: Tensor) -> Tensor:
        return raw.clamp_min(0)

    def penalty(self, raw: Tensor) -> Tensor:
        split, dual = self._state(raw)
        return 0.5 * self.rho * (raw - split + dual).square().sum()

    @torch.no_grad()
    def after_step(self, raw: Tensor) -> None:
        before, dual = self._state(raw)
        split = (raw + dual).clamp_min(0)
        primal = raw - split
        self.split, self.dual = split, dual + primal
        self.steps = self.steps + 1
        factor = self._factor(primal, split - before)
        rho = (self.rho * factor).clamp(self._rho_start / self._limit, self._rho_start * self._limit)
        self.dual = self.dual * (self.rho / rho)
        self.rho = rho

    def _factor(self, primal: Tensor, move: Tensor) -> Tensor:
        """What ρ is multiplied by; without a branch on tensor values, so no device synchronisation."""
        one = torch.ones_like(self.rho)
        if self.schedule == "balanced":
            gap, drift = primal.norm(), self.rho * move.norm()
            return torch.where(gap > 10 * drift, 2 * one, torch.where(drift > 10 * gap, 0.5 * one, one))
        if self.schedule == "doubling":
            return torch.where(self.steps % self.period == 0, 2 * one, one)
        return one


PositivityLike = str | Positivity | Callable[[], Positivity]

_BY_NAME: dict[str, Callable[[], Positivity]] = {
    "softplus": Softplus,
    "square": Square,
    "projection": Projection,
    "admm": ADMM,
    "lift": Softplus,  # what a lift emits through, unless told otherwise
}


def positivity_names() -> list[str]:
    """Names that `make_positivity` accepts."""
    return list(_BY_NAME)


def make_positivity(positivity: PositivityLike) -> Positivity:
    """Return a fresh positivity for one tensor.

    Args:
        positivity: a name (``"softplus"``, ``"square"``, ``"projection"``, ``"admm"``; ``"lift"`` gives the
            softplus that a lift emits through), a function or class that returns a `Positivity`,
            or one to copy.

    Raises:
        ValueError: for an unknown name.
        TypeError: for anything else that does not give a `Positivity`.

    Example:
        >>> make_positivity(lambda: ADMM(schedule="doubling")).schedule
        'doubling'
    """
    if isinstance(positivity, str):
        if positivity not in _BY_NAME:
            raise ValueError(f"expected positivity to be one of {positivity_names()}, got {positivity!r}")
        return _BY_NAME[positivity]()
    made: object = positivity
    if isinstance(positivity, Positivity):
        made = copy.deepcopy(positivity)
    elif callable(positivity):
        made = positivity()
    if not isinstance(made, Positivity):
        raise TypeError(
            f"expected positivity to be a name ({positivity_names()}), a Positivity or a function that "
            f"returns one, got {type(made).__name__}"
        )
    return made
