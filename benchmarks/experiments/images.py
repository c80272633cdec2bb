"""Labelled digits as images: scikit-learn's, shifted and turned a little, or MNIST's from its own files."""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ot_lift.errors import DataError

COPIES = 16  # of each of scikit-learn's images, all of them moved
_SHARES = (0.6, 0.2, 0.2)  # of the images of a class: training, validation, test
_SHIFT, _DEGREES = 0.5, 10.0  # the most that an image is moved, in pixels, and turned
MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")


@dataclass(frozen=True)
class Images:
    """Three splits of images in [0, 1], no image in two of them, with their classes.

    Attributes:
        pixels: `(n, side, side)` float32, by split: training, validation, test.
        classes: `(n,)`, by split.
    """

    pixels: tuple[Tensor, Tensor, Tensor]
    classes: tuple[Tensor, Tensor, Tensor]

    @property
    def side(self) -> int:
        """Pixels of a side."""
        return self.pixels[0].shape[-1]

    @classmethod
    def split(cls, pixels: Tensor, classes: Tensor, seed: int, *, copies: int) -> Images:
        """Split class by class at random, then move: copies of an image are all in one split.

        Args:
            pixels: `(n, side, side)` in [0, 1].
            classes: `(n,)`.
            seed: Of the split and the moves.
            copies: Of each image, moved; 0 for the images as they are.

        Example:
            >>> images = Images.split(torch.rand(20, 8, 8), torch.arange(20) % 2, 0, copies=3)
            >>> [len(one) for one in images.pixels]
            [36, 12, 12]
        """
        generator = torch.Generator().manual_seed(seed)
        parts: list[list[Tensor]] = [[], [], []]
        for kind in classes.unique():
            own = torch.nonzero(classes == kind).flatten()
            own = own[torch.randperm(len(own), generator=generator)]
            ends = (np.cumsum(_SHARES)[:-1] * len(own)).round().astype(int).tolist()
            for part, some in zip(parts, own.tensor_split(ends), strict=True):
                part.append(some)
        splits = [torch.cat(part) for part in parts]
        moved = [pixels[index] if copies == 0 else shaken(pixels[index], copies, generator) for index in splits]
        named = [classes[index].repeat(max(1, copies)) for index in splits]
        return cls((moved[0], moved[1], moved[2]), (named[0], named[1], named[2]))


def shaken(pixels: Tensor, copies: int, generator: torch.Generator) -> Tensor:
    """Copies of images, each turned and shifted a little at random, with linear interpolation.

    Args:
        pixels: `(n, side, side)`.
        copies: Of each.
        generator: Of angles, uniform up to 10 degrees, and of shifts, uniform up to half a pixel each way.

    Returns:
        `(copies·n, side, side)`.

    Example:
        >>> flat = shaken(torch.ones(2, 8, 8), 3, torch.Generator().manual_seed(0))
        >>> flat.shape, round(flat[:, 4, 4].mean().item(), 4)
        (torch.Size([6, 8, 8]), 1.0)
    """
    many = pixels.repeat(copies, 1, 1)[:, None]
    angle, *shift = (2 * torch.rand(3, len(many), generator=generator) - 1).unbind()
    angle = angle * math.radians(_DEGREES)
    across, down = (2 * _SHIFT / pixels.shape[-1] * one for one in shift)  # a grid goes from −1 to 1
    rows = [angle.cos(), -angle.sin(), across, angle.sin(), angle.cos(), down]
    grid = affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(many.shape), align_corners=False)
    return grid_sample(many, grid, align_corners=False)[:, 0]


def digits(seed: int) -> Images:
    """Scikit-learn's 1,797 digits of 8 × 8 pixels, 16 moved copies of each."""
    found = load_digits()
    pixels = torch.from_numpy(found.images).float() / 16
    return Images.split(pixels, torch.from_numpy(found.target), seed, copies=COPIES)


def mnist(folder: Path, seed: int) -> Images:
    """MNIST's 60,000 training images of 28 × 28 pixels, as they are.

    Args:
        folder: With `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, each plain or with `.gz`.
        seed: Of the split.

    Raises:
        DataError: A file is missing or is not what its name says.
    """
    pixels, classes = (read_idx(_one_of(folder, name)) for name in MNIST_FILES)
    if pixels.ndim != 3 or classes.shape != pixels.shape[:1]:
        raise DataError(
            f"expected images (n, rows, columns) and as many labels in {folder}, got {pixels.shape} and "
            f"{classes.shape}: fetch the files again"
        )
    return Images.split(torch.from_numpy(pixels).float() / 255, torch.from_numpy(classes).long(), seed, copies=0)


def has_mnist(folder: Path | None) -> bool:
    """Whether a folder has MNIST's training files."""
    return folder is not None and all(
        any((folder / f"{name}{suffix}").exists() for suffix in ("", ".gz")) for name in MNIST_FILES
    )


def _one_of(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise DataError(f"expected {name} or {name}.gz in {folder}, got neither: put MNIST's training files there")


def read_idx(path: Path) -> npt.NDArray[Any]:
    """An array of bytes in the idx format (LeCun, Cortes & Burges 1998), plain or compressed by gzip.

    Raises:
        DataError: The file is something else or is cut short.
    """
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"expected an idx file of bytes, which begins with 00 00 08, got {path}: fetch it again")
    start = 4 + 4 * content[3]
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], dtype=">u4"))
    if len(content) - start != math.prod(shape):
        raise DataError(f"expected {math.prod(shape):,} bytes after the header of {path}, got {len(content) - start:,}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()
