"""The runner: a cell is a record whatever happens to it, none is run twice, none is lost but those that ran."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import benchmark_records
import joblib
import numpy as np
import pytest
import torch
from forks import Forks, forks
from typer.testing import CliRunner

from benchmarks import cells, runner
from benchmarks.cells import Cell, run_cell
from benchmarks.cells_judging import Judge, monotonicity_violations
from benchmarks.cli import app
from benchmarks.machine import Moment, Usage
from benchmarks.methods import Watcher, find_methods
from benchmarks.methods.brenier import WatchedBrenierMethod
from benchmarks.tasks import Options, Problem, Task, Unavailable, find_tasks
from benchmarks.tasks.gaussian import GaussianPair
from benchmarks.tasks.wasserstein2 import Wasserstein2
from benchmarks.tasks.wasserstein2 import tasks as wasserstein2_tasks
from ot_lift.errors import DataError
from ot_lift.methods import BaseMethod, IdentityMethod, Method
from ot_lift.peers import LinearMethod

ROOT = Path(__file__).parent.parent
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Shift(Task):
    """T(x) = x + 3."""

    label: str = "shift-d2"

    @property
    def name(self) -> str:
        return self.label

    title = words = "A shift"

    def problem(self, seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        x, y, fresh, images = (rng.normal(size=(self.rows, self.features)) for _ in range(4))
        return Problem(x, y + 3, fresh, images + 3, fresh + 3)


class Scripted(BaseMethod):
    """Does in `fit` what it is told to, then shifts by 3."""

    def __init__(self, name: str = "scripted", *, keeps_budget: bool = False, **does: Any) -> None:
        super().__init__(**does)
        self.name, self.does, self.keeps_budget = name, does, keeps_budget
        self.watcher: Watcher | None = None

    def watch(self, watcher: Watcher) -> None:
        self.watcher = watcher

    def fit(self, X: Array, Y: Array, *, random_state: int = 0, max_seconds: float | None = None) -> Self:
        began = time.time()
        if "raise" in self.does:
            raise ValueError(self.does["raise"])
        if "exit" in self.does:
            os._exit(self.does["exit"])
        if "hold" in self.does:
            self.held = bytearray(self.does["hold"])
        if "mark" in self.does:
            Path(self.does["mark"]).write_text(str(os.getpid()), encoding="ascii")
        if "print" in self.does:
            os.write(1, self.does["print"].encode())
        time.sleep(self.does.get("sleep", 0.0))
        if self.watcher is not None:
            for seconds, part in ((0.5, 0.0), (1.0, 1.0)):
                self.watcher(seconds, lambda points, part=part: points + 3 * part)
        self.settings = {**self.settings, "threads": torch.get_num_threads(), "budget": max_seconds}
        self.notes = [f"{began} {time.time()}"]
        return self

    def transport(self, X: Array) -> Array:
        return X + 3.0


def task(**changes: Any) -> Shift:
    return Shift(**{"features": 2, "rows": 60, "test_rows": 60, "budget_seconds": 5.0, **changes})


def cell(method: Method | None = None, seed: int = 0, **changes: Any) -> Cell:
    return Cell(task(**changes), method or Scripted(), seed, threads=1)


def plan(wanted: Iterable[Cell], out: Path, **options: Any) -> runner.Plan:
    return runner.Plan.of(wanted, out, **options)


# --------------------------------------------------------------------------------------- a cell
def test_a_cell_is_judged_against_the_truth() -> None:
    record = run_cell(cell())
    assert set(record) == set(cells.RECORD_KEYS)
    assert (record["status"], record["reason"]) == ("ok", "")
    figures = record["figures"]
    assert figures["l2_uvp"] == pytest.approx(0, abs=1e-12)
    assert figures["cosine"] == pytest.approx(1)
    assert figures["transport_cost"] == pytest.approx(18)
    assert figures["true_cost"] == pytest.approx(18)
    assert figures["monotonicity_violations"] == 0
    assert figures["energy_null"] > 0 and figures["emd_w2_squared"] > 0
    assert "round_trip" not in figures  # it has no inverse
    assert figures["fit_seconds"] >= 0 and figures["peak_memory_bytes"] >= 0
    assert record["settings"]["task"]["rows"] == 60
    assert record["machine"]["threads"] == 1 and record["revision"]
    assert len(record["details"]["points"]["image"]) == 60


def test_the_linear_map_wins_nothing_but_is_exact_between_gaussians() -> None:
    pair = GaussianPair(features=2, rows=4000, test_rows=200, budget_seconds=5.0)
    found = {one.name: run_cell(Cell(pair, one, 0, 1))["figures"] for one in (LinearMethod(), IdentityMethod())}
    assert found["linear"]["l2_uvp"] < 1 < found["identity"]["l2_uvp"]
    assert found["linear"]["round_trip"] < 1e-10 and found["linear"]["invert_seconds"] > 0


def test_equal_cells_give_equal_figures() -> None:
    first, second = (run_cell(cell())["figures"] for _ in range(2))
    timed = {"fit_seconds", "fit_cpu_seconds", "transport_seconds", "invert_seconds", "peak_memory_bytes"}
    assert {k: v for k, v in first.items() if k not in timed} == {k: v for k, v in second.items() if k not in timed}


def test_a_watched_fit_has_its_error_over_time() -> None:
    (early, late) = run_cell(cell())["details"]["curve"]
    assert early[0] == 0.5 and early[1] > 100
    assert late == [1.0, pytest.approx(0, abs=1e-12)]


def test_our_method_is_watched_and_shows_its_parameters() -> None:
    ours = WatchedBrenierMethod(max_steps=5, hidden_features=(8,), batch_size=32)
    record = run_cell(cell(ours, rows=200))
    assert record["status"] == "ok" and record["details"]["stop_reason"] == "max_steps"
    assert record["settings"]["method"] == {"max_steps": 5, "hidden_features": [8], "batch_size": 32}
    assert record["figures"]["round_trip"] < 1e-6


def test_every_method_gets_the_threads_that_the_cell_says() -> None:
    found = run_cell(Cell(task(), Scripted(), 0, threads=2))
    assert found["machine"]["threads"] == 2


@pytest.mark.parametrize(
    ("does", "status", "reason"),
    [
        ({"raise": "no luck"}, "failed", "ValueError: no luck"),
        ({"exit": 3}, "failed", "exit code 3"),
        ({"hold": 1 << 50}, "failed", "MemoryError"),
        ({"sleep": 30.0}, "timed out", "fit: ended after its limit of 0.3 seconds"),
    ],
)
def test_a_failure_is_a_record_with_its_reason(does: dict[str, Any], status: str, reason: str) -> None:
    record = run_cell(cell(Scripted(**does), budget_seconds=0.3 if status == "timed out" else 5.0))
    assert record["status"] == status
    assert reason in record["reason"]
    assert record["figures"] == {} and record["fingerprint"]


def test_what_a_method_prints_is_kept() -> None:
    assert run_cell(cell(Scripted(print="a word")))["messages"] == ["a word"]


def test_a_task_that_fails_is_a_record() -> None:
    assert "seed" in run_cell(cell(seed=-1))["reason"] or run_cell(cell(seed=-1))["status"] == "failed"


def test_a_fingerprint_is_of_all_settings_and_of_no_place(tmp_path: Path) -> None:
    prints = {one.fingerprint for one in (cell(), cell(seed=1), cell(rows=61), cell(Scripted(strength=1)))}
    assert len(prints) == 4
    assert cell().fingerprint == cell().fingerprint
    here, there = (
        Wasserstein2(features=2, rows=5, test_rows=5, budget_seconds=1.0, folder=place) for place in (Path(), tmp_path)
    )
    assert Cell(here, Scripted(), 0, 1).fingerprint == Cell(there, Scripted(), 0, 1).fingerprint


def test_words_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cell().fingerprint
    for name in ("title", "words"):
        monkeypatch.setattr(type(cell().task), name, "said in another way")
    assert cell().task.settings()["words"] == "said in another way"
    assert cell().fingerprint == before


def test_pairs_out_of_order_are_counted() -> None:
    x = np.arange(4.0)[:, None]
    assert monotonicity_violations(x, x) == 0
    assert monotonicity_violations(x, -x) == 1
    assert monotonicity_violations(x, np.zeros_like(x)) == 0
    assert monotonicity_violations(x, x[[1, 0, 2, 3]]) == pytest.approx(1 / 6)


def test_the_figures_of_the_identity_are_known() -> None:
    problem = task().problem(0)
    figures = Judge.of(problem, 0).figures(problem.test_source)
    variance = problem.test_source.var(0).sum()
    assert figures["l2_uvp"] == pytest.approx(100 * 18 / variance)
    assert (figures["cosine"], figures["transport_cost"]) == (0, 0)


@pytest.mark.slow
def test_a_cell_of_ten_seconds_costs_less_than_two_percent_more() -> None:
    """In CPU seconds of both processes, which other work on the machine does not lengthen; the method only sleeps."""
    run_cell(cell())  # starts the server of processes
    before = time.process_time()
    record = run_cell(cell(Scripted(sleep=10.0), budget_seconds=20.0))
    assert record["status"] == "ok"
    assert time.process_time() - before + record["timing"]["cpu_seconds"] < 0.02 * 10


def test_contention_is_seen_where_the_system_tells() -> None:
    began = Moment.now()
    time.sleep(0.25)
    usage = began.until_now()
    assert usage.cpu_seconds < usage.wall_seconds
    assert not Usage(1.0, 1.0, None, None).contended
    assert Usage(1.0, 1.0, 0.5, None).contended and Usage(1.0, 1.0, 0.5, 0.09).contended
    assert not Usage(1.0, 1.0, 0.5, 0.0).contended  # its own threads waited for each other


# --------------------------------------------------------------------------------------- a run
def test_finished_cells_are_skipped_and_outdated_ones_run_again(tmp_path: Path) -> None:
    wanted = [cell(seed=seed) for seed in (0, 1)] + [cell(Scripted("bad", **{"raise": "no"}))]
    first = runner.run(plan(wanted, tmp_path), tmp_path)
    assert len(first) == 3
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*.json")} == {one.path for one in wanted}
    assert plan(wanted, tmp_path).waiting == ()
    assert [one.label for one in plan(wanted, tmp_path, retry=True).waiting] == ["shift-d2 × bad, seed 0"]
    assert len(plan(wanted, tmp_path, again=True).waiting) == 3
    changed = plan([cell(rows=61)], tmp_path)
    assert (len(changed.waiting), changed.outdated) == (1, 1)
    assert runner.read_cells(tmp_path) == sorted(first, key=lambda one: (one["method"], one["seed"]))


def test_an_interrupt_keeps_what_has_ended(tmp_path: Path) -> None:
    wanted = [cell(seed=seed) for seed in range(3)]

    def stop(one: Cell, record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(plan(wanted, tmp_path), tmp_path, tell=stop)
    assert [one.seed for one in plan(wanted, tmp_path).finished] == [0]
    runner.run(plan(wanted, tmp_path), tmp_path)
    assert plan(wanted, tmp_path).waiting == ()


def overlaps(records: list[dict[str, Any]]) -> bool:
    spans = sorted(tuple(map(float, record["notes"][0].split())) for record in records)
    return any(first[1] > second[0] for first, second in itertools.pairwise(spans))


def test_cells_at_the_same_time_are_marked_and_those_with_a_budget_run_alone(tmp_path: Path) -> None:
    free = [cell(Scripted(sleep=0.4), seed) for seed in range(3)]
    kept = [cell(Scripted("kept", keeps_budget=True, sleep=0.2), seed) for seed in range(3)]
    with joblib.parallel_config(backend="threading", n_jobs=3):
        records = runner.run(plan([*kept, *free], tmp_path), tmp_path, jobs=None)
    alone = [record for record in records if record["method"] == "kept"]
    together = [record for record in records if record["method"] == "scripted"]
    assert overlaps(together) and not overlaps(alone)
    assert all(record["timing"]["together"] and record["timing"]["contended"] for record in together)
    assert not any(record["timing"]["together"] for record in alone)
    assert [record["method"] for record in records[-3:]] == ["kept"] * 3


@pytest.mark.slow
def test_cells_run_in_processes_of_loky(tmp_path: Path) -> None:
    wanted = [cell(seed=seed) for seed in range(2)]
    records = runner.run(plan(wanted, tmp_path), tmp_path, jobs=2, backend="loky")
    assert {record["status"] for record in records} == {"ok"}
    assert all(record["timing"]["together"] for record in records)


PATHS = f"import os, sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]"
DASK = """
import dask
from dask.distributed import LocalCluster
from benchmarks.cli import app
if __name__ == "__main__":
    dask.config.set({"distributed.worker.daemon": False})  # cells start processes
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        names = ["gaussian-d2", "identity", "linear", "--quick"]
        app(["run", *names, "--cluster", cluster.scheduler_address, "--out", sys.argv[1]], standalone_mode=False)
