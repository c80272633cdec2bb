"""The report in words: numbers with units, and sentences on who wins, by how much, and whether beyond noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ot_lift.comparison import Comparison, MethodResult
from ot_lift.distances import sorted_w2_squared
from ot_lift.ranking import best_of

__all__ = [
    "convergence_sentence",
    "cost_sentence",
    "ending",
    "headline",
    "marginal_sentence",
    "number",
    "seconds",
    "size",
    "time_sentence",
    "verdict",
    "w2_sentence",
]

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


# ------------------------------------------------------------------------------------------- numbers
def number(value: float | None, digits: int = 3) -> str:
    """A number to a few significant digits; powers of ten as such; a dash for none.

    Example:
        >>> number(0.0123456), number(3.2e-10), number(123456.0), number(None)
        ('0.0123', '3.2×10⁻¹⁰', '123,000', '–')
    """
    if value is None or not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        mantissa, exponent = f"{value:.{max(0, digits - 2)}e}".split("e")
        return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    rounded = float(f"{value:.{digits}g}")
    if abs(rounded) >= 10 ** (digits - 1):
        return f"{rounded:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def seconds(value: float | None) -> str:
    """A duration in its natural unit.

    Example:
        >>> seconds(0.0123), seconds(12.3), seconds(150.0)
        ('12.3 ms', '12.3 s', '2.50 min')
    """
    if value is None:
        return "–"
    for least, factor, unit in ((119.5, 1 / 60, "min"), (0.9995, 1, "s"), (0.9995e-3, 1e3, "ms")):
        if value >= least:
            return f"{number(factor * value)} {unit}"
    return f"{number(1e6 * value)} µs"


def size(value: float | None) -> str:
    """Bytes in units of a thousand.

    Example:
        >>> size(12_300_000), size(800)
        ('12.3 MB', '< 1 MB')
    """
    if value is None:
        return "–"
    if value < 1e6:
        return "< 1 MB"
    return f"{number(value / 1e6)} MB" if value < 1e9 else f"{number(value / 1e9)} GB"


def names(items: Sequence[str]) -> str:
    """A list in a sentence.

    Example:
        >>> names(["a"]), names(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _times(ratio: float) -> str:
    return f"{number(ratio, 2 if ratio < 100 else 3)} times"


# ------------------------------------------------------------------------------------------ sentences
_BASELINE = "identity"  # it does nothing, so it wins no race
_PUSHFORWARD_NOISE = "two halves of the target, paired bootstrap"
_FIGURES = {
    "energy": ("energy distance to the target", number, _PUSHFORWARD_NOISE),
    "sliced_w2": ("sliced W2 to the target", number, _PUSHFORWARD_NOISE),
    "round_trip": ("round-trip error", number, "numerical zero"),
    "fit_seconds": ("fit time", seconds, "a tenth"),
    "transport_seconds": ("time to transport 100,000 points", seconds, "a tenth"),
    "peak_memory_bytes": ("peak memory", size, "a tenth or 10 MB"),
}
_WITHIN = 0.1


def verdict(comparison: Comparison, figure: str, *, ours: str) -> str:
    """Who wins at a figure, by how much, and whether that is beyond noise; what we lose is said.

    Args:
        comparison: The record.
        figure: One of its `winners`.
        ours: The method whose place is always told.

    Returns:
        A few sentences. In times, memory and the inverse the identity takes no part: it does nothing.
    """
    label, show, noise = _FIGURES[figure]
    values, best = _contest(comparison, figure)
    if not best:
        return f"No method has a {label}."
    rest = sorted((name for name in values if name not in best), key=values.__getitem__)
    least = values[best[0]]
    if len(best) == 1:
        told = f"{best[0]} has the least {label}, {show(least)}" + (f", beyond noise ({noise})." if rest else ".")
    else:
        told = (
            f"{names(best)} are not told apart in {label}, {show(least)} to {show(max(values[one] for one in best))}: "
            f"that is within noise ({noise})."
        )
    if rest:
        told += f" Next is {rest[0]} with {show(values[rest[0]])}{_by(values[rest[0]], least)}."
    if ours in rest[1:]:
        told += f" {ours} has {show(values[ours])}{_by(values[ours], least)}."
    return told + (f" {ours} loses here." if ours in rest else "")


def _contest(comparison: Comparison, figure: str) -> tuple[dict[str, float], list[str]]:
    """The values of those that take part, and the winners, the best first."""
    values = _values(comparison, figure)
    winners = [name for name in comparison.winners.get(figure, ()) if name in values]
    if figure in ("energy", "sliced_w2"):
        return values, winners
    values = {name: value for name, value in values.items() if name != _BASELINE}
    winners = [name for name in winners if name != _BASELINE]
    if not winners and values:
        winners = list(best_of(values, within=_WITHIN * min(values.values())))
    return values, winners


def _by(value: float, least: float) -> str:
    return f", {_times(value / least)} as much" if least > 0 and value < 1e6 * least else ""


def _values(comparison: Comparison, figure: str) -> dict[str, float]:
    found = {one.name: getattr(one, figure) for one in comparison.results if one.status == "ok"}
    return {name: float(value) for name, value in found.items() if value is not None}


def headline(comparison: Comparison, *, ours: str) -> list[str]:
    """What a reader in a hurry takes away: quality, time, inverse, and what failed.

    Returns:
        A few sentences.
    """
    energy = _values(comparison, "energy")
    told = [verdict(comparison, "energy", ours=ours)]
    within = [name for name in sorted(energy, key=energy.__getitem__) if energy[name] <= comparison.energy_null]
    level = f"the {number(comparison.energy_null)} that two halves of the target reach (95% level)"
    if within:
        told.append(f"{names(within)} {'stays' if len(within) == 1 else 'stay'} within {level}.")
    else:
        told.append(f"No method stays within {level}.")
    told.append(time_sentence(comparison, ours=ours))
    told.append(verdict(comparison, "round_trip", ours=ours))
    failed = [one for one in comparison.results if one.status != "ok"]
    told += [f"{one.name} failed: {one.reason.rstrip('.')}." for one in failed]
    return told


def time_sentence(comparison: Comparison, *, ours: str) -> str:
    """Who fits fastest, of all methods and of those closest to the target."""
    told = verdict(comparison, "fit_seconds", ours=ours)
    times = _values(comparison, "fit_seconds")
    close = [name for name in comparison.winners.get("energy", ()) if name in times and name != _BASELINE]
    fastest = _contest(comparison, "fit_seconds")[1]
    if not close or set(close) & set(fastest):
        return told
    first = min(close, key=times.__getitem__)
    return f"{told} Of the methods closest to the target, {first} fits fastest, in {seconds(times[first])}."


def cost_sentence(comparison: Comparison, *, ours: str) -> str:
    """Transport cost among the methods that reach the target; less is better among those alone."""
    reach = [comparison[name] for name in comparison.winners.get("energy", ())]
    reach = [one for one in reach if one.transport_cost is not None]
    if not reach:
        return "No method has a transport cost."
    reach.sort(key=_cost)
    told = (
        f"Among the methods closest to the target, {reach[0].name} moves points least: mean ‖x − T(x)‖² is "
        f"{_shown(reach[0])}"
    )
    if len(reach) > 1:
        gap = _cost(reach[1]) - _cost(reach[0])
        noise = 2 * float(np.hypot(reach[0].transport_cost_error or 0.0, reach[1].transport_cost_error or 0.0))
        how = "beyond" if gap > noise else "within"
        told += f", against {_shown(reach[1])} of {reach[1].name}, {how} two standard errors"
    told += "."
    lower = comparison[ours].w2_squared_lower
    if lower is not None and _cost(reach[0]) + 2 * (reach[0].transport_cost_error or 0.0) < lower:
        told += f" That is under the lower limit of W2², {number(lower)}: its image is not quite the target."
    if ours not in [one.name for one in reach] and comparison[ours].transport_cost is not None:
        told += f" {ours} is not among them; its cost is {_shown(comparison[ours])}."
    return told


def _cost(result: MethodResult) -> float:
    return result.transport_cost or 0.0


def _shown(result: MethodResult) -> str:
    return f"{number(result.transport_cost)} ± {number(result.transport_cost_error, 2)}"


def w2_sentence(comparison: Comparison, *, ours: str) -> str:
    """What each method says about W2², and which of them contradict the certificate's limits."""
    row = comparison[ours]
    if row.w2_squared_lower is None or row.w2_squared_upper is None:
        return f"{ours} gives no limits of W2²."
    lower, upper = row.w2_squared_lower, row.w2_squared_upper
    told = f"The certificate of {ours} puts W2² between {number(lower)} and {number(upper)} (one-sided 95% each)."
    others = {name: value for name, value in _values(comparison, "w2_squared").items() if name != ours}
    outside = [f"{name} ({number(value)})" for name, value in others.items() if not lower <= value <= upper]
    inside = [f"{name} ({number(value)})" for name, value in others.items() if lower <= value <= upper]
    if inside:
        told += f" Inside: {names(inside)}."
    if outside:
        told += f" Outside: {names(outside)}; what each value stands for is said in the methods' notes."
    return told + " W2² is a property of the data, so less is not better here."


def marginal_sentence(comparison: Comparison, *, columns: Sequence[str], ours: str) -> str:
    """Which method's columns are closest to the target's, by exact one-dimensional W2, against two halves of it."""
    target = torch.as_tensor(comparison.target_points, dtype=torch.float64)
    found = {
        one.name: _column_w2(torch.as_tensor(one.transported, dtype=torch.float64), target)
        for one in comparison.results
        if one.status == "ok" and one.transported is not None
    }
    if not found:
        return "No method has transported points."
    half = len(target) // 2
    noise = _column_w2(target[:half], target[half:])
    overall = {name: float(np.sqrt(np.mean(np.square(values)))) for name, values in found.items()}
    order = sorted(overall, key=overall.__getitem__)
    level = float(np.sqrt(np.mean(np.square(noise))))
    told = f"Over all columns, {order[0]} is closest to the target: one-dimensional W2 {number(overall[order[0]])}"
    if len(order) > 1:
        how = "less" if overall[order[1]] - overall[order[0]] < level else "more"
        told += (
            f", then {order[1]} with {number(overall[order[1]])}; they differ by {how} than the {number(level)} "
            "between two halves of the target"
        )
    told += "."
    if ours in found:
        worst = int(np.argmax(found[ours]))
        place = "" if ours == order[0] else f"{ours} has {number(overall[ours])}; "
        told += f" {place}{ours}'s worst column is {columns[worst]}, off by {number(found[ours][worst])}."
    return told


def _column_w2(points: torch.Tensor, target: torch.Tensor) -> list[float]:
    first, second = points.T.sort(-1).values, target.T.sort(-1).values
    return [float(value) for value in sorted_w2_squared(first, second).sqrt()]


_ENDS = {
    "max_steps": "its step budget",
    "max_seconds": "its time budget",
    "plateau": "a plateau of the held-out value",
    "diverged": "divergence",
    "interrupted": "an interrupt",
    "callback": "a callback",
}


def ending(stop_reason: str) -> str:
    """What ended a fit.

    Example:
        >>> ending("max_steps")
        'its step budget'
    """
    return _ENDS.get(stop_reason, stop_reason)


def convergence_sentence(history: Sequence[Mapping[str, float]], *, stop_reason: str, ours: str) -> str:
    """How fast our fit got to its best held-out value."""
    time = np.array([record["seconds"] for record in history])
    values = np.array([record["held_out"] for record in history])
    best = int(np.nanargmin(values))
    ends = ending(stop_reason)
    gain = values[0] - values[best]
    if not gain > 0:
        return f"Training did not improve on the start's held-out value and was ended by {ends}."
    most = int(np.argmax(values <= values[0] - 0.99 * gain))
    return (
        f"{ours} reached 99% of its gain over the start after {seconds(float(time[most]))} of the "
        f"{seconds(float(time[-1]))} that it trained (ended by {ends}); its best value came at "
        f"{seconds(float(time[best]))}. POT's solvers have no held-out curve to set beside it."
    )
