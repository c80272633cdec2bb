"""Partially convex networks: a potential for every row's context. The laws of potentials are tried on one context."""

from __future__ import annotations

import pytest
import torch
from instances import make_partial, normal
from torch.testing import assert_close

from ot_lift.conjugate import conjugate
from ot_lift.logdet import exact_log_det, log_det_for_training, stochastic_log_det, value_gradient_log_det
from ot_lift.partial_icnn import PartialICNN
from ot_lift.positivity import marked_parameters
from ot_lift.potentials import ICNN

ROWS = 30


def rows(features: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and a context for each."""
    return 1.5 * normal(ROWS, features, seed=1), normal(ROWS, 2, seed=2)


@pytest.mark.parametrize("features", [1, 4])
def test_every_row_is_that_of_its_own_context(features: int) -> None:
    network, (x, context) = make_partial(features), rows(features)
    with torch.no_grad():
        together = network.at(context).value_gradient_hessian(x)
        latent = conjugate(network.at(context), x).argmax
        for k in range(0, ROWS, 7):
            alone = network.at(context[k : k + 1])
            for both, own in zip(together, alone.value_gradient_hessian(x[k : k + 1]), strict=True):
                assert_close(both[k : k + 1], own)
            assert_close(latent[k : k + 1], conjugate(alone, x[k : k + 1]).argmax, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("method", ["newton", "newton-cg"])
def test_rows_of_their_own_contexts_are_solved_for(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ot_lift.hessians._BLOCK_BYTES", 7 * 3**2 * 8)  # blocks of seven rows
    network, (x, context) = make_partial(3), rows(3)
    phi = network.at(context)
    with torch.no_grad():
        solved = conjugate(phi, phi.gradient(x), method=method)  # type: ignore[arg-type]
    assert_close(solved.argmax, x, rtol=0.0, atol=1e-7)


def test_the_inverse_differentiates_through_the_context() -> None:
    network, (x, context) = make_partial(2), rows(2)

    def solve(context: torch.Tensor) -> torch.Tensor:
        return conjugate(network.at(context), x[:4], tol=1e-12).argmax

    assert torch.autograd.gradcheck(solve, (context[:4].requires_grad_(),), fast_mode=True)


def test_log_determinants_of_rows_with_their_own_contexts(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    network, (x, context) = make_partial(4), rows(4)
    phi = network.at(context)
    expected = torch.linalg.slogdet(phi.hessian(x)).logabsdet
    assert_close(exact_log_det(phi, x), expected)
    surrogate = log_det_for_training(phi, x, method="stochastic", generator=generator)[2]
    found = stochastic_log_det(phi, x, probes=200, generator=generator)
    assert surrogate.shape == found.value.shape == expected.shape
    assert bool(((found.value - expected).abs() < 6 * found.standard_error + 1e-6).all())
    monkeypatch.setattr("ot_lift.hessians._BLOCK_BYTES", 7 * 4**2 * 8)
    with torch.no_grad():
        assert_close(exact_log_det(phi, x), expected)


def test_rows_that_fail_in_single_precision_are_redone_with_their_own_contexts() -> None:
    network, (x, context) = make_partial(3), rows(3)
    network.strong_convexity = 1e-9
    with torch.no_grad():
        network.network.quadratic.factor.zero_()
        network.network.biases[0].sub_(4.0)  # next to no curvature but along few directions
        single = PartialICNN(3, 2, (6, 5), context_hidden_features=(4,), strong_convexity=1e-9)
        single.load_state_dict(network.state_dict())
        found = exact_log_det(single.at(context.float()), x.float())
        assert_close(found.double(), exact_log_det(network.at(context), x), rtol=1e-2, atol=1e-2)


def test_it_is_strongly_convex_whatever_the_context() -> None:
    network = make_partial(3)
    phi = network.at(100 * normal(ROWS, 2, seed=3))
    lowest = torch.linalg.eigvalsh(phi.hessian(normal(ROWS, 3, seed=4)).detach())[:, 0]
    assert float(lowest.min()) >= 0.1 * (1 - 1e-6)


def test_at_the_start_it_is_the_convex_network_in_every_context(generator: torch.Generator) -> None:
    network = PartialICNN(2, 3, (8, 8), strong_convexity=0.25, generator=generator, dtype=torch.float64)
    x, context = normal(9, 2, seed=1), normal(9, 3, seed=2)
    assert_close(network(x, context), network.network(x) + 0.125 * x.square().sum(1))


def test_it_reaches_a_conditional_that_no_common_shape_has() -> None:
    network = PartialICNN(1, 1, (1,), squared=False, dtype=torch.float64)  # a unit that the context moves
    with torch.no_grad():
        network.context.biases[-1].zero_()
        network.context.weights[0].fill_(1.0)
        network.context.weights[-1][-1] = 5.0  # the unit's bias
    left, right = network.at(torch.tensor([[-3.0]]).double()), network.at(torch.tensor([[3.0]]).double())
    grid = torch.linspace(-8, 8, 201).double()[:, None]
    peaks = [float(grid[phi.hessian(grid)[:, 0, 0].argmax()]) for phi in (left, right)]
    assert abs(peaks[0] - peaks[1]) > 1.0


def test_marks_are_on_the_convex_path_alone() -> None:
    network = make_partial(2)
    assert list(marked_parameters(network)) == [f"network.{name}" for name in marked_parameters(network.network)]


def test_a_network_is_rebuilt_from_its_configuration_and_weights() -> None:
    network, (x, context) = make_partial(2, squared=False, learn_sharpness=True), rows(2)
    other = PartialICNN(**network.config()).double()
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x, context), network(x, context))


def test_one_context_serves_any_number_of_points() -> None:
    phi = make_partial(2).at(normal(1, 2, seed=1))
    assert phi.at_rows(torch.tensor([4, 5])) is phi
    assert phi(normal(7, 2, seed=2)).shape == (7,)
    plain = ICNN(2, (3,))
    assert plain.at_rows(slice(2)) is plain


def test_the_gradient_trains_both_paths(generator: torch.Generator) -> None:
    network, (x, context) = make_partial(2), rows(2)
    _, latent, log_det = value_gradient_log_det(network.at(context), x)
    (latent.square().sum() - log_det.sum()).backward()
    assert all(p.grad is not None for p in network.context.parameters())
    assert all(p.grad is not None for p in marked_parameters(network).values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strong_convexity": 0.0}, "expected strong_convexity > 0"),
        ({"context_features": 0}, "expected context_features"),
        ({"context_hidden_features": (4, 0)}, "expected context_features and its widths"),
        ({"hidden_features": ()}, "at least one width"),
    ],
)
def test_wrong_arguments_are_refused_in_words(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PartialICNN(**{"features": 2, "context_features": 3, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(5, 3), (2,)])
def test_contexts_of_another_shape_are_refused_in_words(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected contexts of shape \(n, 2\)"):
        make_partial(2).at(torch.zeros(shape))
