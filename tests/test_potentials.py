"""What each potential is beyond the laws: its formula, its start, its arguments, its memory."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from instances import LogSumExp, make_adapter, make_icnn, normal
from torch import Tensor, nn
from torch.testing import assert_close

import ot_lift.hessians
from ot_lift.constrained import BoundPotential
from ot_lift.positivity import marked_parameters
from ot_lift.potentials import ICNN, AutogradPotential, Potential, Quadratic


# --------------------------------------------------------------------------------------------- contract
class HalfSquare(Potential):
    """½‖x‖² by the least that the contract asks for."""

    features = 2
    strong_convexity = 1.0  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x.square().sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        return x

    def linearise(self, x: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        return self(x), x, lambda v: v

    def value_gradient_hessian(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self(x), x, torch.eye(2, dtype=x.dtype).expand(len(x), 2, 2)


def test_the_contract_completes_a_minimal_potential() -> None:
    potential, x = HalfSquare(), normal(3, 2, seed=1)
    value, gradient = potential.value_gradient(x)
    assert torch.equal(value, 0.5 * x.square().sum(1)) and torch.equal(gradient, x)
    assert torch.equal(potential.hessian(x), torch.eye(2).double().expand(3, 2, 2))
    assert torch.equal(potential.hessian_product(x, 2 * x), 2 * x)


def test_the_contract_cannot_be_left_open() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Potential()  # type: ignore[abstract]


# ---------------------------------------------------------------------------------------------- Quadratic
@pytest.mark.parametrize("mu", [0.0, 0.3, 1.0, 2.5])
def test_a_quadratic_starts_at_the_identity_map_as_far_as_mu_allows(mu: float) -> None:
    quadratic, x = Quadratic(3, strong_convexity=mu, dtype=torch.float64), normal(4, 3, seed=1)
    assert_close(quadratic.gradient(x), max(1.0, mu) * x)
    assert_close(quadratic(x), 0.5 * max(1.0, mu) * x.square().sum(1))
    assert quadratic.strong_convexity == mu


def test_set_quadratic_writes_a_matrix_and_a_linear_term() -> None:
    root = normal(4, 4, seed=1)
    matrix, linear = root @ root.T + 0.2 * torch.eye(4).double(), normal(4, seed=2)
    quadratic = Quadratic(4, strong_convexity=0.1, dtype=torch.float64)
    quadratic.set_quadratic_(matrix, linear)
    x = normal(5, 4, seed=3)
    assert_close(quadratic.matrix(), matrix)
    assert_close(quadratic.gradient(x), x @ matrix + linear)
    quadratic.set_quadratic_(2 * matrix)
    assert_close(quadratic.gradient(x), 2 * x @ matrix + linear)


def test_set_quadratic_raises_eigenvalues_to_mu() -> None:
    quadratic = Quadratic(2, strong_convexity=0.5)
    quadratic.set_quadratic_(torch.diag(torch.tensor([-1.0, 3.0])))
    assert_close(quadratic.matrix(), torch.diag(torch.tensor([0.5, 3.0])))


# --------------------------------------------------------------------------------------------------- ICNN
def test_one_unit_is_its_formula() -> None:
    network = ICNN(2, (1,), sharpness=2.0, strong_convexity=0.5, dtype=torch.float64)
    with torch.no_grad():
        for tensor, values in (
            (network.inputs[0], [[1.0, -2.0]]),
            (network.squares[0], [[0.5, 1.0]]),
            (network.biases[0], [0.25]),
            (network.readout, [[3.0]]),
            (network.quadratic.factor, [[1.0, 0.0], [2.0, 0.0]]),
            (network.quadratic.linear, [1.0, 1.0]),
            (network.quadratic.offset, 7.0),
        ):
            tensor.copy_(torch.tensor(values))
    x = torch.tensor([[0.5, 1.5]], dtype=torch.float64)
    u = 0.5 - 3.0 + 1.75**2 + 0.25
    activated = torch.log1p(torch.exp(torch.tensor(2 * u))) / 2
    quadratic = 0.5 * ((0.5 + 3.0) ** 2 + 0.5 * (0.25 + 2.25)) + 2.0 + 7.0
    assert_close(network(x).item(), 3 * float(activated) + quadratic, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("initialiser", ["principled", "folded_normal"])
def test_weights_start_non_negative_marked_and_reproducible(initialiser: str) -> None:
    def make(seed: int | None) -> ICNN:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return ICNN(3, (8, 6, 4), initialiser=initialiser, generator=generator)

    network = make(None)
    assert set(marked_parameters(network)) == {"weights.0", "weights.1", "readout"}
    assert all(bool((weight >= 0).all()) for weight in marked_parameters(network).values())
    assert torch.equal(make(3)(torch.ones(1, 3)), make(3)(torch.ones(1, 3)))
    assert torch.equal(make(None)(torch.ones(1, 3)), network(torch.ones(1, 3)))
    assert not torch.equal(make(3)(torch.ones(1, 3)), make(4)(torch.ones(1, 3)))
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_initialisers_and_options_change_the_network() -> None:
    x = normal(4, 3, seed=1, dtype=torch.float32)
    plain = ICNN(3, (8, 6), initialiser="folded_normal")
    others = [
        ICNN(3, (8, 6), initialiser="principled"),
        ICNN(3, (8, 6), activation="celu"),
        ICNN(3, (8, 6), sharpness=1.0),
        ICNN(3, (8, 6), squared=False),
    ]
    for other in others:
        assert not torch.allclose(other.gradient(x), plain.gradient(x), rtol=1e-3)
    assert ICNN(3, (8, 6), strong_convexity=0.5).strong_convexity == 0.5


def test_a_learned_sharpness_is_one_parameter_a_layer_and_starts_at_the_fixed_one() -> None:
    fixed, learned = (ICNN(2, (5, 4), sharpness=3.0, learn_sharpness=learn) for learn in (False, True))
    names = {name for name, _ in learned.named_parameters()} - {name for name, _ in fixed.named_parameters()}
    assert names == {"log_sharpness"} and learned.log_sharpness.shape == (2,)
    x = normal(6, 2, seed=1, dtype=torch.float32)
    for ours, theirs in zip(learned.value_gradient_hessian(x), fixed.value_gradient_hessian(x), strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("learn_sharpness", [False, True])
@pytest.mark.parametrize("squared", [False, True])
def test_config_and_state_rebuild_a_network(squared: bool, learn_sharpness: bool) -> None:
    network = make_icnn(3, (6, 5), torch.float64, squared=squared, learn_sharpness=learn_sharpness, activation="celu")
    config = json.loads(json.dumps(network.config()))
    other = ICNN(**config, dtype=torch.float64)
    other.load_state_dict(network.state_dict())
    x = normal(4, 3, seed=1)
    assert torch.equal(other.hessian(x), network.hessian(x))
    assert other.config() == network.config()


@pytest.mark.parametrize("tabled", [False, True])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("rows", [1, 16, 17, 60])
def test_a_hessian_in_blocks_equals_one_in_a_piece(
    rows: int, squared: bool, tabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_icnn(3, (8, 7, 6), torch.float64, squared=squared)
    x = normal(rows, 3, seed=1)
    whole = network.value_gradient_hessian(x)  # with autograd, which is never in blocks
    monkeypatch.setattr(ot_lift.hessians_sweep, "_JACOBIAN_BYTES", 1)
    monkeypatch.setattr(ot_lift.hessians_sweep, "_LAYER_NUMBERS", 40 * 6)
    monkeypatch.setattr(ot_lift.hessians, "_TABLE_UP_TO", 16 if tabled else 0)
    with torch.no_grad():
        blocks = network.value_gradient_hessian(x)
        first = [part.clone() for part in blocks]
        network.value_gradient_hessian(x + 1)
    for found, expected, later in zip(first, whole, blocks, strict=True):
        assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)
        assert torch.equal(found, later)  # the next call's buffers are not this one's


def test_everything_works_in_inference_mode() -> None:
    network, x = make_icnn(2, (6, 5), torch.float64), normal(50, 2, seed=1)
    with torch.inference_mode():
        value, gradient, hessian = network.value_gradient_hessian(x)
        product = network.hessian_product(x, gradient)
    assert_close(product, (hessian @ gradient[..., None]).squeeze(-1))
    assert_close(value, network(x).detach())


def test_products_of_one_linearisation_keep_the_weights_that_it_was_bound_to() -> None:
    network, x = make_icnn(2, (6, 5), torch.float64), normal(4, 2, seed=1)
    own = {name: weight.detach() for name, weight in marked_parameters(network).items()}
    first = BoundPotential(network, own)
    second = BoundPotential(network, {name: 2 * weight for name, weight in own.items()})
    products = [potential.linearise(x)[2] for potential in (first, second)]
    expected = [(potential.hessian(x) @ x[..., None]).squeeze(-1) for potential in (first, second)]
    for product, image in [*zip(products, expected, strict=True)] * 2:
        assert_close(product(x), image)
    assert_close(network.hessian_product(x, x), expected[0])


def test_products_agree_with_the_hessian_in_many_dimensions() -> None:
    network, x = make_icnn(60, (20, 20), torch.float64), normal(3, 60, seed=1)
    v = normal(3, 60, seed=2)
    with torch.no_grad():
        assert_close(network.hessian_product(x, v), (network.hessian(x) @ v[..., None]).squeeze(-1))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0,), {}, "features to be finite and > 0, got 0"),
        ((-2,), {}, "features to be finite and > 0, got -2"),
        ((2, ()), {}, "at least one width, got none"),
        ((2, (4, 0)), {}, "hidden_features to be finite and > 0, got 0"),
        ((2,), {"activation": "relu"}, "expected activation to be one of"),
        ((2,), {"sharpness": 0.0}, "sharpness to be finite and > 0"),
        ((2,), {"sharpness": float("nan")}, "sharpness to be finite and > 0"),
        ((2,), {"sharpness": float("inf")}, "sharpness to be finite and > 0"),
        ((2,), {"initialiser": "uniform"}, "'principled' or 'folded_normal', got 'uniform'"),
        ((2,), {"strong_convexity": -1.0}, "strong_convexity to be finite and >= 0, got -1.0"),
        ((2,), {"strong_convexity": float("nan")}, "strong_convexity to be finite and >= 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[object, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ICNN(*arguments, **options)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------- the adapter
class Linear(nn.Module):
    """A linear function, whose second derivative autograd does not even see."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x.sum(1)


