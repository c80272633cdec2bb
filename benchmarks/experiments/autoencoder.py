"""A small autoencoder: images to a code of 32 numbers and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

CODE, HIDDEN = 32, 128
_BATCH, _LEARNING_RATE = 128, 2e-3


class Autoencoder(nn.Module):
    """Two ReLU networks with one hidden layer each.

    Args:
        pixels: Numbers of an image.
        generator: Source of the initial weights.

    Example:
        >>> coder = Autoencoder(64, torch.Generator().manual_seed(0))
        >>> coder.encode(torch.zeros(5, 64)).shape, coder(torch.zeros(5, 64)).shape
        (torch.Size([5, 32]), torch.Size([5, 64]))
    """

    def __init__(self, pixels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = _network([pixels, HIDDEN, CODE], generator)
        self.decoder = _network([CODE, HIDDEN, pixels], generator)

    def encode(self, images: Tensor) -> Tensor:
        """`(n, pixels)` to `(n, 32)`."""
        code: Tensor = self.encoder(images)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """`(n, 32)` to `(n, pixels)`."""
        images: Tensor = self.decoder(code)
        return images

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images))


def _network(sizes: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layer = nn.Linear(before, after, device="meta").to_empty(device="cpu")
        nn.init.normal_(layer.weight, std=math.sqrt(2 / before), generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fit_autoencoder(images: Tensor, seed: int, *, steps: int) -> Autoencoder:
    """Fitted to images `(n, pixels)` by the mean squared error, with Adam and a cosine schedule.

    Args:
        images: In [0, 1].
        seed: Of the start and the batches.
        steps: Of Adam.

    Example:
        >>> images = torch.rand(500, 16, generator=torch.Generator().manual_seed(0)).round()
        >>> errors = [(fit_autoencoder(images, 0, steps=steps)(images) - images).square().mean() for steps in (1, 200)]
        >>> bool(errors[1] < errors[0] / 4)
        True
    """
    generator = torch.Generator().manual_seed(seed)
    coder = Autoencoder(images.shape[1], generator)
    optimizer = torch.optim.Adam(coder.parameters(), lr=_LEARNING_RATE, fused=True)
    for step in range(steps):
        batch = images[torch.randint(len(images), (_BATCH,), generator=generator)]
        loss = mse_loss(coder(batch), batch)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
    return coder.requires_grad_(False)