"""


@pytest.mark.slow
def test_cells_run_on_a_dask_cluster(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    (tmp_path / "run.py").write_text(PATHS + DASK, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "records")]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    records = runner.read_cells(tmp_path / "records")
    assert [(record["method"], record["status"]) for record in records] == [("identity", "ok"), ("linear", "ok")]
    assert all(record["timing"]["together"] for record in records)


def test_a_cluster_without_dask_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.cli.find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["run", "--cluster", "tcp://127.0.0.1:8786"])
    assert done.exit_code == 2 and "pip install distributed" in done.output


IMPORTS = f"""
{PATHS}
from pathlib import Path
import test_benchmark_runner as here
"""
_MORE_THAN_CAN_END = 200  # in 20 turns of at most 0.15 s, at 0.02 s a cell


def to_be_killed() -> list[Cell]:
    return [cell(seed=seed) for seed in range(_MORE_THAN_CAN_END)]


def in_this_process(one: Cell, out: Path, *, together: bool = False) -> dict[str, Any]:
    """In place of `Cell.run`: a record after some milliseconds, without a process of its own."""
    time.sleep(0.02)
    return benchmark_records.record("shift-d2", "scripted", one.seed) | {"fingerprint": one.fingerprint}


def many(folder: Path) -> None:
    """A run of more cells than can end."""
    Cell.run = in_this_process  # type: ignore[method-assign]  # this process is the run's alone
    runner.run(plan(to_be_killed(), folder), folder)


def sleeping(folder: Path) -> None:
    """A run of one cell that lasts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have set to be ignored
    cells = [cell(Scripted(sleep=60.0, mark=f"{folder}/mark"), budget_seconds=90.0)]
    runner.run(plan(cells, folder / "records"), folder / "records")


