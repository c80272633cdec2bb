"""A log-concave density from a convex energy, with its normaliser and exact draws."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ot_lift.constrained import Constrained
from ot_lift.densities_choice import choose
from ot_lift.densities_files import DensityFiles
from ot_lift.densities_normalizer import QUADRATURE_UP_TO, Normalizer
from ot_lift.densities_objective import EnergyLikelihood, make_convex_
from ot_lift.densities_sampling import TOTAL_VARIATION, metropolis
from ot_lift.densities_start import fit_proposal, make_integral
from ot_lift.errors import ConvergenceWarning
from ot_lift.estimators import (
    check_count,
    check_training,
    fingerprint,
    numbers_of,
    open_checkpoints,
    potential_in_data_units,
    seed_of,
    training_device,
    training_dtype,
    training_options,
    warn_of_end,
)
from ot_lift.estimators_density import DensityEstimator
from ot_lift.flows import ConvexPotentialFlow
from ot_lift.flows_map import FlowMap
from ot_lift.flows_whitening import Whitening
from ot_lift.lift import constrain
from ot_lift.maps import StandardisedPotential, in_blocks
from ot_lift.positivity import PositivityLike
from ot_lift.potentials import ICNN, Potential
from ot_lift.sides import Side
from ot_lift.starts import align_with_identity_
from ot_lift.training import Trained, train

_ALIGNMENT_ROWS = 2048
_PROGRESS = 1e-4  # nats a dimension: slower progress than this between evaluations counts as none
_FLOW_ROWS = 1 << 16  # at most, that the proposal is fitted to
_FEW_EFFECTIVE = 200.0  # draws: a normaliser of fewer is warned about
# Fitted attributes that are plain values, which a folder holds as they are.
_RECORDS = (
    "used_network_",
    "sampling_steps_",
    "sampling_bound_",
    "held_out_log_likelihood_",
    "held_out_standard_error_",
    "history_",
    "stop_reason_",
    "n_features_in_",
    "fit_seconds_",
)


class LogConcaveDensity(DensityEstimator):
    r"""Density estimation by a convex energy: :math:`p(x) = \exp(-E(x))/Z` with E an input-convex network.

    Its densities are the smooth strongly log-concave ones; of other data it finds one that is near. The fit is by
    maximum likelihood, :math:`E_{data}[E(x)] + \log Z`. The normaliser Z comes from a lattice rule up to two dimensions
    and above from importance sampling under a fitted :class:`~ot_lift.flows.ConvexPotentialFlow`; draws are those of
    the proposal, corrected by Metropolis chains. Location and scale are the data's, by whitening. The fit starts near
    the Gaussian of these moments, and ends at it if points that it has not used do not prefer the network by two
    standard errors; it is then fitted again, to all points.

    Args:
        hidden_features: widths of the network.
        positivity: how weights stay non-negative: ``"lift"``, ``"softplus"``, ``"square"``, ``"projection"`` or
            ``"admm"``, whose iterates are read with negative weights raised to 0.
        activation: ``"softplus"``, ``"squareplus"`` or ``"celu"``.
        sharpness: β of the activation σ(βu)/β; larger bends the energy more sharply.
        strong_convexity: μ in (0, 1), in whitened coordinates; it makes the tails at least Gaussian, far out.
        proposal: a :class:`~ot_lift.flows.ConvexPotentialFlow` to fit above two dimensions; None: one of this
            estimator's own settings.
        max_steps: budget of training steps.
        max_seconds: budget of wall-clock time for training, or None; the proposal has half of it. The step size
            anneals on the larger fraction of the two.
        batch_size: points in a step.
        learning_rate: Adam's, at its peak.
        patience: held-out evaluations without progress after which training is brought to its end; None: never.
        progress: show a progress bar on standard error.
        callbacks: functions of each history record and the energy of that moment in data units (as ``energy_``); one
            that returns True ends training.
        random_state: int, ``numpy.random.RandomState``, or None for another seed at every fit.
        device: where to train (default: that of a torch ``X``, else the CPU).
        dtype: of training, ``"float32"`` or ``"float64"``. What the fitted density says is computed in float64.

    Attributes:
        energy_: E in data units, a :class:`~ot_lift.maps.StandardisedPotential`.
        log_normalizer_: log Z, nats: ``log_prob(x)`` is ``−energy_(x) − log_normalizer_``.
        log_normalizer_standard_error_: its standard error.
        normalizer_: how it was found, with the effective sample size and the expected bias, a
            :class:`~ot_lift.densities_normalizer.Normalizer`.
        sampling_steps_: length of the Metropolis chain behind each draw.
        sampling_bound_: on the total variation between the law of a draw and the density, estimated from 16,384 draws
            of the proposal. Chains are as long as 0.01 asks; a warning says where the longest do not reach it.
        held_out_log_likelihood_: mean log-density of points used for nothing else, nats; of a Gaussian that is kept,
            before it was fitted again.
        held_out_standard_error_: its standard error, by the points and the normaliser.
        history_: one record per held-out evaluation; ``held_out`` is the mean negative log-density, nats.
        stop_reason_: why training ended.
        used_network_: False if the Gaussian start was kept.
        n_features_in_: d.
        fit_seconds_: wall-clock time of the whole fit.

    References:
        Amos, Xu & Kolter 2017 (arXiv 1609.07152); "A lift for input-convex neural network training"
        (arXiv 2605.24274).

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X = 3.0 + 2.0 * rng.normal(size=(4000, 1))
        >>> density = LogConcaveDensity(max_steps=20, random_state=0).fit(X)
        >>> round(density.log_prob([[3.0]]).item(), 1)  # of N(3, 4) at its mean: −½ log 8π = −1.61
        -1.6
        >>> density.sample(5, random_state=0).shape
        (5, 1)
    """

    def __init__(
        self,
        *,
        hidden_features: Sequence[int] = (128, 128),
        positivity: PositivityLike = "lift",
        activation: str = "softplus",
        sharpness: float = 8.0,
        strong_convexity: float = 1e-3,
        proposal: ConvexPotentialFlow | None = None,
        max_steps: int = 2000,
        max_seconds: float | None = None,
        batch_size: int = 512,
        learning_rate: float = 2e-2,
        patience: int | None = 5,
        progress: bool = False,
        callbacks: Sequence[Callable[[dict[str, float], StandardisedPotential], bool | None]] | None = None,
        random_state: Any = None,
        device: str | torch.device | None = None,
        dtype: str = "float32",
    ) -> None:
        self.hidden_features = hidden_features
        self.positivity = positivity
        self.activation = activation
        self.sharpness = sharpness
        self.strong_convexity = strong_convexity
        self.proposal = proposal
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
        self, X: Any, y: Any = None, *, sample_weight: Any = None, resume: str | Path | None = None
    ) -> LogConcaveDensity:
        """Fit the density of X by maximum likelihood, with early stopping on held-out points.

        Args:
            X: points ``(n, d)``: array, frame, memory-mapped array or path of a .npy file, DataLoader, or a callable
                ``sampler(count, generator) -> (count, d)``.
            y: not used; scikit-learn's pipelines pass it.
            sample_weight: non-negative weights ``(n,)``.
            resume: folder for checkpoints; a fit that was killed continues from the one in it and ends as it would
                have (exactly, under ``max_steps``; a ``random_state`` of None then means 0).

        Returns:
            self.

        Raises:
            DataError: for data that cannot be fitted, said in words; it is a ValueError.
        """
        began = time.monotonic()
        check_training(self.get_params())
        home = torch.empty(0, dtype=training_dtype(self.dtype), device=training_device(self.device, X))
        folder = None if resume is None else open_checkpoints(resume, X)
        seed = seed_of(self.random_state, resumable=resume is not None)
        split, init, order, noise, draws = (torch.Generator().manual_seed(seed + k) for k in range(5))
        side = Side.open(numbers_of(X), name="X", features=None, weight=sample_weight, generator=split)
        whitening = Whitening.of(side)
        sample = whitening.points(side.sample(_ALIGNMENT_ROWS, init), init).to(home)
        map_, ended = None, ""
        if sample.shape[1] > QUADRATURE_UP_TO:
            points = whitening.points(side.sample(_FLOW_ROWS, init), init)
            map_, ended = fit_proposal(points, self.proposal, self.get_params(deep=False), seed=seed, folder=folder)
        model = self._make_model(sample.cpu(), init).to(home)
        if ended == "interrupted":
            trained = Trained(model.bake(sample), [], ended, math.nan)
        else:
            objective = EnergyLikelihood(
                whitening.batches(side, home, batch_size=self.batch_size, generator=order),
                whitening.points(side.stop, init).to(home),
                side.stop_weight,
                integral=make_integral(sample, map_, draws),
                generator=noise,
                blur=whitening.blur,
                log_volume=whitening.log_volume,
            )
            trained = train(
                model,
                objective,
                training_options(self.get_params() | self._seconds(map_), tolerance=_PROGRESS * sample.shape[1]),
                callbacks=[
                    potential_in_data_units(callback, whitening.coordinates) for callback in self.callbacks or ()
                ],
                progress=self.progress,
                resume=folder,
                fingerprint=fingerprint(self.get_params(), seed, side),
            )
        self._keep(trained, whitening, map_, side, init)
        self.fit_seconds_ = time.monotonic() - began
        return self

    def _seconds(self, map_: FlowMap | None) -> dict[str, float]:
        """The time budget of each of two fits, if the proposal is one."""
        return {} if map_ is None or self.max_seconds is None else {"max_seconds": 0.5 * self.max_seconds}

    def _make_model(self, x: Tensor, generator: torch.Generator) -> Constrained:
        """An energy that is about that of N(0, I) over whitened points ``(n, d)``, under the positivity."""
        network = ICNN(
            x.shape[1],
            tuple(self.hidden_features),
            activation=self.activation,
            sharpness=self.sharpness,
            strong_convexity=self.strong_convexity,
            generator=generator,
            dtype=x.dtype,
        )
        align_with_identity_(network, x)
        return constrain(network, self.positivity, features=x.shape[1], generator=generator)

    def _keep(
        self, trained: Trained, whitening: Whitening, map_: FlowMap | None, side: Side, generator: torch.Generator
    ) -> None:
        """Set the fitted attributes, of the network or of the Gaussian start, as unseen points choose."""
        network = cast(Potential, trained.module.cpu().double())
        make_convex_(network)
        choice = choose(network, map_, whitening.points(side.certificate, generator), generator)
        kept = whitening if choice.used_network else whitening.of_all(side)
        self.energy_ = StandardisedPotential(choice.energy, kept.coordinates)
        self._set_normalizer(choice.normalizer.plus(-kept.log_volume))
        self._proposal, self.sampling_steps_, self.sampling_bound_ = choice.proposal, choice.steps, choice.bound
        self.used_network_ = choice.used_network
        self.held_out_log_likelihood_ = choice.log_likelihood + whitening.log_volume
        self.held_out_standard_error_ = choice.standard_error
        self.history_, self.stop_reason_ = trained.history, trained.stop_reason
        self.n_features_in_ = side.rows.features
        warn_of_end(trained.stop_reason)
        effective = self.normalizer_.effective_sample_size
        if effective is not None and effective < _FEW_EFFECTIVE:
            warnings.warn(
                f"log_normalizer_ rests on {effective:.0f} effective draws of the proposal, so densities are known to "
                f"±{self.log_normalizer_standard_error_:.2g} nats only: give the proposal more steps",
                ConvergenceWarning,
                stacklevel=3,
            )

        if self.sampling_bound_ > TOTAL_VARIATION:
            warnings.warn(
                f"draws may be off the density by {self.sampling_bound_:.2g} in total variation after the longest "
                f"chains of {self.sampling_steps_} steps: give the proposal more steps",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _set_normalizer(self, normalizer: Normalizer) -> None:
        self.normalizer_ = normalizer
        self.log_normalizer_ = normalizer.log_value
        self.log_normalizer_standard_error_ = normalizer.standard_error

    # --- using the density --------------------------------------------------------------------------------------

    def energy(self, X: Any) -> Any:
        """E at X, ``(n, d)`` → ``(n,)``, in nats; computed in float64."""
        return self._apply(lambda x: self.energy_(x), X, "X")

    def log_prob(self, X: Any) -> Any:
        """Log-density at X, ``(n, d)`` → ``(n,)``, in nats and the units of the data; computed in float64.

        It is as exact as the normaliser: all values share one error, of size ``log_normalizer_standard_error_``.
        """
        return self._apply(lambda x: -self.energy_(x) - self.log_normalizer_, X, "X")

    def sample(self, n: int = 1, *, random_state: Any = None) -> Any:
        """Draw from the fitted density: independent Metropolis chains, one a point, that start at the proposal.

        Args:
            n: how many points.
            random_state: int, ``numpy.random.RandomState``, or None for others at every call.

        Returns:
            float64 array ``(n, d)`` in the units of the data. ``sampling_bound_`` bounds how far their law is from the
            density.

        Raises:
            ValueError: if ``n`` is not a whole number > 0.
        """
        self._check_fitted()
        check_count("n", n)
        generator = torch.Generator().manual_seed(seed_of(random_state))

        def energy(x: Tensor) -> Tensor:
            return in_blocks(self.energy_.inner, x)

        if self.sampling_steps_ == 0:  # the proposal is the density
            drawn = self._proposal.draw(n, generator)
        else:
            drawn = metropolis(energy, self._proposal, n, steps=self.sampling_steps_, generator=generator)[0]
        points: Tensor = self.energy_.coordinates.source_inverse(drawn)
        return points.numpy()

    # --- files --------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the fitted density to a folder: weights (safetensors), settings and records (JSON), checksums."""
        self._check_fitted()
        records = {name: getattr(self, name) for name in _RECORDS}
        DensityFiles(self.get_params(deep=False), records, self.normalizer_, self.energy_, self._proposal).write(
            Path(path)
        )

    @classmethod
    def load(cls, path: str | Path) -> LogConcaveDensity:
        """Read a density that :meth:`save` wrote; needs no training data.

        Raises:
            DataError: if the folder is damaged, of another kind, or newer than this version of the library.
        """
        files = DensityFiles.read(Path(path))
        density = cls(**files.settings)
        for name, value in files.records.items():
            setattr(density, name, value)
        density.energy_, density._proposal = files.energy, files.proposal
        density._set_normalizer(files.normalizer)
        return density
