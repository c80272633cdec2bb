"""The report of a comparison: self-contained, complete, honest about who wins, and whole on disk."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from ot_lift.comparison import Comparison, MethodResult
from ot_lift.errors import DataError
from ot_lift.report import Gallery, Photograph, json_text, write_report
from ot_lift.report_figures import standard_plots
from ot_lift.report_places import check_map_folder, check_report_folder
from ot_lift.report_plots import displacement, marginals
from ot_lift.report_tables import method_table
from ot_lift.report_theme import LIGHT, Picture, legend, panels, photograph, to_bytes
from ot_lift.report_words import (
    convergence_sentence,
    cost_sentence,
    headline,
    marginal_sentence,
    number,
    seconds,
    time_sentence,
    verdict,
    w2_sentence,
)

CERTIFICATE = {
    "w2_squared_lower": 0.9,
    "w2_squared_lower_error": 0.05,
    "w2_squared_upper": 1.2,
    "dual_value": 1.0,
    "primal_cost": 1.05,
    "primal_cost_error": 0.04,
    "pushforward_energy": 0.01,
    "pushforward_null": 0.02,
    "pushforward_sliced_w2": 0.1,
    "sliced_w2_null": 0.2,
    "inversion_residual": 3e-10,
    "smallest_hessian_eigenvalue": 0.2,
    "n_source": 100,
    "n_target": 120,
    "words": ["Only so many points."],
}
HISTORY = [
    {"step": 100.0 * k, "seconds": 2.0 * k, "held_out": value, "loss": float("nan")}
    for k, value in enumerate((3.0, 1.5, 1.01, 1.0, 1.002))
]


def comparison(features: int = 2, *, winner: str = "EMD", **changes: Any) -> Comparison:
    """A record made up of four methods, one of which failed; `winner` is the closest to the target."""
    rng = np.random.default_rng(features)
    x, y = rng.normal(size=(300, features)), 1 + rng.normal(size=(280, features))
    loser = "EMD" if winner == "ot-lift" else "ot-lift"

    def row(name: str, energy: float, spread: float, **more: Any) -> MethodResult:
        image = x + 1 + spread * rng.normal(size=x.shape)
        figures: dict[str, Any] = {"sliced_w2": energy**0.5, "transport_cost": 1.0, "transport_cost_error": 0.05}
        return MethodResult(name, energy=energy, transported=image, **{**figures, **more})

    ours = {
        "w2_squared": 1.0,
        "w2_squared_lower": 0.9,
        "w2_squared_upper": 1.2,
        "round_trip": 1e-9,
        "fit_seconds": 30.0,
        "transport_seconds": 0.5,
        "transport_seconds_range": (0.4, 0.6),
        "peak_memory_bytes": 50_000_000,
        "details": {"history": HISTORY, "stop_reason": "plateau", "certificate": CERTIFICATE},
    }
    emd = {"w2_squared": 1.1, "round_trip": 0.3, "fit_seconds": 2.0, "transport_seconds": 3.0}
    of = {"EMD": emd, "ot-lift": ours}
    found = Comparison(
        results=(
            row("identity", 1.5, 0.0, fit_seconds=1e-6, round_trip=0.0, transport_cost=0.0, transport_cost_error=0.0),
            row("EMD", 0.01 if winner == "EMD" else 0.08, 0.1, **of["EMD"]),
            MethodResult("Sinkhorn", status="failed", reason="fit: <b>ended</b> after 2 | 3 seconds"),
            row("ot-lift", 0.01 if winner == "ot-lift" else 0.08, 0.1, **of["ot-lift"]),
        ),
        winners={
            "energy": (winner,),
            "sliced_w2": (winner, loser),
            "round_trip": ("identity", "ot-lift"),
            "fit_seconds": ("identity",),
            "transport_seconds": ("ot-lift",),
            "peak_memory_bytes": ("ot-lift",),
        },
        energy_null=0.02,
        sliced_w2_null=0.15,
        pushforward_points=140,
        sample_w2_squared=1.15,
        sample_w2_squared_error=0.1,
        n_source=1500,
        n_target=1400,
        features=features,
        held_out=0.2,
        n_held_out=(300, 280),
        random_state=7,
        max_seconds=2.0,
        memory_method="as it is",
        environment={"python": "3.11", "cores": 2},
        source_points=x,
        target_points=y,
    )
    return dataclasses.replace(found, **changes)


@cache
def gallery() -> Gallery:
    pixels = np.linspace(-0.2, 1.2, 4 * 5 * 3).reshape(4, 5, 3)
    one = Photograph("scene", "Scene <1>", "as it is", "a gradient", photograph(pixels), emphasis=True)
    return Gallery("pictures", "Pictures", "One & only.", (one,), 2)


class _Reader(HTMLParser):
    """Everything that an HTML page would load, its ids, its headings in order and the text of its table."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.cells: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.loads += [found[name] or "" for name in ("src", "srcset", "href", "data", "poster") if name in found]
        self.ids += [found["id"] or ""] if "id" in found else []
        self.labels += [found["aria-labelledby"] or ""] if "aria-labelledby" in found else []
        self.images += [found] if tag == "img" else []
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report that tests read and none changes."""
    place = tmp_path_factory.mktemp("report")
    return write_report(comparison(), place, title="Here & there", galleries=[gallery()], facts={"Pixels": "20"}).parent


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that are not about plots, which take seconds to draw."""
    monkeypatch.setattr("ot_lift.report.standard_plots", lambda comparison, **options: [])


