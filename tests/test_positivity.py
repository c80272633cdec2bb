"""Laws of every positivity, and the marks that say which parameters need one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ot_lift.positivity import (
    ADMM,
    Positivity,
    Projection,
    Softplus,
    Square,
    copy_with_marks,
    make_positivity,
    mark_nonnegative,
    marked_parameters,
    positivity_names,
)

TABLE: dict[str, Callable[[], Positivity]] = {
    "softplus": Softplus,
    "square": Square,
    "projection": Projection,
    "admm": ADMM,
    "admm-balanced": lambda: ADMM(schedule="balanced"),
    "admm-doubling": lambda: ADMM(schedule="doubling", period=3),
}
DTYPES = [torch.float32, torch.float64]


def weights(dtype: torch.dtype) -> Tensor:
    return torch.logspace(-6, 3, 64, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TABLE)
def test_right_inverse_round_trip(name: str, dtype: torch.dtype) -> None:
    positivity, weight = TABLE[name](), weights(dtype)
    raw = positivity.right_inverse(weight)
    assert raw.dtype == dtype and raw.shape == weight.shape
    # Through raw = log(expm1(w)), a relative rounding of |raw| ≤ 14 is the relative error of a small weight.
    torch.testing.assert_close(positivity.weight(raw), weight, rtol=32 * torch.finfo(dtype).eps, atol=0.0)


@pytest.mark.parametrize("name", TABLE)
def test_final_weights_are_nonnegative_for_any_raw(name: str) -> None:
    positivity = TABLE[name]()
    raw = torch.linspace(-200, 200, 401)
    positivity.after_step(raw)
    assert bool((positivity.final(raw) >= 0).all())
    if positivity.keeps_convex:
        assert bool((positivity.weight(raw) >= 0).all())


@pytest.mark.parametrize("name", TABLE)
def test_zero_weights_start_at_zero_or_next_to_it(name: str) -> None:
    positivity = TABLE[name]()
    raw = positivity.right_inverse(torch.zeros(3))
    assert bool(torch.isfinite(raw).all())
    assert bool((positivity.weight(raw) < 1e-12).all())


@pytest.mark.parametrize("bad", [-0.5, float("nan")])
@pytest.mark.parametrize("name", TABLE)
def test_negative_or_nan_weights_have_no_right_inverse(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match="expected weights >= 0"):
        TABLE[name]().right_inverse(torch.tensor([1.0, bad]))


@pytest.mark.parametrize("name", TABLE)
def test_training_finds_the_nonnegative_minimum(name: str) -> None:
    """min ½‖w − a‖² over w ≥ 0 is max(a, 0)."""
    target = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
    positivity = TABLE[name]()
    raw = nn.Parameter(positivity.right_inverse(torch.ones(3, dtype=torch.float64)))
    positivity.attach(raw.detach())
    optimizer = torch.optim.Adam([raw], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
    for _ in range(1500):
        optimizer.zero_grad()
        loss = 0.5 * (positivity.weight(raw) - target).square().sum() + positivity.penalty(raw)
        loss.backward()
        optimizer.step()
        positivity.after_step(raw)
        schedule.step()
    # Softplus and square approach a weight of 0 ever more slowly: their derivative vanishes with it.
    torch.testing.assert_close(positivity.final(raw.detach()), target.clamp_min(0), atol=2e-2, rtol=0)


@pytest.mark.parametrize("name", ["softplus", "square", "projection"])
def test_only_admm_has_a_penalty(name: str) -> None:
    raw = torch.tensor([-1.0, 1.0])
    assert TABLE[name]().penalty(raw).item() == 0.0


def test_softplus_and_square_leave_raw_alone_and_projection_clamps_it() -> None:
    for positivity, after in ((Softplus(), [-1.0, 1.0]), (Square(), [-1.0, 1.0]), (Projection(), [0.0, 1.0])):
        raw = nn.Parameter(torch.tensor([-1.0, 1.0]))
        positivity.after_step(raw)
        assert raw.tolist() == after


def test_admm_steps_by_hand() -> None:
    admm, raw = ADMM(rho=10.0), torch.tensor([-1.0, 2.0])
    admm.attach(torch.tensor([1.0, 1.0]))
    assert admm.penalty(raw).item() == pytest.approx(5 * (4 + 1))  # z = (1, 1), u = 0
    admm.after_step(raw)  # z = (0, 2), u = (−1, 0)
    assert admm.penalty(raw).item() == pytest.approx(5 * 4)
    admm.after_step(torch.tensor([0.5, 2.0]))  # raw + u = (−0.5, 2): z = (0, 2), u = (−0.5, 0)
    assert admm.penalty(torch.tensor([0.5, 2.0])).item() == pytest.approx(0.0)


def test_admm_schedules_move_rho_and_keep_the_unscaled_dual() -> None:
    doubling = ADMM(rho=1.0, schedule="doubling", period=2)
    raw = torch.tensor([-1.0])
    doubling.after_step(raw)
    assert (doubling.rho.item(), doubling.dual.item()) == (1.0, -1.0)  # type: ignore[union-attr]
    doubling.after_step(raw)
    assert (doubling.rho.item(), doubling.dual.item()) == (2.0, -1.0)  # type: ignore[union-attr]
    balanced = ADMM(rho=1.0, schedule="balanced")
    balanced.after_step(raw)  # z does not move, the gap is 1
    assert balanced.rho.item() == 2.0
    for _ in range(50):
        balanced.after_step(raw)
    assert balanced.rho.item() == 2.0**10


def test_admm_says_that_its_iterates_may_be_negative() -> None:
    assert not ADMM.keeps_convex and not ADMM().keeps_convex
    assert all(make_positivity(name).keeps_convex for name in ("softplus", "square", "projection", "lift"))


def test_admm_state_survives_a_state_dict_round_trip() -> None:
    first, second = ADMM(schedule="doubling", period=1), ADMM(schedule="doubling", period=1)
    for admm in (first, second):
        admm.attach(torch.ones(2))
    first.after_step(torch.tensor([-1.0, 3.0]))
    second.load_state_dict(first.state_dict())
    raw = torch.tensor([0.3, -0.2])
    assert first.penalty(raw).item() == second.penalty(raw).item()


def test_make_positivity_takes_names_factories_and_instances() -> None:
    assert positivity_names() == ["softplus", "square", "projection", "admm", "lift"]
    assert isinstance(make_positivity("lift"), Softplus)
    assert isinstance(make_positivity(Square), Square)
    one = ADMM(rho=3.0)
    copied = make_positivity(one)
    assert isinstance(copied, ADMM) and copied is not one and copied.rho.item() == 3.0
    with pytest.raises(ValueError, match=r"one of .'softplus', .*got 'relu'"):
        make_positivity("relu")
    with pytest.raises(TypeError, match="got int"):
        make_positivity(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"), [({"rho": 0.0}, "rho"), ({"schedule": "x"}, "schedule"), ({"period": 0}, "period")]
)
def test_admm_refuses_bad_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=f"expected {words}"):
        ADMM(**options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("forked_rng")
def test_marks_are_found_by_name_and_any_truthy_mark_counts() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    mark_nonnegative(net[1].weight)
    net[0].bias._pos_required = 1  # type: ignore[assignment]
    net[0].weight._pos_required = False  # type: ignore[assignment]
    assert list(marked_parameters(net)) == ["0.bias", "1.weight"]


@pytest.mark.usefixtures("forked_rng")
def test_a_module_with_nothing_marked_is_refused_with_the_way_to_mark() -> None:
    with pytest.raises(ValueError, match=r"mark_nonnegative\(net.layer.weight, ...\) .*weight, bias"):
        marked_parameters(nn.Linear(2, 1))


def test_only_parameters_can_be_marked() -> None:
    with pytest.raises(TypeError, match="got Tensor; pass the parameter itself"):
        mark_nonnegative(torch.ones(2))  # type: ignore[arg-type]


@pytest.mark.usefixtures("forked_rng")
def test_copies_carry_marks_that_deepcopy_drops() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    mark_nonnegative(net[0].weight)
    assert not hasattr(copy.deepcopy(net)[0].weight, "_pos_required")
    copied = copy_with_marks(net)
    assert list(marked_parameters(copied)) == ["0.weight"]
    assert copied[1].weight is copied[0].weight  # type: ignore[index]
