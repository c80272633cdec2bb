"""A posterior for every observation at once, fitted to simulated pairs of parameters and data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ot_lift.amortized_choice import choose
from ot_lift.amortized_files import AmortizedFiles
from ot_lift.amortized_map import ConditionalFlow, ConditionalMap, OfRows, by_context, in_data_units
from ot_lift.amortized_start import Regression, side_by_side
from ot_lift.constrained import Constrained
from ot_lift.data import as_batch
from ot_lift.errors import DataError, NotFittedError
from ot_lift.estimators import (
    check_count,
    check_keeps_convex,
    check_training,
    fingerprint,
    numbers_of,
    open_checkpoints,
    seed_of,
    training_device,
    training_dtype,
    training_options,
    warn_of_end,
    warn_of_extrapolation,
)
from ot_lift.lift import constrain
from ot_lift.likelihood import MaximumLikelihood, log_density
from ot_lift.partial_icnn import PartialICNN
from ot_lift.positivity import PositivityLike
from ot_lift.sides import Reach, Side
from ot_lift.starts import align_with_identity_
from ot_lift.training import Trained, train

_ALIGNMENT_ROWS = 2048
_PROGRESS = 1e-4  # nats a parameter: slower progress than this between evaluations counts as none
# The network of the context sees the tails of observations as they are. On Darcy flow, without a cut, one batch in
# thousands took the held-out likelihood from −9.3 back to −16 nats.
_CLIP = 2.0
# Fitted attributes that are plain values, which a folder holds as they are.
_RECORDS = (
    "used_network_",
    "held_out_log_likelihood_",
    "held_out_standard_error_",
    "gaussian_log_likelihood_",
    "history_",
    "stop_reason_",
    "n_features_in_",
    "n_context_in_",
    "fit_seconds_",
)


class AmortizedPosterior(BaseEstimator):
    r"""The posterior of θ given y for every y, from pairs (θ, y): parameters from the prior, data simulated with them.

    One potential F(θ, y), convex in θ, takes the posterior of every y to N(0, I): with
    :math:`z = \nabla_\theta F(\theta, y)`,

    .. math::
        \log p(\theta\mid y) = \log N(z; 0, I) + \log\det\nabla^2_\theta F(\theta, y) ,

    fitted by exact maximum likelihood. A draw for an observation solves :math:`\nabla_\theta F(\theta, y) = z` for a z
    of N(0, I): no likelihood is needed, and no fit for a new observation. The coordinates are those of a linear
    regression of θ on y, with whitened residuals; for every y the map is a Brenier map in them. The fit starts at that
    Gaussian conditional, and ends there if pairs that it has not used prefer it: if the network's gain is within two
    standard errors of nothing. It answers for observations like the simulated ones, as well as those are many:
    :mod:`ot_lift.calibration` has the checks.

    Args:
        hidden_features: widths of the convex network.
        context_hidden_features: widths of the network of the context, which has no constraints; take wider ones where
            the posterior changes its shape in many ways with y.
        positivity: how the convex network's weights stay non-negative: ``"lift"``, ``"softplus"``, ``"square"``,
            ``"projection"``.
        activation: ``"softplus"``, ``"squareplus"`` or ``"celu"`` (whose densities jump).
        sharpness: β of the activation σ(βu)/β; larger bends the potential more sharply.
        strong_convexity: μ in (0, 1), in standardised coordinates; the map stretches no direction by less.
        max_steps: budget of training steps.
        max_seconds: of wall-clock time, or None. The step size anneals on the larger fraction of the two budgets.
        batch_size: pairs in a step.
        learning_rate: Adam's, at its peak.
        patience: held-out evaluations without progress after which training is brought to its end; None: never.
        progress: show a progress bar on standard error.
        callbacks: functions of each history record and the :class:`~ot_lift.amortized_map.ConditionalMap` of that
            moment; one that returns True ends training.
        random_state: int, ``numpy.random.RandomState``, or None for another seed at every fit.
        device: where to train (default: that of a torch ``theta``, else the CPU).
        dtype: of training, ``"float32"`` or ``"float64"``. What the fitted posterior says is computed in float64.

    Attributes:
        map_: (θ, y) ↦ z, a :class:`~ot_lift.amortized_map.ConditionalMap`.
        held_out_log_likelihood_: mean log p(θ|y) of pairs used for nothing else, nats.
        held_out_standard_error_: its standard error.
        gaussian_log_likelihood_: the same mean under the Gaussian conditional that the fit starts at.
        history_: one record per held-out evaluation; ``held_out`` is the mean of −log p(θ|y), nats.
        stop_reason_: why training ended.
        used_network_: False if the Gaussian conditional was kept.
        n_features_in_: parameters, d.
        n_context_in_: numbers of an observation, k.
        fit_seconds_: wall-clock time of the whole fit.

    References:
        Amos, Xu & Kolter 2017 (arXiv 1609.07152); Huang, Chen, Tsirigotis & Courville 2021, "Convex Potential Flows"
        (arXiv 2012.05942); "A lift for input-convex neural network training" (arXiv 2605.24274).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> theta = rng.normal(size=(4000, 1))
        >>> y = theta + rng.normal(size=(4000, 1))  # given y, θ is N(y/2, 1/2)
        >>> posterior = AmortizedPosterior(max_steps=20, random_state=0).fit(theta, y)
        >>> draws = posterior.sample([3.0], 2000, random_state=0)
        >>> draws.shape, bool(abs(draws.mean() - 1.5) < 0.1), bool(abs(draws.var() - 0.5) < 0.1)
        ((2000, 1), True, True)
        >>> round(posterior.log_prob([[1.5]], [[3.0]]).item(), 1)  # −½ log π
        -0.6
    """

    def __init__(
        self,
        *,
        hidden_features: Sequence[int] = (64, 64),
        context_hidden_features: Sequence[int] = (128, 128),
        positivity: PositivityLike = "lift",
        activation: str = "softplus",
        sharpness: float = 8.0,
        strong_convexity: float = 1e-3,
        max_steps: int = 12_000,
        max_seconds: float | None = None,
        batch_size: int = 256,
        learning_rate: float = 1e-2,
        patience: int | None = 16,
        progress: bool = False,
        callbacks: Sequence[Callable[[dict[str, float], ConditionalMap], bool | None]] | None = None,
        random_state: Any = None,
        device: str | torch.device | None = None,
        dtype: str = "float32",
    ) -> None:
        self.hidden_features = hidden_features
        self.context_hidden_features = context_hidden_features
        self.positivity = positivity
        self.activation = activation
        self.sharpness = sharpness
        self.strong_convexity = strong_convexity
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.progress = progress
        self.callbacks = callbacks
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    # --- fitting ------------------------------------------------------------------------------------------------

    def fit(
        self, theta: Any, y: Any = None, *, sample_weight: Any = None, resume: str | Path | None = None
    ) -> AmortizedPosterior:
        """Fit p(θ|y) to pairs by maximum likelihood, with early stopping on held-out pairs.

        Args:
            theta: parameters ``(n, d)``: array, frame, list or tensor; or a callable ``simulator(count, generator) ->
                (theta, y)``, which gives fresh pairs throughout the fit.
            y: what was simulated with each of them, ``(n, k)``; left out with a simulator.
            sample_weight: non-negative weights ``(n,)``.
            resume: folder for checkpoints; a fit that was killed continues from the one in it and ends as it would
                have (exactly, under ``max_steps``; a ``random_state`` of None then means 0).

        Returns:
            self.

        Raises:
            DataError: for data that cannot be fitted, said in words; it is a ValueError.
        """
        began = time.monotonic()
        self._check_parameters()
        pairs, d = side_by_side(theta, y)
        home = torch.empty(0, dtype=training_dtype(self.dtype), device=training_device(self.device, theta))
        folder = None if resume is None else open_checkpoints(resume)
        seed = seed_of(self.random_state, resumable=resume is not None)
        split, init, order, noise = (torch.Generator().manual_seed(seed + k) for k in range(4))
        side = Side.open(pairs, name="(theta, y)", features=None, weight=sample_weight, generator=split)
        units = Regression.on(side, parameters=d)
        sample = units.points(side.sample(_ALIGNMENT_ROWS, init), init).to(home.dtype)
        objective = MaximumLikelihood(
            units.batches(side, home, batch_size=self.batch_size, generator=order),
            units.points(side.stop, init).to(home),
            side.stop_weight,
            generator=noise,
            blur=units.blur,
            log_volume=units.log_volume,
        )
        trained = train(
            self._make_model(sample, d, init).to(home),
            objective,
            training_options(self.get_params(), tolerance=_PROGRESS * d, clip=_CLIP),
            callbacks=[in_data_units(callback, units) for callback in self.callbacks or ()],
            progress=self.progress,
            resume=folder,
            fingerprint=fingerprint(self.get_params(), seed, side),
        )
        self._keep(trained, units, units.points(side.certificate, init))
        seen = pairs if isinstance(pairs, Tensor) else torch.cat([side.stop, side.certificate])
        self._reach = Reach.of(side.mean[d:], side.covariance[d:, d:], seen[:, d:])
        self.fit_seconds_ = time.monotonic() - began
        return self

    def _check_parameters(self) -> None:
        check_training(self.get_params())
        check_keeps_convex(self.positivity, otherwise="the map has no inverse and the density no total of 1")

    def _make_model(self, rows: Tensor, d: int, generator: torch.Generator) -> Constrained:
        """A flow that is the identity on average over standardised rows ``(n, d + k)``, under the positivity."""
        network = PartialICNN(
            d,
            rows.shape[1] - d,
            tuple(self.hidden_features),
            context_hidden_features=tuple(self.context_hidden_features),
            activation=self.activation,
            sharpness=self.sharpness,
            strong_convexity=self.strong_convexity,
            generator=generator,
            dtype=rows.dtype,
        )
        align_with_identity_(network.network, rows[:, :d])
        return constrain(ConditionalFlow(network, d), self.positivity, features=rows.shape[1], generator=generator)

    def _keep(self, trained: Trained, units: Regression, rows: Tensor) -> None:
        """Set the fitted attributes, of the network or of the Gaussian conditional, as unseen pairs choose."""
        flow = trained.module.cpu()
        assert isinstance(flow, ConditionalFlow)  # for the type checker: a constrained flow bakes to a flow
        choice = choose(flow, units, rows)
        self.map_, self.used_network_ = choice.map_, choice.used_network
        self.held_out_log_likelihood_, self.held_out_standard_error_ = choice.log_likelihood, choice.standard_error
        self.gaussian_log_likelihood_ = choice.gaussian_log_likelihood
        self.history_, self.stop_reason_ = trained.history, trained.stop_reason
        self.n_features_in_ = units.parameters
        self.n_context_in_ = rows.shape[1] - units.parameters
        warn_of_end(trained.stop_reason)

    # --- using the posterior ------------------------------------------------------------------------------------

    def sample(self, y: Any, n: int = 1, *, random_state: Any = None) -> Any:
        """Independent draws from the posterior of an observation, or of several.

        Args:
            y: one observation ``(k,)``, or ``(m, k)``.
            n: draws for each.
            random_state: int, ``numpy.random.RandomState``, or None for others at every call.

        Returns:
            ``(n, d)`` for one observation, ``(m, n, d)`` for m, in the units of θ; NumPy in, NumPy out; torch in,
            torch out.

        Raises:
            ConvergenceError: if a point cannot be solved for to tolerance.
            ValueError: if ``n`` is not a whole number > 0.
        """
        self._check_fitted()
        check_count("n", n)
        contexts, restore, single = self._contexts(y, stacklevel=3)
        generator = torch.Generator().manual_seed(seed_of(random_state))
        latent = torch.randn(len(contexts) * n, self.n_features_in_, generator=generator, dtype=torch.float64)
        draws = by_context(self.map_.invert, latent, contexts, torch.arange(len(contexts)).repeat_interleave(n))
        return restore(draws if single else draws.view(len(contexts), n, -1))

    def log_prob(self, theta: Any, y: Any) -> Any:
        """Log p(θ|y), nats, in the units of θ; exact, computed in float64.

        Args:
            theta: parameters ``(n, d)``.
            y: an observation for each ``(n, k)``, or one for all of them ``(k,)``.

        Returns:
            ``(n,)``.
        """
        return self._apply(lambda *rows: log_density(*self.map_.image_and_log_det(*rows)), theta, y, name="theta")

    def transport(self, theta: Any, y: Any) -> Any:
        """Images of parameters ``(n, d)`` in the latent, ``(n, d)``, given ``y`` ``(n, k)`` or ``(k,)``."""
        return self._apply(lambda *rows: self.map_.image_and_log_det(*rows)[0], theta, y, name="theta")

    def invert(self, Z: Any, y: Any) -> Any:
        """The parameters whose images are ``Z`` ``(n, d)``, given ``y`` ``(n, k)`` or ``(k,)``, solved in float64.

        Raises:
            ConvergenceError: if a point cannot be solved for to tolerance.
        """
        return self._apply(self.map_.invert, Z, y, name="Z")

    def score(self, theta: Any, y: Any) -> float:
        """Mean of log p(θ|y), nats; greater is better."""
        return float(torch.as_tensor(self.log_prob(theta, y)).double().mean())

    def _check_fitted(self) -> None:
        if not hasattr(self, "n_features_in_"):
            name = type(self).__name__
            raise NotFittedError(f"this {name} is not fitted yet: call fit(theta, y) first, or {name}.load(folder)")

    def _contexts(self, y: Any, *, stacklevel: int) -> tuple[Tensor, Callable[[Tensor], Any], bool]:
        """Observations ``(m, k)``, the way back to the caller's kind of array, and whether it was one, ``(k,)``."""
        single = np.ndim(y) == 1
        if single:
            y = y[None] if isinstance(y, Tensor) else np.asarray(y)[None]
        values, restore = as_batch(numbers_of(y), name="y", features=self.n_context_in_)
        contexts = values.cpu().double()
        warn_of_extrapolation(self._reach, contexts, name="y", stacklevel=stacklevel)
        return contexts, restore, single

    def _apply(self, function: OfRows, theta: Any, y: Any, *, name: str) -> Any:
        """Validate, apply a function to points with their contexts, answer in the caller's kind of array."""
        self._check_fitted()
        points, restore = as_batch(numbers_of(theta), name=name, features=self.n_features_in_)
        contexts, _, single = self._contexts(y, stacklevel=4)
        if not single and len(contexts) != len(points):
            k = self.n_context_in_
            raise DataError(
                f"expected y of shape ({len(points)}, {k}), a row for each of {name}, or ({k},) for all of them, got "
                f"{tuple(contexts.shape)}"
            )
        rows = torch.zeros(len(points), dtype=torch.int64) if single else torch.arange(len(points))
        return restore(by_context(function, points.cpu().double(), contexts, rows))

    # --- files --------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the fitted posterior to a folder: weights (safetensors), settings and records (JSON), checksums."""
        self._check_fitted()
        records = {name: getattr(self, name) for name in _RECORDS}
        AmortizedFiles(self.get_params(), records, self.map_, self._reach).write(Path(path))

    @classmethod
    def load(cls, path: str | Path) -> AmortizedPosterior:
        """Read a posterior that :meth:`save` wrote; needs no training data.

        Raises:
            DataError: if the folder is damaged, of another kind, or newer than this version of the library.
        """
        files = AmortizedFiles.read(Path(path))
        posterior = cls(**files.settings)
        for name, value in files.records.items():
            setattr(posterior, name, value)
        posterior.map_, posterior._reach = files.map_, files.reach
        return posterior
