"""Latents of digits, class by class: a convex potential flow under every positivity against Gaussians.

In full: ten classes, three methods, two protocols, three seeds, and three step sizes on one more seed; about 50 minutes
of CPU time.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from benchmarks.experiments import Experiment
from benchmarks.experiments.autoencoder import CODE, Autoencoder, fit_autoencoder
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod
from benchmarks.experiments.flows import FLOW_LIFT
from benchmarks.experiments.images import COPIES, Images, digits, has_mnist, mnist
from benchmarks.experiments.latents_page import page
from benchmarks.experiments.likelihood_task import POSITIVITIES, PROTOCOLS, LikelihoodTask, likelihood_cells
from benchmarks.experiments.likelihoods import FLOW, FlowLikelihood, Points
from benchmarks.tasks import Options
from ot_lift.flows_map import Blocks
from ot_lift.potentials import Potential

NAME = "latents"
CLASSES = range(10)
WORDS = (
    "An autoencoder with a code of 32 numbers is fitted to scikit-learn's digits, each turned by up to ten degrees and "
    "shifted by up to half a pixel in 16 ways; with --data and MNIST's idx files also to MNIST. The code's density is "
    "fitted class by class. Images are split 60 : 20 : 20 before they are moved, so that no image has copies in two "
    "splits; autoencoder and densities see the training split alone. Every positivity keeps the weights of the same "
    "convex potential flow of two layers of 64, whose likelihood is exact; the paper fits energies. It works in "
    "coordinates in which the shrinkage Gaussian (Ledoit and Wolf) of the training points is N(0, I) and starts there, "
    "nearly. Protocol paper: 600 steps of Adam at the paper's step size for flows, 5·10⁻³. Protocol tuned: the best of "
    "three step sizes for every method, class by class, by validation on one seed that no result has, a cosine "
    "schedule and averaged weights. Both keep the weights that validate best. Gaussian is the one of the training "
    "points' mean and full covariance."
)
SAMPLES = 4  # pictures of a class
_LEVELS = 63  # of grey, in a record
_AUTOENCODER_STEPS = 1_000
_SHORT: Mapping[str, Any] = {"iterations": 120, "autoencoder_steps": 300, "quick": True}
_QUICK_CLASSES = (0, 1, 8)


@dataclass(frozen=True, kw_only=True)
class LatentsTask(LikelihoodTask):
    """The code of one class under a protocol.

    Attributes:
        images: "digits" or "mnist".
        kind: the class, 0 to 9.
        folder: with MNIST's files, or None.
        autoencoder_steps: of its fit.
    """

    experiment: ClassVar[str] = NAME
    words: ClassVar[str] = WORDS

    images: str
    kind: int
    folder: Path | None = None
    iterations: int = 600
    learning_rate: float = 5e-3
    autoencoder_steps: int = _AUTOENCODER_STEPS

    @property
    def place(self) -> str:
        return f"{self.images}-{self.kind}"

    def settings(self) -> dict[str, Any]:
        return super().settings() | {
            "images": self.images,
            "kind": self.kind,
            "copies": COPIES if self.images == "digits" else 0,
            "autoencoder": {"code": CODE, "steps": self.autoencoder_steps},
            "network": {**FLOW, "hidden_features": list(FLOW["hidden_features"])},
        }

    def likelihood(self, seed: int) -> FlowLikelihood:
        return FlowLikelihood(self.points(seed))

    def points(self, seed: int) -> Points:
        images, coder = coded(self.images, self.folder, seed, self.autoencoder_steps)
        codes = [
            coder.encode(pixels[classes == self.kind].flatten(1)).double().numpy()
            for pixels, classes in zip(images.pixels, images.classes, strict=True)
        ]
        return Points.of(*codes)

    def more(self, seed: int, method: str, model: nn.Module | None) -> dict[str, Any]:
        """Decoded samples; of the Gaussian's cell, test images as the autoencoder gives them back."""
        images, coder = coded(self.images, self.folder, seed, self.autoencoder_steps)
        points = self.points(seed)
        latent = torch.randn(SAMPLES, CODE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        if method == "Gaussian":
            codes = points.test[:SAMPLES].double()
        elif model is None:
            codes = latent
        else:
            assert isinstance(model, Potential)  # for the type checker: flows are potentials here
            codes = Blocks([model.double()]).invert(latent)
        decoded = coder.decode(points.coordinates.source_inverse(codes).float())
        return {"samples": _grey(decoded, images.side)}


@functools.lru_cache(maxsize=1)
def coded(name: str, folder: Path | None, seed: int, steps: int) -> tuple[Images, Autoencoder]:
    """Images, and an autoencoder of their training split, of all classes.

    Args:
        name: "digits" or "mnist".
        folder: With MNIST's files.
        seed: Of split, moves, start and batches.
        steps: Of the autoencoder's fit.
    """
    images = mnist(folder, seed) if name == "mnist" and folder is not None else digits(seed)
    return images, fit_autoencoder(images.pixels[0].flatten(1), seed, steps=steps)


def _grey(images: Tensor, side: int) -> list[list[list[int]]]:
    levels = (images.clamp(0, 1) * _LEVELS).round().int()
    found: list[list[list[int]]] = levels.view(-1, side, side).tolist()
    return found


def methods() -> list[ExperimentMethod]:
    """Every positivity with what it is made of."""
    lift = {**FLOW_LIFT, "summary_features": list(FLOW_LIFT["summary_features"])}
    return [ExperimentMethod(name, {"positivity": name, **(lift if name == "lift" else {})}) for name in POSITIVITIES]


def cells(options: Options, seeds: Sequence[int], threads: int) -> list[ExperimentCell]:
    """Every class, protocol, method and seed.

    Args:
        options: A quick run has three classes, 120 steps and no tuned protocol; `data` may have MNIST's files.
        seeds: Of split, autoencoder, start and batches.
        threads: Of every cell.
    """
    short: Mapping[str, Any] = _SHORT if options.quick else {}
    found = []
    for images in ("digits", "mnist") if has_mnist(options.data) else ("digits",):
        for kind in _QUICK_CLASSES if options.quick else CLASSES:
            tasks = {
                protocol: LatentsTask(images=images, kind=kind, protocol=protocol, folder=options.data, **short)
                for protocol in (("paper",) if options.quick else PROTOCOLS)
            }
            found += likelihood_cells(tasks, methods(), seeds, threads)
    return found


EXPERIMENT = Experiment(NAME, "Latents of digits", WORDS, (0, 1, 2), cells, page)
