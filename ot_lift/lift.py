"""The lift: non-negative weights emitted from a permutation-invariant summary of the mini-batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ot_lift.constrained import Constrained, ConstrainedPotential
from ot_lift.positivity import PositivityLike, make_positivity

__all__ = ["Constrained", "Lift", "SetSummary", "constrain"]

# Emitted tensors start on such boundaries, as freshly allocated ones do, so that baked copies give the same
# bits.
_ALIGNMENT_BYTES = 64


class SetSummary(nn.Module):
    """A code h(X) of a batch that does not depend on the order of its rows (DeepSets).

    A ReLU network is applied to every row and averaged over rows; a linear head makes the code. The head
    commutes with the average and is applied after it. The batch is detached.

    Args:
        features: numbers per row; a row of any shape is flattened.
        summary_features: widths of the row network, at least one.
        code_features: length of the code.
        standardise: give the code zero mean and unit variance across its entries.
        generator: source of the initial weights (default: a generator seeded with 0).
        dtype: of the parameters.

    References:
        Zaheer et al. (2017), "Deep Sets", arXiv 1703.06114.

    Example:
        >>> summary, batch = SetSummary(2, code_features=4), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> summary(batch).shape, torch.equal(summary(batch), summary(batch.flip(0)))
        (torch.Size([4]), True)
    """

    def __init__(
        self,
        features: int,
        *,
        summary_features: Sequence[int] = (16,),
        code_features: int = 8,
        standardise: bool = False,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = [features, *summary_features]
        if len(sizes) < 2 or min(*sizes, code_features) < 1:
            raise ValueError(
                "expected features, code_features and at least one summary width, all >= 1, got "
                f"features={features}, summary_features={tuple(summary_features)}, "
                f"code_features={code_features}"
            )
        self.features = int(features)
        self.code_features = int(code_features)
        self.standardise = bool(standardise)
        source = generator or torch.Generator().manual_seed(0)
        self.rows = nn.ModuleList(_Dense(*pair, source, dtype) for pair in itertools.pairwise(sizes))
        self.head = _Dense(sizes[-1], code_features, source, dtype)

    def forward(self, batch: Tensor) -> Tensor:
        """The code, shape (code_features,), of a batch of shape (n, features)."""
        if batch.ndim < 2 or len(batch) == 0 or batch[0].numel() != self.features:
            raise ValueError(f"expected a batch of shape (n, {self.features}) with n >= 1, got {tuple(batch.shape)}")
        hidden = batch.detach().flatten(1).to(self.head.weight)
        for layer in self.rows:
            hidden = functional.relu(layer(hidden), inplace=True)
        mean = hidden.new_full((1, len(hidden)), 1.0 / len(hidden)) @ hidden  # faster than mean(0), both ways
        code: Tensor = self.head(mean)[0]
        return functional.layer_norm(code, code.shape) if self.standardise else code


class _Dense(nn.Module):
    """x ↦ xW + b with He-normal W and b = 0.

    W is (before, after): its gradient is a product with the tall factor transposed on the left, which takes a third of
    the time of the one that torch's own layout asks for.
    """

    def __init__(self, before: int, after: int, generator: torch.Generator, dtype: torch.dtype | None) -> None:
        super().__init__()
        weight = torch.empty(after, before, device=generator.device, dtype=dtype)
        weight.normal_(0.0, math.sqrt(2.0 / before), generator=generator)
        self.weight = nn.Parameter(weight.T.contiguous())
        self.bias = nn.Parameter(weight.new_zeros(after))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class Lift(Constrained):
    """A module whose non-negative weights are emitted from the batch it is evaluated on.

    The weight is ψ(Θh(X)/len(h) + b): h(X) a `SetSummary` of the detached batch, Θ one dense readout for all
    emitted tensors, b the *slack*, ψ a positivity (softplus). Everything else is as in `Constrained`: no
    constraint code in the training loop, and `bake(reference_batch)` gives back a plain module whose outputs
    are exactly those of the lift at that batch. Predictions should come from a baked module: before, they
    depend on the batch.

    With p emitted numbers, c = `code_features` and a row network of widths s₁, …, the lift adds
    c·p + (d+1)s₁ + (s₁+1)s₂ + … + (s+1)c trained parameters to the module's own (b takes the place of the p
    weights); `added_parameters` is that number.

    Args:
        module: any module with marked parameters (`mark_nonnegative`, or a truthy ``_pos_required``).
        features: numbers per row of the batch.
        emit: ``"constrained"`` emits the marked parameters and leaves the others ordinary ones; ``"all"``
            freezes the module and emits every parameter (unmarked ones as Θh/len(h) + b, without ψ).
        summary_features: widths of the row network.
        code_features: length of the code h.
        standardise: standardise the code across its entries.
        readout: ``"mean"`` divides Θh by len(h), so that one Adam step moves a weight by about one step size;
            ``"sum"`` does not.
        readout_std: standard deviation of Θ at the start. At 0, weights start as those of `Constrained`.
        positivity: ψ: ``"softplus"``, ``"square"`` or an emittable `Positivity`.
        slack: start of b for marked tensors; None for the right inverse of their current weights. The paper
            uses −2. Other emitted tensors start at their current values.
        generator: source of the initial Θ and summary (default: a generator seeded with 0).

    Raises:
        ValueError: if nothing is marked, tensors to emit differ in dtype or device, or an option is wrong.

    References:
        "A lift for input-convex neural network training", arXiv 2605.24274.

    Example:
        >>> from ot_lift.positivity import mark_nonnegative
        >>> net = nn.Linear(2, 1)
        >>> mark_nonnegative(net.weight)
        >>> model = Lift(net, features=2)
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> bool((model.weights(x)["weight"] >= 0).all()), torch.equal(model(x), model.bake(x)(x))
        (True, True)
    """

    @classmethod
    def _potential_class(cls) -> type[Constrained]:
        return LiftPotential

    def __init__(
        self,
        module: nn.Module,
        *,
        features: int,
        emit: Literal["constrained", "all"] = "constrained",
        summary_features: Sequence[int] = (16,),
        code_features: int = 8,
        standardise: bool = False,
        readout: Literal["mean", "sum"] = "mean",
        readout_std: float = 0.0,
        positivity: PositivityLike = "softplus",
        slack: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        nn.Module.__init__(self)
        _check_options(emit, readout, readout_std, slack)
        self._keep(module)
        emitted = self._emitted(emit)
        self.positivity = make_positivity(positivity)
        if not self.positivity.emittable:
            raise ValueError(
                "expected a positivity that a lift can emit through ('softplus', 'square'), "
                f"got {positivity!r}; "
                "use Constrained(module, positivity) for one that edits or penalises trained weights"
            )
        self._names = tuple(emitted)
        self._shapes = tuple(weight.shape for weight in emitted.values())
        self._sizes = tuple(weight.numel() for weight in emitted.values())
        self._constrained_size = sum(self._sizes[: len(self._marked)])
        start = self._start_slack(emitted, slack)
        source = generator or torch.Generator().manual_seed(0)
        self.summary = SetSummary(
            features,
            summary_features=summary_features,
            code_features=code_features,
            standardise=standardise,
            generator=source,
            dtype=start.dtype,
        ).to(start.device)
        self._scale = 1.0 / code_features if readout == "mean" else 1.0
        self.slack = nn.Parameter(start)
        theta = torch.empty(code_features, len(start), dtype=start.dtype, device=source.device)
        theta.normal_(generator=source).mul_(readout_std)
        self.readout = nn.Parameter(theta.to(start.device))

    def _emitted(self, emit: str) -> dict[str, Tensor]:
        """Tensors to emit at their start, marked ones first; they are frozen in the private copy."""
        emitted = self._marked_weights()
        own = dict(self._module.named_parameters())
        if emit == "all":
            emitted |= {name: own[name].detach() for name in own if name not in emitted}
            self._module.requires_grad_(False)
        kinds = {(weight.dtype, weight.device) for weight in emitted.values()}
        if len(kinds) > 1:
            raise ValueError(
                f"expected emitted parameters of one dtype on one device, got {sorted(map(str, kinds))}; "
                "convert the module first, as in module.to(device, dtype)"
            )
        return emitted

    def _start_slack(self, emitted: dict[str, Tensor], slack: float | None) -> Tensor:
        flat = torch.cat([weight.reshape(-1) for weight in emitted.values()])
        constrained = flat[: self._constrained_size]
        if slack is None:
            constrained.copy_(self.positivity.right_inverse(constrained))
        else:
            constrained.fill_(slack)
        return flat

    @property
    def keeps_convex(self) -> bool:
        return self.positivity.keeps_convex

    @property
    def added_parameters(self) -> int:
        return self.readout.numel() + sum(parameter.numel() for parameter in self.summary.parameters())

    def weights(self, batch: Tensor | None = None) -> dict[str, Tensor]:
        """Weights emitted from a batch, by their `named_parameters()` names, with their graph.

        Args:
            batch: (n, features); it is detached, and the order of its rows does not matter.

        Raises:
            ValueError: without a batch, or if its shape does not fit.
        """
        if batch is None:
            raise ValueError(f"expected a batch of shape (n, {self.summary.features}) to emit from, got None")
        code = self.summary(batch) * self._scale
        # As a product of matrices, its backward pass writes the readout's gradient in the readout's own
        # layout.
        raw = torch.addmm(self.slack[None], code[None], self.readout).view(-1)
        if self._constrained_size == len(raw):
            flat = self.positivity.weight(raw)
        else:
            constrained, free = raw.split((self._constrained_size, len(raw) - self._constrained_size))
            flat = torch.cat([self.positivity.weight(constrained), free])
        pieces = flat.split(self._sizes)
        step = _ALIGNMENT_BYTES // flat.element_size()
        return {
            name: (piece if piece.storage_offset() % step == 0 else piece.clone()).view(shape)
            for name, piece, shape in zip(self._names, pieces, self._shapes, strict=True)
        }

    def final_weights(self, batch: Tensor | None = None) -> dict[str, Tensor]:
        return self.weights(batch)

    def penalty(self) -> Tensor:
        return self.slack.new_zeros(())

    def after_step(self) -> None:
        """Nothing: an emitted weight is never negative."""


class LiftPotential(Lift, ConstrainedPotential):
    """What `Lift` gives for a `Potential`."""

    depends_on_batch = True


def constrain(
    module: nn.Module,
    positivity: PositivityLike = "lift",
    *,
    features: int,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Constrained:
    """`Lift` for the name ``"lift"``, else `Constrained`: one argument exchanges positivities.

    Args:
        module: a module with marked parameters.
        positivity: a name or anything else that `make_positivity` takes.
        features: numbers per row of a batch (used by the lift).
        generator: source of the lift's initial values; effective weights start equal for every positivity.
        **options: further arguments of `Lift`.

    Example:
        >>> from ot_lift.potentials import ICNN
        >>> type(constrain(ICNN(2, (4,)), "projection", features=2)).__name__
        'ConstrainedPotential'
    """
    if positivity == "lift":
        return Lift(module, features=features, generator=generator, **options)
    return Constrained(module, positivity)


def _check_options(emit: str, readout: str, readout_std: float, slack: float | None) -> None:
    if emit not in ("constrained", "all"):
        raise ValueError(f"expected emit 'constrained' or 'all', got {emit!r}")
    if readout not in ("mean", "sum"):
        raise ValueError(f"expected readout 'mean' or 'sum', got {readout!r}")
    if not 0.0 <= readout_std < math.inf:
        raise ValueError(f"expected readout_std >= 0 and finite, got {readout_std}")
    if slack is not None and not math.isfinite(slack):
        raise ValueError(f"expected slack to be finite or None, got {slack}")
