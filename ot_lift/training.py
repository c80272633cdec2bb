"""The training loop: optimizer, schedule, weight averaging, budgets, checkpoints, and the reason it stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ot_lift.constrained import Bound, Constrained
from ot_lift.errors import DataError
from ot_lift.io import is_saved, joined, load_folder, part, save_folder

StopReason = str
_CHECKPOINT_KIND = "checkpoint"
_LENGTH_RATE = 0.01  # of the running mean of gradients' lengths


class Objective(Protocol):
    """What the loop minimises. It owns its data, its random state and whatever it remembers between steps."""

    def next_batch(self) -> Tensor:
        """Draw the next batch, keep it, and return what a lift conditions on, ``(n, features)``."""

    def loss(self, model: Bound) -> Tensor:
        """Scalar loss of the batch last drawn, with its graph."""

    def held_out(self, model: nn.Module) -> float:
        """Held-out value of a plain model, lower is better; deterministic given the model."""

    def report(self) -> dict[str, float]:
        """Further figures since the last call, for the history."""

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as tensors."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore `state`."""


@dataclass(frozen=True)
class TrainingOptions:
    """Budgets and step sizes of :func:`train`.

    Attributes:
        max_steps: step budget.
        max_seconds: wall-clock budget, or None.
        learning_rate: of Adam, at its peak.
        warmup_steps: linear warm-up.
        averaging: horizon of the exponential weight average, as a fraction of the steps so far.
        evaluate_every: steps between held-out evaluations.
        patience: evaluations without improvement after which the schedule is brought to its end; None: never.
        tolerance: an improvement of the held-out value smaller than this does not count.
        clip: a gradient longer than so many times the usual length is cut to that, so that a batch with a far outlier
            does not undo hundreds of steps; None: never. What is usual is a running mean of the lengths after the cut.
        checkpoint_seconds: least time between two checkpoints.
    """

    max_steps: int
    max_seconds: float | None = None
    learning_rate: float = 1e-2
    warmup_steps: int = 50
    averaging: float = 0.02
    evaluate_every: int = 50
    patience: int | None = 5
    tolerance: float = 0.0
    clip: float | None = None
    checkpoint_seconds: float = 20.0


@dataclass
class Trained:
    """What :func:`train` returns: the best plain module seen, the history, and why it stopped.

    ``stop_reason`` is one of ``"max_steps"``, ``"max_seconds"``, ``"plateau"``, ``"diverged"``, ``"interrupted"``
    and ``"callback"``.
    """

    module: nn.Module
    history: list[dict[str, float]]
    stop_reason: StopReason
    held_out: float


@dataclass
class _Progress:
    """Everything of the loop that is not a tensor of the model: kept in checkpoints as JSON."""

    step: int = 0
    seconds: float = 0.0
    best_held_out: float = math.inf
    reference: float = math.inf  # what the next evaluation must beat for patience
    stale: int = 0
    usual_length: float = 0.0  # of gradients; 0 before there was one
    anneal_step: int | None = None
    anneal_fraction: float = 0.0
    stop_reason: StopReason = ""
    history: list[dict[str, float]] = field(default_factory=list)


