"""How the figures of a report look: colours for a light and a dark page, styled panels, PNG.

Figures are built from matplotlib's own objects: no pyplot, no change to anyone's settings. Matplotlib is imported
when the first one is drawn.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ot_lift.report_words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

__all__ = [
    "DARK",
    "LIGHT",
    "Picture",
    "Theme",
    "legend",
    "name_ticks",
    "panels",
    "photograph",
    "plain_ticks",
    "to_bytes",
]

Array = npt.NDArray[np.floating[Any]]

_WIDTH = 10.0  # inches; the page shows a figure about this wide
_DPI = 144


@dataclass(frozen=True)
class Theme:
    """Colours of a figure. Methods have the same colour in every figure, ours the strongest.

    Attributes:
        ink: text.
        muted: axes, ticks and secondary text.
        grid: grid lines.
        paper: background.
        source: points of the source.
        target: points of the target.
        ours: this library.
        peers: the other methods, in the order of the report.
    """

    ink: str
    muted: str
    grid: str
    paper: str
    source: str
    target: str
    ours: str
    peers: tuple[str, ...]

    def colour(self, name: str, ours: str, order: Sequence[str]) -> str:
        """The colour of a method."""
        others = [other for other in order if other != ours]
        return self.ours if name == ours else self.peers[others.index(name) % len(self.peers)]


LIGHT = Theme(
    ink="#1b2330",
    muted="#5b6675",
    grid="#e3e7ec",
    paper="#ffffff",
    source="#8a97a8",
    target="#e08a00",
    ours="#1f5fd6",
    peers=(
        *("#8c8c8c", "#0f8a6a", "#a03cc0", "#d1365c", "#7a5a36", "#2a9bb5", "#b8860b", "#3f4a9e"),
        *("#e36bae", "#7f9a1f", "#3b4450"),
    ),
)
DARK = Theme(
    ink="#e6ebf2",
    muted="#9aa7b8",
    grid="#2b3442",
    paper="#161c26",
    source="#76859a",
    target="#f5b041",
    ours="#6ea1ff",
    peers=(
        *("#a5a5a5", "#3cc79f", "#cf86e8", "#ff7f9d", "#c79c6d", "#62cfe8", "#e3b341", "#9aa4f2"),
        *("#f7a8d3", "#c3d95b", "#d7dde4"),
    ),
)


@dataclass(frozen=True)
class Picture:
    """A figure as PNG, for a light and for a dark page; either is drawn when it is first asked for.

    Attributes:
        draw: gives the figure in a theme.
    """

    draw: Callable[[Theme], Figure]

    @cached_property
    def light(self) -> bytes:
        """The PNG for a light page."""
        return _png(self.draw(LIGHT))

    @cached_property
    def dark(self) -> bytes:
        """The PNG for a dark page."""
        return _png(self.draw(DARK))


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI, facecolor=figure.get_facecolor(), metadata={"Software": "ot-lift"})
    return content.getvalue()


def photograph(pixels: Array) -> bytes:
    """A photograph as PNG; nothing is scaled, only clipped to what a screen can show.

    Args:
        pixels: red, green and blue in [0, 1], `(height, width, 3)`.

    Returns:
        8 bits a channel.
    """
    from matplotlib.image import imsave

    content = io.BytesIO()
    imsave(content, to_bytes(pixels), format="png", origin="upper", metadata={"Software": "ot-lift"})
    return content.getvalue()


def to_bytes(pixels: Array) -> npt.NDArray[np.uint8]:
    """8-bit levels of intensities in [0, 1]: level k stands for [k/256, (k + 1)/256), the rest is clipped."""
    return np.clip(np.floor(np.asarray(pixels) * 256), 0, 255).astype(np.uint8)


# -------------------------------------------------------------------------------------------- pieces
def panels(count: int, theme: Theme, *, height: float, across: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` styled panels, `height` inches each, in as few rows of at most `across` as hold them.

    Rows are as even as they can be: four panels of at most three across stand two by two. Places left over stay empty.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = -(-count // across)
    columns = -(-count // rows)
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.06, hspace=0.03)
    figure = MatplotlibFigure(figsize=(_WIDTH, height * rows + 0.35), facecolor=theme.paper, layout=layout, dpi=_DPI)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in grid[count:]:
        axis.set_visible(False)
    for axis in grid[:count]:
        _style(axis, theme)
    return figure, list(grid[:count])


def _style(axis: Axes, theme: Theme) -> None:
    axis.set_facecolor(theme.paper)
    axis.grid(visible=True, color=theme.grid, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(which="both", colors=theme.muted, labelsize=9, length=0)
    axis.xaxis.label.set(color=theme.muted, fontsize=9)
    axis.yaxis.label.set(color=theme.muted, fontsize=9)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.grid)


def plain_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers: at the decades, and at 2 and 5 where the axis spans few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 1 if value < 100 else 3)))
    axis.set_minor_formatter(NullFormatter())


def name_ticks(axes: Sequence[Axes], order: Sequence[str], theme: Theme, *, ours: str) -> None:
    """Names of the methods beside the first panel alone, ours in bold."""
    for axis in axes[1:]:
        axis.set_yticklabels([])
    for label, name in zip(axes[0].get_yticklabels(), order, strict=True):
        label.set(color=theme.ink, fontsize=10, fontweight="bold" if name == ours else "normal")


def legend(figure: Figure, handles: Sequence[Any], theme: Theme) -> None:
    """A legend above the panels, in as few rows as the figure's width allows."""

    def drawn_in(rows: int) -> Legend:
        columns = math.ceil(len(handles) / rows)
        return figure.legend(handles=list(handles), loc="outside upper left", ncols=columns, frameon=False, fontsize=9)

    rows, drawn = 1, drawn_in(1)
    while drawn.get_window_extent().width > figure.bbox.width and rows < len(handles):
        drawn.remove()
        rows += 1
        drawn = drawn_in(rows)
    for text in drawn.get_texts():
        text.set_color(theme.ink)
