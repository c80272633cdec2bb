"""The site of a set of records: whole, honest about who wins, and alive in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_records import record, seeds_of

from benchmarks.site import write_site
from benchmarks.site_plots import pareto_front, task_plots
from benchmarks.site_scaling import scaling_content, series, takeovers
from benchmarks.site_tables import overview_table, task_table
from benchmarks.site_words import caption, mean_ranks, overall, verdict
from ot_lift.report_theme import LIGHT


def drawn(seed: int, shift: float) -> dict[str, Any]:
    x = np.random.default_rng(seed).normal(size=(40, 2))
    points = {"source": x.tolist(), "target": (x[::-1] + 1).tolist(), "image": (x + shift).tolist()}
    return {"points": points, "curve": [[0.5, 9.0], [1.0, 3.0], [2.0, 1.0]], "stop_reason": "plateau"}


def records(ours: float = 2.0, peer: float = 1.0) -> list[dict[str, Any]]:
    """A task that EMD wins by default, with a failure and three seeds."""
    noise = np.array([1.0, 1.1, 0.9])
    return [
        *seeds_of("gaussian-d2", "EMD", list(peer * noise), fit_seconds=5.0),
        *seeds_of("gaussian-d2", "identity", list(40 * noise), fit_seconds=1e-5),
        *seeds_of("gaussian-d2", "ot-lift", list(ours * noise), fit_seconds=20.0, details=drawn(0, 1.0)),
        *(record("gaussian-d2", "Sinkhorn", seed, status="timed out") for seed in range(3)),
    ]


# ---------------------------------------------------------------------------------------- words
def test_a_peer_that_wins_is_said_to_win() -> None:
    told = verdict(records())
    assert told[0].startswith("EMD wins with L2-UVP 1.00%, the mean of 3 seeds")
    assert told[1] == (
        "Next is ot-lift with 2.00%, 2.0 times as much: its points miss their places by 14% of the target's spread, "
        "those of EMD by 10%, which matters."
    )
    assert told[2] == "ot-lift is second of 3 with L2-UVP 2.00%: it loses here to EMD."
    assert told[3] == "Fit time: EMD 5.00 s, ot-lift 20.0 s."
    assert told[4] == "Sinkhorn timed out (seed 0, 1, 2): ValueError: no luck."


def test_ours_wins_in_the_same_words() -> None:
    told = verdict(records(ours=0.5))
    assert told[0].startswith("ot-lift wins with L2-UVP 0.500%")
    assert not any("loses" in sentence for sentence in told)


def test_a_difference_that_nobody_notices_is_said_to_be_none() -> None:
    assert verdict(records(ours=1e-3, peer=3e-4))[1].endswith("which makes no difference in use.")


def test_one_seed_is_said_to_know_nothing_of_noise() -> None:
    told = verdict([one for one in records() if one["seed"] == 0])
    assert told[0] == "EMD has the least L2-UVP 1.00%; with one seed nothing is known of the noise."
    assert told[2] == "ot-lift is second of 3 with L2-UVP 2.00%."


def test_what_noise_cannot_tell_apart_is_said_to_tie() -> None:
    told = verdict([*seeds_of("t", "EMD", [1.0, 3.0, 2.0]), *seeds_of("t", "ot-lift", [2.0, 1.9, 2.2])])
    assert told[0] == "EMD and ot-lift are not told apart over 3 seeds; the least L2-UVP is EMD's, 2.00%."
    assert "within noise of the best" in told[2]


def test_of_many_that_tie_those_that_do_not_are_named() -> None:
    alike = [one for name in "abcd" for one in seeds_of("t", name, [1.0, 3.0, 2.0])]
    told = verdict([*alike, *seeds_of("t", "e", [100.0, 300.0, 200.0])])
    assert told[0] == "The least L2-UVP is a's, 2.00%; of the others only e is worse beyond the noise of 3 seeds (95%)."
    assert verdict(alike)[0].endswith("2.00%; no other is worse beyond the noise of 3 seeds (95%).")


def test_a_peer_that_is_surely_ahead_is_named_though_a_noisy_method_ties_with_it() -> None:
    noisy = seeds_of("t", "ot-lift softplus", [1.2, 60.0, 2.0])
    told = verdict([*noisy, *seeds_of("t", "EMD", [1.0, 1.1, 0.9]), *seeds_of("t", "ot-lift", [2.0, 2.2, 1.8])])
    assert any(sentence.startswith("ot-lift is") and sentence.endswith("it loses here to EMD.") for sentence in told)


def test_without_a_true_map_the_energy_distance_decides_against_its_null_level() -> None:
    def of(method: str, energy: float) -> list[dict[str, Any]]:
        return [record("t", method, seed, energy=energy + 0.01 * seed, energy_null=0.5) for seed in range(3)]

    told = verdict([*of("EMD", 0.1), *of("ot-lift", 0.2), *of("identity", 3.0)])
    assert told[0].startswith("EMD and ot-lift are not told apart")
    assert told[1].startswith("Next is identity") and told[1].endswith("so the difference matters.")


def test_nothing_that_ended_well_is_said() -> None:
    assert verdict([record("t", "m", 0, status="failed")]) == ["No method ended well."]


# --------------------------------------------------------------------------------------- tables
def test_the_table_has_every_method_the_failed_ones_last() -> None:
    table = task_table(records())
    assert [row.name for row in table.rows] == ["EMD", "ot-lift", "identity", "Sinkhorn"]
    assert [row.cells[0].text for row in table.rows] == ["1", "2", "3", "–"]
    first = dict(zip([column.title for column in table.columns[1:]], table.rows[0].cells, strict=True))
    assert (first["L2-UVP"].text, first["L2-UVP"].small, first["L2-UVP"].best) == ("1.00%", "± 0.100%", True)
    assert (first["fit"].best, first["seeds"].text) == (True, "3 of 3")  # the identity takes no part in a race
    assert table.rows[-1].cells[-1].text == "0 of 3"


def test_the_overview_counts_a_failure_as_the_last_place() -> None:
    table = overview_table({"gaussian-d2": records()})
    assert [(row.name, row.cells[0].text) for row in table.rows] == [
        ("EMD", "1.0"),
        ("ot-lift", "2.0"),
        ("identity", "3.0"),
        ("Sinkhorn", "4.0"),
    ]


def test_the_front_is_what_nothing_else_beats_in_both() -> None:
    points = {"a": (1.0, 9.0), "b": (2.0, 9.0), "c": (3.0, 1.0), "d": (4.0, 1.0)}
    assert pareto_front(points) == ["a", "c"]


def test_names_of_methods_that_are_alike_do_not_cover_each_other() -> None:
    crowd = [seeds_of("t", f"method {place}", [1.0 + 0.01 * place], fit_seconds=20.0) for place in range(7)]
    crowd += [seeds_of("t", "EMD", [100.0], fit_seconds=0.1), seeds_of("t", "ot-lift", [0.1], fit_seconds=1000.0)]
    figure = task_plots([one for own in crowd for one in own])[0].picture.draw(LIGHT)
    labels = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(labels) == len(crowd)
    assert all(label.count_overlaps(labels) == 1 for label in labels)  # itself


# ----------------------------------------------------------------------------------------- pages
@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    more = [*records(), *seeds_of("wasserstein2-d8", "EMD", [1.0]), record("lost-d2", "EMD", 0, status="failed")]
    return write_site(more, tmp_path_factory.mktemp("site"))


def test_the_site_has_an_overview_and_a_page_a_task(site: Path) -> None:
    pages = sorted(page.name for page in site.parent.iterdir())
    assert pages == ["gaussian-d2.html", "index.html", "lost-d2.html", "wasserstein2-d8.html"]
    overview = site.read_text(encoding="utf-8")
    links = re.findall(r'href="([^"#:]+)"', overview)
    assert sorted(links) == ["gaussian-d2.html", "lost-d2.html", "wasserstein2-d8.html"]
    assert "EMD wins with L2-UVP 1.00%" in overview


def test_a_page_needs_nothing_beside_itself(site: Path) -> None:
    for page in site.parent.iterdir():
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'(?:src|srcset|href)="(?!data:|#|[\w-]+\.html")[^"]*"', text), page.name
        assert "Words & <signs>" not in text  # they are escaped


def test_a_page_has_settings_pictures_and_how_it_was_measured(site: Path) -> None:
    text = (site.parent / "gaussian-d2.html").read_text(encoding="utf-8")
    for part in ("Quality against time", "Error over the time", "Where points go", "strength = 3", "0123456789ab"):
        assert part in text
    assert text.count("<img") == 3


def test_times_under_contention_are_marked_and_hollow(tmp_path: Path) -> None:
    busy = [*seeds_of("t", "EMD", [1.0, 1.1], contended=True), *seeds_of("t", "linear", [2.0, 2.1])]
    write_site(busy, tmp_path)
    text = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "Hollow: EMD, whose time was taken on another or a shared machine" in text
    assert "2 times marked" in text


# --------------------------------------------------------------------------------------- scaling
def scaled(method: str, costs: dict[tuple[int, int], float | None]) -> list[dict[str, Any]]:
    """A record of each size (n, d) with that fit time; None is a failure."""
    found = []
    for (rows, features), cost in costs.items():
        status = "timed out" if cost is None else "ok"
        one = record(f"scaling-n{rows}-d{features}", method, 0, status=status, fit_seconds=cost or 0.0, l2_uvp=1.0)
        one["settings"]["task"] |= {"rows": rows, "features": features, "uncapped": True}
        found.append(one)
    return found


def growing() -> list[dict[str, Any]]:
    """EMD grows quadratically and ends at n = 1,000; ours takes 5 seconds."""
    sizes = [(10, 8), (100, 8), (1000, 8), (100, 2)]
    return [
        *scaled("EMD", dict(zip(sizes, [0.1, 10.0, None, 9.0], strict=True))),
        *scaled("ot-lift", dict.fromkeys(sizes, 5.0)),
    ]


def test_a_size_that_ran_on_another_processor_is_no_part_of_the_line() -> None:
    moved = growing()
    for one in moved:
        if one["settings"]["task"]["rows"] == 10:
            one["machine"] = one["machine"] | {"cpu": "B"}
    before, after = ([one for one in found if one["settings"]["task"]["features"] == 8] for found in (growing(), moved))
    assert series(before, "rows", "fit_seconds")["EMD"] == {10: 0.1, 100: 10.0}
    assert series(after, "rows", "fit_seconds")["EMD"] == {100: 10.0}
    assert set(series(after, "rows", "l2_uvp")["EMD"]) == {10, 100}
    assert scaling_content(moved)["sentences"][-1].startswith("Cells of EMD and ot-lift ran on another processor (B)")


def test_slopes_and_takeovers_are_those_of_the_figures() -> None:
    content = scaling_content(growing())
    assert content["sentences"] == [
        "Growing n (d = 8), fit: less for ot-lift than for EMD from 100 on.",
        "Growing d (n = 100), fit: less for ot-lift than for EMD at every size.",
    ]
    rows, features = content["sections"]
    assert rows["title"] == "Growing n, points (d = 8)"
    assert features["title"] == "Growing d, dimensions (n = 100)"
    first = {row.name: [cell.text for cell in row.cells] for row in rows["table"].rows}
    assert first == {"EMD": ["100", "2.00", "0.00"], "ot-lift": ["1,000", "0.00", "0.00"]}


def test_a_peer_that_always_costs_less_is_said_to_and_one_that_never_ended() -> None:
    costs = {"ot-lift": {10: 5.0, 100: 5.0}, "linear": {10: 0.1, 100: 0.2}}
    told = takeovers(costs, {"EMD": {10, 100}}, "fit")
    assert told == (
        "fit: less for ot-lift than for EMD at every size, where it has no result; "
        "up to the largest size less for linear than for ot-lift"
    )
    assert takeovers(costs, {"ot-lift": {2000, 1000}}, "fit").endswith("; ot-lift has no result at 1,000 and 2,000")


def test_a_time_that_does_not_count_is_no_failure() -> None:
    own, peer = scaled("ot-lift", {(10, 8): 5.0, (100, 8): 5.0}), scaled("EMD", {(10, 8): 1.0, (100, 8): 9.0})
    peer[1]["timing"]["contended"] = True
    (told,) = scaling_content([*own, *peer])["sentences"]
    assert told == "Growing n (d = 8), fit: up to the largest size less for EMD than for ot-lift."


def test_dimensions_may_grow_at_several_numbers_of_points() -> None:
    sizes = [(n, d) for n in (10, 1000) for d in (2, 8, 32)] + [(n, 8) for n in (50, 100, 200)]
    content = scaling_content(scaled("ot-lift", dict.fromkeys(sizes, 5.0)))
    assert [one["key"] for one in content["sections"]] == ["rows-8", "features-10", "features-1000"]
    assert [one["title"][-10:] for one in content["sections"]] == ["ts (d = 8)", "s (n = 10)", "n = 1,000)"]


def test_more_threads_are_held_against_fewer_and_not_against_other_sizes() -> None:
    found = growing()
    for threads, cost in ((1, 6.0), (2, 4.0)):
        (one,) = scaled("ot-lift", {(500, 32): cost})
        one["settings"]["task"]["threads"] = threads
        found.append(one)
    content = scaling_content(found)
    assert [section["title"] for section in content["sections"]][
        2
    ] == "More threads, cores that may work (n = 500, d = 32)"
    assert content["sentences"][-1] == "With 2 threads instead of 1, fit: ot-lift 1.5 times as fast."
    assert [one["key"] for one in content["sections"]] == ["rows-8", "features-100", "threads-500-32"]


def test_costs_of_densities_have_a_page_of_their_own(tmp_path: Path) -> None:
    found = growing()
    for rows in (10, 100):
        one = record(f"density-scaling-n{rows}-d8", "ot-lift", 0, fit_seconds=1.0, score_seconds=rows / 10, excess=0.1)
        one["settings"]["task"] |= {"rows": rows, "features": 8, "uncapped": True, "kind": "density"}
        found.append(one)
    overview = write_site(found, tmp_path).read_text(encoding="utf-8")
    assert {"scaling.html", "density-scaling.html"} == set(re.findall(r'href="([^"#:]+)"', overview))
    page = (tmp_path / "density-scaling.html").read_text(encoding="utf-8")
    assert "How costs of densities grow" in page and "score" in page


def test_sizes_are_one_entry_of_the_overview_and_a_page(tmp_path: Path) -> None:
    overview = write_site([*records(), *growing()], tmp_path).read_text(encoding="utf-8")
    assert re.findall(r'href="([^"#:]+)"', overview) == ["gaussian-d2.html", "scaling.html"]
    assert "scaling-n10" not in overview
    page = (tmp_path / "scaling.html").read_text(encoding="utf-8")
    assert page.count("<img") == 2 and page.count("<table") == 2
    links = re.findall(r'href="(scaling-[^"]+)"', page)
    assert sorted(links) == sorted(path.name for path in tmp_path.glob("scaling-*.html"))


def test_without_a_time_that_counts_none_is_told() -> None:
    busy = [one | {"timing": one["timing"] | {"contended": True}} for one in growing()]
    assert scaling_content(busy)["sentences"] == ["No time counts: other work ran beside every cell."]


# ------------------------------------------------------------------------------------ in a browser
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CLICKS = """
<script>
const names = () => [...document.querySelectorAll("tbody th")].map((cell) => cell.textContent).join();
const seen = [names()];
for (const column of [0, 2, 2]) {
  document.querySelectorAll("thead button")[column].click();
  seen.push(names() + ":" + document.querySelectorAll("thead th")[column].getAttribute("aria-sort"));
}
const pictures = [...document.images];
const loaded = pictures.filter((picture) => picture.complete && picture.naturalWidth > 500).length;
document.title = "seen " + seen.join(" ") + ` ${loaded}/${pictures.length}`;
</script>
"""


browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: the pages are not opened in a browser here")


def seen(page: Path, folder: Path) -> list[str]:
    """What a browser saw on a page: orders of its first table after clicks, and pictures loaded; no error."""
    clicked = folder / "clicked.html"
    clicked.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{CLICKS}</body>"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command = [
        *(str(CHROMIUM), *flags, "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"),
        *("--virtual-time-budget=2000", "--dump-dom", clicked.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    (title,) = re.findall(r"<title>seen ([^<]+)</title>", done.stdout)
    return title.split()


@pytest.mark.slow
@browser
@pytest.mark.parametrize(
    ("page", "order", "pictures"),
    [
        ("gaussian-d2.html", "EMD,ot-lift,identity,Sinkhorn", 3),
        ("index.html", "EMD,identity,ot-lift,Sinkhorn", 0),  # EMD alone is ranked on half of the tasks
    ],
)
def test_tables_sort_and_pictures_load_without_errors(
    site: Path, tmp_path: Path, page: str, order: str, pictures: int
) -> None:
    assert seen(site.parent / page, tmp_path) == [
        order,
        "EMD,identity,ot-lift,Sinkhorn:ascending",
        "EMD,ot-lift,identity,Sinkhorn:ascending",  # by quality; what has no figure stays last
        "identity,ot-lift,EMD,Sinkhorn:descending",
        f"{pictures}/{pictures}",
    ]


@pytest.mark.slow
@browser
def test_the_page_of_growing_costs_is_alive(tmp_path: Path) -> None:
    write_site(growing(), tmp_path)
    words = seen(tmp_path / "scaling.html", tmp_path)
    assert words[0] == "EMD,ot-lift,EMD,ot-lift"  # two tables
    assert words[2:4] == ["ot-lift,EMD,EMD,ot-lift:ascending", "EMD,ot-lift,EMD,ot-lift:descending"]  # slopes 0 and 2
    assert words[-1] == "2/2"


def test_a_task_that_ours_was_not_run_on_says_nothing_of_it() -> None:
    tried = [*seeds_of("near-d2", "ot-lift", [1.0, 1.1, 0.9]), *seeds_of("near-d2", "EMD", [5.0, 5.5, 4.5])]
    told = overall({"near-d2": tried, "far-d2": seeds_of("far-d2", "EMD", [1.0, 1.1, 0.9])})
    assert told == [
        "Mean rank over 2 tasks: ot-lift 1.0 and EMD 1.5.",
        "On 1 of 1 no peer's mean is ahead of ot-lift's by what matters in use.",
    ]


def test_ours_is_held_against_the_next_peer_and_not_against_its_own_variants() -> None:
    ours = [*seeds_of("t", "ot-lift", [1.0]), *seeds_of("t", "ot-lift softplus", [1.2])]
    assert verdict([*ours, *seeds_of("t", "EMD", [2.0])])[1].startswith("The next peer is EMD with 2.00%, 2.0 times")
    assert verdict(ours)[1].startswith("Next is ot-lift softplus with 1.20%")


def test_times_of_another_processor_do_not_count_and_that_is_said() -> None:
    assert not any("processor" in sentence for sentence in verdict(records()))
    moved = [*records(), *seeds_of("gaussian-d2", "linear", [3.0, 3.1, 2.9], fit_seconds=1e-3)]
    for one in moved:
        if one["method"] == "linear":
            one["machine"] = one["machine"] | {"cpu": "B"}
    assert verdict(moved)[-1] == (
        "Cells of linear ran on another processor (B) than most (A processor): their times are left out, and their "
        "budget was worth more or less."
    )
    table = task_table(moved)
    row = next(row for row in table.rows if row.name == "linear")
    fit = [column.title for column in table.columns[1:]].index("fit")
    assert (row.cells[fit].text, row.cells[-1].small, row.cells[1].text) == ("–", "3 times marked", "3.00%")
    told = task_plots(moved)[0].sentence
    assert "EMD" in told.split("Hollow:")[0] and "Hollow: linear, whose time" in told


def test_a_curve_whose_time_does_not_count_is_shown_and_dashed() -> None:
    busy = [one | {"timing": one["timing"] | {"contended": one["method"] == "ot-lift"}} for one in records()]
    mark = "Dashed or hollow: the time was taken on another or a shared machine; it does not count."
    for tried, line in ((records(), "-"), (busy, "--")):
        plot = next(plot for plot in task_plots(tried) if plot.key == "over-time")
        assert plot.sentence.endswith(mark) == (line == "--")
        curves = [drawn for drawn in plot.picture.draw(LIGHT).axes[0].lines if len(drawn.get_xdata()) == 3]
        assert [drawn.get_linestyle() for drawn in curves] == [line] * 3


def test_mean_ranks_name_peers_before_variants_of_ours() -> None:
    methods = ("ot-lift softplus", "ot-lift", "EMD", "linear")
    tried = [one for at, name in enumerate(methods, 1) for one in seeds_of("t", name, [1.0 * at, 1.1 * at, 0.9 * at])]
    least = "ot-lift 2.0, EMD 3.0 and linear 4.0"
    assert overall({"t": tried})[0] == f"Mean rank over 1 task: {least}; variants of ours: ot-lift softplus 1.0."


def test_a_mean_rank_over_a_few_tasks_is_not_held_against_one_over_most() -> None:
    tasks = {name: seeds_of(name, "EMD", [1.0, 1.1, 0.9]) for name in ("a", "b", "c")}
    tasks["a"] += seeds_of("a", "ot-lift softplus", [0.1, 0.2, 0.1])
    assert mean_ranks(tasks) == {"EMD": pytest.approx(4 / 3)}
    last = overview_table(tasks).rows[-1]
    assert last.name == "ot-lift softplus" and last.cells[0].text == "–"


def test_one_seed_is_not_held_against_several() -> None:
    several = [*seeds_of("t", "EMD", [2.0, 2.2, 1.8]), *seeds_of("t", "ot-lift", [1.0, 1.1, 0.9])]
    tried = [*several, *seeds_of("t", "ot-lift softplus", [0.1])]
    assert verdict(tried)[0].startswith("ot-lift wins") and mean_ranks({"t": tried}) == {"ot-lift": 1.0, "EMD": 2.0}
    rows = {row.name: row.cells for row in task_table(tried).rows}
    assert list(rows) == ["ot-lift", "EMD", "ot-lift softplus"] and rows["ot-lift softplus"][0].text == "–"
    assert rows["ot-lift"][1].best and not rows["ot-lift softplus"][1].best
    assert caption(tried).endswith("is not ranked.") and not caption(several).endswith("is not ranked.")
    lost = [*tried, record("t", "Sinkhorn", 0, status="failed")]
    assert mean_ranks({"t": lost}) == mean_ranks({"t": tried})
    last = overview_table({"t": tried}).rows[-1]
    assert last.name == "ot-lift softplus" and (last.cells[0].text, last.cells[1].small) == ("–", "not ranked")
    alone = [*seeds_of("t", "EMD", [2.0, 2.2]), *seeds_of("t", "ot-lift", [1.0])]
    assert overall({"t": alone}) == ["Mean rank over 1 task: EMD 1.0."]


def test_who_is_ahead_by_the_mean_is_said_and_whether_beyond_noise() -> None:
    sure = [*seeds_of("near-d2", "ot-lift", [9.0, 9.9, 8.1]), *seeds_of("near-d2", "EMD", [1.0, 1.1, 0.9])]
    noisy = [*seeds_of("far-d2", "ot-lift", [9.0, 9.9, 8.1]), *seeds_of("far-d2", "EMD", [1.0, 12.0, 0.9])]
    told = overall({"near-d2": sure, "far-d2": noisy})
    assert told[1:] == [
        "On 0 of 2 no peer's mean is ahead of ot-lift's by what matters in use.",
        "Ahead of it: EMD on 2 (near-d2, far-d2).",
        "Of these, beyond the noise of the seeds (95%): EMD on 1 (near-d2).",
    ]
    assert overall({"far-d2": noisy})[-1].startswith("None of these is beyond the noise of the seeds (95%)")