class _Loop:
    """One run: the live model and optimizer, their average, the best average so far."""

    def __init__(self, model: Constrained, objective: Objective, options: TrainingOptions) -> None:
        self.model, self.objective, self.options = model, objective, options
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        # One fused kernel an update: the readouts of a lift are many numbers in few tensors.
        self.optimizer = torch.optim.Adam(self.parameters, lr=options.learning_rate, betas=(0.9, 0.99), fused=True)
        self.plain = model.bake(self._condition())
        self.average = {name: p.detach().clone() for name, p in self.plain.named_parameters()}
        self.best = {name: p.clone() for name, p in self.average.items()}
        self.progress = _Progress()
        self.losses: list[Tensor] = []
        self.started = time.monotonic()

    def _condition(self) -> Tensor:
        return self.objective.next_batch()

    # --- one step -----------------------------------------------------------------------------------------------

    def fraction(self) -> float:
        """How much of the budget is spent, by the larger of steps and time."""
        spent = self.progress.step / self.options.max_steps
        if self.options.max_seconds is not None:
            spent = max(spent, self.progress.seconds / self.options.max_seconds)
        return min(spent, 1.0)

    def learning_rate(self) -> float:
        """Warm-up, then a cosine over the budget; after a plateau, a shorter cosine from there to zero."""
        step, options = self.progress.step, self.options
        rate = options.learning_rate * min(1.0, (step + 1) / max(1, options.warmup_steps))
        if self.progress.anneal_step is None:
            return rate * _cosine(self.fraction())
        return rate * _cosine(self.progress.anneal_fraction) * _cosine(self._annealed())

    def _annealed(self) -> float:
        """How much of the final annealing is done; its length is a quarter of the steps before it."""
        start = self.progress.anneal_step
        return 0.0 if start is None else (self.progress.step - start) / max(1, start // 4)

    def step(self) -> bool:
        """One update; False if it diverged."""
        batch = self.objective.next_batch()
        weights = self.model.weights(batch)
        loss = self.objective.loss(self.model.bind(weights)) + self.model.penalty()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.options.clip is not None:
            self._cut_gradients(self.options.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        self.model.after_step()
        self._update_average(weights)
        self.losses.append(loss.detach())
        self.progress.step += 1
        return bool(torch.isfinite(loss))

    def _cut_gradients(self, clip: float) -> None:
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        length = float(torch.nn.utils.get_total_norm(gradients))
        usual = self.progress.usual_length or length
        if length > clip * usual:
            torch._foreach_mul_(gradients, clip * usual / length)
        self.progress.usual_length = usual + _LENGTH_RATE * (min(length, clip * usual) - usual)

    @torch.no_grad()
    def _update_average(self, weights: dict[str, Tensor]) -> None:
        # Averages are of effective weights: a mean of non-negative weights is one, so the average is a plain network.
        share = 1.0 / (1.0 + self.options.averaging * self.progress.step)
        effective = self.model.effective(weights)
        average = list(self.average.values())
        torch._foreach_lerp_(average, [effective[name].detach() for name in self.average], share)

    # --- evaluation ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def load_plain(self, weights: dict[str, Tensor]) -> nn.Module:
        for name, parameter in self.plain.named_parameters():
            parameter.copy_(weights[name])
        return self.plain

    def evaluate(self) -> dict[str, float]:
        """Held-out value of the average; keeps it if it is the best so far."""
        progress, options = self.progress, self.options
        held_out = self.objective.held_out(self.load_plain(self.average))
        record = {
            "step": progress.step,
            "seconds": progress.seconds,
            "learning_rate": self.learning_rate(),
            "loss": float(torch.stack(self.losses).mean()) if self.losses else math.nan,
            "held_out": held_out,
            **self.objective.report(),
        }
        self.losses.clear()
        progress.history.append(record)
        if held_out < progress.best_held_out:
            progress.best_held_out = held_out
            self.best = {name: p.clone() for name, p in self.average.items()}
        if held_out < progress.reference - options.tolerance:
            progress.reference, progress.stale = held_out, 0
        else:
            progress.stale += 1
        patient = options.patience is None or progress.stale < options.patience
        if not patient and progress.anneal_step is None:
            progress.anneal_step, progress.anneal_fraction = progress.step, self.fraction()
        return record

    def finished(self) -> StopReason:
        """Why to stop now; empty to go on."""
        if self.progress.anneal_step is not None and self._annealed() >= 1.0:
            return "plateau"
        if self.progress.step >= self.options.max_steps:
            return "max_steps"
        over = self.options.max_seconds is not None and self.progress.seconds >= self.options.max_seconds
        return "max_seconds" if over else ""

    # --- checkpoints --------------------------------------------------------------------------------------------

    def save(self, folder: Path, fingerprint: str) -> None:
        parts = {"model": self.model.state_dict(), "average": self.average, "best": self.best}
        for index, parameter in enumerate(self.parameters):
            parts[f"optimizer.{index}"] = self.optimizer.state.get(parameter, {})
        tensors = joined(parts | {"objective": self.objective.state()})
        if self.losses:
            tensors["losses"] = torch.stack(self.losses)
        config = {"fingerprint": fingerprint, "progress": vars(self.progress)}
        save_folder(folder, kind=_CHECKPOINT_KIND, config=config, tensors=tensors)

    def load(self, folder: Path, fingerprint: str) -> None:
        config, tensors = load_folder(folder, kind=_CHECKPOINT_KIND)
        if config["fingerprint"] != fingerprint:
            raise DataError(
                f"the checkpoint in {folder} is of another fit (other data or settings); resume with those it was "
                "made with, or choose an empty folder"
            )

        device = self.parameters[0].device

        def part_at(owner: str, home: torch.device = device) -> dict[str, Tensor]:
            return {name: tensor.to(home) for name, tensor in part(tensors, owner).items()}

        self.model.load_state_dict(part_at("model"))
        for index, parameter in enumerate(self.parameters):
            self.optimizer.state[parameter] = part_at(f"optimizer.{index}")
        self.average, self.best = part_at("average"), part_at("best")
        self.objective.load_state(part_at("objective", torch.device("cpu")))  # it knows where its own tensors live
        self.losses = list(tensors["losses"].to(device)) if "losses" in tensors else []
        self.progress = _Progress(**config["progress"])
        self.started = time.monotonic() - self.progress.seconds


def _cosine(fraction: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * min(max(fraction, 0.0), 1.0)))


Callback = Callable[[dict[str, float], nn.Module], bool | None]


def train(
    model: Constrained,
    objective: Objective,
    options: TrainingOptions,
    *,
    callbacks: Iterable[Callback] = (),
    progress: bool = False,
    resume: Path | None = None,
    fingerprint: str = "",
) -> Trained:
    """Minimise an objective with Adam and return the best averaged, plain module by held-out value.

    Args:
        model: the constrained module; it is trained in place.
        objective: see :class:`Objective`.
        options: budgets and step sizes.
        callbacks: each is called with the newest history record and the averaged, plain module after every
            evaluation; one that returns True stops the run. The module changes as training goes on: copy to keep.
        progress: show a progress bar on standard error.
        resume: a folder for checkpoints. A checkpoint in it is continued from; the run then ends as the unbroken one
            would have (bit for bit under a step budget).
        fingerprint: identifies data and settings; a checkpoint with another one is refused.

    Returns:
        The best module, the history and the stop reason. An interrupt (Ctrl-C) and a divergence end the run with the
        best state so far.

    Raises:
        DataError: if the checkpoint is damaged or of another fit.
    """
    loop = _Loop(model, objective, options)
    folder = None if resume is None else Path(resume) / "checkpoint"
    if folder is not None and is_saved(folder):
        loop.load(folder, fingerprint)
    state = loop.progress
    saved = time.monotonic()
    with _bar(progress, loop) as show:
        try:
            if not state.history:
                show(loop.evaluate())
            while not state.stop_reason:
                finite = loop.step()
                state.seconds = time.monotonic() - loop.started
                state.stop_reason = loop.finished() if finite else "diverged"
                if finite and (state.stop_reason or state.step % options.evaluate_every == 0):
                    record = loop.evaluate()
                    show(record)
                    if not math.isfinite(record["held_out"]):
                        state.stop_reason = "diverged"
                    elif True in [bool(callback(dict(record), loop.plain)) for callback in callbacks]:
                        state.stop_reason = state.stop_reason or "callback"
                due = time.monotonic() - saved >= options.checkpoint_seconds or bool(state.stop_reason)
                if folder is not None and due and state.stop_reason != "diverged":
                    loop.save(folder, fingerprint)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            state.stop_reason = "interrupted"
    return Trained(loop.load_plain(loop.best), state.history, state.stop_reason, state.best_held_out)


def _bar(progress: bool, loop: _Loop) -> AbstractContextManager[Callable[[dict[str, float]], None]]:
    """A context that yields a function to show a history record."""
    if not progress:
        return nullcontext(lambda record: None)
    return _RichBar(loop)


class _RichBar(AbstractContextManager[Callable[[dict[str, float]], None]]):
    """Progress over the budget with the held-out value, on standard error."""

    def __init__(self, loop: _Loop) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.loop = loop
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, console=Console(stderr=True), transient=False)

    def __enter__(self) -> Callable[[dict[str, float]], None]:
        self.bar.start()
        self.task = self.bar.add_task("fitting", total=1.0)
        return self.show

    def show(self, record: dict[str, float]) -> None:
        text = f"step {int(record['step'])}  held-out {record['held_out']:.5g}"
        done = 1.0 if self.loop.progress.stop_reason else self.loop.fraction()
        self.bar.update(self.task, completed=done, description=text)

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()