def queued(folder: Path) -> None:
    """A run of more cells than there are workers, all of which last."""
    cells = [
        cell(Scripted(f"scripted {i}", sleep=60.0, mark=f"{folder}/mark{i}"), budget_seconds=90.0) for i in range(6)
    ]
    runner.run(plan(cells, folder / "records"), folder / "records", jobs=2)


VICTIM = """
from benchmarks import cells_process
cells_process._PRELOADED = ()  # seconds of every run
def victim(asked):
    kind, _, folder = asked.partition(" ")
    getattr(here, kind)(Path(folder))
"""


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Starts the runs above: by the function's name and a folder."""
    with forks(IMPORTS + VICTIM, tmp_path_factory.mktemp("killable")) as runs:
        yield runs


def test_a_run_that_is_killed_twenty_times_loses_and_doubles_nothing(
    tmp_path: Path, rng: np.random.Generator, killable: Forks
) -> None:
    out = tmp_path / "records"
    kept: dict[Path, int] = {}
    for turn in range(20):
        run = killable.start(f"many {out}")
        time.sleep(float(rng.uniform(0.0, 0.15)))
        number = (signal.SIGKILL, signal.SIGTERM)[turn % 2]
        os.kill(run, number)
        assert killable.end() == -number
        found = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
        assert kept.items() <= found.items()  # none is lost, none was run a second time
        assert all(runner.read_cell(path) for path in found)  # each is whole
        kept = found
    waiting = len(plan(to_be_killed(), out).waiting)
    assert 0 < len(kept) == _MORE_THAN_CAN_END - waiting


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_behind(tmp_path: Path, killable: Forks) -> None:
    for number in (signal.SIGKILL, signal.SIGINT):
        _leaves_no_process(killable, tmp_path / number.name, number)


