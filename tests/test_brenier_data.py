"""What BrenierMap fits on: every kind of data, weights, awkward scales and columns, and bad input in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from fits import QUICK, Fitted, gaussian_fit, quick
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ot_lift import BrenierMap
from ot_lift.errors import DataError

Array = npt.NDArray[np.float64]


@pytest.fixture
def short_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer held-out points and moments than a real stream gets, so that a test takes a moment."""
    monkeypatch.setattr("ot_lift.sides.HELD_OUT_ROWS", 300)
    monkeypatch.setattr("ot_lift.sides._MOMENT_ROWS", 8192)


def normals(mean: float, scale: float, features: int = 2) -> Callable[[int, torch.Generator], Tensor]:
    """A sampler of N(mean, scale²)."""

    def sampler(count: int, generator: torch.Generator) -> Tensor:
        return mean + scale * torch.randn(count, features, generator=generator, dtype=torch.float64)

    return sampler


# --------------------------------------------------------------------------------------------- kinds of data
def _saved(x: Array, folder: Path) -> Path:
    np.save(folder / "points.npy", x)
    return folder / "points.npy"


SAME: dict[str, Callable[[Array, Path], Any]] = {
    "list": lambda x, _: x.tolist(),
    "Fortran order": lambda x, _: np.asfortranarray(x),
    "strided": lambda x, _: np.repeat(x, 2, 0)[::2],
    "frame": lambda x, _: pd.DataFrame(x, columns=["a", "b"]),
    "tensor": lambda x, _: torch.from_numpy(x),
    "path": _saved,
    "name of a file": lambda x, folder: str(_saved(x, folder)),
    "memory map": lambda x, folder: np.load(_saved(x, folder), mmap_mode="r"),
}


@pytest.mark.parametrize("kind", SAME)
def test_every_kind_of_array_gives_the_same_map(kind: str, tmp_path: Path) -> None:
    fit = gaussian_fit()
    fitted = quick().fit(SAME[kind](fit.X, tmp_path), fit.Y)
    np.testing.assert_array_equal(fitted.transport(fit.X), fit.map.transport(fit.X))
    if kind != "tensor":  # the device of X decides, not that of Y
        return
    fitted = quick().fit(fit.X, SAME[kind](fit.Y, tmp_path))
    np.testing.assert_array_equal(fitted.transport(fit.X), fit.map.transport(fit.X))


@pytest.mark.parametrize("dtype", [np.int64, np.int16, np.float32, np.float16, np.longdouble, ">f8"])
def test_every_number_type_gives_the_map_of_its_values(dtype: Any) -> None:
    fit = gaussian_fit()
    X, Y = (np.round(10 * points) for points in (fit.X, fit.Y))  # exact in all of these types
    fitted, expected = quick().fit(X.astype(dtype), Y.astype(dtype)), quick().fit(X, Y)
    np.testing.assert_allclose(fitted.transport(X), expected.transport(X), rtol=1e-12)


def test_a_memory_mapped_file_beyond_the_resident_limit_gives_the_same_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = gaussian_fit()
    monkeypatch.setattr("ot_lift.batches._RESIDENT_BYTES", 0)
    monkeypatch.setattr("ot_lift.objectives._MEMORY_BYTES", 0)
    fitted = quick().fit(str(_saved(fit.X, tmp_path)), fit.Y)
    np.testing.assert_allclose(fitted.transport(fit.X), fit.map.transport(fit.X), rtol=1e-12)


def test_samplers_that_draw_fresh_points_are_fitted(short_streams: None) -> None:
    fits = [quick(max_steps=70).fit(normals(0.0, 1.0), normals(3.0, 2.0)) for _ in range(2)]
    points = np.array([[0.0, 0.0], [1.0, -1.0]])
    np.testing.assert_allclose(fits[0].transport(points), 3 + 2 * points, atol=0.15)
    np.testing.assert_array_equal(fits[0].transport(points), fits[1].transport(points))
    assert fits[0].certificate_.n_source == fits[0].certificate_.n_target == 300