def page_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------- the page
def test_the_page_loads_nothing_from_outside(report: Path) -> None:
    text = page_of(report)
    found = _Reader(text)
    assert found.loads
    assert {load.partition(":")[0] for load in found.loads if not load.startswith("#")} == {"data"}
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]+", "", text))
    assert "default-src 'none'" in text


def test_the_page_is_accessible(report: Path) -> None:
    found = _Reader(page_of(report))
    assert '<html lang="en">' in page_of(report)
    assert all(len(image["alt"] or "") > 5 for image in found.images)
    assert len(found.ids) == len(set(found.ids))
    assert set(found.labels) <= set(found.ids)
    assert {load[1:] for load in found.loads if load.startswith("#")} <= set(found.ids)
    assert page_of(report).count('scope="col"') == 9
    assert page_of(report).count('aria-sort="ascending"') == 2  # the heading, and the style that speaks of it


def test_the_page_has_a_light_and_a_dark_plot_of_every_kind(report: Path) -> None:
    text = page_of(report)
    names = {path.stem for path in (report / "figures").iterdir()}
    assert names == {"pushforward", "trade-off", "w2-squared", "displacement", "marginals", "convergence"}
    assert text.count('media="(prefers-color-scheme: dark)"') == len(names)
    for name in names:
        assert f'id="{name}"' in text
        encoded = base64.b64encode((report / "figures" / f"{name}.png").read_bytes()).decode()
        assert f'<img src="data:image/png;base64,{encoded}"' in text
        assert f'srcset="data:image/png;base64,{encoded}"' not in text


def test_what_comes_from_outside_is_escaped(report: Path) -> None:
    text = page_of(report)
    assert "<h1>Here &amp; there</h1>" in text
    assert "&lt;b&gt;ended&lt;/b&gt;" in text and "<b>ended" not in text
    assert "Scene &lt;1&gt;" in text


def test_the_closest_method_comes_first_and_failures_are_shown_last(report: Path) -> None:
    cells = _Reader(page_of(report)).cells
    names = [cell for cell in cells if cell in ("identity", "EMD", "Sinkhorn", "ot-lift")]
    assert names == ["EMD", "ot-lift", "identity", "Sinkhorn"]
    assert "failed" in cells
    assert "Failed: fit: &lt;b&gt;ended&lt;/b&gt; after 2 | 3 seconds" in page_of(report)