def _leaves_no_process(runs: Forks, folder: Path, number: signal.Signals) -> None:
    folder.mkdir()
    run, mark = runs.start(f"sleeping {folder}"), folder / "mark"
    until(lambda: mark.exists() and mark.read_text(encoding="ascii").isdigit())
    os.kill(run, number)
    assert runs.end() != 0
    fit = int(mark.read_text(encoding="ascii"))
    until(lambda: not alive(fit))
    assert not (folder / "records").exists()


@pytest.mark.slow
def test_workers_of_a_killed_run_start_nothing_of_their_queue(tmp_path: Path, killable: Forks) -> None:
    run = killable.start(f"queued {tmp_path}")
    marks: Callable[[], list[Path]] = lambda: list(tmp_path.glob("mark*"))  # noqa: E731
    until(lambda: len(marks()) == 2 and all(mark.read_text(encoding="ascii").isdigit() for mark in marks()))
    os.kill(run, signal.SIGKILL)
    assert killable.end() == -signal.SIGKILL
    fits = [int(mark.read_text(encoding="ascii")) for mark in marks()]
    until(lambda: not any(alive(fit) for fit in fits))
    time.sleep(3.0)  # a cell of the queue would have begun by now
    assert len(marks()) == 2


def until(holds: Callable[[], bool], *, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.02)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_file_that_is_no_record_is_refused_in_words(tmp_path: Path) -> None:
    place = tmp_path / cell().path
    place.parent.mkdir(parents=True)
    place.write_text('{"dear": "all"}', encoding="utf-8")
    with pytest.raises(DataError, match="got something else: remove it"):
        plan([cell()], tmp_path)


