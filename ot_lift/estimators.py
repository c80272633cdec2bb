"""What estimators share: checks before a fit, seeds, checkpoints, callbacks, warnings, files."""

from __future__ import annotations

import copy
import hashlib
import json
import numbers
import secrets
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ot_lift.errors import ConvergenceWarning, DataError, ExtrapolationWarning
from ot_lift.maps import StandardisedPotential
from ot_lift.positivity import PositivityLike, make_positivity
from ot_lift.potentials import Potential
from ot_lift.sides import Reach, Side
from ot_lift.standardizer import Standardizer
from ot_lift.training import TrainingOptions

_CONFIDENCE = 0.977  # of two standard errors of a normal distribution


def check_training(settings: Mapping[str, Any]) -> None:
    """Raise unless the settings that all estimators share can be trained with.

    Args:
        settings: parameters by name, as ``get_params`` gives them.

    Raises:
        ValueError: says which one, what was expected and what it is.

    Example:
        >>> try:
        ...     check_training({"max_steps": 0})
        ... except ValueError as error:
        ...     print(error)
        expected max_steps to be a whole number > 0, got 0
    """
    for name in ("max_steps", "batch_size", "blocks"):
        check_count(name, settings.get(name, 1))
    rate = settings["learning_rate"]
    if not rate > 0:
        raise ValueError(f"expected learning_rate > 0, got {rate!r}")
    convexity = settings["strong_convexity"]
    if not 0 < convexity < 1:  # the start is the identity in standardised coordinates, and needs room
        raise ValueError(f"expected 0 < strong_convexity < 1, got {convexity!r}")
    seconds = settings["max_seconds"]
    if seconds is not None and not seconds > 0:
        raise ValueError(f"expected max_seconds > 0 or None, got {seconds!r}")
    for name in ("hidden_features", "context_hidden_features"):
        if isinstance(settings.get(name), numbers.Number):
            raise ValueError(f"expected {name} as a tuple of widths, got {settings[name]!r}")
    callbacks = settings.get("callbacks")
    if callable(callbacks):
        raise ValueError(f"expected callbacks as a list of functions, got one; pass [{callbacks!r}]")


def training_options(settings: Mapping[str, Any], *, tolerance: float, clip: float | None = None) -> TrainingOptions:
    """What the training loop is to keep to, by the settings that all estimators share.

    Args:
        settings: parameters by name, as ``get_params`` gives them.
        tolerance: slower progress than this between two evaluations counts as none.
        clip: see :class:`~ot_lift.training.TrainingOptions`.

    Example:
        >>> settings = {"max_steps": 5, "max_seconds": None, "learning_rate": 0.1, "patience": None}
        >>> training_options(settings, tolerance=0.01).max_steps
        5
    """
    names = ("max_steps", "max_seconds", "learning_rate", "patience")
    return TrainingOptions(**{name: settings[name] for name in names}, tolerance=tolerance, clip=clip)


def check_count(name: str, value: Any) -> None:
    """Raise unless a value is a whole number > 0.

    Raises:
        ValueError: names the value.
    """
    if not (isinstance(value, numbers.Integral) and int(value) > 0):
        raise ValueError(f"expected {name} to be a whole number > 0, got {value!r}")


def check_keeps_convex(positivity: PositivityLike, *, otherwise: str) -> None:
    """Raise unless a positivity keeps its weights ≥ 0 at every step of training.

    Args:
        positivity: a name or anything else that :func:`~ot_lift.positivity.make_positivity` takes.
        otherwise: what is wrong without.

    Raises:
        ValueError: names the positivities that do.
    """
    if not make_positivity(positivity).keeps_convex:
        raise ValueError(
            f"expected a positivity that keeps the potential convex at every step, got {positivity!r}: its iterates "
            f"may be negative, and then {otherwise}; use 'lift', 'softplus' or 'projection'"
        )


def training_dtype(dtype: Any) -> torch.dtype:
    """``torch.float32`` or ``torch.float64`` from its name.

    Raises:
        ValueError: for any other.

    Example:
        >>> training_dtype("float32")
        torch.float32
    """
    name = str(dtype).removeprefix("torch.")
    if name not in ("float32", "float64"):
        raise ValueError(f"expected dtype 'float32' or 'float64', got {dtype!r}")
    found: torch.dtype = getattr(torch, name)
    return found


def training_device(device: str | torch.device | None, data: Any) -> torch.device:
    """The device asked for, else that of a torch tensor, else the CPU.

    Raises:
        ValueError: if this machine lacks it.

    Example:
        >>> training_device(None, [[1.0]])
        device(type='cpu')
    """
    wanted = device if device is not None else (data.device if isinstance(data, Tensor) else "cpu")
    try:
        torch.zeros(1, device=wanted).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"expected a device of this machine, got {wanted!r} ({reason}): leave it out") from error
    return torch.device(wanted)


