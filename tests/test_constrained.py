"""Constrained modules: equal starts, weights by name, potentials that stay potentials, exact baking."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ot_lift.constrained import Bound, Constrained, ConstrainedPotential
from ot_lift.positivity import mark_nonnegative, marked_parameters
from ot_lift.potentials import ICNN, Potential, Quadratic

POSITIVITIES = ["softplus", "square", "projection", "admm"]
DTYPES = [torch.float32, torch.float64]


class Tied(nn.Module):
    """x ↦ Wᵀ(bn(Wx)) + c with one shared, marked W, a batch norm's buffers and a second input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.norm = nn.BatchNorm1d(3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        mark_nonnegative(self.first.weight)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return scale * self.second(self.norm(self.first(x)))


def icnn(generator: torch.Generator, dtype: torch.dtype = torch.float32) -> ICNN:
    return ICNN(3, (5, 7), generator=generator, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_positivity_starts_at_the_same_network(dtype: torch.dtype, generator: torch.Generator) -> None:
    phi = icnn(generator, dtype)
    x = torch.randn(20, 3, generator=generator, dtype=dtype)
    for positivity in POSITIVITIES:
        model = Constrained(phi, positivity)
        for name, weight in model.weights().items():
            assert weight.dtype == dtype
            torch.testing.assert_close(weight, dict(phi.named_parameters())[name])
        torch.testing.assert_close(model(x), phi(x))


@pytest.mark.usefixtures("forked_rng")
def test_negative_initial_weights_are_folded() -> None:
    layer = nn.Linear(4, 3)
    mark_nonnegative(layer.weight)
    torch.testing.assert_close(Constrained(layer).weights()["weight"], layer.weight.abs())


def test_weights_are_keyed_as_named_parameters_and_the_module_is_not_touched(
    generator: torch.Generator,
) -> None:
    phi = icnn(generator)
    before = copy.deepcopy(phi.state_dict())
    model = Constrained(phi)
    assert set(model.weights()) == set(marked_parameters(phi))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.randn(8, 3, generator=generator)).sum().backward()
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in phi.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in phi.parameters())


def test_training_moves_raw_and_unmarked_parameters_and_nothing_else(generator: torch.Generator) -> None:
    phi = icnn(generator)
    model = Constrained(phi)
    model(torch.randn(8, 3, generator=generator)).square().mean().backward()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == sum(p.numel() for p in phi.parameters()) + model.added_parameters
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("positivity", POSITIVITIES)
def test_weights_stay_nonnegative_in_training_and_once_baked(positivity: str, generator: torch.Generator) -> None:
    """A loss that pushes every weight below zero."""
    model = Constrained(icnn(generator), positivity)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        (sum(w.sum() for w in model.weights().values()) + model.penalty()).backward()
        optimizer.step()
        model.after_step()
        if model.keeps_convex:
            assert all(bool((w >= 0).all()) for w in model.weights().values())
    assert all(bool((p >= 0).all()) for p in marked_parameters(model.bake()).values())
    assert model.keeps_convex == (positivity != "admm")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positivity", ["softplus", "square", "projection"])
