"""The main job: colour transfer between two photographs, forward and back, beside POT's maps, ending in a report.

A photograph is a cloud of colours: points (red, green, blue) in [0, 1]³. The map that moves one photograph's cloud
onto another's at the least mean ‖x − T(x)‖² recolours it, and its inverse takes the colours back. A section of its own
shows the other use of such maps, a Bayesian posterior.

Everything here runs on one thread, ours and the peers alike: the result then depends on the seed and not on the number
of cores, and another busy program does not stall it. Networks this small gain a tenth from a second thread.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ot_lift.brenier import BrenierMap
from ot_lift.compare import compare
from ot_lift.comparison import Comparison, MethodResult
from ot_lift.demo_colours import Colours, sample_photographs
from ot_lift.demo_posterior import posterior_section
from ot_lift.errors import ConvergenceError, DataError
from ot_lift.methods import BrenierMethod, IdentityMethod, Method
from ot_lift.peers import EMDMethod, LinearMethod, MappingMethod, SinkhornMethod
from ot_lift.report import Gallery, Photograph, Plot, write_report
from ot_lift.report_places import check_map_folder, check_report_folder
from ot_lift.report_plots import clouds
from ot_lift.report_theme import Picture, photograph, to_bytes
from ot_lift.report_words import number, seconds

__all__ = ["colour_transfer", "demo_peers"]

Array = npt.NDArray[Any]
Tell = Callable[[str], None]

_CHANNELS = ("red", "green", "blue")
_OURS = "ot-lift"
_STEPS = 500  # twice as many raise the held-out dual value from 0.4971 to 0.4972
_BETWEEN = (0.25, 0.5, 0.75)


def demo_peers() -> list[Method]:
    """What ours is set beside: the baselines and POT's maps, sized to end within the demo's minutes on two cores."""
    return [
        IdentityMethod(),
        LinearMethod(),
        EMDMethod(max_points=4000),
        SinkhornMethod(max_points=1000, max_iterations=500),
        MappingMethod(max_points=500),
    ]


class _SavingMethod(BrenierMethod):
    """Ours; the fitted map is saved to a folder when all has been measured."""

    def __init__(self, folder: Path, **parameters: Any) -> None:
        super().__init__(name=_OURS, **parameters)
        self._folder = str(folder)

    def details(self) -> dict[str, Any]:
        self.map.save(self._folder)
        return super().details()


def colour_transfer(
    folder: str | Path,
    *,
    photographs: tuple[Colours, Colours] | None = None,
    pixels: int = 20_000,
    seed: int = 0,
    max_steps: int = _STEPS,
    max_seconds: float | None = None,
    device: str | None = None,
    peers: Sequence[Method] | None = None,
    isolated: bool = True,
    posterior: bool = True,
    tell: Tell | None = None,
) -> tuple[Path, Comparison, dict[str, str]]:
    """Fit on a sample of pixels, recolour every pixel, take the colours back, compare, and write the report.

    Args:
        folder: for the report (`report.html`), the pictures and the fitted map (`map/`).
        photographs: source and target; by default `sample_photographs`.
        pixels: sampled from either side.
        seed: of the sample, the split and every method.
        max_steps: of our training.
        max_seconds: limit for each fit, or None.
        device: where ours trains.
        peers: the methods beside ours; by default `demo_peers`.
        isolated: see `ot_lift.compare.compare`.
        posterior: fit a map to a Bayesian posterior too, in a section of its own.
        tell: called with a line at every stage.

    Returns:
        The page, the comparison, and the figures of the whole picture by name.

    Raises:
        DataError: The folder cannot take a report, or there are too few pixels.
        ConvergenceError: Ours could not be fitted or inverted.
    """
    place = check_report_folder(folder)
    check_map_folder(place / "map")
    tell = tell or _nothing
    source, target = photographs or sample_photographs()
    with _one_thread(), tempfile.TemporaryDirectory(prefix="ot-lift-demo-") as name:
        saved = Path(name) / "map"
        ours = _SavingMethod(saved, max_steps=max_steps, device=device)
        methods = [*(demo_peers() if peers is None else peers), ours]
        budget = {"max_seconds": max_seconds, "isolated": isolated, "progress": tell}
        found = _compared(source, target, pixels, methods, random_state=seed, **budget)
        fitted = BrenierMap.load(saved)
        whole = _WholePicture.of(fitted, source, target, tell)
        sections = [posterior_section(seed=seed, max_seconds=max_seconds, tell=tell)] if posterior else []
    tell("writing the report")
    fitted.save(place / "map")
    page = write_report(
        found,
        place,
        title="Colour transfer between two photographs",
        introduction=_introduction(source, pixels),
        columns=_CHANNELS,
        ours=_OURS,
        galleries=_galleries(found, source, target, whole),
        facts=whole.facts,
        plots=[_cloud_plot(found)],
        sections=sections,
    )
    return page, found, whole.facts


def _compared(
    source: Colours, target: Colours, pixels: int, methods: Sequence[Method], *, random_state: int, **options: Any
) -> Comparison:
    """The methods on a sample of pixels, each with its image of every colour."""
    if pixels < 50:
        raise DataError(f"expected at least 50 pixels a side to fit on, got {pixels}")
    rng = np.random.default_rng(random_state)
    found = compare(
        source.sample(pixels, rng),
        target.sample(pixels, rng),
        methods=methods,
        random_state=random_state,
        also_transport=source.middles(),
        **options,
    )
    if found[_OURS].status != "ok":
        raise ConvergenceError(f"the fit failed: {found[_OURS].reason}")
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread, here and in the processes of a comparison, and put the caller's number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # noqa: TID251 — for the block alone
    try:
        yield
    finally:
        torch.set_num_threads(before)  # noqa: TID251


@dataclass(frozen=True)
class _WholePicture:
    """Every distinct colour through our map, and back.

    Attributes:
        forward: T(x) of the source's colours.
        back: T⁻¹(T(x)).
        reverse: T⁻¹(y) of the target's colours.
        between: the way from x to T(x) at the times `_BETWEEN`.
        facts: figures by name.
    """

    forward: Array
    back: Array
    reverse: Array
    between: tuple[Array, ...]
    facts: dict[str, str]

    @classmethod
    def of(cls, fitted: BrenierMap, source: Colours, target: Colours, tell: Tell) -> _WholePicture:
        x = source.middles()
        tell(f"recolouring {source.place.size:,} pixels ({len(x):,} distinct colours)")
        began = time.perf_counter()
        forward = fitted.transport(x)
        moved = time.perf_counter()
        tell("taking the colours back")
        back = fitted.invert(forward)
        inverted = time.perf_counter()
        tell("the flower in the temple's colours, by the inverse")
        reverse = fitted.invert(target.middles())
        error = np.abs(back - x).max(1)
        same = np.all(to_bytes(back) == source.levels, axis=1)
        facts = {
            "Pixels recoloured": f"{source.place.size:,}, of {len(x):,} distinct colours, in {seconds(moved - began)}",
            "Taken back by the exact inverse": f"in {seconds(inverted - moved)}",
            "Largest error of the round trip, any pixel and channel": (
                f"{number(256 * float(error.max()), 2)} levels of 256"
            ),
            "Pixels restored to their exact 8-bit colour": f"{source.share(same):.2%}",
            "Pixels with a channel outside [0, 1], clipped in the picture": f"{_clipped(source, forward):.1%}",
        }
        between = tuple(fitted.interpolate(x, t) for t in _BETWEEN)
        return cls(forward, back, reverse, between, facts)


def _clipped(source: Colours, colours: Array) -> float:
    return source.share(np.any((colours < 0) | (colours > 1), axis=1))


# --------------------------------------------------------------------------------------- what is shown
def _introduction(source: Colours, pixels: int) -> list[str]:
    height, width = source.place.shape
    return [
        f"The colours of a temple ({width} × {height} pixels) are moved onto those of a flower at the least mean "
        f"‖x − T(x)‖², fitted on {pixels:,} pixels of either picture. One fitted potential recolours every pixel, and "
        "its conjugate takes the colours back.",
        "Colours are points in [0, 1]³. In the fit, level k of 256 becomes (k + u)/256 with u uniform in [0, 1); what "
        "is recoloured is the middle of the level. All figures are of colours as the maps give them; only the pictures "
        "are clipped to what a screen can show.",
    ]


def _galleries(found: Comparison, source: Colours, target: Colours, whole: _WholePicture) -> list[Gallery]:
    peers = [
        _method_photograph(one, source)
        for one in found.results
        if one.also_transported is not None and one.name not in (_OURS, "identity")
    ]
    failed = [one.name for one in found.results if one.also_transported is None]
    missing = f" No picture of {', '.join(failed)}: see the notes." if failed else ""
    first = (
        _photograph("source", "Source", "china.jpg", source, source.middles()),
        _photograph("target", "Target", "flower.jpg", target, target.middles()),
        _method_photograph(found[_OURS], source),
        _photograph(
            "restored",
            f"{_OURS}, taken back",
            "the recoloured pixels through the inverse",
            source,
            whole.back,
            ours=True,
        ),
    )
    more = (
        _photograph(
            "reverse",
            "The flower, by the inverse",
            "its colours moved to the temple's",
            target,
            whole.reverse,
            ours=True,
        ),
        *(
            _photograph(f"way-{round(100 * t)}", f"{t:.0%} of the way", "(1 − t)x + tT(x)", source, colours, ours=True)
            for t, colours in zip(_BETWEEN, whole.between, strict=True)
        ),
    )
    return [
        Gallery(
            "pictures",
            "The pictures",
            "The flower is darker and more saturated than the temple, so any map that reaches its colours stretches "
            f"the pale sky, and the blocks of the JPEG file in it.{missing}",
            (*first, *peers),
            4,
        ),
        Gallery(
            "more",
            "The same map, further uses",
            "The inverse recolours the flower, with no second fit. Stopping on the way (McCann's interpolation) is a "
            "milder transfer, and the optimal map to its own image at every time.",
            more,
            4,
        ),
    ]


def _method_photograph(result: MethodResult, source: Colours) -> Photograph:
    colours = np.asarray(result.also_transported)
    caption = (
        f"energy distance {number(result.energy)}, fit {seconds(result.fit_seconds)}, "
        f"{_clipped(source, colours):.1%} of the pixels clipped"
    )
    key = f"by-{result.name.lower()}"
    return _photograph(key, result.name, caption, source, colours, ours=result.name == _OURS)


def _photograph(
    key: str, title: str, caption: str, picture: Colours, colours: Array, *, ours: bool = False
) -> Photograph:
    alt = f"{title}: {caption}"
    return Photograph(key, title, caption, alt, photograph(picture.painted(colours)), emphasis=ours)


def _cloud_plot(found: Comparison) -> Plot:
    images = {"source": found.source_points, "target": found.target_points}
    order = sorted(found.results, key=lambda one: np.inf if one.energy is None else one.energy)
    images |= {one.name: one.transported for one in order if one.transported is not None and one.name != "identity"}
    closest = [one.name for one in order if one.name in images]
    return Plot(
        "clouds",
        "The colours as points",
        f"Held-out colours in the plane in which both pictures vary most, each dot in its own colour. {closest[0]} has "
        f"the least energy distance to the target, {number(found[closest[0]].energy)}; two halves of the target reach "
        f"{number(found.energy_null)}, so methods below that are not told apart.",
        "Scatter plots of the colours of source, target and every method's image.",
        Picture(lambda theme: clouds(images, theme, ours=_OURS)),
    )


def _nothing(line: str) -> None:
    """No progress."""