def seed_of(random_state: Any, *, resumable: bool = False) -> int:
    """A number from a ``random_state``; None draws from the system and leaves NumPy's global state alone.

    Args:
        random_state: int, ``numpy.random.RandomState`` or None.
        resumable: None then means 0: drawn at random, a second call would not find its own checkpoint.

    Example:
        >>> seed_of(3) == seed_of(3), seed_of(None, resumable=True)
        (True, 0)
    """
    if random_state is None:
        return 0 if resumable else secrets.randbelow(2**31 - 1)
    return int(check_random_state(random_state).randint(2**31 - 1))


def fingerprint(settings: Mapping[str, Any], seed: int, *sides: Side) -> str:
    """Digest of what a checkpoint belongs to: the settings that change a result, the seed, the data."""
    idle = ("progress", "callbacks", "random_state")
    shown = {
        name: str(value)
        for name, value in settings.items()
        if name.rpartition("__")[2] not in idle and not isinstance(value, BaseEstimator)  # its own settings follow it
    }
    parts = json.dumps([shown, seed, *(side.fingerprint() for side in sides)], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()


def open_checkpoints(path: str | Path, *data: Any) -> Path:
    """Make a folder for checkpoints now: a place that cannot be written would cost a whole fit later.

    Raises:
        DataError: if it cannot be made, or if some of the data is a DataLoader, whose position no checkpoint can hold.
    """
    if any(isinstance(side, DataLoader) for side in data):
        raise DataError(
            "expected data whose position a checkpoint can hold with resume, got a DataLoader; pass its dataset as an "
            "array or a memory-mapped file, or a sampler(count, generator)"
        )
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"expected resume to be a folder that can be made or written, got {folder} ({error.strerror}): choose "
            "another"
        ) from error
    return folder


def numbers_of(data: Any) -> Any:
    """An array of Python objects as float64, as scikit-learn has it; anything else as it is.

    Raises:
        DataError: if one is text that spells no number.
        TypeError: NumPy's own, if one is neither a number nor text.

    Example:
        >>> numbers_of(np.array([[1, 2.5]], dtype=object))
        array([[1. , 2.5]])
    """
    if not (isinstance(data, np.ndarray) and data.dtype == object):
        return data
    try:
        return data.astype(np.float64)
    except ValueError as error:
        raise DataError(
            f"expected X to hold real numbers, got objects that are none ({error}): convert them"
        ) from error


def potential_in_data_units(
    callback: Callable[[dict[str, float], StandardisedPotential], bool | None], coordinates: Standardizer
) -> Callable[[dict[str, float], nn.Module], bool | None]:
    """A callback of the training loop that hands an estimator's callback a potential it may keep."""

    def call(record: dict[str, float], module: nn.Module) -> bool | None:
        potential = copy.deepcopy(module)
        assert isinstance(potential, Potential)  # for the type checker: what the loop was given to train
        return callback(record, StandardisedPotential(potential.cpu(), coordinates))

    return call


def significantly_better(gain: float, error: float, *, points: int) -> bool:
    """Whether held-out points prefer what was trained to its start: by two standard errors, more where they are few.

    Args:
        gain: mean of what is better by, over the points.
        error: its standard error.
        points: how many they are.

    Example:
        >>> significantly_better(2.5, 1.0, points=1000), significantly_better(2.5, 1.0, points=4)
        (True, False)
    """
    return gain > float(student.ppf(_CONFIDENCE, points - 1)) * error


def warn_of_end(stop_reason: str) -> None:
    """Warn the caller of ``fit``, two calls up, if training did not end as it should.

    Warns:
        ConvergenceWarning: if it diverged or was interrupted.
    """
    messages = {
        "diverged": "training diverged and was stopped; the best state before that is kept: lower learning_rate",
        "interrupted": "training was interrupted; the best state so far is kept",
    }
    if stop_reason in messages:
        warnings.warn(messages[stop_reason], ConvergenceWarning, stacklevel=4)


def warn_of_extrapolation(reach: Reach, points: Tensor, *, name: str, stacklevel: int) -> None:
    """Warn if points ``(n, features)`` lie far outside of what an estimator was fitted on.

    Args:
        reach: of the data of the fit.
        points: in the units of the data.
        name: what messages call them.
        stacklevel: as in :func:`warnings.warn`, seen from the function that calls this one.

    Warns:
        ExtrapolationWarning: says how many they are.
    """
    if count := reach.beyond(points):
        warnings.warn(
            f"{count} of {len(points)} points of {name} lie more than twice as far out as any point of the fit; the "
            "map extrapolates there",
            ExtrapolationWarning,
            stacklevel=stacklevel + 1,
        )


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that JSON can hold; networks, callbacks and random states are not among them.

    Example:
        >>> plain_settings({"max_steps": 5, "callbacks": [print], "hidden_features": (8, 8)})
        {'max_steps': 5, 'hidden_features': (8, 8)}
    """

    def plain(value: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return all(isinstance(item, (int, float, str)) for item in value)
        return value is None or isinstance(value, (bool, int, float, str))

    return {name: value for name, value in settings.items() if plain(value)}
