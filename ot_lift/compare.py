"""Fit several methods on one split of two datasets and judge all of them on the points held out."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ot_lift.comparison import Comparison, MethodResult
from ot_lift.diagnostics import PushforwardError, pushforward_error
from ot_lift.discrete import exact_transport
from ot_lift.errors import ConvergenceWarning, DataError
from ot_lift.isolation import MEMORY_METHOD, OutOfTime, Phases, in_fresh_process
from ot_lift.measuring import Job, measure
from ot_lift.methods import BrenierMethod, IdentityMethod, Method
from ot_lift.peers import EMDMethod, LinearMethod, MappingMethod, SinkhornMethod
from ot_lift.ranking import best_of, resampled_pushforward
from ot_lift.rows import Rows, open_rows
from ot_lift.splits import split_indices

__all__ = ["Comparison", "MethodResult", "compare", "default_methods"]

Array = npt.NDArray[Any]

_HELD_OUT_POINTS = 5000  # the most that are judged, a side
_PLOTTED_POINTS = 2000
_EXACT_POINTS = 2000
_ROWS_PER_CHUNK = 65536
_START_SECONDS = 300.0  # for a process to import the libraries
_TIMINGS_WITHIN = 0.1  # a tenth: single timings on a busy machine are not told apart below it
_NUMERICAL_ZERO = 1e-6  # of the source's spread: a round trip below it is exact


def default_methods() -> list[Method]:
    """Ours and every peer, at default settings, the baselines first.

    Example:
        >>> [method.name for method in default_methods()]
        ['identity', 'linear', 'EMD', 'Sinkhorn', 'MappingTransport', 'ot-lift']
    """
    return [IdentityMethod(), LinearMethod(), EMDMethod(), SinkhornMethod(), MappingMethod(), BrenierMethod()]


def compare(
    X: Any,
    Y: Any,
    *,
    methods: Sequence[Method] | None = None,
    held_out: float = 0.2,
    random_state: int = 0,
    max_seconds: float | None = None,
    also_transport: Any = None,
    isolated: bool = True,
    progress: bool | Callable[[str], None] = False,
) -> Comparison:
    """Fit every method on the same part of two datasets and judge it on the rest.

    Each method runs in a fresh process, so its memory is its own and its limit can be kept.

    Args:
        X: Source, `(n, features)`: an array, frame, tensor, memory-mapped array or path of a .npy file.
        Y: Target, `(m, features)`, likewise; n and m may differ.
        methods: See `ot_lift.methods` and `ot_lift.peers`; by default every one of them at its default settings.
        held_out: Share of both sides that no method sees; at most 5,000 points a side are judged.
        random_state: Seed of the split and of every method.
        max_seconds: Limit for each fit. A method without a budget of its own is stopped there, and its row says so.
        also_transport: Further source points, `(k, features)`, that every method transports after its figures are
            taken: `MethodResult.also_transported`.
        isolated: Fresh processes. Without them a fit cannot be stopped, and memory is what grows in this process.
        progress: True to tell on standard error which method runs, or a function to call with each line.

    Returns:
        The record.

    Raises:
        DataError: The data cannot be compared, said in words.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(400, 2))
        >>> found = compare(X, 3 * X[::-1] + 1, methods=[IdentityMethod(), LinearMethod()], isolated=False)
        >>> found.winners["energy"]
        ('linear',)
    """
    chosen = _unique(default_methods() if methods is None else methods)
    tell = progress if callable(progress) else _to_standard_error if progress else _nothing
    if not 0 < held_out < 1:
        raise DataError(f"expected held_out between 0 and 1, got {held_out}")
    with tempfile.TemporaryDirectory(prefix="ot-lift-compare-") as name:
        folder = Path(name)
        split = _split(X, Y, also_transport, held_out=held_out, random_state=random_state, folder=folder)
        found = _run_all(chosen, split, random_state, max_seconds, isolated=isolated, tell=tell)
        tell("judging the held-out points")
        return _judge(split, found, held_out=held_out, random_state=random_state, max_seconds=max_seconds)


@dataclasses.dataclass(frozen=True)
class _Split:
    folder: Path
    source: Array  # held out
    target: Array
    n_source: int
    n_target: int


def _unique(methods: Sequence[Method]) -> Sequence[Method]:
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise DataError(f"expected at least one method, each with a name of its own, got {names}")
    return methods


def _split(X: Any, Y: Any, also: Any, *, held_out: float, random_state: int, folder: Path) -> _Split:
    """Write the training parts as .npy files (rows are copied in chunks) and keep the held-out points."""
    source = _finite(open_rows(X, name="X", minimum_rows=4))
    target = _finite(open_rows(Y, name="Y", features=source.features, minimum_rows=4))
    generator = torch.Generator().manual_seed(random_state)
    kept: list[Array] = []
    sizes: list[int] = []
    for rows, name in ((source, "source"), (target, "target")):
        assert rows.size is not None  # for the type checker: streams were refused
        share = max(held_out, 2 / rows.size)  # two points at least: null levels need two halves
        train, test = split_indices(rows.size, (1 - share, share), generator)
        _save_rows(rows, train, folder / f"{name}.npy")
        kept.append(rows.take(test[:_HELD_OUT_POINTS]).cpu().numpy())
        sizes.append(rows.size)
    np.save(folder / "held_out.npy", kept[0])
    if also is not None:
        more = _finite(open_rows(also, name="also_transport", features=source.features, minimum_rows=1))
        assert more.size is not None
        _save_rows(more, torch.arange(more.size), folder / "also.npy")
    return _Split(folder, kept[0], kept[1], *sizes)


def _finite(rows: Rows) -> Rows:
    if rows.size is None:
        raise DataError(
            f"expected {rows.name} with a finite number of rows, got a stream; draw the points to compare on first"
        )
    return rows


def _save_rows(rows: Rows, index: torch.Tensor, path: Path) -> None:
    dtype = np.dtype(np.float32 if rows.dtype == torch.float32 else np.float64)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(len(index), rows.features))
    for start in range(0, len(index), _ROWS_PER_CHUNK):
        stop = start + _ROWS_PER_CHUNK
        file[start:stop] = rows.take(index[start:stop]).cpu().numpy()
    file.flush()


def _run_all(
    methods: Sequence[Method],
    split: _Split,
    random_state: int,
    max_seconds: float | None,
    *,
    isolated: bool,
    tell: Callable[[str], None],
) -> list[MethodResult]:
    """A row for each method, without the figures that `_judge` adds."""
    results: list[MethodResult] = []
    for place, method in enumerate(methods):
        tell(f"{method.name} ({place + 1} of {len(methods)})")
        try:
            results.append(_run(method, split, random_state, max_seconds, isolated=isolated))
        except KeyboardInterrupt:
            warnings.warn("interrupted: the methods that had ended are kept", ConvergenceWarning, stacklevel=3)
            rest = methods[place:]
            results += [MethodResult(one.name, status="failed", reason="interrupted") for one in rest]
            break
        tell(_line(results[-1]))
    return results


def _run(
    method: Method, split: _Split, random_state: int, max_seconds: float | None, *, isolated: bool
) -> MethodResult:
    phases = Phases(split.folder, _limits(method, max_seconds))
    job = Job(split.folder, phases, random_state, max_seconds, alone=isolated)
    for name in (*phases.limits, "transported.npy", "also_transported.npy"):
        (split.folder / name).unlink(missing_ok=True)
    try:
        found = in_fresh_process(measure, method, job, phases=phases) if isolated else measure(method, job)
    except OutOfTime as error:
        found = {"reason": str(error), "settings": dict(method.settings)}
    except Exception as error:  # the process died or could not be fed: its row says so
        found = {"reason": f"its process ended: {type(error).__name__}: {error}", "settings": dict(method.settings)}
    found |= {name: tuple(found.get(name, ())) for name in ("notes", "messages")}
    arrays = {
        name: np.load(path)
        for name in ("transported", "also_transported")
        if (path := split.folder / f"{name}.npy").exists()
    }
    if found.get("reason"):
        kept = {
            name: found[name] for name in ("reason", "settings", "notes", "messages", "fit_seconds") if name in found
        }
        return MethodResult(method.name, status="failed", **kept)
    return MethodResult(method.name, **found, **arrays)


def _limits(method: Method, max_seconds: float | None) -> dict[str, float | None]:
    """Seconds for each phase. A method that keeps its budget has room to finish what the budget does not cover."""
    if max_seconds is None:
        return {"start": _START_SECONDS, "fit": None, "evaluation": None}
    fit = 2 * max_seconds + 60 if method.keeps_budget else max_seconds
    return {"start": _START_SECONDS, "fit": fit, "evaluation": max(300.0, 2 * max_seconds)}


def _judge(
    split: _Split,
    results: Sequence[MethodResult],
    *,
    held_out: float,
    random_state: int,
    max_seconds: float | None,
) -> Comparison:
    """Add the figures of the held-out points, with the same subsamples, halves and directions for every method."""

    def fresh() -> torch.Generator:
        return torch.Generator().manual_seed(random_state)

    null = pushforward_error(split.source, split.target, generator=fresh())
    judged = [
        _with_figures(result, split, pushforward_error(result.transported, split.target, generator=fresh()))
        if result.transported is not None
        else result
        for result in results
    ]
    few = split.source[:_EXACT_POINTS], split.target[:_EXACT_POINTS]
    exact = exact_transport(*few)
    return Comparison(
        results=tuple(dataclasses.replace(one, transported=_few(one.transported)) for one in judged),
        winners=_winners(judged, split, null, fresh()),
        energy_null=null.energy_null,
        sliced_w2_null=null.sliced_w2_null,
        pushforward_points=null.size,
        sample_w2_squared=exact.value,
        sample_w2_squared_error=exact.error,
        n_source=split.n_source,
        n_target=split.n_target,
        features=split.source.shape[1],
        held_out=held_out,
        n_held_out=(len(split.source), len(split.target)),
        random_state=random_state,
        max_seconds=max_seconds,
        memory_method=MEMORY_METHOD,
        environment=_environment(),
        source_points=split.source[:_PLOTTED_POINTS],
        target_points=split.target[:_PLOTTED_POINTS],
    )


def _few(points: Array | None) -> Array | None:
    return None if points is None else points[:_PLOTTED_POINTS]


def _with_figures(result: MethodResult, split: _Split, error: PushforwardError) -> MethodResult:
    costs = np.square(np.asarray(result.transported, dtype=np.float64) - split.source).sum(1)
    return dataclasses.replace(
        result,
        energy=error.energy,
        sliced_w2=error.sliced_w2,
        transport_cost=float(costs.mean()),
        transport_cost_error=float(costs.std(ddof=1) / np.sqrt(len(costs))),
    )


def _winners(
    results: Sequence[MethodResult], split: _Split, null: PushforwardError, generator: torch.Generator
) -> dict[str, tuple[str, ...]]:
    """By figure, the methods not beaten beyond noise. Cost and W2² have no winner: less is not better."""
    images = {one.name: one.transported for one in results if one.transported is not None}
    resampled = resampled_pushforward(images, split.target, generator=generator) if images else {}

    def values(figure: str) -> dict[str, float]:
        return {
            one.name: value for one in results if (value := getattr(one, figure)) is not None and one.status == "ok"
        }

    found = {
        "energy": best_of(values("energy"), noise_level=null.energy_null, resampled=resampled.get("energy")),
        "sliced_w2": best_of(
            values("sliced_w2"), noise_level=null.sliced_w2_null, resampled=resampled.get("sliced_w2")
        ),
    }
    spread = float(np.sqrt(split.source.astype(np.float64).var(0).sum()))
    floors = {"round_trip": _NUMERICAL_ZERO * spread, "peak_memory_bytes": 10e6}
    for figure in ("round_trip", "fit_seconds", "transport_seconds", "peak_memory_bytes"):
        of = values(figure)
        least = min(of.values(), default=0.0)
        found[figure] = best_of(of, within=_TIMINGS_WITHIN * least, noise_level=floors.get(figure))
    return {figure: tuple(names) for figure, names in found.items()}


def _environment() -> dict[str, Any]:
    """Versions, cores and threads; no host name, user or path."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "pot")},
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _line(result: MethodResult) -> str:
    if result.status != "ok":
        return f"{result.name} failed: {result.reason}"
    return f"{result.name}: fitted in {result.fit_seconds:.1f} s"


def _to_standard_error(line: str) -> None:
    sys.stderr.write(line + "\n")


def _nothing(line: str) -> None:
    """No progress."""
