"""A module whose marked parameters are kept non-negative, each by a positivity of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ot_lift.positivity import (
    MARK,
    Positivity,
    PositivityLike,
    copy_with_marks,
    make_positivity,
    marked_parameters,
)
from ot_lift.potentials import Potential


class _Runner(nn.Module):
    """`functional_call` swaps parameters while a `forward` runs; this `forward` runs any function."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)


class Bound(nn.Module):
    """A module at given weights: calling it calls the module with them in place of its own parameters.

    Args:
        module: the module; neither copied nor changed.
        weights: tensors by `named_parameters()` name; they may carry an autograd graph.
        aliases: the further names of tied parameters, by the name that `weights` uses.

    Example:
        >>> double = Bound(nn.Linear(1, 1, bias=False), {"weight": torch.tensor([[2.0]])})
        >>> double(torch.tensor([[3.0]])).item()
        6.0
    """

    def __init__(
        self, module: nn.Module, weights: Mapping[str, Tensor], aliases: Mapping[str, list[str]] | None = None
    ) -> None:
        super().__init__()
        self._runner = _Runner(module)
        self.weights = dict(weights)
        tied = aliases or {}
        self._swapped = {
            f"module.{name}": weight for first, weight in self.weights.items() for name in (first, *tied.get(first, ()))
        }

    def _run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """function(*args, **kwargs) while the module has the given weights."""
        return functional_call(self._runner, self._swapped, (function, *args), kwargs, tie_weights=False)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The module's output at the given weights."""
        return self._run(self._runner.module, *inputs, **kwargs)


