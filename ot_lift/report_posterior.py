"""A posterior map beside NUTS as a page: moments, marginals, pairs, trust, and after how many draws it has paid."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ot_lift.errors import DataError
from ot_lift.io import atomic_file
from ot_lift.report import json_text, templates
from ot_lift.report_theme import Picture, Theme, legend, panels
from ot_lift.report_words import number, seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ot_lift.numpyro_nuts import NutsRun

__all__ = ["PosteriorRun", "check_posterior_folder", "columns_by_label", "marginals", "write_posterior_report"]

Array = npt.NDArray[np.float64]

_FORMAT = "ot-lift posterior"
_PANELS, _ACROSS, _PAIRED = 9, 3, 4  # marginals shown, of them in a row, entries shown in pairs
_DOTS = 1500  # draws in a scatter plot


@dataclass(frozen=True)
class PosteriorRun:
    """What a fit, its draws and a reference gave.

    Attributes:
        name: of the posterior.
        sites: draws of the map ``(n, *shape)`` by site.
        diagnosis: record of :class:`~ot_lift.posterior_trust.Diagnosis`, as a dictionary.
        evidence: record of :class:`~ot_lift.posterior_weights.Evidence`, as a dictionary.
        words: the diagnosis in words.
        fit_seconds: wall-clock time of the fit.
        draw_seconds: wall-clock time of the draws.
        reference: NUTS on the same model, or None.
        without_reference: why there is none, in a sentence.
    """

    name: str
    sites: Mapping[str, Array]
    diagnosis: Mapping[str, Any]
    evidence: Mapping[str, Any]
    words: str
    fit_seconds: float
    draw_seconds: float
    reference: NutsRun | None = None
    without_reference: str = "NUTS was not run: --reference sets the map beside it."

    @property
    def draws(self) -> int:
        """Number of draws of the map."""
        return len(next(iter(self.sites.values())))

    @property
    def ess_per_second(self) -> float:
        """Effective draws a second after the fit, counted by importance weights."""
        return self.draws / self.draw_seconds * self.diagnosis["effective"] / max(self.diagnosis["draws"], 1)

    def break_even(self) -> float:
        """Effective draws from which on fit and draws together took less time than NUTS; inf: never; NaN: no NUTS."""
        if self.reference is None:
            return math.nan
        start = self.reference.seconds - 2 * self.reference.sampling_seconds  # compilation and warm-up
        gain = 1.0 / self.reference.ess_per_second - 1.0 / max(self.ess_per_second, 1e-300)
        late = self.fit_seconds - start
        return 0.0 if late <= 0 and gain >= 0 else late / gain if late > 0 and gain > 0 else math.inf

    def moments(self) -> list[dict[str, Any]]:
        """One record an entry: label, mean and deviation by the map and by NUTS, and how far apart they are."""
        ours = columns_by_label(self.sites)
        theirs = {} if self.reference is None else columns_by_label(self.reference.draws)
        rows = []
        for label, values in ours.items():
            row: dict[str, Any] = {"label": label, "mean": values.mean(), "deviation": values.std(ddof=1)}
            if label in theirs:
                mean, deviation = theirs[label].mean(), theirs[label].std(ddof=1)
                row |= {"nuts_mean": mean, "nuts_deviation": deviation}
                row |= {"shift": (row["mean"] - mean) / deviation, "ratio": row["deviation"] / deviation}
            rows.append({key: value if key == "label" else float(value) for key, value in row.items()})
        return rows

    def sentences(self) -> list[str]:
        """The result in a few sentences."""
        said = [
            self.words,
            f"Fitted in {seconds(self.fit_seconds)}; {self.draws:,} draws in {seconds(self.draw_seconds)}, which is "
            f"{number(self.ess_per_second)} effective draws a second, counted by importance weights.",
        ]
        if self.reference is None:
            return [*said, self.without_reference]
        moved = [row for row in self.moments() if "shift" in row]
        standard_error = 1.0 / math.sqrt(self.reference.min_ess)
        shift, ratio = max(abs(row["shift"]) for row in moved), max(abs(row["ratio"] - 1) for row in moved)
        said.append(
            f"Beside NUTS, means differ by at most {number(shift)} posterior standard deviations, and deviations by at "
            f"most {ratio:.1%}; NUTS's own standard error of a mean is up to {number(standard_error)} of them."
        )
        said.append(
            f"NUTS took {seconds(self.reference.seconds)} for a smallest effective sample size of "
            f"{self.reference.min_ess:,.0f} (R-hat {self.reference.r_hat:.3f}, {self.reference.divergences} "
            f"divergences), and once warm gives {number(self.reference.ess_per_second)} effective draws a second."
        )
        return [*said, self._paid()]

    def record(self) -> dict[str, Any]:
        """Every figure as plain values."""
        nuts = self.reference
        kept = ("seconds", "min_ess", "r_hat", "divergences", "ess_per_second")
        return {
            "posterior": self.name,
            "verdict": self.diagnosis["verdict"],
            "headline": self.sentences(),
            "diagnosis": dict(self.diagnosis),
            "evidence": dict(self.evidence),
            "moments": self.moments(),
            "fit_seconds": self.fit_seconds,
            "draw_seconds": self.draw_seconds,
            "draws": self.draws,
            "ess_per_second": self.ess_per_second,
            "break_even_draws": self.break_even(),
            "nuts": None if nuts is None else {name: getattr(nuts, name) for name in kept},
        }

    def _paid(self) -> str:
        count = self.break_even()
        if count == 0.0:
            return "The fit took no longer than NUTS's compilation and warm-up: the map has paid from the first draw."
        if math.isinf(count):
            return "The map does not pay: NUTS is faster, however many draws are wanted."
        return f"The map has paid for its fit after {count:,.0f} effective draws; for fewer, NUTS is faster."


def check_posterior_folder(folder: str | Path) -> Path:
    """Refuse a place that holds something else than an earlier result.

    Returns:
        Its absolute path.

    Raises:
        DataError: for a file, or a folder with other files in it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     check_posterior_folder(place) == Path(place).resolve()
        True
    """
    place = Path(folder).resolve()
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return place
    try:
        ours = json.loads((place / "report.json").read_bytes()).get("format") == _FORMAT
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise DataError(f"expected nothing or an earlier result at {place}, got something else: choose another place")
    return place


def write_posterior_report(run: PosteriorRun, folder: Path) -> Path:
    """Write ``report.json`` and then ``report.html`` into a folder, each whole or not at all.

    Returns:
        The page's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = columns_by_label(run.sites)
    theirs = None if run.reference is None else columns_by_label(run.reference.draws)
    plots = [
        ("Marginals", "Densities of single entries.", Picture(lambda theme: marginals(ours, theirs, theme))),
        ("Pairs", "Draws of the first entries, two by two.", Picture(lambda theme: _pairs(ours, theirs, theme))),
    ]
    with atomic_file(folder / "report.json") as file:
        file.write(json_text({"format": _FORMAT, **run.record()}).encode())
    shown = [{"title": title, "text": text, "picture": picture} for title, text, picture in plots]
    rows = [{key: value if key == "label" else number(value) for key, value in row.items()} for row in run.moments()]
    content = {"name": run.name, "headline": run.sentences(), "rows": rows, "plots": shown, "nuts": theirs is not None}
    page = folder / "report.html"
    with atomic_file(page) as file:
        file.write(templates().get_template("posterior.html.j2").render(content).encode())
    return page


