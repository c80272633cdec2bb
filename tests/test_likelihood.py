"""The likelihood objective: values, weights, noise, divergence, and its state in a checkpoint."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ot_lift.constrained import Bound
from ot_lift.errors import ConvergenceError
from ot_lift.likelihood import MaximumLikelihood, block_rows, log_density
from ot_lift.sides import Side


class Scaling(nn.Module):
    """x ↦ ax with its log-determinant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return self.factor * x, (self.factor.log() * x.shape[1]).expand(len(x))


class Failing(Scaling):
    """A map that cannot be evaluated."""

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        raise ConvergenceError("no")


def objective(x: Tensor, **options: object) -> MaximumLikelihood:
    generator = torch.Generator().manual_seed(0)
    side = Side.open(x, name="X", features=None, weight=None, generator=generator)
    batches = side.batches(lambda points: points, batch_size=len(x), generator=generator)
    return MaximumLikelihood(batches, x, generator=torch.Generator().manual_seed(1), **options)  # type: ignore[arg-type]


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return torch.randn(200, 3, generator=generator, dtype=torch.float64)


def test_log_density_is_that_of_the_normal_law(x: Tensor) -> None:
    expected = torch.distributions.Normal(0.0, 0.5).log_prob(x).sum(1)  # pulled back by x ↦ 2x
    torch.testing.assert_close(log_density(*Scaling(2.0)(x)), expected)


def test_values_are_in_the_units_of_the_data(x: Tensor) -> None:
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
    plain, scaled = objective(x), objective(x, log_volume=math.log(7.0))
    assert plain.held_out(Scaling(1.0)) == pytest.approx(-float(expected.mean()))
    assert scaled.held_out(Scaling(1.0)) == pytest.approx(-float(expected.mean()) - math.log(7.0))
    torch.testing.assert_close(scaled.log_likelihood(Scaling(1.0), x), expected + math.log(7.0))


def test_the_loss_is_the_mean_over_the_batch_with_its_gradient(x: Tensor) -> None:
    likelihood, model = objective(x), Scaling(1.0)
    batch = likelihood.next_batch()
    loss = likelihood.loss(Bound(model, dict(model.named_parameters())))
    assert loss.item() == pytest.approx(-float(torch.distributions.Normal(0.0, 1.0).log_prob(batch).sum(1).mean()))
    loss.backward()
    assert model.factor.grad is not None  # d/da of ½a²|x|² − d log a at a = 1
    assert float(model.factor.grad) == pytest.approx(float(batch.square().sum(1).mean()) - 3)


def test_held_out_points_count_by_weight(x: Tensor) -> None:
    weight = torch.zeros(200).double()
    weight[:50] = 2.0
    found = objective(x, held_out_weight=weight).held_out(Scaling(1.5))
    assert found == pytest.approx(objective(x[:50]).held_out(Scaling(1.5)))


def test_a_map_that_cannot_be_evaluated_has_no_value(x: Tensor) -> None:
    likelihood, model = objective(x), Failing(1.0)
    likelihood.next_batch()
    loss = likelihood.loss(Bound(model, dict(model.named_parameters())))
    assert math.isnan(loss.item()) and loss.requires_grad
    assert math.isnan(likelihood.held_out(model))


def test_noise_is_added_to_batches_and_belongs_to_the_state(x: Tensor) -> None:
    blur = torch.diag(torch.tensor([0.0, 0.0, 3.0])).double()
    one, other = objective(x, blur=blur), objective(x, blur=blur)
    for _ in range(3):
        one.next_batch()
    other.load_state(one.state())
    torch.testing.assert_close(one.next_batch(), other.next_batch(), rtol=0, atol=0)
    batch = one.next_batch()
    assert float(batch[:, 2].std()) > 2 and float(batch[:, 0].std()) < 1.5


def test_blocks_of_rows_shrink_with_the_dimension() -> None:
    assert block_rows(1) == 1 << 15
    assert block_rows(10**6) == 1
    assert all(block_rows(d) * d**2 <= 1 << 24 for d in (64, 784, 3000))
