"""Flows of zuko under a budget of wall-clock time, and a classifier that tries to tell samples from data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_score
from torch import Tensor

PEERS = ("NSF", "MAF")
HIDDEN, BATCH = (64, 64), 512
_HELD_OUT, _HELD_OUT_SHARE = 4096, 0.2
_EVALUATIONS = 30


@dataclass(frozen=True)
class Peer:
    """A fitted peer, in the units of the data.

    Attributes:
        held_out: mean negative log-density of the points that it was stopped by, nats.
        log_prob: ``(n, d)`` → ``(n,)``.
        sample: a count and a seed → ``(count, d)``.
        seconds: of the fit.
        steps: of the fit.
    """

    held_out: float
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int, int], Tensor]
    seconds: float
    steps: int


def zuko_is_there() -> bool:
    """Whether the peers can run."""
    return find_spec("zuko") is not None


def fit_peer(kind: str, x: Tensor, *, seconds: float, learning_rate: float, seed: int) -> Peer:
    """Maximum likelihood with Adam, a cosine over the time and clipped gradients; the best held-out weights are kept.

    Args:
        kind: ``"NSF"`` or ``"MAF"``, with zuko's own defaults but for widths of (64, 64).
        x: points ``(n, d)``; the last 4,096 are held out, of few points the last fifth.
        seconds: of wall-clock time.
        learning_rate: at its peak.
        seed: of weights and batches.
    """
    import zuko

    mean, deviation = x.mean(0), x.std(0)
    points = ((x - mean) / deviation).float()
    held_out_rows = min(_HELD_OUT, math.ceil(_HELD_OUT_SHARE * len(x)))
    train, held_out = points[:-held_out_rows], points[-held_out_rows:]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = getattr(zuko.flows, kind)(features=x.shape[1], hidden_features=HIDDEN)
    optimizer = torch.optim.Adam(flow.parameters(), lr=learning_rate)
    best, state, steps, looked = math.inf, flow.state_dict(), 0, 0.0
    began = time.monotonic()
    spent = 0.0
    while spent < seconds:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * spent / seconds))
        loss = -flow().log_prob(train[torch.randint(len(train), (BATCH,), generator=generator)]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        steps += 1
        spent = time.monotonic() - began
        if spent - looked > seconds / _EVALUATIONS or spent >= seconds:
            looked = spent
            with torch.no_grad():
                value = -float(flow().log_prob(held_out).mean())
            if value < best:
                best, state = value, {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    took = time.monotonic() - began
    flow.load_state_dict(state)
    log_volume = float(deviation.log().sum())

    def log_prob(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return flow().log_prob(((rows - mean) / deviation).float()).double() - log_volume

    def sample(count: int, seed: int) -> Tensor:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return flow().sample((count,)).double() * deviation + mean

    return Peer(best + log_volume, log_prob, sample, took, steps)


def tuned_peer(kind: str, x: Tensor, *, seconds: float, learning_rates: tuple[float, ...], seed: int) -> Peer:
    """The one of several step sizes, each with the whole budget, that held-out points like best."""
    fits = [fit_peer(kind, x, seconds=seconds, learning_rate=rate, seed=seed) for rate in learning_rates]
    return min(fits, key=lambda peer: peer.held_out)


def two_sample_accuracy(first: Any, second: Any, *, seed: int) -> tuple[float, float]:
    """Cross-validated accuracy of boosted trees at telling two samples of one size apart, and its standard error.

    One half: they cannot be told apart (Lopez-Paz & Oquab 2017, arXiv 1610.06545).
    """
    points = np.concatenate([np.asarray(first), np.asarray(second)])
    labels = np.repeat([0, 1], [len(first), len(second)])
    order = np.random.default_rng(seed).permutation(len(points))
    classifier = HistGradientBoostingClassifier(max_iter=60, random_state=seed)
    accuracy = float(cross_val_score(classifier, points[order], labels[order], cv=5, n_jobs=1).mean())
    return accuracy, 0.5 / math.sqrt(len(points))
