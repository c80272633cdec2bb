"""Pictures of fitted densities in the plane, beside the points that they are judged on."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.methods import OURS
from ot_lift.report_figures import Plot
from ot_lift.report_theme import Picture, Theme, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

_ACROSS = 4


def density_plot(records: Sequence[Record]) -> Plot | None:
    """The density of every method that has one in the plane, for the first seed; None without any.

    Args:
        records: Of one task.
    """
    drawn = [record for record in records if "density" in record["details"]]
    drawn = [record for record in drawn if record["seed"] == min(one["seed"] for one in drawn)]
    if not drawn:
        return None
    points = np.array(drawn[0]["details"]["density"]["points"])
    pictures = {record["method"]: record["details"]["density"] for record in drawn}
    return Plot(
        "densities",
        "The densities",
        "Points that judge, and each method's density, all on one scale; what is higher than the 99th percentile of "
        f"all pixels that show anything is as dark as that. Seed {drawn[0]['seed']}.",
        "Points of the data, and for every method a picture of its density on the same square.",
        Picture(lambda theme: _draw(points, pictures, theme)),
    )


def values_of(picture: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """The density on its grid, the first coordinate along the second axis, `(pixels, pixels)`.

    Example:
        >>> share = base64.b64encode(bytes([0, 255, 51, 0])).decode()
        >>> values_of({"share": share, "pixels": 2, "peak": 5.0}).tolist()
        [[0.0, 5.0], [1.0, 0.0]]
    """
    share = np.frombuffer(base64.b64decode(picture["share"]), dtype=np.uint8)
    return share.reshape(picture["pixels"], -1) / 255 * float(picture["peak"])


def _draw(points: npt.NDArray[Any], pictures: Mapping[str, Mapping[str, Any]], theme: Theme) -> Figure:
    from matplotlib.colors import LinearSegmentedColormap

    values = {name: values_of(picture) for name, picture in pictures.items()}
    shown = np.concatenate([one[one > 0] for one in values.values()] or [np.ones(1)])
    most = float(np.percentile(shown, 99)) if len(shown) else 1.0
    first = next(iter(pictures.values()))
    (left, bottom), (right, top) = first["low"], first["high"]
    figure, axes = panels(1 + len(values), theme, height=2.6, across=_ACROSS)
    axes[0].scatter(points[:, 0], points[:, 1], s=4, color=theme.target, linewidths=0)
    axes[0].set_title("data", color=theme.ink, fontsize=11, loc="left")
    for axis, (name, one) in zip(axes[1:], values.items(), strict=True):
        colours = LinearSegmentedColormap.from_list(name, [theme.paper, theme.colour(name, OURS, list(values))])
        axis.imshow(one, origin="lower", extent=(left, right, bottom, top), cmap=colours, vmin=0, vmax=most)
        weight = "bold" if name == OURS else "normal"
        axis.set_title(
            name, color=theme.ours if name == OURS else theme.ink, fontsize=11, fontweight=weight, loc="left"
        )
    for axis in axes:
        axis.grid(visible=False)
        axis.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])
    return figure
