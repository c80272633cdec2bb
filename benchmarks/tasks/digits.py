"""Domain adaptation: labelled digits are carried to digits that were changed, and a classifier goes with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_digits

from benchmarks.tasks import Array, Options, Problem, Task

_DEGREES, _NOISE = 30.0, 0.15
_TEST_ROWS = 398  # a side; 1,797 images make two sides of 500 fitted on and 398 judged on


def rotated(images: Array, rng: np.random.Generator) -> Array:
    """Turned by 30 degrees."""
    return np.clip(ndimage.rotate(images, _DEGREES, axes=(2, 1), reshape=False, order=1), 0, 1)


def faded(images: Array, rng: np.random.Generator) -> Array:
    """With half the contrast, on grey, and noise of deviation 0.15 on every pixel."""
    return 0.5 + 0.5 * images + rng.normal(scale=_NOISE, size=images.shape)


CHANGES: Mapping[str, Callable[[Array, np.random.Generator], Array]] = {"rotated": rotated, "faded": faded}


@dataclass(frozen=True)
class Digits(Task):
    """Images of 8 × 8 pixels in [0, 1] to other ones, changed.

    Attributes:
        change: one of `CHANGES`.

    Example:
        >>> task = Digits(features=64, rows=500, test_rows=398, budget_seconds=1.0, change="rotated")
        >>> task.problem(0).source.shape, task.problem(0).labels[1].shape
        ((500, 64), (398,))
    """

    change: str = "rotated"

    @property
    def name(self) -> str:
        return f"digits-{self.change}"

    @property
    def title(self) -> str:
        return f"Digits, {self.change}, d = 64"

    @property
    def words(self) -> str:
        return (
            "Scikit-learn's handwritten digits are carried to other digits that were changed. "
            f"{CHANGES[self.change].__doc__} A nearest-neighbour classifier is trained on carried images with their "
            "labels, none of them fitted on, and reads the changed ones: what it misreads decides. A map that is "
            "optimal for the squared distance need not be the one that keeps classes."
        )

    def problem(self, seed: int) -> Problem:
        digits, rng = load_digits(), np.random.default_rng(seed)
        order = rng.permutation(len(digits.images))
        ends = np.cumsum([self.rows, self.test_rows, self.rows, self.test_rows])
        train, test, other, other_test = np.split(order[: ends[-1]], ends[:-1])
        images, classes = digits.images / 16, digits.target
        change = CHANGES[self.change]
        (source, fresh), (target, judged) = (
            [part.reshape(len(part), -1) for part in pair]
            for pair in ((images[train], images[test]), (change(images[other], rng), change(images[other_test], rng)))
        )
        return Problem(source, target, fresh, judged, labels=(classes[test], classes[other_test]))


def tasks(options: Options) -> Iterable[Task]:
    """One for each change, as many images as there are."""
    sizes = options.sizes(500, _TEST_ROWS)
    return [Digits(features=64, change=change, **sizes) for change in CHANGES]
