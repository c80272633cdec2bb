"""The training loop of the paper's experiments: Adam, clipped gradients, a fixed number of steps.

`ot_lift.training` is the library's own loop: it stops on a plateau, keeps the best by a held-out value and clips
nothing. Here both protocols have to differ in what their names say and in nothing else, so they share these few lines.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ot_lift.constrained import Constrained

SHOULDER = -math.log1p(-0.05)  # the weight at which softplus' is 0.05

Loss = Callable[[nn.Module, Tensor], Tensor]
Watcher = Callable[[int, float, Constrained], None]


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        iterations: steps of Adam.
        learning_rate: its step size, at the start.
        clip: the norm that a gradient is cut to.
        cosine: whether the step size falls to zero along a cosine.
        averaging: horizon of the exponential average of the trained parameters, as a share of the steps so far; 0 for
            none.
    """

    iterations: int = 3_000
    learning_rate: float = 1e-3
    clip: float = 1.0
    cosine: bool = False
    averaging: float = 0.0

    def rate(self, step: int) -> float:
        """The step size of a step, counted from 0."""
        share = 0.5 * (1 + math.cos(math.pi * step / self.iterations)) if self.cosine else 1.0
        return self.learning_rate * share


@dataclass(frozen=True)
class HalvedRecipe(Recipe):
    """A recipe whose step size is halved again and again.

    Attributes:
        period: steps between halvings.

    Example:
        >>> recipe = HalvedRecipe(learning_rate=0.4, period=10)
        >>> [recipe.rate(step) for step in (0, 9, 10, 25)]
        [0.4, 0.4, 0.2, 0.1]
    """

    period: int = 2_000

    def rate(self, step: int) -> float:
        return super().rate(step) * 0.5 ** (step // self.period)


def fit(
    model: Constrained,
    loss: Loss,
    next_batch: Callable[[], Tensor],
    recipe: Recipe,
    *,
    condition: Callable[[Tensor], Tensor] = lambda batch: batch,
    watch: Watcher | None = None,
    looks: int = 0,
) -> tuple[Constrained, float]:
    """Minimise a loss over batches.

    Args:
        model: Trained in place.
        loss: Of the module at the weights of this step, and the batch.
        next_batch: `(n, features)`.
        recipe: How.
        condition: What a lift emits from, given the batch that the loss is formed on.
        watch: Called at the start and `looks` times more with the step, the mean loss since the last call and the model
            that would be returned if training ended there.
        looks: How often.

    Returns:
        The model, or its average where the recipe asks for one; and the seconds of training, looks left out.

    Raises:
        FloatingPointError: The loss is not finite, or the weights at the end.

    Example:
        >>> from ot_lift import mark_nonnegative
        >>> line = nn.Linear(1, 1, bias=False)
        >>> mark_nonnegative(line.weight)
        >>> model, _ = fit(
        ...     Constrained(line),
        ...     lambda line, x: (line(x) - 2 * x).square().mean(),
        ...     lambda: torch.ones(4, 1),
        ...     Recipe(iterations=300, learning_rate=0.1, cosine=True),
        ... )
        >>> round(model.bake().weight.item(), 3)
        2.0
    """
    parameters: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=recipe.learning_rate, fused=True)
    best = copy.deepcopy(model) if recipe.averaging else model
    averages: list[Tensor] = [parameter for parameter in best.parameters() if parameter.requires_grad]
    marks = {round(recipe.iterations * (k + 1) / looks) for k in range(looks)}
    losses: list[Tensor] = []
    if watch is not None:
        watch(0, math.nan, best)
    seconds, began = 0.0, time.perf_counter()
    for step in range(recipe.iterations):
        batch = next_batch()
        bound = model.bind(model.weights(condition(batch)))
        value = loss(bound, batch)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value + model.penalty())
        torch.nn.utils.clip_grad_norm_(parameters, recipe.clip, foreach=True)
        optimizer.param_groups[0]["lr"] = recipe.rate(step)
        optimizer.step()
        model.after_step()
        if recipe.averaging:
            with torch.no_grad():
                torch._foreach_lerp_(averages, parameters, 1 / (1 + recipe.averaging * step))
        losses.append(value.detach())
        if step + 1 in marks:
            seconds += time.perf_counter() - began
            mean = float(torch.stack(losses).mean())
            losses.clear()
            if not math.isfinite(mean):
                raise FloatingPointError(f"the loss is not finite after {step + 1} steps")
            if watch is not None:
                watch(step + 1, mean, best)
            began = time.perf_counter()
    seconds += time.perf_counter() - began
    if not all(bool(parameter.isfinite().all()) for parameter in averages):
        raise FloatingPointError(f"the weights are not finite after {recipe.iterations} steps")
    return best, seconds


def shoulder_share(weights: list[Tensor]) -> float:
    """Share of non-negative weights at which softplus' would be under 0.05: those of at most 0.0513.

    Example:
        >>> shoulder_share([torch.tensor([0.0, 0.05]), torch.tensor([0.06, 9.0])])
        0.5
    """
    flat = torch.cat([weight.detach().reshape(-1) for weight in weights])
    return float((flat <= SHOULDER).double().mean())
