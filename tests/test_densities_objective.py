"""The likelihood of an energy as an objective: its value and gradient against closed forms, and its state."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ot_lift.constrained import Bound
from ot_lift.densities_objective import DrawnIntegral, EnergyLikelihood, Integral, LatticeIntegral, make_convex_
from ot_lift.densities_proposal import StandardNormal
from ot_lift.positivity import mark_nonnegative
from ot_lift.sides import Side


class Scaled(nn.Module):
    """E(x) = ½a‖x‖², of N(0, 1/a)."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([factor], dtype=torch.float64))
        mark_nonnegative(self.factor)

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * self.factor * x.square().sum(1)


def drawn(x: Tensor) -> Integral:
    return DrawnIntegral(StandardNormal(x.shape[1]), x[:0], torch.Generator().manual_seed(2))


INTEGRALS: dict[str, tuple[int, Callable[[Tensor], Integral]]] = {
    "line": (1, lambda x: LatticeIntegral(x, torch.Generator().manual_seed(2))),
    "plane": (2, lambda x: LatticeIntegral(x, torch.Generator().manual_seed(2))),
    "drawn": (3, drawn),
}


@pytest.fixture(params=INTEGRALS)
def objective(request: pytest.FixtureRequest) -> EnergyLikelihood:
    features, integral = INTEGRALS[request.param]
    x = torch.randn(500, features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    side = Side.open(x, name="X", features=None, weight=None, generator=torch.Generator().manual_seed(0))
    batches = side.batches(lambda points: points, batch_size=400, generator=torch.Generator().manual_seed(0))
    return EnergyLikelihood(
        batches, x, integral=integral(x), generator=torch.Generator().manual_seed(1), log_volume=math.log(7.0)
    )


def log_normalizer(model: Scaled, features: int) -> float:
    return 0.5 * features * math.log(2 * math.pi / model.factor.item())


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.5])
def test_value_and_gradient_are_those_of_the_likelihood(factor: float, objective: EnergyLikelihood) -> None:
    model = Scaled(factor)
    x = objective.held_out_x
    features = x.shape[1]
    expected = 0.5 * factor * float(x.square().sum(1).mean()) + log_normalizer(model, features) - math.log(7.0)
    assert objective.held_out(model) == pytest.approx(expected, abs=0.02 if features > 2 else 1e-4)
    losses, slopes = [], []
    for _ in range(20):
        batch = objective.next_batch()
        loss = objective.loss(Bound(model, dict(model.named_parameters())))
        (slope,) = torch.autograd.grad(loss, model.factor)
        exact = 0.5 * float(batch.square().sum(1).mean())
        losses.append(loss.item() - factor * exact - log_normalizer(model, features) + math.log(7.0))
        slopes.append(slope.item() - exact + 0.5 * features / factor)  # d/da of −½d log a
    for errors in (torch.tensor(losses), torch.tensor(slopes)):
        # Of draws; a self-normalised mean is off by about 1/512, too.
        allowed = 4 * float(errors.std()) / 20**0.5 + 0.005 if features > 2 else 1e-4
        assert abs(float(errors.mean())) < allowed


def test_the_report_tells_how_well_the_normaliser_is_known(objective: EnergyLikelihood) -> None:
    assert objective.report() == {}
    objective.held_out(Scaled(1.2))
    figures = objective.report()
    assert figures["log_normalizer_standard_error"] < 0.02
    if objective.held_out_x.shape[1] > 2:
        assert 0.5 < figures["effective_share"] <= 1


def test_a_restored_state_goes_on_alike(objective: EnergyLikelihood, request: pytest.FixtureRequest) -> None:
    model = Scaled(1.2)
    objective.held_out(model)
    for _ in range(3):
        objective.next_batch()
        objective.loss(Bound(model, dict(model.named_parameters())))
    state = {name: value.clone() for name, value in objective.state().items()}

    def on() -> list[float]:
        values = []
        for _ in range(4):
            objective.next_batch()
            values.append(objective.loss(Bound(model, dict(model.named_parameters()))).item())
        return values

    first = on()
    objective.load_state(state)
    assert on() == first


def test_negative_marked_weights_are_read_as_zero(objective: EnergyLikelihood) -> None:
    model = Scaled(-1.0)
    make_convex_(model)
    assert model.factor.item() == 0.0
    with torch.no_grad():
        model.factor.fill_(-2.0)
    objective.held_out(model)
    assert model.factor.item() == 0.0


def test_the_box_of_a_lattice_holds_the_data_and_the_mass_of_the_model() -> None:
    integral = LatticeIntegral(torch.tensor([[-1.0], [12.0]]).double(), torch.Generator().manual_seed(0))
    points, log_share = integral.next_batch()
    assert float(points.min()) >= -1 and float(points.max()) <= 12
    assert float(log_share.exp().sum()) == pytest.approx(13)
    integral.held_out(Scaled(0.25))
    points, _ = integral.next_batch()
    assert float(points.min()) < -9 and 11.9 < float(points.max()) < 14
