"""The main job: two photographs, forward and back, beside POT's maps."""

from __future__ import annotations

import base64
import io
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from ot_lift.brenier import BrenierMap
from ot_lift.demo import colour_transfer, demo_peers
from ot_lift.demo_colours import Colours, sample_photographs
from ot_lift.errors import DataError
from ot_lift.methods import IdentityMethod, Method
from ot_lift.peers import LinearMethod, MappingMethod, SinkhornMethod

PICTURES = {"source", "target", "by-ot-lift", "restored", "reverse", "way-25", "way-50", "way-75"}


def small_demo(folder: Path, *, seed: int = 0) -> Path:
    """The demo on every twelfth row and column, with quick peers and few steps."""
    page, _, _ = colour_transfer(
        folder,
        photographs=sample_photographs(stride=12),
        pixels=1500,
        seed=seed,
        max_steps=60,
        peers=[IdentityMethod(), LinearMethod(), MappingMethod(max_points=40, max_iterations=2)],
        isolated=False,
        posterior=False,
    )
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_demo(tmp_path_factory.mktemp("demo"))


def pixels(path: Path) -> np.ndarray:
    return np.round(imread(path)[..., :3] * 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------ colours
def test_a_photograph_is_painted_from_its_distinct_colours() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 3, size=(7, 5, 3), dtype=np.uint8) * 100
    colours = Colours.of(image)
    assert len(colours.levels) == len(np.unique(image.reshape(-1, 3), axis=0)) < 35
    assert (np.floor(colours.painted(colours.middles()) * 256) == image).all()
    assert colours.share(colours.levels[:, 0] == 100) == pytest.approx((image[..., 0] == 100).mean())


def test_a_sample_stays_within_the_level_of_its_pixel(rng: np.random.Generator) -> None:
    source, _ = sample_photographs(stride=20)
    sample = source.sample(400, rng)
    assert sample.shape == (400, 3) and sample.min() >= 0 and sample.max() < 1
    known = {tuple(level) for level in source.levels}
    assert {tuple(level) for level in np.floor(sample * 256).astype(np.uint8)} <= known
    assert len(np.unique(sample, axis=0)) == 400
    assert len(source.sample(10**6, rng)) == source.place.size  # no more than there are


# --------------------------------------------------------------------------------------- the report
def test_the_page_shows_source_target_ours_and_every_peer(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = PICTURES | {"by-linear", "by-mappingtransport"}
    assert {path.stem for path in (page.parent / "pictures").iterdir()} == names
    for name in names:
        encoded = base64.b64encode((page.parent / "pictures" / f"{name}.png").read_bytes()).decode()
        assert encoded in text
    for words in ("Certificate of ot-lift", "Taken back by the exact inverse", "The colours as points", "Every method"):
        assert words in text


def test_source_and_target_are_the_photographs_and_the_way_back_restores_them(page: Path) -> None:
    folder = page.parent / "pictures"
    source, target = sample_photographs(stride=12)
    for name, colours in (("source", source), ("target", target), ("restored", source)):
        assert (pixels(folder / f"{name}.png") == colours.levels[colours.place]).all()
    facts = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))["facts"]
    assert facts["Pixels restored to their exact 8-bit colour"] == "100.00%"


def test_the_colours_move_to_the_flowers_and_the_flowers_to_the_temples(page: Path) -> None:
    folder = page.parent / "pictures"
    mean = {name: pixels(folder / f"{name}.png").reshape(-1, 3).mean(0) for name in PICTURES}
    distance = float(np.linalg.norm(mean["source"] - mean["target"]))
    assert np.linalg.norm(mean["by-ot-lift"] - mean["target"]) < 0.2 * distance
    assert np.linalg.norm(mean["reverse"] - mean["source"]) < 0.2 * distance
    way = [float(np.linalg.norm(mean[name] - mean["source"])) for name in ("source", "way-25", "way-50", "way-75")]
    assert way == sorted(way)


def test_the_saved_map_paints_the_picture(page: Path) -> None:
    source, _ = sample_photographs(stride=12)
    moved = BrenierMap.load(page.parent / "map").transport(source.middles())
    painted = np.clip(np.floor(source.painted(moved) * 256), 0, 255)
    assert (pixels(page.parent / "pictures" / "by-ot-lift.png") == painted).all()


def test_the_record_has_every_method_and_says_where_colours_were_clipped(page: Path) -> None:
    record = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in record["comparison"]["results"]}
    assert set(rows) == {"identity", "linear", "MappingTransport", "ot-lift"}
    assert all(row["status"] == "ok" for row in rows.values())
    assert rows["ot-lift"]["energy"] < 0.5 * rows["identity"]["energy"]
    text = (page.parent / "report.md").read_text(encoding="utf-8")
    assert len(re.findall(r"[\d.]+% of the pixels clipped\n", text)) == 3


def test_a_seed_gives_the_same_pictures(page: Path, tmp_path: Path) -> None:
    again = small_demo(tmp_path / "again")
    for path in (page.parent / "pictures").iterdir():
        assert (again.parent / "pictures" / path.name).read_bytes() == path.read_bytes(), path.name
    for name in ("clouds", "displacement", "marginals"):
        assert (again.parent / f"figures/{name}.png").read_bytes() == (page.parent / f"figures/{name}.png").read_bytes()


def test_too_few_pixels_and_a_place_in_use_are_refused_before_the_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 50 pixels"):
        colour_transfer(tmp_path, pixels=10)
    (tmp_path / "map").mkdir()
    (tmp_path / "map" / "treasure.txt").write_text("mine")
    with pytest.raises(DataError, match="something else"):
        colour_transfer(tmp_path, pixels=100)


def test_pot_is_represented_by_each_of_its_maps() -> None:
    assert [method.name for method in demo_peers()] == ["identity", "linear", "EMD", "Sinkhorn", "MappingTransport"]


@pytest.mark.slow
def test_the_demo_with_every_peer_and_its_posterior(tmp_path: Path) -> None:
    """As a newcomer runs it, on fewer pixels, points and steps, and not in a process for each method."""
    slow = [SinkhornMethod(max_points=300, max_iterations=500), MappingMethod(max_points=200)]
    peers: list[Method] = [*demo_peers()[:3], *slow]  # the strongest, EMD, has all points
    page, found, facts = colour_transfer(
        tmp_path,
        photographs=sample_photographs(stride=4),
        pixels=2_000,
        max_steps=200,
        peers=peers,
        isolated=False,
    )
    assert [one.status for one in found.results] == ["ok"] * 6
    ours = found["ot-lift"]
    assert ours.energy is not None and ours.energy < found.energy_null
    assert "ot-lift" in found.winners["energy"]
    assert facts["Pixels restored to their exact 8-bit colour"] == "100.00%"
    assert imread(io.BytesIO((page.parent / "pictures" / "by-ot-lift.png").read_bytes())).shape[:2] == (107, 160)
    posterior = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["sections"]["a-posterior"]
    assert posterior["verdict"] == "good"
    if find_spec("numpyro") is not None:
        agrees_with_nuts(posterior)
        assert "NUTS took" in page.read_text(encoding="utf-8")


def agrees_with_nuts(posterior: dict[str, Any]) -> None:
    """The means within what NUTS' own sampling explains, the deviations within a tenth."""
    assert posterior["nuts"]["r_hat"] < 1.01
    sampling = 5 / np.sqrt(posterior["nuts"]["min_ess"])
    assert max(abs(row["shift"]) for row in posterior["moments"]) < sampling
    assert max(abs(row["ratio"] - 1) for row in posterior["moments"]) < 0.1