class BoundPotential(Bound, Potential):
    """A potential at given weights, itself a potential."""

    def __init__(
        self, module: Potential, weights: Mapping[str, Tensor], aliases: Mapping[str, list[str]] | None = None
    ) -> None:
        super().__init__(module, weights, aliases)
        self.features = module.features

    @property
    def _potential(self) -> Potential:
        module = self._runner.module
        assert isinstance(module, Potential)  # for the type checker: __init__ took a Potential
        return module

    @property
    def strong_convexity(self) -> float:
        return float(self._run(lambda: self._potential.strong_convexity))

    def gradient(self, x: Tensor) -> Tensor:
        gradient: Tensor = self._run(self._potential.gradient, x)
        return gradient

    def value_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        both: tuple[Tensor, Tensor] = self._run(self._potential.value_gradient, x)
        return both

    def linearise(self, x: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        value, gradient, product = self._run(self._potential.linearise, x)
        # The product reads the module's parameters when called, by when this call has restored them.
        return value, gradient, lambda v: self._run(product, v)

    def value_gradient_hessian(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        all_three: tuple[Tensor, Tensor, Tensor] = self._run(self._potential.value_gradient_hessian, x)
        return all_three

    def hessian(self, x: Tensor) -> Tensor:
        hessian: Tensor = self._run(self._potential.hessian, x)
        return hessian

    def hessian_with_slope(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        hessian, slope = self._run(self._potential.hessian_with_slope, x)
        return hessian, lambda matrix: self._run(slope, matrix)

    def hessian_product(self, x: Tensor, v: Tensor) -> Tensor:
        product: Tensor = self._run(self._potential.hessian_product, x, v)
        return product


class Constrained(nn.Module):
    """A module trained with its marked parameters kept ≥ 0 by a positivity.

    A private deep copy of the module holds everything that is not marked: its other parameters stay ordinary
    ones, its buffers live on. Each marked parameter is frozen there and replaced, in every call, by
    `weight(raw)` of a raw parameter that starts at the right inverse of the current weight; so all
    positivities start at the same network. Negative entries (an ordinary initialisation) start at their
    absolute value. The number of trained parameters is that of the module.

    If the module is a `Potential`, so is this.

    Args:
        module: a module with marked parameters (`mark_nonnegative`, or a truthy ``_pos_required``).
        positivity: ``"softplus"``, ``"square"``, ``"projection"``, ``"admm"``, or what returns a
            `Positivity`. Add `penalty` to the loss and call `after_step` after each optimizer step: both do
            nothing unless needed.

    Raises:
        ValueError: if nothing is marked or the positivity has no such name.

    Example:
        >>> from ot_lift.positivity import mark_nonnegative
        >>> net = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(net.weight, 3.0)
        >>> mark_nonnegative(net.weight)
        >>> model = Constrained(net, "softplus")
        >>> round(model(torch.tensor([[1.0, 1.0]])).item(), 4)
        6.0
        >>> type(model.bake()).__name__
        'Linear'
    """

    def __new__(cls, module: nn.Module | None = None, *args: Any, **kwargs: Any) -> Self:
        """Pick the subclass that is a `Potential` when the module is one (a copy passes no module)."""
        kind = cls._potential_class() if isinstance(module, Potential) else cls
        return super().__new__(kind if issubclass(kind, cls) else cls)

    @classmethod
    def _potential_class(cls) -> type[Constrained]:
        return ConstrainedPotential

    def __init__(self, module: nn.Module, positivity: PositivityLike = "softplus") -> None:
        super().__init__()
        if positivity == "lift":
            raise ValueError("expected a positivity other than 'lift' here; use Lift(module, features=...) for it")
        self._keep(module)
        weights = self._marked_weights()
        self.positivities = nn.ModuleList(make_positivity(positivity) for _ in weights)
        self.raw = nn.ParameterList()
        for kind, weight in zip(self._kinds(), weights.values(), strict=True):
            raw = nn.Parameter(kind.right_inverse(weight))
            kind.attach(raw.detach())
            self.raw.append(raw)

    def _keep(self, module: nn.Module) -> None:
        """Copy the module, freeze what is marked, and note names, ties and marks by name."""
        marked = marked_parameters(module)
        self._module = copy_with_marks(module)
        self._marked = tuple(marked)
        own = dict(self._module.named_parameters())
        for name in self._marked:
            own[name].requires_grad_(False)
        first_name = {parameter: name for name, parameter in own.items()}
        self._aliases: dict[str, list[str]] = {}
        for name, parameter in self._module.named_parameters(remove_duplicate=False):
            if name != first_name[parameter]:
                self._aliases.setdefault(first_name[parameter], []).append(name)

    def _marked_weights(self) -> dict[str, Tensor]:
        """Weights ≥ 0 to start at."""
        own = dict(self._module.named_parameters())
        return {name: own[name].detach().abs() for name in self._marked}

    def _kinds(self) -> list[Positivity]:
        return [kind for kind in self.positivities if isinstance(kind, Positivity)]

    @property
    def keeps_convex(self) -> bool:
        """Whether weights are ≥ 0 throughout training and not only once baked."""
        return all(kind.keeps_convex for kind in self._kinds())

    @property
    def added_parameters(self) -> int:
        """How many trained parameters this adds to those of the module."""
        return 0

    def weights(self, batch: Tensor | None = None) -> dict[str, Tensor]:
        """Effective weights by `named_parameters()` name, with their graph; `batch` is not used here."""
        return {name: kind.weight(raw) for name, kind, raw in zip(self._marked, self._kinds(), self.raw, strict=True)}

    def effective(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All parameters of the module by name, `weights` in place of the marked ones: what to average."""
        return {**dict(self._module.named_parameters()), **weights}

    def final_weights(self, batch: Tensor | None = None) -> dict[str, Tensor]:
        """The weights that `bake` keeps: those of `weights`, made ≥ 0 where iterates may be negative."""
        return {name: kind.final(raw) for name, kind, raw in zip(self._marked, self._kinds(), self.raw, strict=True)}

    def bind(self, weights: Mapping[str, Tensor] | None = None, batch: Tensor | None = None) -> Bound:
        """The module at fixed weights: emit once, evaluate often.

        Args:
            weights: from `weights`; None for those at `batch`.
            batch: (n, features), what a lift conditions on.

        Returns:
            An object with the module's call, and a `Potential` if the module is one.
        """
        return Bound(self._module, self.weights(batch) if weights is None else weights, self._aliases)

    def forward(self, x: Tensor, batch: Tensor | None = None, **inputs: Any) -> Any:
        """The module's output at the weights for `batch` (default: x); further inputs go by keyword."""
        return self.bind(batch=x if batch is None else batch)(x, **inputs)

    @torch.no_grad()
    def bake(self, batch: Tensor | None = None) -> nn.Module:
        """A plain copy of the module with the final weights written in, marked and trainable.

        Args:
            batch: (n, features), the reference batch of a lift; not needed otherwise.

        Raises:
            ValueError: if a weight is not finite.
        """
        plain = copy.deepcopy(self._module)
        own = dict(plain.named_parameters())
        for name, weight in self.final_weights(batch).items():
            if not bool(torch.isfinite(weight).all()):
                raise ValueError(f"expected finite weights to bake, got NaN or inf in {name}; training has diverged")
            own[name].data = weight.detach().clone()
            own[name].requires_grad_(True)
        for name in self._marked:
            setattr(own[name], MARK, True)
        return plain

    def penalty(self) -> Tensor:
        """Scalar to add to the loss: 0 unless the positivity has one."""
        return torch.stack([kind.penalty(raw) for kind, raw in zip(self._kinds(), self.raw, strict=True)]).sum()

    def after_step(self) -> None:
        """Call after each optimizer step."""
        for kind, raw in zip(self._kinds(), self.raw, strict=True):
            kind.after_step(raw)


class ConstrainedPotential(Constrained, Potential):
    """What `Constrained` gives for a `Potential`; points condition a lift that is given no other batch."""

    def _keep(self, module: nn.Module) -> None:
        super()._keep(module)
        self.features = self._potential.features

    @property
    def _potential(self) -> Potential:
        assert isinstance(self._module, Potential)  # for the type checker: what __new__ looked at
        return self._module

    def bind(self, weights: Mapping[str, Tensor] | None = None, batch: Tensor | None = None) -> BoundPotential:
        return BoundPotential(self._potential, self.weights(batch) if weights is None else weights, self._aliases)

    @property
    def strong_convexity(self) -> float:
        return self._potential.strong_convexity

    def gradient(self, x: Tensor, batch: Tensor | None = None) -> Tensor:
        return self.bind(batch=x if batch is None else batch).gradient(x)

    def value_gradient(self, x: Tensor, batch: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bind(batch=x if batch is None else batch).value_gradient(x)

    def linearise(self, x: Tensor, batch: Tensor | None = None) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        return self.bind(batch=x if batch is None else batch).linearise(x)

    def value_gradient_hessian(self, x: Tensor, batch: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        return self.bind(batch=x if batch is None else batch).value_gradient_hessian(x)

    def hessian(self, x: Tensor, batch: Tensor | None = None) -> Tensor:
        return self.bind(batch=x if batch is None else batch).hessian(x)

    def hessian_product(self, x: Tensor, v: Tensor, batch: Tensor | None = None) -> Tensor:
        return self.bind(batch=x if batch is None else batch).hessian_product(x, v)
