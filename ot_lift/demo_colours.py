"""Photographs as clouds of colours: points (red, green, blue) in [0, 1]³.

Colours come in 256 levels a channel, so a cloud has ties. For fitting, level k becomes (k + u)/256 with u uniform in
[0, 1) (dequantisation: noise below one level); what is recoloured is the middle of the level, (k + ½)/256, so that
equal colours stay equal and each distinct colour is moved once. Figures are of colours as the maps give them; only
pictures are clipped to [0, 1], which is all that a screen can show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Colours", "sample_photographs"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Colours:
    """A photograph as a cloud of colours.

    Attributes:
        levels: distinct colours, 8 bits a channel, `(k, 3)`.
        place: index into `levels` of every pixel, `(height, width)`.
    """

    levels: npt.NDArray[np.uint8]
    place: npt.NDArray[np.int64]

    @classmethod
    def of(cls, pixels: npt.NDArray[np.uint8]) -> Colours:
        """From an image `(height, width, 3)`.

        Example:
            >>> image = np.array([[[0, 0, 0], [255, 0, 0]], [[0, 0, 0], [0, 0, 0]]], dtype=np.uint8)
            >>> colours = Colours.of(image)
            >>> len(colours.levels), bool((colours.painted(colours.middles()) * 256 // 1 == image).all())
            (2, True)
        """
        levels, place = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
        return cls(levels, place.reshape(pixels.shape[:2]))

    def middles(self) -> Array:
        """The distinct colours in [0, 1]³, each in the middle of its level, `(k, 3)`."""
        return (self.levels + 0.5) / 256

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """Colours of random pixels, without replacement, spread evenly over their levels, `(count, 3)`."""
        pixels = self.place.ravel()
        chosen = self.levels[rng.choice(pixels, min(count, pixels.size), replace=False)]
        return (chosen + rng.random(chosen.shape)) / 256

    def painted(self, colours: Array) -> Array:
        """The picture with its distinct colours replaced, `(height, width, 3)`."""
        return colours[self.place]

    def share(self, flags: Array) -> float:
        """Share of the pixels whose distinct colour is flagged `(k,)`."""
        return float(flags[self.place].mean())


def sample_photographs(*, stride: int = 1) -> tuple[Colours, Colours]:
    """The two photographs that ship with scikit-learn: china.jpg and flower.jpg, 427 × 640 pixels.

    Args:
        stride: keep every so many rows and columns.

    Returns:
        Source (the temple) and target (the flower).
    """
    from sklearn.datasets import load_sample_images

    source, target = load_sample_images().images
    return Colours.of(source[::stride, ::stride]), Colours.of(target[::stride, ::stride])