def columns_by_label(sites: Mapping[str, Array]) -> dict[str, Array]:
    """Draws ``(n,)`` by label; entries of an array are ``site[i,j]``.

    Example:
        >>> list(columns_by_label({"a": np.zeros(3), "b": np.zeros((3, 2))}))
        ['a', 'b[0]', 'b[1]']
    """
    columns: dict[str, Array] = {}
    for name, values in sites.items():
        for index in np.ndindex(values.shape[1:]):
            label = name + (f"[{','.join(map(str, index))}]" if index else "")
            columns[label] = np.asarray(values[(slice(None), *index)], dtype=np.float64)
    return columns


def marginals(ours: Mapping[str, Array], theirs: Mapping[str, Array] | None, theme: Theme) -> Figure:
    """Histograms of the first entries, by label; NUTS's filled, ours outlined.

    Args:
        ours: draws ``(n,)`` by label.
        theirs: those of NUTS, or None.
        theme: colours.
    """
    shown = list(ours)[:_PANELS]
    figure, axes = panels(len(shown), theme, height=2.4, across=_ACROSS)
    for axis, label in zip(axes, shown, strict=True):
        draws = theirs[label] if theirs is not None and label in theirs else ours[label]
        low, high = np.quantile(draws, [0.001, 0.999])
        bins = np.linspace(low, high, 41).tolist()
        if theirs is not None and label in theirs:
            axis.hist(theirs[label], bins, density=True, color=theme.target, alpha=0.4, label="NUTS")
        axis.hist(ours[label], bins, density=True, color=theme.ours, histtype="step", linewidth=1.8, label="ot-lift")
        axis.set(xlabel=label, yticks=[])
    legend(figure, axes[0].get_legend_handles_labels()[0], theme)
    return figure


def _pairs(ours: dict[str, Array], theirs: dict[str, Array] | None, theme: Theme) -> Figure:
    labels = list(ours)[:_PAIRED]
    pairs = [(a, b) for i, a in enumerate(labels) for b in labels[:i]] or [(labels[0], labels[0])]
    figure, axes = panels(len(pairs), theme, height=2.8, across=_ACROSS)
    for axis, (a, b) in zip(axes, pairs, strict=True):
        for draws, colour, name in ((theirs, theme.target, "NUTS"), (ours, theme.ours, "ot-lift")):
            if draws is not None and {a, b} <= draws.keys():
                every = max(1, len(draws[a]) // _DOTS)
                axis.scatter(draws[b][::every], draws[a][::every], s=3, alpha=0.35, color=colour, label=name)
        axis.set(xlabel=b, ylabel=a)
    legend(figure, axes[0].get_legend_handles_labels()[0], theme)
    return figure
