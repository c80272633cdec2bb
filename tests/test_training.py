"""The loop keeps the best state, says why it stopped, and shows how far it is."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch
from runs import Regression, fit, interrupt, make_model, options, same, small_semi_dual, weights
from torch import Tensor, nn
from torch.testing import assert_close

from ot_lift.constrained import Constrained
from ot_lift.potentials import Potential
from ot_lift.training import Trained, train


# ------------------------------------------------------------------------------------------ what a run gives
@pytest.mark.parametrize("positivity", ["softplus", "square", "projection", "lift", "admm"])
def test_training_gives_the_best_plain_module_and_its_history(positivity: str) -> None:
    objective = Regression()
    trained = fit(objective, positivity)
    assert trained.stop_reason == "max_steps"
    assert [record["step"] for record in trained.history] == list(range(0, 61, 10))
    expected = {"step", "seconds", "learning_rate", "loss", "held_out", "extra"}
    assert all(set(record) == expected for record in trained.history)
    assert math.isnan(trained.history[0]["loss"]) and math.isfinite(trained.history[-1]["loss"])
    held_out = [record["held_out"] for record in trained.history]
    assert trained.held_out == min(held_out) < 0.2 * held_out[0]
    assert objective.held_out(trained.module) == trained.held_out
    assert isinstance(trained.module, Potential) and not isinstance(trained.module, Constrained)
    for parameter in trained.module.parameters():
        assert not getattr(parameter, "_pos_required", False) or bool((parameter >= 0).all())


def test_every_positivity_starts_at_the_same_held_out_value() -> None:
    starts = [
        fit(positivity=name, options=options(max_steps=1)).history[0]["held_out"]
        for name in ("softplus", "square", "projection", "lift", "admm")
    ]
    assert_close(torch.tensor(starts), torch.full((5,), starts[0]), rtol=1e-4, atol=1e-5)


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    assert same(fit(Regression(3)), fit(Regression(3)))
    assert not same(fit(Regression(3)), fit(Regression(4)))


def test_a_run_that_only_gets_worse_returns_its_start() -> None:
    objective = Regression()
    objective.change_held_out = lambda step, value: float(step)
    trained = fit(objective)
    assert all(map(torch.equal, weights(trained.module), weights(make_model().bake())))
    assert trained.held_out == 0.0


def test_double_precision_trains_in_double_precision() -> None:
    trained = train(make_model(dtype=torch.float64), Regression(dtype=torch.float64), options())
    assert all(weight.dtype == torch.float64 for weight in weights(trained.module))
    assert trained.held_out < 0.2 * trained.history[0]["held_out"]


def test_the_average_is_one_of_effective_weights() -> None:
    seen: list[dict[str, Tensor]] = []
    objective = Regression()
    objective.before_loss = lambda step, model: seen.append(
        {name: weight.detach().clone() for name, weight in model.weights.items()}
    )
    objective.change_held_out = lambda step, value: -float(step)  # so that the last average is kept
    trained = fit(objective, options=options(max_steps=7, averaging=1.0))
    final = dict(trained.module.named_parameters())
    for name in seen[0]:
        uniform = torch.stack([weights[name] for weights in seen]).mean(0)  # with averaging = 1 a plain mean
        assert_close(final[name].detach(), uniform)


def test_the_step_size_warms_up_and_follows_a_cosine() -> None:
    rates: list[float] = []
    fit(
        options=options(max_steps=40, evaluate_every=1, warmup_steps=8, learning_rate=0.1),
        callbacks=[lambda record, module: rates.append(record["learning_rate"])],
    )
    expected = [0.1 * min(1.0, (step + 1) / 8) * 0.5 * (1 + math.cos(math.pi * step / 40)) for step in range(1, 41)]
    assert_close(torch.tensor(rates), torch.tensor(expected))


# ---------------------------------------------------------------------------------------------- when it stops
def test_a_plateau_anneals_the_step_size_and_ends_the_run() -> None:
    objective = Regression()
    objective.change_held_out = lambda step, value: max(0.0, 40.0 - step)
    trained = fit(objective, options=options(max_steps=10_000, patience=3))
    assert trained.stop_reason == "plateau"
    # 0 is reached at step 40; three evaluations later, at 70, the step size is brought down over 70 // 4 steps
    assert trained.history[-1]["step"] == 70 + 70 // 4
    rates = [record["learning_rate"] for record in trained.history]
    assert rates[-2] < 0.5 * rates[5] and rates[-1] < 1e-9
    assert trained.held_out == 0.0


def test_progress_smaller_than_the_tolerance_is_none() -> None:
    objective = Regression()
    objective.change_held_out = lambda step, value: -1e-3 * step
    assert fit(objective, options=options(patience=2)).stop_reason == "max_steps"
    objective = Regression()
    objective.change_held_out = lambda step, value: -1e-3 * step
    plateau = fit(objective, options=options(patience=2, tolerance=0.5))
    assert plateau.stop_reason == "plateau" and plateau.held_out == plateau.history[-1]["held_out"]


def test_without_patience_nothing_but_the_budget_ends_a_run() -> None:
    objective = Regression()
    objective.change_held_out = lambda step, value: 1.0
    assert fit(objective).stop_reason == "max_steps"


def test_a_time_budget_ends_the_run_with_its_step_size_brought_down() -> None:
    began = time.monotonic()
    trained = fit(options=options(max_steps=10**9, max_seconds=0.4, evaluate_every=5))
    assert trained.stop_reason == "max_seconds"
    assert 0.4 <= trained.history[-1]["seconds"] < time.monotonic() - began < 5.0
    rates = [record["learning_rate"] for record in trained.history]
    assert rates[-1] < 1e-6 < max(rates)


def test_callbacks_see_every_evaluation_of_training_and_may_stop_it() -> None:
    records: list[dict[str, float]] = []
    modules: list[nn.Module] = []

    def stop(record: dict[str, float], module: nn.Module) -> bool:
        records.append(dict(record))
        record["held_out"] = -1.0  # a record is the callback's own
        return record["step"] >= 30

    def watch(record: dict[str, float], module: nn.Module) -> None:
        modules.append(module)
        assert isinstance(module, Potential)

    trained = fit(callbacks=[stop, watch])
    assert trained.stop_reason == "callback"
    assert records == trained.history[1:] and len(modules) == len(records) == 3


@pytest.mark.parametrize("where", ["callback", "loss", "first evaluation"])
def test_an_interrupt_returns_the_best_state_so_far(where: str) -> None:
    objective = Regression()
    callbacks: list[Any] = []
    if where == "callback":
        callbacks = [lambda record, module: interrupt() if record["step"] == 40 else None]
    elif where == "loss":
        objective.before_loss = lambda step, model: interrupt() if step == 45 else None
    else:
        objective.change_held_out = interrupt  # type: ignore[assignment]
    trained = fit(objective, callbacks=callbacks)
    assert trained.stop_reason == "interrupted"
    if where == "first evaluation":
        assert all(map(torch.equal, weights(trained.module), weights(make_model().bake())))
    else:
        assert trained.history[-1]["step"] == 40
        assert same(trained, _stopped_at(40, "interrupted"))


def _stopped_at(step: int, reason: str) -> Trained:
    """The same run, stopped by its callback after the evaluation at a step."""
    trained = fit(callbacks=[lambda record, module: record["step"] == step])
    trained.stop_reason = reason
    return trained


def test_another_exception_is_not_swallowed() -> None:
    objective = Regression()
    objective.before_loss = lambda step, model: 1 / 0 if step == 3 else None  # type: ignore[assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        fit(objective)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_divergence_stops_and_keeps_the_best_state(bad: float) -> None:
    objective = Regression()
    objective.change_loss = lambda step, loss: loss * bad if step >= 45 else loss
    trained = fit(objective)
    assert trained.stop_reason == "diverged"
    assert trained.history[-1]["step"] == 40
    assert same(trained, _stopped_at(40, "diverged"))
    assert all(bool(torch.isfinite(weight).all()) for weight in weights(trained.module))


def test_a_held_out_value_that_is_not_a_number_is_a_divergence() -> None:
    objective = Regression()
    objective.change_held_out = lambda step, value: math.nan if step >= 30 else value
    trained = fit(objective)
    assert trained.stop_reason == "diverged" and math.isfinite(trained.held_out)
    assert all(bool(torch.isfinite(weight).all()) for weight in weights(trained.module))


def test_a_step_size_far_too_large_ends_in_a_state_no_worse_than_the_start() -> None:
    objective = small_semi_dual()
    trained = train(make_model(), objective, options(learning_rate=1e8, max_steps=40))
    assert objective.held_out(trained.module) <= trained.history[0]["held_out"] + 1e-4
    assert all(bool(torch.isfinite(weight).all()) for weight in weights(trained.module))


def test_a_cut_keeps_one_far_batch_from_undoing_the_fit() -> None:
    def with_an_outlier() -> Regression:
        objective = Regression()
        objective.change_loss = lambda step, loss: loss * (1e6 if step == 40 else 1.0)
        return objective

    settings = {"averaging": 0.0}  # the last weights are judged
    calm, hit, cut = (
        fit(objective, options=options(**settings, clip=clip)).history[-1]["held_out"]
        for objective, clip in ((Regression(), None), (with_an_outlier(), None), (with_an_outlier(), 2.0))
    )
    assert cut < hit and cut < 2 * calm


def test_a_gradient_of_usual_length_is_not_cut() -> None:
    assert same(fit(options=options(clip=1e3)), fit())


# ------------------------------------------------------------------------------------------------- progress
def test_progress_is_shown_on_standard_error_if_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    fit(progress=True)
    shown = capfd.readouterr()
    assert "step 60" in shown.err and "held-out" in shown.err and shown.out == ""
    fit()
    quiet = capfd.readouterr()
    assert quiet.err == quiet.out == ""