# -------------------------------------------------------------------------- tasks and methods by name
def test_names_choose_tasks_families_and_methods() -> None:
    def chosen(*names: str) -> tuple[set[str], set[str]]:
        found, _ = runner.chosen_cells(names, Options(quick=True), seeds=[0], threads=1)
        return {one.task.name for one in found}, {one.method.name for one in found}

    assert chosen("gaussian", "linear") == ({"gaussian-d2", "gaussian-d8", "gaussian-d32"}, {"linear"})
    assert chosen("density-gaussian")[0] == {f"density-gaussian-d{features}" for features in (2, 8, 21)}
    tasks, methods = chosen("gaussian-d8")
    assert tasks == {"gaussian-d8"} and {"identity", "EMD", "ot-lift", "ot-lift softplus"} <= methods
    with pytest.raises(DataError, match=r"got 'gausian'; there are .*gaussian-d2.*not available: wasserstein2"):
        chosen("gausian")


def test_cells_that_run_alone_have_every_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    def threads(quick: bool, asked: int | None = None) -> dict[bool, set[int]]:
        found, _ = runner.chosen_cells(["gaussian-d2"], Options(quick=quick), seeds=[0], threads=asked)
        return {alone: {one.threads for one in found if one.alone == alone} for alone in (False, True)}

    assert threads(quick=False) == {False: {3}, True: {3}}
    assert threads(quick=True) == {False: {1}, True: {3}}
    assert threads(quick=True, asked=2) == {False: {2}, True: {2}}


