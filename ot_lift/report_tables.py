"""The tables of a report as rows of text with the numbers they sort by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ot_lift.comparison import Comparison, MethodResult
from ot_lift.report_words import number, seconds, size

__all__ = ["Cell", "Column", "Notes", "Row", "Table", "certificate_rows", "method_notes", "method_table", "protocol"]


@dataclass(frozen=True)
class Column:
    """A heading."""

    title: str
    unit: str = ""
    sorted: bool = False


@dataclass(frozen=True)
class Cell:
    """What is shown, what it sorts by, whether no other method beats it, and a second line."""

    text: str
    value: float | None = None
    best: bool = False
    small: str = ""


@dataclass(frozen=True)
class Row:
    """A method."""

    name: str
    ours: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Headings and rows."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Notes:
    """Lines under a method's name."""

    name: str
    lines: tuple[str, ...]


_Show = Callable[[MethodResult], str]


def _limits(row: MethodResult) -> str:
    if row.w2_squared_lower is None or row.w2_squared_upper is None:
        return ""
    return f"{number(row.w2_squared_lower)} to {number(row.w2_squared_upper)}"


def _standard_error(row: MethodResult) -> str:
    return f"± {number(row.transport_cost_error, 2)}" if row.transport_cost_error else ""


def _spread(row: MethodResult) -> str:
    if row.transport_seconds_range is None:
        return ""
    low, high = (seconds(value) for value in row.transport_seconds_range)
    unit = high.rsplit(" ", 1)[1]
    return f"{low.removesuffix(f' {unit}')} to {high}"


# attribute, heading, unit, how it is shown, its second line
_COLUMNS: tuple[tuple[str, str, str, Callable[[Any], str], _Show], ...] = (
    ("energy", "Energy distance", "to the target", number, lambda row: ""),
    ("sliced_w2", "Sliced W2", "to the target", number, lambda row: ""),
    ("transport_cost", "Transport cost", "mean ‖x − T(x)‖²", number, _standard_error),
    ("w2_squared", "W2²", "by the method", number, _limits),
    ("round_trip", "Round trip", "‖T⁻¹(T(x)) − x‖", number, lambda row: ""),
    ("fit_seconds", "Fit", "wall time", seconds, lambda row: ""),
    ("transport_seconds", "Transport", "of 100,000 points", seconds, _spread),
    ("peak_memory_bytes", "Memory", "peak", size, lambda row: ""),
)


def method_table(comparison: Comparison, *, ours: str) -> Table:
    """Every method with every figure, the closest to the target first, failures last.

    Args:
        comparison: the record.
        ours: the method that is emphasised.
    """
    columns = (Column("Method"), *(Column(title, unit, key == "energy") for key, title, unit, *_ in _COLUMNS))
    in_order = sorted(comparison.results, key=lambda row: (row.status != "ok", _energy(row)))
    return Table(columns, tuple(_row(comparison, result, ours=ours) for result in in_order))


def _energy(row: MethodResult) -> float:
    return float("inf") if row.energy is None else row.energy


def _row(comparison: Comparison, result: MethodResult, *, ours: str) -> Row:
    cells = []
    for key, _, _, show, second in _COLUMNS:
        value = getattr(result, key)
        if result.status != "ok" and key == "energy":
            cells.append(Cell("failed"))
            continue
        best = result.name in comparison.winners.get(key, ())
        cells.append(Cell(show(value), None if value is None else float(value), best, second(result)))
    return Row(result.name, result.name == ours, tuple(cells))


def method_notes(comparison: Comparison) -> list[Notes]:
    """What every method ran with, had to do and said."""
    return [Notes(result.name, tuple(_lines(result))) for result in comparison.results]


def _lines(result: MethodResult) -> list[str]:
    lines = [f"Failed: {result.reason}"] if result.status != "ok" else []
    lines += [f"{note[:1].upper()}{note[1:]}." for note in result.notes]
    if result.w2_squared_basis:
        lines.append(f"W2²: {result.w2_squared_basis}.")
    settings = ", ".join(f"{name} = {_plain(value)}" for name, value in result.settings.items() if value is not None)
    lines.append(f"Settings: {settings}." if settings else "No settings.")
    return lines + [f"It said: {message}" for message in result.messages]


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def certificate_rows(certificate: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of the certificate's figures.

    Args:
        certificate: as `Certificate.to_dict` gives it.
    """
    get = certificate.__getitem__
    return [
        (
            "W2² (= E‖x − T(x)‖² for the optimal T), limits of 95% each",
            f"{number(get('w2_squared_lower'), 4)} to {number(get('w2_squared_upper'), 4)}",
        ),
        ("Dual value", f"{number(get('dual_value'), 4)} ± {number(get('w2_squared_lower_error'), 2)}"),
        (
            "Mean ‖x − T(x)‖², to the map's own image",
            f"{number(get('primal_cost'), 4)} ± {number(get('primal_cost_error'), 2)}",
        ),
        (
            "Energy distance of T(x) to y",
            f"{number(get('pushforward_energy'))} (noise level {number(get('pushforward_null'))})",
        ),
        (
            "Sliced W2 of T(x) to y",
            f"{number(get('pushforward_sliced_w2'))} (noise level {number(get('sliced_w2_null'))})",
        ),
        ("Largest ‖∇φ(x̂) − y‖ of an inversion", number(get("inversion_residual"), 2)),
        ("Smallest eigenvalue of ∇²φ seen (positive: convex)", number(get("smallest_hessian_eigenvalue"))),
        ("Points, never seen by the fit", f"{get('n_source'):,} source, {get('n_target'):,} target"),
    ]


def protocol(comparison: Comparison) -> list[str]:
    """How the figures came about."""
    environment = comparison.environment
    budget = "no limit" if comparison.max_seconds is None else f"a limit of {seconds(comparison.max_seconds)}"
    judged = "{:,} source and {:,} target".format(*comparison.n_held_out)
    return [
        f"Data: {comparison.n_source:,} source and {comparison.n_target:,} target points with {comparison.features} "
        f"columns. {comparison.held_out:.0%} of each side was held out, the same for every method; {judged} points of "
        "that are judged. Of the rest, each method used what it could: its notes say how many.",
        f"Energy distance and sliced W2 (its root) use {comparison.pushforward_points:,} points a side. Their noise "
        f"level is the 95% quantile of the same figure between two halves of the held-out target: "
        f"{number(comparison.energy_null)} and {number(comparison.sliced_w2_null)}.",
        "A method is not beaten if it lies under the noise level, or if paired bootstrap resamples do not separate it "
        "from the best at 95%; for times, if it lies within a tenth of the best.",
        "Cost is ‖x − y‖² and W2² = E‖x − T(x)‖² of the optimal map: no ½ and no root. Exact transport between "
        f"held-out points gives {number(comparison.sample_w2_squared)} ± "
        f"{number(comparison.sample_w2_squared_error, 2)}, which is biased upward by their finite number.",
        f"Each fit had {budget} and a process of its own. Transport time: the median of three, scaled to 100,000 "
        f"points. Memory: {comparison.memory_method}.",
        f"Seed {comparison.random_state}; " + ", ".join(f"{name} {value}" for name, value in environment.items()) + ".",
    ]
