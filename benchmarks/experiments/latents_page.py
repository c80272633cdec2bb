"""The page of `latents`: on how many classes the order is the paper's, and decoded samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.experiments import Page
from benchmarks.experiments.likelihood_page import (
    GAUSSIAN,
    METRICS,
    ORDER,
    SHRINKAGE,
    by_place,
    of_protocol,
    plots,
    protocols_of,
    sentences,
    tables,
)
from benchmarks.experiments.pages import OURS, order_of, part, settings_of
from ot_lift.report_figures import Plot
from ot_lift.report_theme import Picture, Theme, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

_CHAINS = (
    (OURS, "projection", GAUSSIAN),
    (OURS, "projection"),
    (OURS, "softplus"),
    (OURS, GAUSSIAN),
    (OURS, SHRINKAGE),
    (SHRINKAGE, GAUSSIAN),
)
_CURVES = 6  # places whose curves are shown
_LEVELS = 63


def page(records: Sequence[Record]) -> Page:
    """Findings, tables and pictures.

    Args:
        records: Of `latents`, any of them.
    """
    results = [record for record in records if record["settings"]["task"]["protocol"] != "tuning"]
    drawn: list[Plot] = []
    for protocol in protocols_of(results):
        drawn += plots(results, protocol, curve_places=settings_of(results, "place")[:_CURVES])
        for images in settings_of(results, "images"):
            drawn += _samples(part(of_protocol(results, protocol), images=images), images, protocol)
    return Page(sentences(results, _CHAINS, "classes"), tables(results, "class"), drawn, METRICS)


def _samples(records: Sequence[Record], images: str, protocol: str) -> list[Plot]:
    """The first seed's decoded samples, methods by classes."""
    first = min((record["seed"] for record in records if "samples" in record["details"]), default=None)
    shown = [record for record in records if record["seed"] == first and "samples" in record["details"]]
    rows = order_of(shown, (GAUSSIAN, *(name for name in ORDER if name != GAUSSIAN)))
    if not rows:
        return []
    sheets = {name: _sheet([record for record in shown if record["method"] == name]) for name in rows}
    titles = {name: "test images through the autoencoder" if name == GAUSSIAN else name for name in rows}
    return [
        Plot(
            f"samples-{images}-{protocol}",
            f"Decoded samples, {images}, {protocol}",
            "Draws of every class's density through the decoder, from the same latents for each method; on top test "
            "images that went through the autoencoder. The first seed.",
            f"Pictures of digits, a block of rows for each of {', '.join(titles.values())}, a column for each class.",
            Picture(lambda theme: _draw(sheets, titles, theme)),
        )
    ]


def _sheet(records: Sequence[Record]) -> np.ndarray[Any, Any]:
    """Samples below one another, classes side by side, each with a margin of one pixel: levels in [0, 1]."""
    columns = []
    for own in by_place(records).values():
        tiles = np.array(own[0]["details"]["samples"], dtype=float) / _LEVELS
        columns.append(np.concatenate(np.pad(tiles, ((0, 0), (1, 1), (1, 1))), axis=0))
    return np.concatenate(columns, axis=1)


def _draw(sheets: Mapping[str, np.ndarray[Any, Any]], titles: Mapping[str, str], theme: Theme) -> Figure:
    shape = next(iter(sheets.values())).shape
    figure, axes = panels(len(sheets), theme, height=0.3 + min(3.5, 4.6 * shape[0] / shape[1]), across=2)
    for axis, (name, sheet) in zip(axes, sheets.items(), strict=True):
        axis.imshow(sheet, cmap="gray_r" if theme.paper == "#ffffff" else "gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
        axis.set_title(titles[name], color=theme.ink, fontsize=10, loc="left")
    return figure