def test_a_sampler_is_asked_for_points_that_differ(short_streams: None) -> None:
    drawn: list[Tensor] = []

    def sampler(count: int, generator: torch.Generator) -> Tensor:
        drawn.append(normals(0.0, 1.0)(count, generator))
        return drawn[-1]

    quick(max_steps=70).fit(sampler, normals(3.0, 2.0))
    points = torch.cat(drawn[1:])  # the first call only looks at the shape
    assert len(points.unique(dim=0)) == len(points)


@pytest.mark.parametrize("batches", ["tensors", "tuples"])
def test_loaders_are_fitted_and_reproduced(batches: str, short_streams: None, generator: torch.Generator) -> None:
    X, Y = (normals(mean, scale)(2000, generator) for mean, scale in ((0.0, 1.0), (3.0, 2.0)))
    dress = TensorDataset if batches == "tuples" else (lambda points: points)
    fits = [
        quick().fit(DataLoader(dress(X), batch_size=100, shuffle=True), DataLoader(dress(Y), batch_size=64))
        for _ in range(2)
    ]
    points = np.array([[0.0, 0.0], [1.0, -1.0]])
    np.testing.assert_allclose(fits[0].transport(points), 3 + 2 * points, atol=0.3)
    np.testing.assert_array_equal(fits[0].transport(points), fits[1].transport(points))


def test_the_two_sides_may_be_of_different_kinds(short_streams: None) -> None:
    fit = gaussian_fit()
    frame = pd.DataFrame(fit.X)
    for X, Y in ((normals(0.0, 1.0), fit.Y), (frame, normals(3.0, 2.0)), (fit.X.tolist(), torch.from_numpy(fit.Y))):
        assert np.isfinite(quick().fit(X, Y).transport(np.zeros((1, 2)))).all()


@pytest.mark.parametrize(("n", "m"), [(40, 700), (700, 40), (12, 500), (301, 300)])
def test_sides_of_different_sizes_are_fitted(n: int, m: int, rng: np.random.Generator) -> None:
    X, Y = rng.normal(size=(n, 2)), 3 + rng.normal(size=(m, 2))
    image = quick().fit(X, Y).transport(X)
    assert image.shape == (n, 2)
    np.testing.assert_allclose(image.mean(0), 3, atol=1.5)


# ---------------------------------------------------------------------------------------------------- weights
def test_weights_tilt_a_distribution(rng: np.random.Generator) -> None:
    X, Y = rng.normal(size=(6000, 1)), rng.normal(size=(5000, 1))
    tilted = quick().fit(X, Y, target_weight=np.exp(Y[:, 0]))  # N(0, 1) weighted by exp(y) is N(1, 1)
    np.testing.assert_allclose(tilted.transport([[0.0], [1.0]]), [[1.0], [2.0]], atol=0.2)
    found = tilted.certificate_
    assert found.dual_value == pytest.approx(1.0, abs=3 * found.w2_squared_lower_error)
    assert found.n_target < 500  # an unweighted sample of the weighted points
    tilted = quick().fit(X, Y, source_weight=np.exp(X[:, 0]))
    np.testing.assert_allclose(tilted.transport([[1.0], [2.0]]), [[0.0], [1.0]], atol=0.2)


def test_a_weight_of_two_is_a_row_that_comes_twice(rng: np.random.Generator) -> None:
    X, Y = rng.normal(size=(3000, 2)), rng.exponential(size=(3000, 2))
    weight = rng.integers(0, 4, size=3000)
    options = {"hidden_features": (16, 16), "max_steps": 120, "batch_size": 256}
    weighted = quick(**options).fit(X, Y, target_weight=weight)
    repeated = quick(**options).fit(X, np.repeat(Y, weight, axis=0))
    plain = quick(max_steps=1).fit(X, Y)
    points = rng.normal(size=(1000, 2))
    distance = np.square(weighted.transport(points) - repeated.transport(points)).mean()
    assert weighted.used_network_
    assert repeated.used_network_
    assert distance < 0.1 * np.square(plain.transport(points) - repeated.transport(points)).mean()


