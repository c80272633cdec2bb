"""Properties that every potential, positivity and map must have; `instances` has what they are tried on.

A law is a function that takes a maker of instances and a generator, and fails with an AssertionError. Tolerances come
from the dtype and from the size of the numbers that cancel; orders come from Taylor remainders.
"""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from instances import ROWS, Make, bound, normal, points
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from ot_lift.conjugate import conjugate
from ot_lift.constrained import BoundPotential, Constrained, ConstrainedPotential
from ot_lift.io import load_folder, save_folder
from ot_lift.maps import GradientMap, StandardisedPotential
from ot_lift.positivity import Positivity, make_positivity, positivity_names
from ot_lift.potentials import Potential

Law = Callable[[Make, torch.Generator], None]
PositivityLaw = Callable[[str, torch.dtype, torch.Generator], None]


def rounding(*terms: Tensor) -> float:
    """What rounding may do to a sum of such terms, over the few hundred operations behind them."""
    largest = max(float(term.detach().abs().max()) for term in terms)
    return 256 * torch.finfo(terms[0].dtype).eps * max(1.0, largest)


def _close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equality to a tolerance relative to the largest entry."""
    size = max(1.0, float(expected.detach().abs().max())) if expected.numel() else 1.0
    assert_close(actual, expected, rtol=0.0, atol=tolerance * size)


# ----------------------------------------------------------------------------------- convexity and derivatives
def is_convex_along_chords(make: Make, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> None:
    potential = make(dtype)
    x, y = (points(potential, generator, 100, dtype) for _ in range(2))
    t = torch.rand(100, generator=generator, dtype=torch.float64).to(x.dtype)
    with torch.no_grad():
        inside = potential(t[:, None] * x + (1 - t[:, None]) * y)
        ends = potential(x), potential(y)
    chord = t * ends[0] + (1 - t) * ends[1]
    gap = chord - inside - 0.5 * potential.strong_convexity * t * (1 - t) * (x - y).square().sum(1)
    assert float(gap.min()) >= -rounding(*ends), f"φ lies {-float(gap.min()):.1e} above a chord"


def is_convex_along_chords_in_single_precision(make: Make, generator: torch.Generator) -> None:
    is_convex_along_chords(make, generator, torch.float32)


def _order(remainder: Callable[[float], Tensor], negligible: float) -> float:
    """Least-squares slope of log remainder against log step; infinite where the remainder is rounding alone."""
    steps = [2.0**-k for k in range(6, 11)]
    sizes = torch.stack([remainder(step).mean() for step in steps])
    if float(sizes.max()) <= negligible:
        return float("inf")
    h, e = torch.tensor(steps, dtype=torch.float64).log(), sizes.log()
    return float(((h - h.mean()) * (e - e.mean())).sum() / (h - h.mean()).square().sum())


def _direction(x: Tensor, generator: torch.Generator) -> Tensor:
    return nn.functional.normalize(torch.randn(x.shape, generator=generator, dtype=x.dtype))


@torch.no_grad()
def gradient_leaves_a_second_order_remainder(make: Make, generator: torch.Generator) -> None:
    potential = make(torch.float64)
    x = points(potential, generator, 400)
    v, value, gradient = _direction(x, generator), potential(x), potential.gradient(x)

    def remainder(step: float) -> Tensor:
        return (potential(x + step * v) - value - step * (gradient * v).sum(1)).abs()

    order = _order(remainder, rounding(value))
    assert order > 1.8, f"φ(x + hv) − φ(x) − h∇φ·v is of order {order:.2f} in h, expected 2"


@torch.no_grad()
def hessian_leaves_a_second_order_remainder(make: Make, generator: torch.Generator) -> None:
    potential = make(torch.float64)
    x = points(potential, generator, 400)
    v, gradient = _direction(x, generator), potential.gradient(x)
    curvature = (potential.hessian(x) @ v[..., None]).squeeze(-1)

    def remainder(step: float) -> Tensor:
        return (potential.gradient(x + step * v) - gradient - step * curvature).norm(dim=1)

    order = _order(remainder, rounding(gradient))
    assert order > 1.8, f"∇φ(x + hv) − ∇φ(x) − h∇²φ·v is of order {order:.2f} in h, expected 2"


def hessian_is_symmetric_and_at_least_mu(
    make: Make, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> None:
    potential = make(dtype)
    hessian = potential.hessian(points(potential, generator, 100, dtype)).detach()
    assert_close(hessian, hessian.mT, rtol=0.0, atol=rounding(hessian))
    values = torch.linalg.eigvalsh(hessian)
    lowest = float((values[:, 0] - potential.strong_convexity).min())
    assert lowest >= -rounding(hessian), f"an eigenvalue of ∇²φ lies {-lowest:.1e} below μ"


def hessian_is_symmetric_and_at_least_mu_in_single_precision(make: Make, generator: torch.Generator) -> None:
    hessian_is_symmetric_and_at_least_mu(make, generator, torch.float32)


def _by_autograd(potential: Potential, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A leaf at x, and φ, ∇φ, ∇²φ there by differentiating `forward` alone, with their graphs."""
    leaf = x.detach().clone().requires_grad_()
    value = potential(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
    rows = [
        torch.autograd.grad(gradient[:, i].sum(), leaf, create_graph=True, materialize_grads=True)[0]
        for i in range(potential.features)
    ]
    return leaf, value, gradient, torch.stack(rows, 1)


def _every_spelling(potential: Potential, x: Tensor, v: Tensor) -> Iterable[tuple[str, Tensor, str]]:
    """Each of the contract's ways to a quantity, with the name of that quantity."""
    yield "forward", potential(x), "value"
    yield "gradient", potential.gradient(x), "gradient"
    yield "hessian", potential.hessian(x), "hessian"
    yield "hessian_product", potential.hessian_product(x, v), "product"
    yield from zip(("value_gradient",) * 2, potential.value_gradient(x), ("value", "gradient"), strict=True)
    value, gradient, product = potential.linearise(x)
    yield "linearise", value, "value"
    yield "linearise", gradient, "gradient"
    yield "linearise", product(v), "product"
    yield "linearise, again", product(-2 * v) / -2, "product"
    names = ("value", "gradient", "hessian")
    yield from zip(("value_gradient_hessian",) * 3, potential.value_gradient_hessian(x), names, strict=True)


def every_derivative_agrees_with_autograd(make: Make, generator: torch.Generator) -> None:
    potential = make(torch.float64)
    x = points(potential, generator)
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    _, value, gradient, hessian = _by_autograd(potential, x)
    expected = {"value": value, "gradient": gradient, "hessian": hessian}
    expected["product"] = (hessian @ v[..., None]).squeeze(-1)
    for mode in (torch.enable_grad(), torch.no_grad()):
        with mode:
            for spelling, actual, quantity in _every_spelling(potential, x, v):
                assert actual.shape == expected[quantity].shape, f"{spelling}: {quantity}"
                _close(actual, expected[quantity], 1e-10)
                if not torch.is_grad_enabled():
                    assert not actual.requires_grad, f"{spelling} keeps a graph under no_grad"


def hessian_slope_agrees_with_autograd(make: Make, generator: torch.Generator) -> None:
    potential = make(torch.float64)
    x = points(potential, generator)
    leaf, _, _, hessian = _by_autograd(potential, x)
    matrix = torch.randn(hessian.shape, generator=generator, dtype=x.dtype)
    matrix = matrix + matrix.mT
    (expected,) = torch.autograd.grad((matrix * hessian).sum(), leaf, materialize_grads=True)
    found, slope = potential.hessian_with_slope(x)
    assert not found.requires_grad
    _close(found, hessian, 1e-10)
    for scale in (1.0, -2.0):  # a second matrix at the same points
        actual = slope(scale * matrix)
        assert not actual.requires_grad
        _close(actual, scale * expected, 1e-9)


def trained_tensors(potential: Potential) -> list[Tensor]:
    """What a loss of this potential trains: its parameters, or the emitted weights of a bound one."""
    own = [p for p in potential.parameters() if p.requires_grad]
    return [*own, *potential.weights.values()] if isinstance(potential, BoundPotential) else own


def _sensitivity(output: Tensor, weights: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradient of ⟨weights, output⟩ in every input; zero where there is no dependence."""
    if not output.requires_grad:
        return tuple(torch.zeros_like(tensor) for tensor in inputs)
    return torch.autograd.grad((output * weights).sum(), inputs, retain_graph=True, materialize_grads=True)


def derivatives_differentiate_in_points_and_parameters(make: Make, generator: torch.Generator) -> None:
    potential = make(torch.float64)
    inputs = trained_tensors(potential)
    assert inputs
    x = points(potential, generator, 5)
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    leaf, value, gradient, hessian = _by_autograd(potential, x)
    expected = {"value": value, "gradient": gradient, "hessian": hessian}
    expected["product"] = (hessian @ v[..., None]).squeeze(-1)
    mixing = {name: torch.randn(tensor.shape, generator=generator, dtype=x.dtype) for name, tensor in expected.items()}
    by_autograd = {name: _sensitivity(tensor, mixing[name], [leaf, *inputs]) for name, tensor in expected.items()}
    point = x.detach().clone().requires_grad_()
    for spelling, actual, quantity in _every_spelling(potential, point, v):
        found = _sensitivity(actual, mixing[quantity], [point, *inputs])
        for index, (ours, theirs) in enumerate(zip(found, by_autograd[quantity], strict=True)):
            try:
                _close(ours, theirs, 1e-10)
            except AssertionError as error:
                place = "x" if index == 0 else f"parameter {index - 1}"
                raise AssertionError(f"{quantity} of {spelling}, differentiated in {place}") from error


class _Answer(nn.Module):
    """A potential's value, gradient, Hessian and a Hessian-vector product as one forward pass."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        product = self.potential.hessian_product(x, torch.ones_like(x))
        return (*self.potential.value_gradient_hessian(x), product)


def derivatives_differentiate_as_finite_differences_do(make: Make, generator: torch.Generator) -> None:
    potential = make(torch.float64)
    answer = _Answer(potential)
    names = [name for name, parameter in answer.named_parameters() if parameter.requires_grad]
    start = [dict(answer.named_parameters())[name].detach().clone().requires_grad_() for name in names]
    x = points(potential, generator, 2).requires_grad_()

    def at(x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        return functional_call(answer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(at, (x, *start), fast_mode=True)


# --------------------------------------------------------------------------------- conjugates, maps and inverses
@torch.no_grad()
def fenchel_young_holds_with_equality_at_the_gradient(make: Make, generator: torch.Generator) -> None:
    potential = make(torch.float64)
    x = points(potential, generator)
    y = potential.gradient(x).roll(1, 0) + 0.1
    value = potential(x)
    solved = conjugate(potential, y)
    slack = solved.residual.square() * potential.features / (2 * potential.strong_convexity)
    gap = value + solved.value - (x * y).sum(1)
    assert bool((gap >= -slack - rounding(value, solved.value)).all()), f"Fenchel–Young fails by {gap.min():.1e}"
    y = potential.gradient(x)
    solved = conjugate(potential, y, torch.zeros_like(x))
    slack = solved.residual.square() * potential.features / (2 * potential.strong_convexity)
    gap = value + solved.value - (x * y).sum(1)
    assert bool((gap.abs() <= slack + rounding(value, solved.value)).all()), f"no equality: {gap.abs().max():.1e}"


def _round_trip(make: Make, generator: torch.Generator, dtype: torch.dtype) -> None:
    potential = make(dtype)
    transform = GradientMap(potential)
    x = points(potential, generator, dtype=dtype)
    with torch.no_grad():
        y = transform(x)
        back = transform.inv(y)
        again = transform(back)
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4}[dtype] * potential.features**0.5
    if isinstance(potential, StandardisedPotential):  # its tolerance is in standardised units
        units = potential.coordinates
        tolerance *= float(units.scale * torch.linalg.matrix_norm(units.matrix, 2))
    far = (back - x).norm(dim=1)
    assert float((again - y).norm(dim=1).max()) <= tolerance + rounding(y)
    assert float(far.max()) <= (tolerance + rounding(y)) / potential.strong_convexity, f"{far.max():.1e} apart"


def inverse_undoes_transport(make: Make, generator: torch.Generator) -> None:
    _round_trip(make, generator, torch.float64)


def inverse_undoes_transport_in_single_precision(make: Make, generator: torch.Generator) -> None:
    _round_trip(make, generator, torch.float32)


def log_det_equals_that_of_autograd(make: Make, generator: torch.Generator) -> None:
    potential = make(torch.float64)
    transform = GradientMap(potential)
    x = points(potential, generator)
    sign, expected = torch.linalg.slogdet(_by_autograd(potential, x)[3])
    y = transform(x)
    found = transform.log_abs_det_jacobian(x, y)
    assert bool((sign == 1).all())
    _close(found, expected, 1e-10)
    _close(transform.inv.log_abs_det_jacobian(y, x), -expected, 1e-10)


# -------------------------------------------------------------------------- rows, dtypes, copies and files
def _answers(potential: Potential, x: Tensor) -> dict[str, Tensor]:
    """Every quantity at x, without autograd."""
    with torch.no_grad():
        value, gradient, hessian = potential.value_gradient_hessian(x)
        product = potential.hessian_product(x, torch.ones_like(x))
        return {"value": value, "gradient": gradient, "hessian": hessian, "product": product}


def prediction_never_depends_on_batch_mates(make: Make, generator: torch.Generator) -> None:
    potential = make(torch.float64)
    x = points(potential, generator)
    together = _answers(potential, x)
    far, unusable = x.clone(), x.clone()
    far[1::2], unusable[1::2] = 1e6, float("nan")
    for mates in (x[::2], far, unusable):
        rows = slice(None) if len(mates) < len(x) else slice(None, None, 2)
        for name, found in _answers(potential, mates).items():
            _close(found[rows], together[name][::2], 1e-13)
    target = together["gradient"].clone()
    target[1::2] = float("nan")
    with torch.no_grad():
        solved = conjugate(potential, together["gradient"], torch.zeros_like(x)).argmax
        other = conjugate(potential, target, torch.zeros_like(x), throw=False)
    assert other.converged.tolist() == [True, False] * (ROWS // 2)
    assert_close(other.argmax[::2], solved[::2], rtol=0.0, atol=1e-13 / potential.strong_convexity)


def no_rows_give_no_rows(make: Make, generator: torch.Generator) -> None:
    potential = make(torch.float64)
    x = points(potential, generator, 1)[:0]
    d = potential.features
    with torch.no_grad():
        shapes = [tuple(part.shape) for part in potential.value_gradient_hessian(x)]
        assert shapes == [(0,), (0, d), (0, d, d)]
        assert conjugate(potential, x).argmax.shape == (0, d)


def single_precision_agrees_with_double(make: Make, generator: torch.Generator) -> None:
    single, double = make(torch.float32), make(torch.float64)
    x = points(single, generator, dtype=torch.float32)
    found, expected = _answers(single, x), _answers(double, x.double())
    for name, answer in expected.items():
        assert found[name].dtype == torch.float32
        _close(found[name].double(), answer, 2e-4)


def _same_answers(potential: Potential, other: Potential, x: Tensor) -> None:
    for name, answer in _answers(potential, x).items():
        assert torch.equal(_answers(other, x)[name], answer), f"{name} differs"


def state_survives_a_file(make: Make, generator: torch.Generator) -> None:
    potential, other = make(torch.float32), make(torch.float32)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    x = points(potential, generator, dtype=torch.float32)
    assert not torch.equal(_answers(other, x)["gradient"], _answers(potential, x)["gradient"])
    with tempfile.TemporaryDirectory() as folder:
        save_folder(Path(folder) / "state", kind="test", config={}, tensors=potential.state_dict())
        _, tensors = load_folder(Path(folder) / "state", kind="test")
    other.load_state_dict(tensors)
    _same_answers(potential, other, x)


def copies_are_equal_and_independent(make: Make, generator: torch.Generator) -> None:
    potential = make(torch.float64)
    x = points(potential, generator)
    before = _answers(potential, x)["value"]
    for other in (copy.deepcopy(potential), pickle.loads(pickle.dumps(potential))):
        assert type(other) is type(potential)
        _same_answers(potential, other, x)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.5).add_(0.1)
        assert torch.equal(_answers(potential, x)["value"], before)
        assert not torch.equal(_answers(other, x)["value"], before)


POTENTIAL_LAWS: tuple[Law, ...] = (
    is_convex_along_chords,
    is_convex_along_chords_in_single_precision,
    gradient_leaves_a_second_order_remainder,
    hessian_leaves_a_second_order_remainder,
    hessian_is_symmetric_and_at_least_mu,
    hessian_is_symmetric_and_at_least_mu_in_single_precision,
    every_derivative_agrees_with_autograd,
    hessian_slope_agrees_with_autograd,
    derivatives_differentiate_in_points_and_parameters,
    derivatives_differentiate_as_finite_differences_do,
    fenchel_young_holds_with_equality_at_the_gradient,
    prediction_never_depends_on_batch_mates,
    no_rows_give_no_rows,
    single_precision_agrees_with_double,
)
MAP_LAWS: tuple[Law, ...] = (
    inverse_undoes_transport,
    inverse_undoes_transport_in_single_precision,
    log_det_equals_that_of_autograd,
)
# A bound potential is a view of a wrapper at passing weights: it is neither copied nor saved.
FILE_LAWS: tuple[Law, ...] = (state_survives_a_file, copies_are_equal_and_independent)


# ---------------------------------------------------------------------------------------------- wrappers
def baked_module_equals_the_wrapper(make: Callable[[torch.dtype], Constrained], dtype: torch.dtype) -> None:
    wrapper = make(dtype)
    assert isinstance(wrapper, ConstrainedPotential)
    reference, x = normal(9, 2, seed=8, dtype=dtype), normal(ROWS, 2, seed=9, dtype=dtype)
    baked = wrapper.bake(reference)
    assert isinstance(baked, Potential) and not isinstance(baked, Constrained)
    assert baked.strong_convexity == wrapper.strong_convexity
    _same_answers(baked, bound(wrapper, reference), x)
    with torch.no_grad():
        assert torch.equal(baked(x), wrapper(x, reference))
    marked = [parameter for parameter in baked.parameters() if getattr(parameter, "_pos_required", False)]
    assert marked and all(bool((parameter >= 0).all()) for parameter in marked)
    assert all(parameter.requires_grad for parameter in baked.parameters())


# -------------------------------------------------------------------------------------------- positivities
def _attached(name: str, raw: Tensor) -> Positivity:
    positivity = make_positivity(name)
    positivity.attach(raw)
    return positivity


def right_inverse_round_trip(name: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    positivity = make_positivity(name)
    small = 10 ** (-6 * torch.rand(200, generator=generator, dtype=torch.float64))
    weight = torch.cat([small, 1e3 * small, torch.zeros(5)]).to(dtype).view(5, 81)
    raw = positivity.right_inverse(weight)
    assert raw.dtype == dtype and raw.shape == weight.shape and bool(torch.isfinite(raw).all())
    eps = torch.finfo(dtype).eps
    assert_close(positivity.weight(raw), weight, rtol=64 * eps, atol=2 * eps**2)


def final_weight_is_non_negative(name: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    raw = 20 * torch.randn(300, generator=generator, dtype=torch.float64).to(dtype)
    positivity = _attached(name, raw.clone())
    assert bool((positivity.final(raw) >= 0).all())
    positivity.after_step(raw)
    if positivity.keeps_convex:
        assert bool((positivity.weight(raw) >= 0).all())
        assert float(positivity.penalty(raw)) == 0.0
    kept = positivity.final(raw)
    assert kept.dtype == dtype and kept.shape == raw.shape and bool((kept >= 0).all())


def weight_does_not_fall_where_it_starts_out(name: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    weight = torch.rand(50, generator=generator, dtype=torch.float64).to(dtype).sort().values
    positivity = make_positivity(name)
    raw = positivity.right_inverse(weight).requires_grad_()
    (slope,) = torch.autograd.grad(positivity.weight(raw).sum(), raw)
    assert bool((slope >= 0).all())
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(positivity.weight, (raw,), fast_mode=True)


POSITIVITIES: tuple[str, ...] = tuple(positivity_names())
POSITIVITY_LAWS: tuple[PositivityLaw, ...] = (
    right_inverse_round_trip,
    final_weight_is_non_negative,
    weight_does_not_fall_where_it_starts_out,
)
