"""The comparison: one split for all, honest rows for failures, figures against closed forms, winners beyond noise."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
import torch

from ot_lift.compare import compare, default_methods
from ot_lift.discrete import exact_transport
from ot_lift.distances import energy_distance
from ot_lift.errors import ConvergenceWarning, DataError
from ot_lift.measuring import Job
from ot_lift.methods import BaseMethod, BrenierMethod, IdentityMethod, Method
from ot_lift.peers import EMDMethod, LinearMethod, MappingMethod, SinkhornMethod
from ot_lift.ranking import best_of, resampled_pushforward

# POT warns when it stops at its iterations; a comparison keeps that in the row's messages.
pytestmark = pytest.mark.filterwarnings("ignore:Sinkhorn did not converge:UserWarning")

Array = np.ndarray[Any, np.dtype[Any]]

PEERS = {
    "linear": LinearMethod,
    "EMD": lambda: EMDMethod(max_points=150),
    "Sinkhorn": lambda: SinkhornMethod(max_points=150, max_iterations=100, tolerance=1e-4),
    "MappingTransport": lambda: MappingMethod(max_points=60, max_iterations=3),
}
INVERTIBLE = ("linear", "EMD", "Sinkhorn")


class Scripted(BaseMethod):
    """A method that does what a test tells it to."""

    def __init__(self, name: str = "scripted", **does: Any) -> None:
        super().__init__()
        self.name, self.does = name, does

    def fit(self, X: Array, Y: Array, *, random_state: int = 0, max_seconds: float | None = None) -> Self:
        self.seen = len(X), len(Y), X[0].copy()
        if "print" in self.does:
            print(self.does["print"])
            warnings.warn("and warned", stacklevel=1)
        if "write" in self.does:
            os.write(1, self.does["write"].encode())
        if "allocate" in self.does:
            self.block = np.ones(self.does["allocate"] // 8)
        if "sleep" in self.does:
            time.sleep(self.does["sleep"])
        if "exit" in self.does:
            os._exit(self.does["exit"])
        if "raise" in self.does:
            raise self.does["raise"]
        return self

    def transport(self, X: Array) -> Array:
        return np.asarray(self.does["image"](X) if "image" in self.does else X)


def shifted(rng: np.random.Generator, n: int = 200, m: int = 260) -> tuple[Array, Array]:
    return rng.normal(size=(n, 2)), 2 * rng.normal(size=(m, 2)) + [3.0, -1.0]


def run(X: Any, Y: Any, *methods: Method, **options: Any) -> Any:
    return compare(X, Y, methods=methods, isolated=False, **options)


# ------------------------------------------------------------------------------------------ the methods
def test_every_default_method_satisfies_the_protocol() -> None:
    assert all(isinstance(method, Method) for method in default_methods())


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_a_peer_reaches_the_target_at_any_scale(rng: np.random.Generator, name: str, scale: float) -> None:
    x, y = shifted(rng)
    method = PEERS[name]().fit(scale * x, scale * y)
    fresh = shifted(rng)
    image = method.transport(scale * fresh[0]) / scale
    assert energy_distance(image, fresh[1]) < 0.1 * energy_distance(fresh[0], fresh[1])


@pytest.mark.parametrize("name", PEERS)
def test_a_peers_map_moves_with_its_data(rng: np.random.Generator, name: str) -> None:
    x, y = shifted(rng)
    new = rng.normal(size=(40, 2))
    plain = PEERS[name]().fit(x, y).transport(new)
    moved = PEERS[name]().fit(x + 1e5, y - 1e5).transport(new + 1e5) + 1e5
    assert moved == pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("name", INVERTIBLE)
def test_the_inverse_of_a_peer_leads_back(rng: np.random.Generator, name: str) -> None:
    x, y = shifted(rng)
    method = PEERS[name]().fit(x, y)
    back = method.invert(method.transport(x))
    assert back is not None
    assert np.square(back - x).sum(1).mean() < 0.15 * np.square(x - x.mean(0)).sum(1).mean()


def test_mapping_transport_has_no_inverse(rng: np.random.Generator) -> None:
    assert PEERS["MappingTransport"]().fit(*shifted(rng)).invert(np.zeros((1, 2))) is None


def test_the_linear_method_is_the_gaussian_map(rng: np.random.Generator) -> None:
    x = rng.normal(size=(100, 2))
    stretch, shift = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([5.0, 0.0])  # symmetric, positive definite
    method = LinearMethod().fit(x, x @ stretch + shift)
    new = rng.normal(size=(10, 2))
    assert method.transport(new) == pytest.approx(new @ stretch + shift, abs=1e-5)
    value = method.w2_squared()
    assert value is not None
    assert value.value == pytest.approx(np.square(x @ stretch + shift - x).sum(1).mean(), rel=1e-5)


def test_the_emd_method_reports_the_exact_value_in_data_units(rng: np.random.Generator) -> None:
    x, y = 10 * rng.normal(size=(80, 3)), 10 * rng.normal(size=(90, 3)) + 30
    value = EMDMethod().fit(x, y).w2_squared()
    assert value is not None
    assert value.value == pytest.approx(exact_transport(x, y).value, rel=1e-9)
    assert "80 and 90 points" in value.basis


def test_a_cap_is_kept_and_noted(rng: np.random.Generator) -> None:
    method = EMDMethod(max_points=30).fit(*shifted(rng, 50, 40))
    assert method.notes == [
        "fitted on 30 of 50 source points (its cap)",
        "fitted on 30 of 40 target points (its cap)",
    ]


def test_sinkhorn_maps_far_points_where_its_kernel_underflows(rng: np.random.Generator) -> None:
    method = SinkhornMethod(max_iterations=50, tolerance=1e-3).fit(*shifted(rng))
    near = np.array([[0.0, 0.0]])
    image = method.transport(np.array([[1e4, 0.0], [0.0, 0.0]]))
    assert np.isfinite(image).all()
    assert image[1:] == pytest.approx(method.transport(near), rel=1e-9)
    assert any("underflows" in note for note in method.notes)


def test_a_brenier_method_refuses_an_unknown_parameter_at_once() -> None:
    with pytest.raises(TypeError, match="no_such"):
        BrenierMethod(no_such=1)


# --------------------------------------------------------------------------------------- the comparison
def test_ours_and_the_peers_stand_in_one_table(rng: np.random.Generator) -> None:
    ours = BrenierMethod(max_steps=5, hidden_features=(8,))
    found = run(*shifted(rng), IdentityMethod(), *(make() for make in PEERS.values()), ours)
    assert [one.name for one in found.results] == ["identity", *PEERS, "ot-lift"]
    assert {one.status for one in found.results} == {"ok"}, [one.reason for one in found.results]
    assert found["ot-lift"].details["certificate"]["n_source"] > 0
    assert found["ot-lift"].round_trip < 1e-6
    assert found["ot-lift"].w2_squared_lower <= found["ot-lift"].w2_squared_upper
    assert found["MappingTransport"].round_trip is None
    assert found["identity"].w2_squared is None
    assert found["identity"].energy > found.energy_null
    assert "identity" not in found.winners["energy"]
    assert "linear" in found.winners["energy"]  # the exact family for these data
    assert json.loads(json.dumps(found.to_dict(points=True)))["results"][5]["transported"]
    assert "source_points" not in found.to_dict()


def test_every_method_sees_the_same_training_points_and_no_held_out_one(rng: np.random.Generator) -> None:
    first, second = Scripted("first"), Scripted("second")
    x, y = shifted(rng, 100, 150)
    found = run(x, y, first, second, held_out=0.3, random_state=4)
    assert first.seen[:2] == second.seen[:2] == (70, 105)
    assert (first.seen[2] == second.seen[2]).all()
    assert found.n_held_out == (30, 45)
    assert not (found.source_points == first.seen[2]).all(1).any()


def test_equal_seeds_give_equal_splits_and_figures(rng: np.random.Generator) -> None:
    x, y = shifted(rng)
    first, second, third = (run(x, y, LinearMethod(), random_state=seed) for seed in (1, 1, 2))
    assert first["linear"].energy == second["linear"].energy
    assert first.energy_null == second.energy_null
    assert (first.source_points == second.source_points).all()
    assert not np.array_equal(first.source_points, third.source_points)


def test_figures_are_those_of_the_held_out_points(rng: np.random.Generator) -> None:
    shift = np.array([3.0, 4.0])
    move = Scripted(image=lambda points: points + shift)
    found = run(*shifted(rng), move)
    assert found["scripted"].transport_cost == pytest.approx(25)
    assert found["scripted"].transport_cost_error == pytest.approx(0, abs=1e-9)
    assert found["scripted"].transported == pytest.approx(found.source_points + shift)


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ({"raise": MemoryError("no room for 1e6 × 1e6")}, "MemoryError: no room"),
        ({"image": lambda points: np.full_like(points, np.nan)}, "40 of 40 transported points are not finite"),
        ({"image": lambda points: points[:, :1]}, r"expected transported points of shape \(40, 2\)"),
    ],
)
def test_a_failure_is_a_row_with_its_reason(rng: np.random.Generator, does: dict[str, Any], reason: str) -> None:
    found = run(*shifted(rng), Scripted(**does), LinearMethod())
    row = found["scripted"]
    assert row.status == "failed"
    assert row.energy is None
    assert re.search(reason, row.reason)
    assert found["linear"].status == "ok"
    assert found.winners["energy"] == ("linear",)


def test_prints_and_warnings_are_kept_in_the_record(
    rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(*shifted(rng), Scripted(print="printed"))
    assert found["scripted"].messages == ("printed", "UserWarning: and warned")
    assert capsys.readouterr() == ("", "")


def test_further_points_are_transported_by_every_method(rng: np.random.Generator) -> None:
    more = rng.normal(size=(7, 2))
    found = run(*shifted(rng), IdentityMethod(), LinearMethod(), also_transport=more)
    assert (found["identity"].also_transported == more).all()
    assert found["linear"].also_transported.shape == (7, 2)


@pytest.mark.parametrize("kind", ["frame", "float32", "tensor", "list", "file"])
def test_data_of_any_kind_are_compared(rng: np.random.Generator, tmp_path: Path, kind: str) -> None:
    x, y = shifted(rng, 60, 70)
    np.save(tmp_path / "x.npy", x)
    source: Any = {
        "frame": pd.DataFrame(x),
        "float32": x.astype(np.float32),
        "tensor": torch.from_numpy(x),
        "list": x.tolist(),
        "file": str(tmp_path / "x.npy"),
    }[kind]
    assert run(source, y, LinearMethod())["linear"].status == "ok"


def test_a_dozen_rows_are_enough(rng: np.random.Generator) -> None:
    found = run(*shifted(rng, 12, 12), LinearMethod(), EMDMethod())
    assert found.n_held_out == (2, 2)
    assert {one.status for one in found.results} == {"ok"}


def test_a_slow_map_is_timed_on_a_few_points(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr("ot_lift.measuring.time", clock)
    monkeypatch.setattr("ot_lift.compare.Job", Job)  # as users have it
    calls: list[int] = []

    def image(x: Array) -> Array:
        calls.append(len(x))
        clock.now += 0.25 * len(x)
        return x

    found = run(*shifted(rng, 800), Scripted(image=image))
    assert found["scripted"].transport_seconds == pytest.approx(25_000)
    assert calls == [160, 4, 4, 4]  # a second each, after the held-out points


def test_progress_tells_each_method(rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    run(*shifted(rng), IdentityMethod(), Scripted(**{"raise": ValueError("bad")}), progress=lines.append)
    assert lines[0] == "identity (1 of 2)"
    assert "scripted failed: ValueError: bad" in lines
    run(*shifted(rng), IdentityMethod(), progress=True)
    assert "identity (1 of 1)" in capsys.readouterr().err


def test_an_interrupt_keeps_the_methods_that_had_ended(rng: np.random.Generator) -> None:
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        found = run(*shifted(rng), LinearMethod(), Scripted(**{"raise": KeyboardInterrupt()}), IdentityMethod())
    assert [one.reason for one in found.results] == ["", "interrupted", "interrupted"]
    assert found["linear"].energy is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"held_out": 1.0}, "held_out between 0 and 1"),
        ({"methods": []}, "at least one method"),
        ({"methods": [IdentityMethod(), IdentityMethod()]}, "a name of its own"),
        ({"X": np.zeros((3, 2))}, "at least 4 row"),
        ({"Y": np.zeros((8, 3))}, "expected Y of shape"),
        ({"X": lambda count, generator: torch.randn(count, 2, generator=generator)}, "got a stream"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare(**{"X": np.zeros((8, 2)), "Y": np.ones((8, 2)), **arguments})


def test_a_name_that_is_not_in_the_table_is_told(rng: np.random.Generator) -> None:
    with pytest.raises(KeyError, match="no method 'ours'"):
        run(*shifted(rng), IdentityMethod())["ours"]


# ------------------------------------------------------------------------------------------ the ranking
def test_values_within_noise_of_the_least_share_the_win() -> None:
    values = {"a": 3.0, "b": 1.0, "c": 1.2}
    assert best_of(values) == ["b"]
    assert best_of(values, within=0.3) == ["b", "c"]
    assert best_of(values, noise_level=5.0) == ["b", "c", "a"]
    assert best_of({}) == []


def test_a_tie_is_judged_on_paired_resamples() -> None:
    noise = np.linspace(-5, 5, 100)
    resampled = {"a": noise, "b": noise + 0.1, "c": -noise + 0.1}
    assert best_of({"a": 1.0, "b": 1.1, "c": 1.1}, resampled=resampled) == ["a", "c"]


def test_a_map_that_is_better_wins_beyond_noise(rng: np.random.Generator) -> None:
    target = rng.normal(size=(400, 3))
    base = rng.normal(size=(300, 3))
    images = {"good": base, "poor": 1.3 * base + 0.3}
    resampled = resampled_pushforward(images, target, generator=torch.Generator().manual_seed(0))
    for figure in ("energy", "sliced_w2"):
        values = {name: float(draws.mean()) for name, draws in resampled[figure].items()}
        assert best_of(values, resampled=resampled[figure]) == ["good"]


# ---------------------------------------------------------------------------------------- the processes
def test_a_fresh_process_keeps_its_memory_and_its_prints(
    rng: np.random.Generator, capfd: pytest.CaptureFixture[str]
) -> None:
    method = Scripted(allocate=200_000_000, write="from compiled code\n", print="from Python")
    found = compare(*shifted(rng), methods=[method])
    row = found["scripted"]
    assert row.status == "ok", row.reason
    assert set(row.messages) == {"from compiled code", "from Python", "UserWarning: and warned"}
    assert capfd.readouterr() == ("", "")
    if sys.platform == "linux":
        assert 190e6 <= row.peak_memory_bytes <= 260e6


@pytest.mark.slow
def test_a_fit_that_takes_too_long_is_ended_and_told(rng: np.random.Generator) -> None:
    began = time.monotonic()
    found = compare(*shifted(rng), methods=[Scripted(sleep=300)], max_seconds=1)
    assert found["scripted"].reason == "fit: ended after its limit of 1 seconds"
    assert time.monotonic() - began < 120


@pytest.mark.slow
def test_a_process_that_dies_is_a_row_with_its_reason(rng: np.random.Generator) -> None:
    found = compare(*shifted(rng), methods=[Scripted("dies", exit=3), LinearMethod()])
    assert "its process ended" in found["dies"].reason
    assert found["linear"].status == "ok"


@pytest.mark.slow
def test_a_script_without_a_main_guard_can_compare(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\n"
        "from ot_lift.compare import compare\n"
        "from ot_lift.methods import IdentityMethod\n"
        "class Own(IdentityMethod):\n"
        "    name = 'own'\n"
        "X = np.arange(40.0).reshape(20, 2)\n"
        "print(compare(X, X + 1, methods=[Own()])['own'].status)\n"
    )
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout == "ok\n"