@pytest.mark.parametrize("side", ["source", "target"])
def test_rows_of_no_weight_are_ignored_bit_for_bit(side: str, rng: np.random.Generator) -> None:
    X, Y = rng.normal(size=(300, 2)), rng.normal(size=(200, 2))
    rows = {"source": X, "target": Y}
    weights = {name: rng.uniform(0.5, 1.5, size=len(points)) for name, points in rows.items()}
    expected = quick().fit(X, Y, source_weight=weights["source"], target_weight=weights["target"])
    rows[side] = np.concatenate([rows[side], 1e6 + rng.normal(size=(500, 2))])
    weights[side] = np.concatenate([weights[side], np.zeros(500)])
    fitted = quick().fit(
        rows["source"], rows["target"], source_weight=weights["source"], target_weight=weights["target"]
    )
    np.testing.assert_array_equal(fitted.transport(X), expected.transport(X))
    assert fitted.certificate_ == expected.certificate_


def test_equal_weights_weigh_nothing() -> None:
    fit = gaussian_fit()
    for value in (7.0, 1e-300):
        weighted = quick().fit(fit.X, fit.Y, target_weight=np.full(500, value))
        np.testing.assert_allclose(weighted.transport(fit.X), fit.map.transport(fit.X), rtol=1e-9, atol=1e-9)
        assert weighted.certificate_.n_target == fit.map.certificate_.n_target


def test_only_a_size_of_weights_relative_to_each_other_counts(rng: np.random.Generator) -> None:
    fit, weight = gaussian_fit(), rng.uniform(size=400)
    fits = [quick().fit(fit.X, fit.Y, source_weight=list(scale * weight)) for scale in (1.0, 2.0**-40)]
    np.testing.assert_array_equal(fits[0].transport(fit.X), fits[1].transport(fit.X))


def test_a_few_rows_hold_all_the_weight(rng: np.random.Generator) -> None:
    fit, weight = gaussian_fit(), np.zeros(400)
    weight[100:112] = 1.0
    fitted = quick().fit(fit.X, fit.Y, source_weight=weight)
    assert np.isfinite(fitted.transport(fit.X[100:112])).all()
    weight[105:] = 0.0
    with pytest.raises(DataError, match=r"expected X with at least 6 rows of positive weight .*got 5"):
        quick().fit(fit.X, fit.Y, source_weight=weight)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (np.ones(399), r"of shape \(400,\), got \(399,\)"),
        (np.ones((400, 1)), r"of shape \(400,\), got \(400, 1\)"),
        (-np.ones(400), r">= 0, got -1"),
        (np.zeros(400), r"positive sum, got weights that are all zero"),
        (np.full(400, np.nan), r"finite numbers, got NaN"),
        (["a"] * 400, r"real numbers, got dtype <U1"),
    ],
)
def test_bad_weights_are_refused_in_words(weight: Any, words: str) -> None:
    fit = gaussian_fit()
    with pytest.raises(DataError, match=f"expected X weight.*{words}"):
        quick().fit(fit.X, fit.Y, source_weight=weight)


def test_a_stream_takes_no_weights(short_streams: None) -> None:
    with pytest.raises(DataError, match=r"expected no weights with the stream X.*draw its points by their weight"):
        quick().fit(normals(0.0, 1.0), normals(0.0, 1.0), source_weight=np.ones(10))


# ----------------------------------------------------------------------------------------- awkward but good
def _noise(rows: int, features: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(rows, features))


_X, _Y = _noise(400, 3, 0), 1 + 2 * _noise(500, 3, 1)
_EXTRA_X, _EXTRA_Y = _noise(400, 1, 2), _noise(500, 1, 3)