def test_what_cannot_run_here_is_said(tmp_path: Path) -> None:
    told = find_tasks(Options())[1]
    assert "wasserstein2: needs the benchmark's published weights; pass their folder as --data" in told
    with pytest.raises(Unavailable, match="no pair of files"):
        wasserstein2_tasks(Options(data=tmp_path))
    missing: Callable[[], list[str]] = lambda: find_methods(task())[1]  # noqa: E731
    assert all("cvxpy" in line or "pip install 'ot-lift[peers]'" in line for line in missing())


def test_methods_spend_the_budget_where_the_task_asks() -> None:
    def ours(spend: bool) -> dict[str, Any]:
        methods = {one.name: one for one in find_methods(task(spend_budget=spend))[0]}
        return methods["ot-lift"].settings

    assert ours(False)["patience"] is not None and ours(False)["max_steps"] == 2000
    assert ours(True)["patience"] is None and ours(True)["max_steps"] > 10**6


def test_peers_take_the_points_that_minutes_hold() -> None:
    def caps(**options: Any) -> dict[str, Any]:
        return {one.name: one.settings.get("max_points") for one in find_methods(task(**options))[0]}

    usual, minutes = caps(), caps(spend_budget=True)
    for name in ("EMD", "Sinkhorn", "MappingTransport"):
        assert minutes[name] >= 3 * usual[name]
        assert caps(spend_budget=True, quick=True)[name] <= usual[name]


def test_where_cost_is_the_question_networks_grow_and_plans_take_all_points() -> None:
    def settings(**options: Any) -> dict[str, dict[str, Any]]:
        return {one.name: one.settings for one in find_methods(task(uncapped=True, **options))[0]}

    methods = settings(rows=100_000)
    hidden = methods["ot-lift"]["hidden_features"]
    assert methods["ot-lift twice as wide"]["hidden_features"] == [2 * width for width in hidden]
    assert methods["ot-lift twice as deep"]["hidden_features"] == hidden * 2
    assert methods["EMD"]["max_points"] == methods["Sinkhorn"]["max_points"] == 100_000
    assert methods["ot-lift"]["positivity"] == "lift" and "ot-lift softplus" not in methods
    fewer = settings(rows=30_000)
    assert fewer["ot-lift"] == methods["ot-lift"] and "ot-lift twice as wide" not in fewer, "where the start is kept"


# ------------------------------------------------------------------------------- the command line
def test_the_commands_list_run_and_report(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["list", "--quick"])
    assert listed.exit_code == 0 and "gaussian-d2: Gaussian pair, d = 2; 1,000 points a side" in listed.output
    arguments = ["run", "gaussian-d2", "identity", "linear", "--quick", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "2 cells run, 0 of them failed, 0 were there" in done.output
    assert "0 cells run, 0 of them failed, 2 were there" in CliRunner().invoke(app, arguments).output
    told = CliRunner().invoke(app, ["report", "--out", str(tmp_path)])
    assert told.exit_code == 0 and (tmp_path / "site" / "gaussian-d2.html").exists()


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    done = CliRunner().invoke(app, ["run", "gaussian-d2", "identity", "--quick", "--out", str(tmp_path)])
    assert done.exit_code == 130 and "the same command goes on from here" in done.output


@pytest.mark.parametrize(("arguments", "word"), [(["run", "nothing"], "nothing"), (["run", "--seeds", "x"], "'x'")])
def test_bad_input_ends_with_a_sentence(arguments: list[str], word: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert word in done.output and "Traceback" not in done.output
