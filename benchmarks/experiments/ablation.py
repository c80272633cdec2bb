"""What of the lift does the work: the batch, the slack, the over-parametrisation, or the place where it starts?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from benchmarks.experiments import Experiment
from benchmarks.experiments.ablation_page import page
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod
from benchmarks.experiments.covariance import probe
from benchmarks.experiments.energies import BATCH, LIFT_SETTINGS, Data, Trial, energy, lifted
from benchmarks.experiments.protocols import QUICK, LineTask, cells_of
from benchmarks.experiments.training import SHOULDER, Watcher
from benchmarks.tasks import Options
from ot_lift.constrained import Constrained
from ot_lift.positivity import Positivity, Softplus, marked_parameters

NAME = "ablation"
TARGETS = ("gumbel", "beta")
WORDS = (
    "The lift with one part taken out at a time, on two of the densities of gallery1d and under its two protocols. "
    "Lift: as the paper has it. Constant code: emitted from one batch, the same in every step. Independent batch: "
    "emitted from another batch than the one that the loss is formed on. No slack: the slack is not trained. Direct + "
    "bias: softplus of a weight plus a bias, both trained, no batch. Direct: softplus of a weight. The last two start "
    "at the weights that the lift emits at its start, so that none has a better place to start from."
)
PROBES = 64  # batches behind a covariance
_PROBED = (0.0, 1 / 3, 1.0)  # of the steps
_PROBE_SEED = 7_777  # of batches that no fit draws


class BiasedSoftplus(Softplus):
    """softplus(raw + bias), the bias trained beside the raw weight.

    Example:
        >>> positivity = BiasedSoftplus()
        >>> positivity.attach(torch.zeros(1))
        >>> bool(positivity.weight(torch.zeros(1)) == Softplus().weight(torch.zeros(1)))
        True
    """

    def attach(self, raw: Tensor) -> None:
        self.bias = nn.Parameter(torch.zeros_like(raw))

    def weight(self, raw: Tensor) -> Tensor:
        return super().weight(raw + self.bias)


def _lift(seed: int, data: Data) -> Trial:
    return Trial(lifted(energy(seed), seed), data.training)


def _constant_code(seed: int, data: Data) -> Trial:
    constant = data.training[:BATCH]
    return Trial(lifted(energy(seed), seed), constant, lambda batch: constant)


def _independent_batch(seed: int, data: Data) -> Trial:
    other = data.batches(seed + 1_000_000)
    return Trial(lifted(energy(seed), seed), data.training, lambda batch: other())


def _no_slack(seed: int, data: Data) -> Trial:
    model = lifted(energy(seed), seed)
    model.slack.requires_grad_(False)
    return Trial(model, data.training)


def _from_the_lifts_start(positivity: Callable[[], Positivity]) -> Callable[[int, Data], Trial]:
    def trial(seed: int, data: Data) -> Trial:
        start = lifted(energy(seed), seed).bake(data.training)
        return Trial(Constrained(start, positivity), data.training)

    return trial


VARIANTS: Mapping[str, Callable[[int, Data], Trial]] = {
    "lift": _lift,
    "constant code": _constant_code,
    "independent batch": _independent_batch,
    "no slack": _no_slack,
    "direct + bias": _from_the_lifts_start(BiasedSoftplus),
    "direct": _from_the_lifts_start(Softplus),
}


@dataclass(frozen=True)
class AblationTask(LineTask):
    """A target under a protocol, for every variant of the lift.

    Attributes:
        probes: batches behind each covariance.
    """

    experiment: ClassVar[str] = NAME
    words: ClassVar[str] = WORDS

    probes: int = PROBES

    def trial(self, name: str, seed: int, data: Data) -> Trial:
        return VARIANTS[name](seed, data)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"probes": self.probes, "probed_at": list(_PROBED)}

    def watched(self, trial: Trial, data: Data, watch: Watcher) -> tuple[Watcher, Mapping[str, Any]]:
        """Covariances at three times, and how many of the weights that start on the shoulder are above it."""
        covariances: list[dict[str, float]] = []
        escaped: list[tuple[float, float]] = []
        waiting = [share * self.recipe.iterations for share in _PROBED]
        low: list[Tensor] = []

        def look(step: int, loss: float, model: Constrained) -> None:
            watch(step, loss, model)
            flat = _flat(model, trial.reference)
            if not low:
                low.append(flat <= SHOULDER)
            started = low[0]
            share = float((flat[started] > SHOULDER).double().mean()) if bool(started.any()) else 0.0
            escaped.append((step, float(f"{share:.4g}")))
            if waiting and step >= waiting[0] - 0.5:
                del waiting[0]
                found = probe(model, data, data.batches(_PROBE_SEED), trial.condition, probes=self.probes)
                covariances.append({"step": step, **asdict(found)})

        return look, {"covariance": covariances, "escaped": escaped}


def _flat(model: Constrained, reference: Tensor) -> Tensor:
    plain = model.bake(reference)
    return torch.cat([weight.detach().reshape(-1) for weight in marked_parameters(plain).values()])


def methods() -> list[ExperimentMethod]:
    """Every variant with what it is made of."""
    emitted = ("lift", "constant code", "independent batch", "no slack")
    return [
        ExperimentMethod(name, {"variant": name, **(LIFT_SETTINGS if name in emitted else {})}) for name in VARIANTS
    ]


def cells(options: Options, seeds: Sequence[int], threads: int) -> list[ExperimentCell]:
    """Every target, protocol, variant and seed.

    Args:
        options: A quick run has 150 steps, one target and no tuned protocol.
        seeds: Of data, start and batches.
        threads: Of every cell.
    """
    if options.quick:
        task = AblationTask(TARGETS[0], "paper", probes=16, **QUICK)
        return [ExperimentCell(task, method, seed, threads) for method in methods() for seed in seeds]
    found = []
    for target in TARGETS:
        tasks = {protocol: AblationTask(target, protocol) for protocol in ("paper", "tuned", "tuning")}
        found += cells_of(tasks, methods(), seeds, threads)
    return found


EXPERIMENT = Experiment(NAME, "What of the lift does the work", WORDS, (0, 1, 2), cells, page)