AWKWARD: dict[str, tuple[Array, Array]] = {
    "huge": (1e12 * _X, 1e12 * _Y),
    "tiny": (1e-12 * _X, 1e-12 * _Y),
    "tiny to huge": (1e-12 * _X, 1e12 * _Y),
    "huge to tiny": (1e12 * _X, 1e-12 * _Y),
    "far away": (1e6 + _X, _Y - 1e6),
    "far away and small": (1e6 + 1e-3 * _X, 1e-3 * _Y - 1e6),
    "columns of unlike size": (_X * [1e4, 1.0, 1.0], _Y * [1.0, 1.0, 1e4]),
    "one column": (_X[:, :1], _Y[:, :1]),
    "a constant column in X": (np.c_[_X, 0 * _EXTRA_X + 7], np.c_[_Y, _EXTRA_Y]),
    "a constant column in Y": (np.c_[_X, _EXTRA_X], np.c_[_Y, 0 * _EXTRA_Y + 7]),
    "a constant column in both": (np.c_[_X, 0 * _EXTRA_X + 7], np.c_[_Y, 0 * _EXTRA_Y - 3]),
    "a duplicated column in X": (np.c_[_X, _X[:, :1]], np.c_[_Y, _EXTRA_Y]),
    "a duplicated column in Y": (np.c_[_X, _EXTRA_X], np.c_[_Y, _Y[:, :1]]),
    "a duplicated column in both": (np.c_[_X, _X[:, :1]], np.c_[_Y, _Y[:, :1]]),
    "a column of zeros and ones": (np.c_[_X, _EXTRA_X > 0], np.c_[_Y, _EXTRA_Y > 1]),
    "a dozen rows": (_X[:12], _Y[:12]),
    "a dozen rows of one column": (_X[:12, :1], _Y[:12, :1]),
    "a dozen rows of eight columns": (_noise(12, 8, 4), 1 + 2 * _noise(12, 8, 5)),
    "a dozen rows far away": (1e6 + _X[:12], _Y[:12] - 1e6),
    "a dozen rows of unlike columns": (_X[:12] * [1e3, 1.0, 1e-3], _Y[:12] * [1e3, 1.0, 1e-3]),
    "rows that repeat": (np.repeat(_X[:40], 10, axis=0), np.repeat(_Y[:50], 10, axis=0)),
    "two points": (np.repeat(_X[:2], 100, axis=0), np.repeat(_Y[:2], 100, axis=0)),
    "all the same": (0 * _X + 5.0, 0 * _Y + 7.0),
    "all zero": (0 * _X, 0 * _Y),
    "all the same to a cloud": (0 * _X + 5.0, _Y),
    "a cloud to all the same": (_X, 0 * _Y + 7.0),
    "the same on both sides": (_X, _X),
}
# A map that is an affine one plus what a small network bends cannot send a constant to a cloud.
UNREACHABLE = {"a constant column in X", "a duplicated column in X", "all the same to a cloud", "two points"}


