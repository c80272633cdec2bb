"""Two sets of records: what changed beyond noise is said, and nothing else; ranks and their confidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmark_records import record, seeds_of
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.compare_records import compare_records, verdict
from benchmarks.metrics import BY_KEY, figure_of
from benchmarks.ranks import difference, standings
from benchmarks.runner import write_cell


def write(folder: Path, records: list[dict[str, Any]]) -> Path:
    for one in records:
        write_cell(folder / one["task"] / one["method"] / f"{one['seed']}.json", one)
    return folder


def verdicts(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, str]:
    return {change.figure: change.verdict for change in compare_records(before, after).changes}


# -------------------------------------------------------------------------------------- changes
@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([1.0, 1.1, 0.9], "same"),
        ([2.0, 2.2, 1.8], "worse"),
        ([0.5, 0.55, 0.45], "better"),
        ([1.02, 1.12, 0.92], "same"),  # surely more, but not by as much as counts
        ([0.4, 1.1, 2.9], "same"),  # more by much, but not surely
    ],
)
def test_a_change_counts_beyond_tolerance_and_noise(after: list[float], expected: str) -> None:
    found = verdicts(seeds_of("t", "m", [1.0, 1.1, 0.9]), seeds_of("t", "m", after))
    assert found["L2-UVP"] == expected


@pytest.mark.parametrize(("after", "expected"), [(1.1, "same"), (1.3, "worse"), (0.8, "better")])
def test_one_seed_must_change_by_three_tolerances(after: float, expected: str) -> None:
    assert verdict({0: 1.0}, {0: after}, BY_KEY["l2_uvp"]) == expected


def test_more_is_better_for_a_cosine() -> None:
    assert verdict({0: 0.9, 1: 0.91}, {0: 0.99, 1: 0.991}, BY_KEY["cosine"]) == "better"


def test_values_under_the_floor_are_the_same() -> None:
    assert verdict({0: 0.0, 1: 1e-15}, {0: 1e-8, 1: 1e-9}, BY_KEY["round_trip"]) == "same"


def test_a_cell_that_fails_now_is_worse_and_one_that_ends_now_is_better() -> None:
    well, ill = [record("t", "m", 0, l2_uvp=1.0)], [record("t", "m", 0, status="timed out")]
    assert verdicts(well, ill) == {"cells that ended well": "worse"}
    assert verdicts(ill, well) == {"cells that ended well": "better"}


def test_times_on_another_machine_or_under_contention_do_not_count() -> None:
    before = seeds_of("t", "m", [1.0, 1.0])
    slower = seeds_of("t", "m", [1.0, 1.0], fit_seconds=9.0)
    assert verdicts(before, slower)["fit"] == "worse"
    elsewhere = seeds_of("t", "m", [1.0, 1.0], fit_seconds=9.0, machine={"cpu": "Another"})
    found = compare_records(before, elsewhere)
    assert "fit" not in {change.figure for change in found.changes}
    assert found.notes == ("t × m: times left out, the machines differ",)
    busy = seeds_of("t", "m", [1.0, 1.0], fit_seconds=9.0, contended=True)
    assert "fit" not in verdicts(before, busy)


def test_what_only_one_set_has_is_noted() -> None:
    found = compare_records(seeds_of("t", "m", [1.0]), seeds_of("t", "other", [1.0]))
    assert found.notes == ("t × m: only in the first set", "t × other: only in the second set")
    assert not found.changes


def test_the_command_exits_with_1_if_something_got_worse(tmp_path: Path) -> None:
    good = write(tmp_path / "good", seeds_of("t", "m", [1.0, 1.1, 0.9]))
    bad = write(tmp_path / "bad", seeds_of("t", "m", [2.0, 2.2, 1.8]))
    worse = CliRunner().invoke(app, ["compare", str(good), str(bad)])
    assert worse.exit_code == 1
    assert "worse: t × m: L2-UVP 1.00% → 2.00% (3 seeds)" in worse.output
    better = CliRunner().invoke(app, ["compare", str(bad), str(good)])
    assert better.exit_code == 0
    assert "1 better, 0 worse" in better.output
    single = CliRunner().invoke(app, ["compare", str(good / "t/m/0.json"), str(bad / "t/m/0.json")])
    assert single.exit_code == 1


def test_the_command_says_where_there_are_no_records(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["compare", str(tmp_path), str(tmp_path)])
    assert done.exit_code == 2
    assert "got none" in done.output


# ---------------------------------------------------------------------------------------- ranks
def test_ranks_are_sure_where_seeds_agree() -> None:
    found = standings({"a": {0: 1.0, 1: 1.1, 2: 0.9}, "b": {0: 5.0, 1: 5.5, 2: 4.5}, "c": {0: 50.0, 1: 55.0, 2: 45.0}})
    assert [(one.rank, one.best, one.worst) for one in found.values()] == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]


def test_ranks_are_open_where_seeds_disagree_or_there_is_one() -> None:
    noisy = standings({"a": {0: 1.0, 1: 9.0, 2: 1.0}, "b": {0: 5.0, 1: 1.0, 2: 5.0}})
    assert all((one.best, one.worst) == (1, 2) for one in noisy.values())
    single = standings({"a": {0: 1.0}, "b": {0: 100.0}})
    assert (single["a"].rank, single["b"].rank) == (1, 2)
    assert all((one.best, one.worst) == (1, 2) for one in single.values())


def test_values_under_the_floor_share_their_ranks() -> None:
    found = standings({"a": {0: 1e-9, 1: 2e-9}, "b": {0: 1e-6, 1: 2e-6}}, floor=1e-4)
    assert found["b"].best == 1 and found["a"].worst == 2
    assert list(standings({"b": {0: 1e-6, 1: 2e-6}, "a": {0: 1e-9, 1: 2e-9}}, floor=1e-4)) == ["a", "b"]


def test_the_interval_of_a_difference_is_students() -> None:
    low, high = difference({0: 1.0, 1: 3.0, 2: 5.0}, {0: 0.0, 1: 0.0, 2: 0.0}, level=0.95)
    half = 4.302652729911275 * 2 / 3**0.5  # t of 2 degrees of freedom at 97.5%, deviation 2
    assert (low, high) == (pytest.approx(3 - half), pytest.approx(3 + half))


def test_a_time_under_contention_is_no_figure() -> None:
    busy = record("t", "m", 0, contended=True, fit_seconds=1.0, l2_uvp=2.0)
    assert (figure_of(busy, "fit_seconds"), figure_of(busy, "l2_uvp")) == (None, 2.0)