def test_baked_module_gives_the_same_bits(positivity: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    model = Constrained(icnn(generator, dtype), positivity)
    plain = model.bake()
    assert type(plain) is ICNN
    assert set(marked_parameters(plain)) == set(model.weights())
    assert all(p.requires_grad and p.is_leaf for p in plain.parameters())
    x = torch.randn(33, 3, generator=generator, dtype=dtype)
    for ours, theirs in zip(
        (model(x), *model.value_gradient_hessian(x)),
        (plain(x), *plain.value_gradient_hessian(x)),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


METHODS: dict[str, Callable[[Potential, Tensor], object]] = {
    "forward": lambda p, x: p(x),
    "gradient": lambda p, x: p.gradient(x),
    "value_gradient": lambda p, x: p.value_gradient(x),
    "value_gradient_hessian": lambda p, x: p.value_gradient_hessian(x),
    "hessian": lambda p, x: p.hessian(x),
    "hessian_product": lambda p, x: p.hessian_product(x, x.flip(1)),
    "linearise": lambda p, x: p.linearise(x)[2](x.flip(1)),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_constrained_potential_is_a_potential_with_every_method(method: str, generator: torch.Generator) -> None:
    model = Constrained(icnn(generator))
    for raw in model.raw:  # away from where the frozen copies are
        raw.data += 1.0
    assert isinstance(model, Potential) and isinstance(model, ConstrainedPotential)
    bound, plain = model.bind(), model.bake()
    assert isinstance(bound, Potential) and isinstance(plain, Potential)
    assert model.features == bound.features == 3
    assert model.strong_convexity == bound.strong_convexity == plain.strong_convexity
    x = torch.randn(9, 3, generator=generator)
    expected = METHODS[method](plain, x)
    for potential in (model, bound):
        torch.testing.assert_close(METHODS[method](potential, x), expected, rtol=0, atol=0)


def test_gradients_reach_raw_through_closed_forms(generator: torch.Generator) -> None:
    model = Constrained(icnn(generator))
    model.hessian_product(torch.randn(4, 3, generator=generator), torch.ones(4, 3)).sum().backward()
    assert all(raw.grad is not None and bool(raw.grad.abs().sum() > 0) for raw in model.raw)


@pytest.mark.usefixtures("forked_rng")
def test_tied_weights_buffers_and_further_inputs(generator: torch.Generator) -> None:
    net, x = Tied(), torch.randn(16, 3, generator=generator)
    model = Constrained(net)
    assert not isinstance(model, Potential)
    assert list(model.weights()) == ["first.weight"]
    net.first.weight.data.abs_()
    torch.testing.assert_close(model(x, scale=2.0), net(x, scale=2.0))
    plain = model.eval().bake()
    torch.testing.assert_close(plain.norm.running_mean, net.norm.running_mean)  # type: ignore[union-attr]
    assert plain.first.weight is plain.second.weight  # type: ignore[union-attr]
    assert torch.equal(plain(x), model(x))


@pytest.mark.usefixtures("forked_rng")
def test_any_torch_module_can_be_constrained() -> None:
    net = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Softplus(), nn.Flatten(), nn.Linear(6, 1))
    net[3].weight._pos_required = 1  # type: ignore[assignment]
    model = Constrained(net)
    assert model(torch.ones(4, 1, 5)).shape == (4, 1)
    assert bool((model.bake()[3].weight >= 0).all())  # type: ignore[index]


def test_a_module_with_nothing_marked_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mark them with ot_lift.mark_nonnegative"):
        Constrained(Quadratic(2))
    with pytest.raises(ValueError, match="use Lift"):
        Constrained(Quadratic(2), "lift")


@pytest.mark.parametrize("positivity", POSITIVITIES)
def test_state_dict_deepcopy_and_pickle_round_trips(positivity: str, generator: torch.Generator) -> None:
    phi, x = icnn(generator), torch.randn(5, 3, generator=generator)
    model = Constrained(phi, positivity)
    for raw in model.raw:
        raw.data += 0.3
    model.after_step()
    fresh = Constrained(phi, positivity)
    fresh.load_state_dict(model.state_dict())
    for other in (fresh, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is type(model)
        assert torch.equal(other(x), model(x)) and torch.equal(other.penalty(), model.penalty())
        assert set(marked_parameters(other.bake())) == set(marked_parameters(phi))


@pytest.mark.parametrize("positivity", POSITIVITIES)
def test_conversion_to_float64_takes_everything_along(positivity: str, generator: torch.Generator) -> None:
    model = Constrained(icnn(generator), positivity).double()
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    (model(x).sum() + model.penalty()).backward()
    model.after_step()
    assert model.bake()(x).dtype == torch.float64


def test_diverged_weights_are_not_baked(generator: torch.Generator) -> None:
    model = Constrained(icnn(generator))
    model.raw[0].data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"NaN or inf in readout; training has diverged"):
        model.bake()


def test_bound_restores_the_module(generator: torch.Generator) -> None:
    phi = icnn(generator)
    x = torch.randn(5, 3, generator=generator)
    before = phi(x)
    zero = {name: torch.zeros_like(p) for name, p in marked_parameters(phi).items()}
    assert not torch.equal(Bound(phi, zero)(x), before)
    assert torch.equal(phi(x), before)
