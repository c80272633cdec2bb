"""The lift: emission from a set, equal starts, exact baking, and what it refuses."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ot_lift.lift import Constrained, Lift, LiftPotential, SetSummary, constrain
from ot_lift.positivity import Square, mark_nonnegative, marked_parameters
from ot_lift.potentials import ICNN, Potential

DTYPES = [torch.float32, torch.float64]
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "all": {"emit": "all"},
    "paper": {
        "emit": "all",
        "slack": -2.0,
        "readout": "sum",
        "readout_std": 0.1,
        "summary_features": (64, 64),
    },
    "flow": {"slack": -2.0, "readout_std": 1.0, "standardise": True, "code_features": 16},
    "square": {"positivity": "square"},
}


def icnn(generator: torch.Generator, dtype: torch.dtype = torch.float32) -> ICNN:
    """Widths that put tensors at every alignment in the emitted vector."""
    return ICNN(3, (5, 7), generator=generator, dtype=dtype)


def moved(model: Lift, generator: torch.Generator) -> Lift:
    """The model away from its start, where the code has no effect yet."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter += 0.1 * noise.to(parameter.device)
    return model


@pytest.fixture
def batch(generator: torch.Generator) -> Tensor:
    return torch.randn(37, 3, generator=generator)


def test_the_two_lines_lift_any_torch_module(forked_rng: None, generator: torch.Generator) -> None:
    class Convex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(2, 16), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(nn.functional.softplus(self.fc1(x))).squeeze(-1)

    net = Convex()
    mark_nonnegative(net.fc2.weight)
    model = Lift(net, features=2)

    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    x = torch.randn(256, 2, generator=generator)
    first = last = 0.0
    for step in range(200):
        optimizer.zero_grad()
        loss = (model(x) - x.square().sum(1)).square().mean()
        loss.backward()
        optimizer.step()
        first, last = (loss.item() if step == 0 else first), loss.item()
    assert last < 0.1 * first
    plain = model.bake(x)
    assert type(plain) is Convex and bool((plain.fc2.weight >= 0).all())
    assert torch.equal(plain(x), model(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_lift_starts_at_the_network_of_every_other_positivity(
    dtype: torch.dtype, generator: torch.Generator
) -> None:
    phi = icnn(generator, dtype)
    x = torch.randn(20, 3, generator=generator, dtype=dtype)
    softplus = Constrained(phi).weights()
    for name, weight in Lift(phi, features=3).weights(x).items():
        torch.testing.assert_close(weight, softplus[name], rtol=4 * torch.finfo(dtype).eps, atol=0.0)
    everything = Lift(phi, features=3, emit="all").weights(x)
    for name, parameter in phi.named_parameters():
        torch.testing.assert_close(everything[name], parameter)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_baked_module_gives_the_bits_of_the_lift_at_its_batch(
    variant: str, dtype: torch.dtype, generator: torch.Generator, batch: Tensor
) -> None:
    phi, batch = icnn(generator, dtype), batch.to(dtype)
    model = moved(Lift(phi, features=3, **VARIANTS[variant]), generator)
    plain = model.bake(batch)
    assert type(plain) is ICNN and set(marked_parameters(plain)) == set(marked_parameters(phi))
    assert all(p.requires_grad and p.is_leaf for p in plain.parameters())
    x = torch.randn(50, 3, generator=generator, dtype=dtype)
    assert torch.equal(plain(x), model(x, batch))
    assert torch.equal(plain(batch), model(batch))
    bound = model.bind(batch=batch)
    for ours, theirs in zip(bound.value_gradient_hessian(x), plain.value_gradient_hessian(x), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(model.gradient(x, batch), plain.gradient(x))
    assert torch.equal(model.hessian_product(x, x, batch), plain.hessian_product(x, x))


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_nonnegative_by_name_and_do_depend_on_the_batch(
    variant: str, generator: torch.Generator, batch: Tensor
) -> None:
    phi = icnn(generator)
    model = moved(Lift(phi, features=3, **VARIANTS[variant]), generator)
    weights = model.weights(batch)
    expected = dict(phi.named_parameters())
    assert set(weights) == (set(expected) if "emit" in VARIANTS[variant] else set(marked_parameters(phi)))
    for name, weight in weights.items():
        assert weight.shape == expected[name].shape
    assert all(bool((weights[name] >= 0).all()) for name in marked_parameters(phi))
    other = model.weights(2 * batch + 1)
    assert any(not torch.allclose(weights[name], other[name]) for name in weights)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_order_of_the_batch_changes_nothing(variant: str, generator: torch.Generator, batch: Tensor) -> None:
    model = moved(Lift(icnn(generator, torch.float64), features=3, **VARIANTS[variant]), generator)
    shuffled = batch[torch.randperm(len(batch), generator=generator)]
    for one, other in zip(model.weights(batch).values(), model.weights(shuffled).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_conditioning_batch_is_detached(generator: torch.Generator, batch: Tensor) -> None:
    model = moved(Lift(icnn(generator), features=3), generator)
    condition = batch.clone().requires_grad_()
    model(batch, condition).sum().backward()
    assert condition.grad is None
    x = batch.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x)
    torch.testing.assert_close(slope, model.bake(batch).gradient(batch))


def test_the_paper_starts_marked_tensors_at_slack_minus_two(generator: torch.Generator, batch: Tensor) -> None:
    phi = icnn(generator)
    weights = Lift(phi, features=3, emit="all", slack=-2.0).weights(batch)
    for name, parameter in phi.named_parameters():
        if name in marked_parameters(phi):
            torch.testing.assert_close(weights[name], torch.full_like(parameter, math.log1p(math.exp(-2))))
        else:
            assert torch.equal(weights[name], parameter)


@pytest.mark.parametrize("emit", ["constrained", "all"])
def test_what_trains_and_how_much_the_lift_adds(emit: Any, generator: torch.Generator, batch: Tensor) -> None:
    phi = icnn(generator)
    model = moved(Lift(phi, features=3, emit=emit), generator)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    own = sum(p.numel() for p in phi.parameters())
    assert sum(p.numel() for p in trained.values()) == own + model.added_parameters
    inside = [name for name in trained if name.startswith("_module.")]
    assert len(inside) == (0 if emit == "all" else len(list(phi.parameters())) - len(marked_parameters(phi)))
    model(batch).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in trained.values())
    assert all(p.grad is None for name, p in model.named_parameters() if name not in trained)


def test_added_parameters_are_those_that_the_docstring_counts(generator: torch.Generator) -> None:
    phi = icnn(generator)
    emitted = sum(p.numel() for p in marked_parameters(phi).values())
    model = Lift(phi, features=3, summary_features=(11, 13), code_features=6)
    assert model.added_parameters == 6 * emitted + (3 + 1) * 11 + (11 + 1) * 13 + (13 + 1) * 6


def test_a_lifted_potential_is_a_potential(generator: torch.Generator, batch: Tensor) -> None:
    model = moved(Lift(icnn(generator), features=3), generator)
    assert isinstance(model, Potential) and isinstance(model, LiftPotential)
    assert (model.features, model.strong_convexity) == (3, model.bake(batch).strong_convexity)
    assert isinstance(model.bind(batch=batch), Potential)
    once = model.bind(model.weights(batch))
    assert torch.equal(once.gradient(batch), model.gradient(batch))
    assert torch.equal(once.linearise(batch)[2](batch), model.linearise(batch)[2](batch))


@pytest.mark.parametrize("variant", VARIANTS)
def test_state_dict_deepcopy_and_pickle_round_trips(variant: str, generator: torch.Generator, batch: Tensor) -> None:
    phi = icnn(generator)
    model = moved(Lift(phi, features=3, **VARIANTS[variant]), generator)
    fresh = Lift(phi, features=3, **VARIANTS[variant])
    fresh.load_state_dict(model.state_dict())
    for other in (fresh, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is LiftPotential
        assert torch.equal(other(batch), model(batch))
        assert set(marked_parameters(other.bake(batch))) == set(marked_parameters(phi))


def test_conversion_to_float64_takes_everything_along(generator: torch.Generator, batch: Tensor) -> None:
    model = moved(Lift(icnn(generator), features=3), generator)
    before = model(batch)
    model.double()
    after = model(batch.double())
    assert after.dtype == torch.float64
    torch.testing.assert_close(after.float(), before, rtol=1e-4, atol=1e-4)


def test_the_same_generator_gives_the_same_lift_and_the_global_state_is_untouched(
    generator: torch.Generator, batch: Tensor
) -> None:
    phi = icnn(generator)
    before = torch.random.get_rng_state()
    one, two, other = (
        Lift(phi, features=3, readout_std=1.0, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one(batch), two(batch))
    assert not torch.equal(one(batch), other(batch))
    assert torch.equal(before, torch.random.get_rng_state())


def test_tied_parameters_and_buffers(forked_rng: None, generator: torch.Generator, batch: Tensor) -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    mark_nonnegative(net[0].weight)
    model = moved(Lift(net, features=3), generator)
    model(batch)
    assert list(model.weights(batch)) == ["0.weight"]
    model.eval()
    plain = model.bake(batch)
    assert plain[0].weight is plain[2].weight  # type: ignore[index]
    assert int(plain[1].num_batches_tracked) == 1  # type: ignore[index]
    assert torch.equal(plain(batch), model(batch))


def test_rows_of_any_shape_are_flattened_for_the_summary(forked_rng: None) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 1))
    mark_nonnegative(net[2].weight)
    images = torch.ones(4, 1, 4, 4)
    assert Lift(net, features=16)(images).shape == (4, 1)


def test_a_standardised_code_ignores_the_scale_of_the_data(batch: Tensor) -> None:
    summary = SetSummary(3, standardise=True)
    code = summary(batch)
    torch.testing.assert_close(code.mean(), torch.zeros(()), atol=1e-6, rtol=0)
    torch.testing.assert_close(summary(1e3 * batch), code, rtol=1e-3, atol=1e-3)


def test_constrain_exchanges_positivities_by_one_argument(generator: torch.Generator, batch: Tensor) -> None:
    phi = icnn(generator)
    values = []
    for positivity in ("lift", "softplus", "square", "projection", "admm"):
        model = constrain(phi, positivity, features=3)
        assert isinstance(model, Lift) == (positivity == "lift")
        assert model.keeps_convex == (positivity != "admm")
        assert model.penalty().item() == pytest.approx(0.0, abs=1e-9)
        model.after_step()
        values.append(model(batch))
    for value in values[1:]:
        torch.testing.assert_close(value, values[0])


def test_a_module_with_nothing_marked_is_refused(forked_rng: None) -> None:
    with pytest.raises(ValueError, match=r"mark them with ot_lift.mark_nonnegative"):
        Lift(nn.Linear(2, 1), features=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"emit": "some"}, "expected emit 'constrained' or 'all', got 'some'"),
        ({"readout": "x"}, "expected readout 'mean' or 'sum', got 'x'"),
        ({"readout_std": -1.0}, "expected readout_std >= 0"),
        ({"slack": float("nan")}, "expected slack to be finite"),
        ({"positivity": "projection"}, "use Constrained"),
        ({"positivity": "admm"}, "use Constrained"),
        ({"positivity": "relu"}, "expected positivity to be one of"),
        ({"summary_features": ()}, "at least one summary width"),
        ({"code_features": 0}, "code_features=0"),
        ({"features": 0}, "features=0"),
    ],
)
def test_bad_options_are_refused_in_words(options: dict[str, Any], words: str, generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match=words):
        Lift(icnn(generator), **{"features": 3, **options})


@pytest.mark.parametrize("shape", [(5, 2), (0, 3), (3,), ()])
def test_a_batch_of_the_wrong_shape_is_refused_in_words(shape: tuple[int, ...], generator: torch.Generator) -> None:
    model = Lift(icnn(generator), features=3)
    with pytest.raises(ValueError, match=r"expected a batch of shape \(n, 3\) with n >= 1, got \("):
        model.weights(torch.zeros(shape))
    with pytest.raises(ValueError, match="to emit from, got None"):
        model.bake()


def test_tensors_of_different_dtypes_are_refused(forked_rng: None) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1).double())
    mark_nonnegative(net[0].weight, net[1].weight)
    with pytest.raises(ValueError, match=r"of one dtype on one device, got .*float32.*float64"):
        Lift(net, features=2)


def test_a_positivity_may_be_given_as_an_object(generator: torch.Generator, batch: Tensor) -> None:
    model = Lift(icnn(generator), features=3, positivity=Square())
    torch.testing.assert_close(model(batch), icnn_at_start(model, batch))


def icnn_at_start(model: Lift, batch: Tensor) -> Tensor:
    return model.bake(batch)(batch)
