"""What a library shares with the whole process, and must leave as it was."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch._tensor_str import PRINT_OPTS


@dataclass(frozen=True)
class Shared:
    """One piece of global state: how to read it in a form that `==` compares, and how to put it back."""

    read: Callable[[], Any]
    write: Callable[[Any], object]


def _write_numpy_random(state: tuple[str, bytes, int, int, float]) -> None:
    name, keys, *rest = state
    np.random.set_state((name, np.frombuffer(keys, dtype=np.uint32), *rest))


def _read_numpy_random() -> tuple[str, bytes, int, int, float]:
    name, keys, *rest = np.random.get_state()
    return (name, keys.tobytes(), *rest)


def _write_print_options(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        setattr(PRINT_OPTS, name, value)


# What steers numerical libraries; other variables change on their own, such as PYTEST_CURRENT_TEST.
_STEERING = ("OMP_", "MKL_", "OPENBLAS_", "PYTHON", "POT_", "JAX_", "CUDA_", "TORCH_")


def _read_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_STEERING)}


def _write_environment(variables: Mapping[str, str]) -> None:
    for name in _read_environment().keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


SHARED: Mapping[str, Shared] = {
    "torch's default dtype": Shared(torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": Shared(torch.get_default_device, torch.set_default_device),
    "torch's threads": Shared(torch.get_num_threads, torch.set_num_threads),
    "torch's random state": Shared(
        lambda: torch.get_rng_state().numpy().tobytes(),
        lambda state: torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8)),
    ),
    "torch's print options": Shared(lambda: dict(vars(PRINT_OPTS)), _write_print_options),
    "torch's gradient mode": Shared(torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's matrix-product precision": Shared(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "torch's deterministic algorithms": Shared(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    ),
    "NumPy's random state": Shared(_read_numpy_random, _write_numpy_random),
    "NumPy's print options": Shared(np.get_printoptions, lambda options: np.set_printoptions(**options)),
    "NumPy's floating-point errors": Shared(np.geterr, lambda options: np.seterr(**options)),
    "Python's random state": Shared(random.getstate, random.setstate),
    "the handler of Ctrl-C": Shared(
        lambda: signal.getsignal(signal.SIGINT), lambda handler: signal.signal(signal.SIGINT, handler)
    ),
    "the environment's variables": Shared(_read_environment, _write_environment),
}


def snapshot() -> dict[str, Any]:
    """The value of every piece of shared state, by name."""
    return {name: shared.read() for name, shared in SHARED.items()}


def changed_since(before: Mapping[str, Any]) -> list[str]:
    """The names of what differs from an earlier snapshot."""
    return [name for name, shared in SHARED.items() if shared.read() != before[name]]


def put_back(before: Mapping[str, Any], names: list[str]) -> None:
    """Restore the named pieces to an earlier snapshot."""
    for name in names:
        SHARED[name].write(before[name])
