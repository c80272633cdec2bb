"""The demo's second part: a Bayesian regression whose posterior is skewed, by a map and, with NumPyro, beside NUTS."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ot_lift.posterior import PosteriorMap
from ot_lift.posterior_trust import TrustWarning
from ot_lift.report import Section
from ot_lift.report_figures import Plot
from ot_lift.report_posterior import PosteriorRun, columns_by_label, marginals
from ot_lift.report_theme import Picture

if TYPE_CHECKING:
    from ot_lift.numpyro_nuts import NutsRun

__all__ = ["IrisRegression", "posterior_section"]

Array = npt.NDArray[np.float64]

_PRIOR_SCALE = 2.5
_DRAWS = 20_000


class IrisRegression:
    """Logistic regression of virginica against versicolor on four measurements of 100 irises, under normal priors.

    Two of the measurements nearly separate the species, so the posterior is skewed: no Gaussian is close to it.

    Attributes:
        dim: 5.
        names: of the coordinates.
        X: measurements, standardised, ``(100, 4)``.
        y: 1 for virginica, else 0, ``(100,)``.

    Example:
        >>> target = IrisRegression()
        >>> value = target.log_density(torch.zeros(1, 5, dtype=torch.float64))  # 100 log ½ − 5 log(2.5 √(2π))
        >>> round(value.item(), 6)
        -78.490864
    """

    def __init__(self) -> None:
        from sklearn.datasets import load_iris

        data = load_iris()
        chosen = data.target > 0
        measured = np.asarray(data.data[chosen], dtype=np.float64)
        self.X: Array = (measured - measured.mean(0)) / measured.std(0)
        self.y: Array = (data.target[chosen] == 2).astype(np.float64)
        labels = [name.removesuffix(" (cm)") for name in data.feature_names]
        self.names = ("intercept", *labels)
        self.dim = len(self.names)
        design = np.column_stack([np.ones(len(self.X)), self.X])
        self._rows = torch.from_numpy((2 * self.y - 1)[:, None] * design)

    def log_density(self, x: Tensor) -> Tensor:
        """Unnormalised log density ``(n,)`` at ``x`` ``(n, 5)``, with the constants of the prior."""
        prior = torch.distributions.Normal(x.new_zeros(()), _PRIOR_SCALE)
        likelihood: Tensor = logsigmoid(x @ self._rows.T).sum(-1)
        return likelihood + prior.log_prob(x).sum(-1)

    def constrain(self, x: Array) -> dict[str, Array]:
        """Draws ``(n, 5)`` by coordinate."""
        return {name: x[:, i] for i, name in enumerate(self.names)}

    def model(self) -> None:
        """The same as a NumPyro model."""
        import numpyro
        import numpyro.distributions as dist

        weights = [numpyro.sample(name, dist.Normal(0.0, _PRIOR_SCALE)) for name in self.names]
        logits = weights[0] + sum(weight * column for weight, column in zip(weights[1:], self.X.T, strict=True))
        numpyro.sample("virginica", dist.Bernoulli(logits=logits), obs=self.y)


def posterior_section(
    *, seed: int = 0, max_steps: int | None = None, max_seconds: float | None = None, tell: Callable[[str], None]
) -> Section:
    """Fit, draw, judge and, where NumPyro is installed, set beside NUTS.

    Args:
        seed: of everything.
        max_steps: of the fit; by default the estimator's own.
        max_seconds: limit for the fit, or None.
        tell: called with a line at every stage.
    """
    target = IrisRegression()
    tell("a posterior: fitting a map")
    budget: dict[str, Any] = {} if max_steps is None else {"max_steps": max_steps}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)  # the verdict is in the section
        fitted = PosteriorMap(random_state=seed, max_seconds=max_seconds, **budget).fit(target)
        began = time.monotonic()
        draws = fitted.sample(_DRAWS, random_state=seed)
        draw_seconds = time.monotonic() - began
    assert fitted.evidence_ is not None  # for the type checker: a fit to a target has it
    reference, reason = _nuts(target, seed, tell)
    run = PosteriorRun(
        name="iris",
        sites=target.constrain(draws),
        diagnosis=fitted.diagnosis_.to_dict(),
        evidence=fitted.evidence_.to_dict(),
        words=str(fitted.diagnosis_),
        fit_seconds=fitted.fit_seconds_,
        draw_seconds=draw_seconds,
        reference=reference,
        without_reference=reason,
    )
    return _section(run)


def _nuts(target: IrisRegression, seed: int, tell: Callable[[str], None]) -> tuple[NutsRun | None, str]:
    """NUTS on the same model, or None and a sentence that says why."""
    from ot_lift.numpyro import from_numpyro
    from ot_lift.numpyro_nuts import run_nuts

    try:
        source = from_numpyro(target.model)
    except ImportError:
        return None, "NUTS was not run beside it: it needs NumPyro, which pip install 'ot-lift[posteriors]' brings."
    tell("a posterior: running NUTS")
    return run_nuts(source, seed=seed), ""


def _section(run: PosteriorRun) -> Section:
    ours = columns_by_label(run.sites)
    theirs = None if run.reference is None else columns_by_label(run.reference.draws)
    beside = "" if theirs is None else " beside NUTS"
    plot = Plot(
        "posterior",
        "Marginals of the posterior",
        f"Every coefficient by {run.draws:,} independent draws of the map{beside}.",
        f"Histograms of five coefficients by the map{beside}.",
        Picture(lambda theme: marginals(ours, theirs, theme)),
    )
    verdict, *more = run.sentences()
    return Section(
        "a-posterior",
        "A Bayesian posterior by the same machinery",
        (
            "Which of two species is an iris? A logistic regression on four measurements, with normal priors of scale "
            f"{_PRIOR_SCALE} on standardised columns: 100 flowers, five coefficients. The posterior is the image of "
            "N(0, I) under the gradient of a convex potential, so its draws are independent, and a diagnosis says "
            "whether to believe them. Two measurements nearly separate the species, which skews the posterior.",
        ),
        (f"Diagnosis: {verdict}", *more),
        (plot,),
        run.record(),
    )