# The image of a cloud in one point is as small as rounding, but not a point.
@pytest.mark.filterwarnings("ignore:400 of 400 points of Y lie more than twice:ot_lift.errors.ExtrapolationWarning")
@pytest.mark.parametrize("start", ["gaussian", "plan"])
@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_data_goes_to_the_right_place_and_comes_back(
    case: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ot_lift.brenier_fit._PLAN_STEPS", 30)
    X, Y = AWKWARD[case]
    fitted = quick(start=start).fit(X, Y)
    image = fitted.transport(X)
    assert np.isfinite(image).all()
    # A side without extent has the size of its values.
    size_x, size_y = (np.ptp(side, axis=0).max() or np.abs(side).max() or 1.0 for side in (X, Y))
    np.testing.assert_allclose(fitted.invert(image), X, rtol=0, atol=1e-3 * size_x)
    # In the unit of each column, or of the whole where a column is constant.
    unit = np.where(np.ptp(Y, axis=0) > 1e-9 * size_y, np.ptp(Y, axis=0), size_y)
    few = min(len(X), len(Y)) < 20
    np.testing.assert_allclose(image.mean(0) / unit, Y.mean(0) / unit, rtol=0, atol=0.25 if few else 0.06)
    if case not in UNREACHABLE:
        np.testing.assert_allclose(image.std(0) / unit, Y.std(0) / unit, rtol=0, atol=0.3 if few else 0.06)
    certificate = fitted.certificate_
    assert certificate.w2_squared_lower >= 0
    assert np.isfinite(certificate.w2_squared_upper)


@pytest.mark.parametrize("case", ["huge", "tiny", "far away", "a dozen rows", "one column", "all the same"])
def test_points_of_the_target_come_back_too(case: str) -> None:
    X, Y = AWKWARD[case]
    fitted = quick().fit(X, Y)
    size = np.ptp(Y, axis=0).max() or 1.0
    np.testing.assert_allclose(fitted.transport(fitted.invert(Y)), Y, rtol=0, atol=1e-3 * size)


def test_units_change_nothing_but_the_units() -> None:
    fit = gaussian_fit()
    for scale in (2.0**-40, 2.0**40):
        scaled = quick().fit(scale * fit.X, scale * fit.Y)
        np.testing.assert_allclose(
            scaled.transport(scale * fit.X), scale * fit.map.transport(fit.X), rtol=1e-9, atol=1e-9 * scale
        )
        found, expected = scaled.certificate_, fit.map.certificate_
        assert found.w2_squared_lower == pytest.approx(scale**2 * expected.w2_squared_lower, rel=1e-6)
        assert found.w2_squared_upper == pytest.approx(scale**2 * expected.w2_squared_upper, rel=1e-6)
        assert scaled.score(scale * fit.X, scale * fit.Y) == pytest.approx(
            scale**2 * fit.map.score(fit.X, fit.Y), rel=1e-6
        )


def test_single_precision_points_far_from_the_origin_are_shifted_in_double_precision() -> None:
    # float32 resolves 1/16 at 1e6; nothing may be lost beyond that.
    rng = np.random.default_rng(0)
    X, Y = ((1e6 + 8 * rng.normal(size=(400, 2))).astype(np.float32) for _ in range(2))
    fitted = quick().fit(X, Y)
    assert fitted.transport(X).dtype == np.float32
    np.testing.assert_allclose(fitted.transport(X), fitted.transport(X.astype(np.float64)), rtol=0, atol=0.1)
    np.testing.assert_allclose(fitted.invert(fitted.transport(X)), X, rtol=0, atol=0.5)


# ---------------------------------------------------------------------------------------------- bad input
def _spoilt(value: float) -> Array:
    points = _noise(50, 2, 6)
    points[3, 1] = value
    return points


BAD: dict[str, tuple[Any, str]] = {
    "NaN": (_spoilt(np.nan), r"got NaN in row 3, column 1"),
    "infinity": (_spoilt(-np.inf), r"got infinity in row 3, column 1"),
    "NaN in a tensor": (torch.from_numpy(_spoilt(np.nan)), r"got NaN in row 3, column 1"),
    "NaN in a frame": (pd.DataFrame(_spoilt(np.nan), columns=["a", "b"]), r"got NaN in row 3, column 'b'"),
    "NaN in a list": (_spoilt(np.nan).tolist(), r"got NaN in row 3, column 1"),
    "empty": (np.empty((0, 2)), r"got 0 sample"),
    "no columns": (np.empty((5, 0)), r"got 0 feature"),
    "one dimension": (np.zeros(50), r"got \(50,\).*reshape"),
    "three dimensions": (np.zeros((5, 2, 2)), r"got \(5, 2, 2\)"),
    "a number": (3.0, r"got \(\)"),
    "strings": (np.full((5, 2), "a"), r"got dtype <U1: encode"),
    "numbers as strings": ([["1", "2"]] * 5, r"got dtype <U1: encode"),
    "bytes": (np.full((5, 2), b"a"), r"got dtype \|S1"),
    "complex": (np.zeros((5, 2), complex), r"got dtype complex128"),
    "a complex tensor": (torch.zeros(5, 2, dtype=torch.complex64), r"got torch.complex64"),
    "objects": (np.zeros((5, 2), object), r"got dtype object.*astype"),
    "ragged": ([[1.0, 2.0], [3.0]], r"got a list .*same number"),
    "dates": (np.zeros((5, 2), "datetime64[s]"), r"got dtype datetime64"),
    "a frame of strings": (pd.DataFrame({"a": [1.0], "b": ["x"]}), r"in column 'b'"),
    "a dictionary": ({"a": 1}, r"got a dict"),
}
CALLS: dict[str, Callable[[Fitted, Any], object]] = {
    "transport X": lambda fit, bad: fit.map.transport(bad),
    "invert Y": lambda fit, bad: fit.map.invert(bad),
    "potential X": lambda fit, bad: fit.map.potential(bad),
    "conjugate Y": lambda fit, bad: fit.map.conjugate(bad),
    "interpolate X": lambda fit, bad: fit.map.interpolate(bad, 0.5),
    "score X": lambda fit, bad: fit.map.score(bad, fit.Y),
    "score Y": lambda fit, bad: fit.map.score(fit.X, bad),
    "fit X": lambda fit, bad: BrenierMap(**QUICK).fit(bad, fit.Y),
    "fit Y": lambda fit, bad: BrenierMap(**QUICK).fit(fit.X, bad),
    "transform X": lambda fit, bad: fit.map.transform(bad),
    "inverse_transform Y": lambda fit, bad: fit.map.inverse_transform(bad),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", BAD)
def test_bad_points_are_refused_in_words(case: str, call: str) -> None:
    bad, got = BAD[case]
    name = call.split()[1]
    with pytest.raises(DataError, match=rf"(?s)^expected {name} .*{got}"):
        CALLS[call](gaussian_fit(), bad)


@pytest.mark.parametrize("call", [call for call in CALLS if call != "fit X"])
def test_points_of_another_dimension_are_refused_in_words(call: str) -> None:
    name = call.split()[1]
    with pytest.raises(DataError, match=rf"expected {name} of shape \(n, 2\), got \(5, 3\).*same columns"):
        CALLS[call](gaussian_fit(), np.zeros((5, 3)))


def test_one_row_is_too_few_to_fit() -> None:
    for call in ("fit X", "fit Y"):
        with pytest.raises(DataError, match=rf"expected {call[-1]} with at least \d row.*got 1"):
            CALLS[call](gaussian_fit(), np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("absent.npy", r"got no file at .*absent.npy: check the path"),
        ("points.csv", r"path that ends in .npy, got .*points.csv"),
        ("damaged.npy", r"damaged.npy, which is damaged or something else"),
    ],
)
def test_files_that_hold_no_points_are_refused_in_words(file: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY\x01")
    (tmp_path / "points.csv").write_text("1,2\n")
    with pytest.raises(DataError, match=f"expected X .*{words}"):
        quick().fit(tmp_path / file, gaussian_fit().Y)


def _failing_later(value: Any) -> Callable[[int, torch.Generator], Any]:
    """A sampler that is good at first."""
    good = normals(0.0, 1.0)
    calls: list[int] = []

    def sampler(count: int, generator: torch.Generator) -> Any:
        calls.append(count)
        return good(count, generator) if len(calls) < 4 else value(good(count, generator))

    return sampler


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda points: points * float("nan"), "got NaN in row 0, column 0"),
        (lambda points: points[:-1], "return as many rows as are asked for"),
        (lambda points: points[:, :1], "got .*1"),
        (lambda points: points.flatten(), "Reshape your data"),
        (lambda points: None, "got a NoneType"),
    ],
)
def test_a_stream_that_turns_bad_is_named(spoil: Callable[[Tensor], Any], words: str, short_streams: None) -> None:
    with pytest.raises(DataError, match=rf"(?s)expected X \(sampler .*{words}"):
        quick(max_steps=200).fit(_failing_later(spoil), normals(0.0, 1.0))


def test_nothing_to_fit_is_refused_in_words() -> None:
    with pytest.raises(DataError, match="expected one of X and Xs, got neither"):
        quick().fit()
    with pytest.raises(DataError, match="expected one of Y and Xt, got neither"):
        quick().fit(gaussian_fit().X)
    assert not hasattr(quick(), "potential_")


def test_a_failed_fit_leaves_the_earlier_map() -> None:
    fit = gaussian_fit()
    fitted = quick().fit(fit.X, fit.Y)
    with pytest.raises(DataError):
        fitted.fit(fit.X, fit.Y * np.nan)
    np.testing.assert_array_equal(fitted.transport(fit.X), fit.map.transport(fit.X))