# ------------------------------------------------------------------------------------- other files
def test_every_file_says_the_same(report: Path) -> None:
    record = json.loads((report / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert record["comparison"]["results"][1]["energy"] == 0.01
    assert record["comparison"]["results"][3]["details"]["history"][0]["loss"] is None
    rows = list(csv.DictReader((report / "methods.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["name"] for row in rows] == ["identity", "EMD", "Sinkhorn", "ot-lift"]
    assert rows[2]["reason"] == "fit: <b>ended</b> after 2 | 3 seconds" and rows[2]["energy"] == ""
    text = (report / "report.md").read_text(encoding="utf-8")
    for sentence in [*record["headline"], *record["sentences"].values()]:
        assert sentence in text
    assert "\n\n\n" not in text
    links = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(links) == 7
    assert all((report / link).is_file() for link in links)


def test_the_markdown_table_has_as_many_cells_in_every_row(report: Path) -> None:
    lines = [line for line in (report / "report.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert {line.replace("\\|", "").count("|") for line in lines} == {10}


def test_templates_are_part_of_the_package() -> None:
    found = {entry.name for entry in files("ot_lift").joinpath("templates").iterdir()}
    assert found == {"posterior.html.j2", "report.html.j2", "report.md.j2", "sort.js.j2", "style.css.j2"}


def test_a_report_replaces_an_earlier_one_and_nothing_else(without_plots: None, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_report(comparison(), tmp_path, title="First")
    write_report(comparison(), tmp_path, title="Second")
    assert "<h1>Second</h1>" in page_of(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".partial")]


@pytest.mark.parametrize("name", ["report.html", "report.md", "report.json", "methods.csv"])
def test_files_that_are_not_a_reports_are_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(DataError, match=f"got a {name} of something else"):
        write_report(comparison(), tmp_path, title="No")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("mine")
    with pytest.raises(DataError, match="got a file"):
        check_report_folder(tmp_path / "report")
    with pytest.raises(DataError, match="something else"):
        check_map_folder(tmp_path / "report")
    assert check_map_folder(tmp_path / "new") == tmp_path / "new"


def test_a_write_that_fails_leaves_the_earlier_page(without_plots: None, tmp_path: Path) -> None:
    write_report(comparison(), tmp_path, title="First")
    broken = dataclasses.replace(gallery(), photographs=(None,))  # type: ignore[arg-type]
    with pytest.raises(Exception, match="NoneType"):
        write_report(comparison(), tmp_path, title="Second", galleries=[broken])
    assert "<h1>First</h1>" in page_of(tmp_path)
    assert "# First" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_method_that_is_not_there_cannot_be_ours(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no method 'theirs'"):
        write_report(comparison(), tmp_path, title="No", ours="theirs")
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------- plots
@pytest.mark.parametrize("features", [1, 2, 8])
def test_plots_are_drawn_in_every_dimension_and_leave_matplotlib_alone(features: int) -> None:
    before = dict(matplotlib.rcParams)
    plots = standard_plots(comparison(features), columns=[f"x{j}" for j in range(features)], ours="ot-lift")
    assert len(plots) == 6
    for plot in plots:
        light, dark = (imread(io.BytesIO(content)) for content in (plot.picture.light, plot.picture.dark))
        assert light.shape == dark.shape and light.shape[1] == 1440
        assert light[..., :3].mean() > 0.7 and dark[..., :3].mean() < 0.4
        assert len(np.unique(to_bytes(light[..., :3]) @ [1 << 16, 1 << 8, 1])) > 50
    assert dict(matplotlib.rcParams) == before


def test_a_method_has_one_colour_in_every_figure() -> None:
    found, columns = comparison(), ("a", "b")
    images = {one.name: one.transported for one in found.results if one.transported is not None}
    images["identity"] = found.source_points
    lines = {
        line.get_label(): line.get_color()
        for axis in marginals(
            found.source_points, found.target_points, images, LIGHT, ours="ot-lift", columns=columns
        ).axes
        for line in axis.get_lines()
    }
    assert lines == {name: LIGHT.colour(name, "ot-lift", list(images)) for name in ("EMD", "ot-lift")}
    assert lines["ot-lift"] == LIGHT.ours and lines["EMD"] == LIGHT.peers[1]


@pytest.mark.parametrize(("names", "rows"), [(3, 1), (9, 2), (20, 4)])
def test_a_legend_has_as_few_rows_as_the_figure_holds(names: int, rows: int) -> None:
    figure, axes = panels(1, LIGHT, height=2.0, across=1)
    handles = [axes[0].plot([], [], label="doubled softplus")[0] for _ in range(names)]
    legend(figure, handles, LIGHT)
    figure.canvas.draw()
    (drawn,) = figure.legends
    box = drawn.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
    assert len({round(text.get_window_extent().y0) for text in drawn.get_texts()}) == rows
    assert len(drawn.get_texts()) == names


def test_the_same_figures_give_the_same_bytes() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))

    def drawn() -> Picture:
        images = {"ot-lift": x + 1}
        return Picture(lambda theme: displacement(x, x + 1, images, theme, ours="ot-lift", columns=("a", "b")))

    first, second = drawn(), drawn()
    assert (first.light, first.dark) == (second.light, second.dark) and first.light != first.dark


def test_a_comparison_in_which_all_failed_has_a_report_without_plots(tmp_path: Path) -> None:
    failed = tuple(MethodResult(name, status="failed", reason="no luck") for name in ("EMD", "ot-lift"))
    page = write_report(comparison(results=failed, winners={}), tmp_path, title="Nothing")
    assert "no luck" in page.read_text(encoding="utf-8")
    assert not (tmp_path / "figures").exists()


def test_ours_may_fail_while_others_are_shown(tmp_path: Path) -> None:
    good = comparison()
    rows = (*good.results[:2], MethodResult("ot-lift", status="failed", reason="diverged"))
    write_report(dataclasses.replace(good, results=rows), tmp_path, title="Lost")
    record = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert "ot-lift failed: diverged." in record["headline"]
    assert "convergence" not in record["sentences"]


def test_a_photograph_is_clipped_and_nothing_else() -> None:
    pixels = np.array([[[-0.5, 0.0, 0.999], [1.5, 0.5, 1.0]]])
    image = imread(io.BytesIO(photograph(pixels)))
    assert (np.round(image[..., :3] * 255) == to_bytes(pixels)).all()
    assert to_bytes(pixels).tolist() == [[[0, 0, 255], [255, 128, 255]]]


# -------------------------------------------------------------------------------------------- words
def test_a_winner_is_told_with_its_margin_and_a_loss_of_ours_is_not_hidden() -> None:
    lost = verdict(comparison(winner="EMD"), "energy", ours="ot-lift")
    assert lost.startswith("EMD has the least energy distance to the target, 0.0100, beyond noise")
    assert "Next is ot-lift with 0.0800, 8.0 times as much." in lost
    assert lost.endswith("ot-lift loses here.")
    won = verdict(comparison(winner="ot-lift"), "energy", ours="ot-lift")
    assert won.startswith("ot-lift has the least") and "loses" not in won
    tie = verdict(comparison(winner="EMD"), "sliced_w2", ours="ot-lift")
    assert tie.startswith("EMD and ot-lift are not told apart") and "loses" not in tie


def test_what_does_nothing_wins_no_race() -> None:
    found = comparison()
    assert verdict(found, "fit_seconds", ours="ot-lift").startswith("EMD has the least fit time, 2.00 s, beyond noise")
    assert verdict(found, "round_trip", ours="ot-lift").startswith("ot-lift has the least round-trip error")
    assert verdict(found, "peak_memory_bytes", ours="ot-lift") == "ot-lift has the least peak memory, 50.0 MB."
    slow = dataclasses.replace(found, winners={"energy": ("ot-lift",)})
    assert time_sentence(slow, ours="ot-lift").endswith(
        "Of the methods closest to the target, ot-lift fits fastest, in 30.0 s."
    )


def test_the_headline_names_who_reaches_the_target_and_who_failed() -> None:
    told = headline(comparison(), ours="ot-lift")
    assert "EMD stays within the 0.0200 that two halves of the target reach (95% level)." in told
    assert told[-1] == "Sinkhorn failed: fit: <b>ended</b> after 2 | 3 seconds."
    far = headline(comparison(energy_null=1e-3), ours="ot-lift")
    assert any(sentence.startswith("No method stays within") for sentence in far)


def test_a_cost_below_the_lower_limit_is_no_merit() -> None:
    found = comparison(winner="EMD")
    rows = tuple(
        dataclasses.replace(one, transport_cost=0.5, transport_cost_error=0.01) if one.name == "EMD" else one
        for one in found.results
    )
    told = cost_sentence(dataclasses.replace(found, results=rows), ours="ot-lift")
    assert "That is under the lower limit of W2², 0.900: its image is not quite the target." in told
    assert "ot-lift is not among them; its cost is 1.00 ± 0.050." in told


def test_values_of_w2_are_set_against_the_limits() -> None:
    told = w2_sentence(comparison(), ours="ot-lift")
    assert "between 0.900 and 1.20" in told and "Inside: EMD (1.10)." in told
    assert "no limits" in w2_sentence(comparison(), ours="EMD")


def test_the_marginals_are_judged_against_two_halves_of_the_target() -> None:
    told = marginal_sentence(comparison(), columns=("height", "weight"), ours="ot-lift")
    assert re.search(r"between two halves of the target\..*ot-lift's worst column is (height|weight)", told)


def test_convergence_is_told_in_seconds() -> None:
    told = convergence_sentence(HISTORY, stop_reason="plateau", ours="ot-lift")
    assert "99% of its gain over the start after 4.00 s of the 8.00 s" in told
    assert "a plateau of the held-out value" in told
    flat = convergence_sentence(HISTORY[::-1][:1] * 2, stop_reason="max_steps", ours="ot-lift")
    assert "did not improve" in flat and "its step budget" in flat


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.0, "1.00"), (-0.5, "-0.500"), (999.6, "1,000"), (1e-12, "1.0×10⁻¹²"), (2e9, "2.0×10⁹")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
    assert number(float("nan")) == number(None) == seconds(None) == "–"


def test_the_table_sorts_by_numbers_and_marks_every_winner() -> None:
    table = method_table(comparison(), ours="ot-lift")
    first = table.rows[0]
    assert (first.name, first.cells[0].value, first.cells[0].best) == ("EMD", 0.01, True)
    ours = next(row for row in table.rows if row.ours)
    assert ours.cells[6].small == "400 to 600 ms"
    assert ours.cells[3].small == "0.900 to 1.20"


def test_json_is_strict() -> None:
    value: Mapping[str, Any] = {"a": (1, float("inf")), "b": {"c": float("nan")}}
    assert json.loads(json_text(value)) == {"a": [1, None], "b": {"c": None}}


# ------------------------------------------------------------------------------------ in a browser
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CLICKS = """
<script>
const names = () => [...document.querySelectorAll("tbody th")].map((cell) => cell.textContent).join();
const seen = [names()];
for (const column of [0, 0, 6, 6]) {
  document.querySelectorAll("thead button")[column].click();
  seen.push(names() + ":" + document.querySelectorAll("thead th")[column].getAttribute("aria-sort"));
}
document.title = "seen " + seen.join(" ");
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: the page is not opened in a browser here")
def test_the_table_sorts_in_a_browser_without_errors(report: Path, tmp_path: Path) -> None:
    page = tmp_path / "clicked.html"
    page.write_text(page_of(report).replace("</body>", f"{CLICKS}</body>"), encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
    ]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    (seen,) = re.findall(r"<title>seen ([^<]+)</title>", done.stdout)
    assert seen.split() == [
        "EMD,ot-lift,identity,Sinkhorn",
        "EMD,identity,ot-lift,Sinkhorn:ascending",
        "Sinkhorn,ot-lift,identity,EMD:descending",
        "identity,EMD,ot-lift,Sinkhorn:ascending",
        "ot-lift,EMD,identity,Sinkhorn:descending",
    ]