class Constant(nn.Module):
    """Not a function of x at all."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), dtype=x.dtype)


@pytest.mark.parametrize(("module", "slope"), [(Linear(), 3.0), (Constant(), 0.0)])
@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_an_adapter_of_a_flat_function_has_the_hessian_of_its_quadratic(
    module: nn.Module, slope: float, mu: float
) -> None:
    potential, x = AutogradPotential(module, 2, strong_convexity=mu), normal(3, 2, seed=1)
    for mode in (torch.enable_grad(), torch.no_grad()):
        with mode:
            _, gradient, hessian = potential.value_gradient_hessian(x)
            assert_close(gradient.detach(), slope + mu * x)
            assert_close(hessian.detach(), (mu * torch.eye(2)).double().expand(3, 2, 2))


def test_an_adapter_takes_a_trailing_dimension_and_keeps_marks() -> None:
    adapter = make_adapter(3, torch.float64)
    assert isinstance(adapter.module, LogSumExp)
    x = normal(4, 3, seed=1)
    assert adapter.module(x).shape == (4, 1) and adapter(x).shape == (4,)
    assert list(marked_parameters(adapter)) == ["module.scale"]


def test_an_adapter_leaves_the_points_and_their_graph_alone() -> None:
    adapter = make_adapter(2, torch.float64)
    x = normal(3, 2, seed=1)
    adapter.hessian(x)
    assert not x.requires_grad
    leaf = normal(3, 2, seed=1).requires_grad_()
    (found,) = torch.autograd.grad(adapter.gradient(2 * leaf).sum(), leaf)
    expected = 2 * (adapter.hessian(2 * leaf.detach()) @ torch.ones(3, 2, 1).double()).squeeze(-1)
    assert_close(found, expected.detach())


@pytest.mark.parametrize("make", [lambda **o: AutogradPotential(Linear(), **o), Quadratic])
def test_adapter_and_quadratic_check_their_arguments(make: Callable[..., Potential]) -> None:
    with pytest.raises(ValueError, match="features to be finite and > 0, got 0"):
        make(features=0)
    with pytest.raises(ValueError, match=r"strong_convexity to be finite and >= 0, got -0\.1"):
        make(features=2, strong_convexity=-0.1)
