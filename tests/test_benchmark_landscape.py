"""Loss surfaces: planes and figures with closed forms, planes of real paths, cells and the page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import benchmark_records
import numpy as np
import pytest
import torch

from benchmarks.experiments import experiment_cells, find_experiment
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod, Outcome
from benchmarks.experiments.landscape import METHODS, PLACES, LandscapeTask, gammas
from benchmarks.experiments.planes import Plane, basin_share, not_convex_share, sides, surface
from benchmarks.site import write_site
from benchmarks.tasks import Options


# -------------------------------------------------------------------------------------------- planes
def test_a_plane_goes_through_three_points() -> None:
    points = [torch.randn(50, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in range(3)]
    plane = Plane.through(points)
    assert plane.share == pytest.approx(1)
    assert torch.allclose(plane.directions @ plane.directions.T, torch.eye(2).double())
    for point in points:
        assert torch.allclose(plane.at(*plane.coordinates(point)), point)
    assert plane.coordinates(points[-1]) == pytest.approx((0, 0), abs=1e-12)


def test_a_plane_takes_the_two_longest_directions() -> None:
    moves = [torch.tensor([3.0, 0, 0]), torch.tensor([0, 2.0, 0]), torch.tensor([0, 0, 1.0]), torch.zeros(3)]
    plane = Plane.through(moves)
    assert plane.share == pytest.approx(13 / 14)
    assert plane.directions.abs().tolist() == [[1, 0, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match="expected points that span a plane"):
        Plane.through([moves[0], 2 * moves[0], moves[-1]])


def test_a_surface_is_the_loss_and_has_gaps_where_there_is_none() -> None:
    plane = Plane(torch.zeros(2).double(), torch.eye(2).double(), 1.0)

    def value(point: torch.Tensor) -> float:
        x, y = point.tolist()
        if x < 0 and y < 0:
            raise FloatingPointError
        return math.inf if x > 1 else x + 10 * y

    found = surface(value, plane, np.array([-1.0, 0, 2]), np.array([-1.0, 1]))
    np.testing.assert_array_equal(found, [[np.nan, -10, np.nan], [9, 10, np.nan]])


def test_sides_hold_the_path() -> None:
    path = [(0.0, 0.0), (10.0, 0.1), (4.0, -0.1)]
    first, second = sides(path, 7)
    assert first[0] == -2.5 and first[-1] == 12.5  # a quarter of the longer side each way
    assert second[-1] - second[0] == pytest.approx(0.4 * 10 + 2 * 2.5)


def test_shares_of_known_surfaces() -> None:
    x = np.linspace(-2, 2, 41)
    bowl = x[:, None] ** 2 + x**2
    assert (not_convex_share(bowl), basin_share(bowl)) == (0, 1)
    assert not_convex_share(-bowl) == 1
    wells = (x**2 - 1) ** 2 + 0.1 * x + x[:, None] ** 2  # two wells, the left one deeper
    assert basin_share(wells) == pytest.approx(0.5, abs=0.05)
    assert 0.05 < not_convex_share(wells) < 0.5  # along x for |x| < 0.58, and on diagonals
    bowl[:5] = np.nan
    assert (not_convex_share(bowl), basin_share(bowl)) == (0, 1)
    assert math.isnan(not_convex_share(np.zeros((1, 5))))


# --------------------------------------------------------------------------------------------- cells
def test_the_two_gammas_are_normalised() -> None:
    setting = gammas(0)

    class Truth(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - x.log()).sum(1) + 3.0  # −log p + 3

    entropy = 2 * (1 + math.lgamma(2) + np.euler_gamma)  # of Gamma(2): 2 + log Γ(2) − ψ(2) = 1 + γ
    loss = float(setting.loss(Truth(), setting.judged))
    assert loss == pytest.approx(entropy, abs=4 * math.sqrt(2 / len(setting.judged)))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", ["projection", "lift's weights"])
def test_a_record_has_a_surface_and_a_path(place: str, method: str) -> None:
    outcome = LandscapeTask(place, iterations=4, grid=3).run(ExperimentMethod(method, {}), 0, None)
    assert set(outcome.figures) == {"end_loss", "plane_share", "not_convex_share", "basin_share"}
    assert 0 < outcome.figures["plane_share"] <= 1
    assert np.shape(outcome.details["surface"]) == (3, 3) and np.shape(outcome.details["path"]) == (5, 2)
    assert outcome.details["path"][-1] == pytest.approx([0, 0], abs=1e-3)
    json.dumps(outcome.details)


def test_a_path_has_the_same_end_in_both_spaces() -> None:
    task = LandscapeTask("gumbel", iterations=3, grid=3)
    lifted, weights = (task.run(ExperimentMethod(name, {}), 0, None) for name in ("lift", "lift's weights"))
    assert weights.figures["end_loss"] == pytest.approx(lifted.figures["end_loss"], rel=1e-4)


def test_ends_are_three_fits_with_projection_at_the_origin() -> None:
    task = LandscapeTask("gumbel", iterations=3, grid=3)
    outcome, projection = (task.run(ExperimentMethod(name, {}), 0, None) for name in ("ends", "projection"))
    assert len(outcome.details["path"]) == 3 and outcome.details["path"][-1] == [0, 0]
    assert outcome.figures["plane_share"] == pytest.approx(1)
    assert outcome.figures["end_loss"] == pytest.approx(projection.figures["end_loss"], rel=1e-4)


def test_cells_are_of_every_loss_and_plane() -> None:
    found, _ = experiment_cells(["landscape"], Options(), seeds=None, threads=None)
    assert len(found) == len(PLACES) * len(METHODS) * 3
    quick, _ = experiment_cells(["landscape"], Options(quick=True), seeds=None, threads=None)
    assert {one.task.name for one in quick} == {"landscape-gumbel", "landscape-moon"}


# --------------------------------------------------------------------------------------------- pages
def record(method: str, seed: int, share: float) -> dict[str, Any]:
    cell = ExperimentCell(LandscapeTask("gumbel", grid=3), ExperimentMethod(method, {}), seed, 1)
    details = {
        "surface": [[1.0, 2.0, None], [0.5, 1.0, 2.0], [1.0, 2.0, 4.0]],
        "first": [0, 1, 2],
        "second": [0, 1, 2],
        "path": [[0.5, 1.0], [1.0, 1.0], [0.0, 0.0]],
    }
    figures = {"end_loss": 1.0, "plane_share": 0.9, "not_convex_share": share, "basin_share": 0.5}
    made = benchmark_records.record(cell.task.name, method, seed, details=Outcome(figures, details).details)
    return {**made, "settings": cell.settings, "figures": figures}


def test_the_page_tells_shares_and_draws_surfaces(tmp_path: Path) -> None:
    made = [record(name, seed, share) for name, share in (("lift", 0.1), ("softplus", 0.3)) for seed in range(2)]
    made += [record("ends", 0, 0.2)]
    page = find_experiment("landscape").page(made)
    assert page.sentences == [
        "Of the plane of the lift's path beside softplus's: a smaller share is not convex on 1 of 1, a larger "
        "share leads to its least point on 0 of 1 and the path ends lower on 0 of 1."
    ]
    table = page.tables[0][2]
    assert (table.rows[0].cells[0].text, table.rows[0].cells[0].best) == ("10.0%", True)
    assert table.rows[0].cells[1].best is False
    write_site(made, tmp_path)
    assert "Loss surfaces, gumbel" in (tmp_path / "landscape.html").read_text(encoding="utf-8")
