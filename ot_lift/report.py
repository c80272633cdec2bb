"""A comparison as a folder of files: one self-contained HTML page, Markdown, JSON and CSV."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ot_lift.comparison import Comparison
from ot_lift.io import atomic_file
from ot_lift.report_figures import Plot, standard_plots
from ot_lift.report_places import REPORT_FILES, REPORT_FORMAT, check_report_folder
from ot_lift.report_tables import certificate_rows, method_notes, method_table, protocol
from ot_lift.report_words import headline

__all__ = ["Gallery", "Photograph", "Plot", "Section", "json_text", "write_report"]


@dataclass(frozen=True)
class Photograph:
    """A picture with its caption.

    Attributes:
        key: its file's name, without the suffix.
        title: shown in bold.
        caption: a sentence; may be empty.
        alt: what it shows, for those who cannot see it.
        png: the file's content.
        emphasis: whether it is ours.
    """

    key: str
    title: str
    caption: str
    alt: str
    png: bytes
    emphasis: bool = False


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side.

    Attributes:
        key: of its heading's anchor.
        title: its heading.
        text: a paragraph.
        photographs: in order.
        across: 1 to 4 in a row on a wide screen.
    """

    key: str
    title: str
    text: str
    photographs: tuple[Photograph, ...]
    across: int = 3


@dataclass(frozen=True)
class Section:
    """A part of the report that stands on its own, behind the comparison.

    Attributes:
        key: of its heading's anchor, and of its figures in `report.json`.
        title: its heading.
        introduction: paragraphs.
        sentences: what was found.
        plots: in order.
        record: every figure as plain values.
    """

    key: str
    title: str
    introduction: tuple[str, ...]
    sentences: tuple[str, ...]
    plots: tuple[Plot, ...]
    record: Mapping[str, Any]


def write_report(
    comparison: Comparison,
    folder: str | Path,
    *,
    title: str,
    introduction: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    ours: str = "ot-lift",
    galleries: Sequence[Gallery] = (),
    facts: Mapping[str, str] | None = None,
    plots: Sequence[Plot] = (),
    sections: Sequence[Section] = (),
) -> Path:
    """Write the report of a comparison into a folder, each file whole or not at all, the page last.

    Args:
        comparison: what `ot_lift.compare.compare` found.
        folder: created if need be; an earlier report in it is replaced, other files are left alone.
        title: of the page.
        introduction: paragraphs under the title.
        columns: names of the data's columns.
        ours: the method that is emphasised, and whose certificate is shown.
        galleries: pictures, before the table.
        facts: further figures by name, before the table.
        plots: further plots, before the standard ones.
        sections: further parts, behind the plots.

    Returns:
        The page's path: `report.html`. Beside it stand `report.md`, `report.json`, `methods.csv` and the plots and
        pictures as PNG in `figures/` and `pictures/`.

    Raises:
        DataError: The folder cannot be written, or holds a file of one of these names that is not a report's.
        KeyError: No method is called `ours`.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from ot_lift.compare import compare
        >>> from ot_lift.peers import LinearMethod
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> found = compare(X, 2 * X[::-1], methods=[LinearMethod()], isolated=False)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     page = write_report(found, place, title="Twice", ours="linear")
        ...     page.name, "<h1>Twice</h1>" in page.read_text(encoding="utf-8")
        ('report.html', True)
    """
    place = check_report_folder(folder)
    names = [f"column {j}" for j in range(comparison.features)] if columns is None else list(columns)
    content = {
        "title": title,
        "introduction": list(introduction),
        "galleries": galleries,
        "facts": facts or {},
        "plots": [*plots, *standard_plots(comparison, columns=names, ours=ours)],
        "sections": sections,
        **_findings(comparison, ours),
    }
    for name, body in _files(content, comparison):
        with atomic_file(place / name) as file:
            file.write(body)
    return place / REPORT_FILES["page"]


def _findings(comparison: Comparison, ours: str) -> dict[str, Any]:
    """What a comparison itself says, in words and tables."""
    certificate = comparison[ours].details.get("certificate")
    return {
        "ours": ours,
        "headline": headline(comparison, ours=ours),
        "table": method_table(comparison, ours=ours),
        "notes": method_notes(comparison),
        "certificate": certificate and {"words": certificate["words"], "rows": certificate_rows(certificate)},
        "protocol": protocol(comparison),
    }


def _files(content: Mapping[str, Any], comparison: Comparison) -> Iterator[tuple[str, bytes]]:
    """Every file of the report, the page last: where it is, all is there."""
    sections: Sequence[Section] = content["sections"]
    for plot in (*content["plots"], *(plot for section in sections for plot in section.plots)):
        yield f"figures/{plot.key}.png", plot.picture.light
    for gallery in content["galleries"]:
        for photograph in gallery.photographs:
            yield f"pictures/{photograph.key}.png", photograph.png
    yield REPORT_FILES["csv"], _csv(comparison).encode()
    record = {
        "format": REPORT_FORMAT,
        **{key: content[key] for key in ("title", "introduction", "headline", "facts")},
        "sentences": {plot.key: plot.sentence for plot in content["plots"]},
        "comparison": comparison.to_dict(),
        **({"sections": {section.key: section.record for section in sections}} if sections else {}),
    }
    yield REPORT_FILES["json"], json_text(record).encode()
    jinja = templates()
    yield REPORT_FILES["markdown"], squeezed(jinja.get_template("report.md.j2").render(content)).encode()
    yield REPORT_FILES["page"], jinja.get_template("report.html.j2").render(content).encode()


def templates() -> Any:
    """The environment of the package's templates; HTML is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("ot_lift"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode("ascii")
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    return environment


def squeezed(text: str) -> str:
    """Markdown with single blank lines."""
    lines: list[str] = []
    for line in text.strip().splitlines():
        if line.strip() or (lines and lines[-1]):
            lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


_CSV_COLUMNS = (
    "name",
    "status",
    "reason",
    "energy",
    "sliced_w2",
    "transport_cost",
    "transport_cost_error",
    "w2_squared",
    "w2_squared_lower",
    "w2_squared_upper",
    "round_trip",
    "fit_seconds",
    "transport_seconds",
    "peak_memory_bytes",
)


def _csv(comparison: Comparison) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    writer.writerows([getattr(row, name) for name in _CSV_COLUMNS] for row in comparison.results)
    return text.getvalue()


def json_text(value: Any) -> str:
    """Strict JSON: null stands for NaN and infinities, which it lacks.

    Example:
        >>> print(json_text({"loss": float("nan"), "steps": (1, 2)}))
        {
          "loss": null,
          "steps": [
            1,
            2
          ]
        }
    """
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
