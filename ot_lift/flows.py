"""A density, its samples and its latent from a convex potential, fitted by exact maximum likelihood."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.base import TransformerMixin
from torch import Tensor
from torch.distributions import Independent, Normal, TransformedDistribution

from ot_lift.constrained import Constrained
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
from ot_lift.estimators_density import DensityEstimator
from ot_lift.flows_choice import choose
from ot_lift.flows_files import FlowFiles
from ot_lift.flows_map import DIRECTIONS, Blocks, FlowMap, in_data_units
from ot_lift.flows_start import network_blocks
from ot_lift.flows_whitening import Whitening
from ot_lift.lift import constrain
from ot_lift.likelihood import MaximumLikelihood, block_rows, log_density
from ot_lift.maps import in_blocks
from ot_lift.positivity import PositivityLike
from ot_lift.sides import Side
from ot_lift.training import Trained, train

_ALIGNMENT_ROWS = 2048
_PROGRESS = 1e-4  # nats a dimension: slower progress than this between evaluations counts as none
# Fitted attributes that are plain values, which a folder holds as they are.
_RECORDS = (
    "used_network_",
    "held_out_log_likelihood_",
    "held_out_standard_error_",
    "history_",
    "stop_reason_",
    "n_features_in_",
    "fit_seconds_",
)


class ConvexPotentialFlow(TransformerMixin, DensityEstimator):
    r"""Density estimation by a convex-potential flow: the gradient of a convex potential takes the data to N(0, I).

    The density is exact, by the change of variables :math:`\log p(x) = \log N(z; 0, I) + \log\det\nabla^2\varphi` with
    :math:`z = \nabla\varphi(x)`, and so is the fit by maximum likelihood (Huang et al. 2021). With one block the map is
    the Brenier map in whitened coordinates between its density and N(0, I); with ``blocks=k`` it is a composition of k
    of them, a flow that is no longer an optimal map. Whitening by the mean and covariance of the data is part of the
    model. The fit starts at the Gaussian of these moments, and ends there if points that it has not used prefer it:
    if the flow's gain is within two standard errors of nothing. A Gaussian that is kept is fitted again, to all points.

    Args:
        hidden_features: widths of each block's network.
        blocks: how many gradient maps are composed.
        direction: ``"inverse"``: ∇φ takes data to the latent, and samples are solved for; ``"forward"``: ∇φ takes the
            latent to data, and densities are solved for.
        positivity: how weights stay non-negative: ``"lift"``, ``"softplus"``, ``"square"``, ``"projection"``.
        activation: ``"softplus"``, ``"squareplus"`` or ``"celu"`` (whose densities jump).
        sharpness: β of the activation σ(βu)/β; larger bends the potential more sharply.
        strong_convexity: μ in (0, 1), in whitened coordinates; ∇φ stretches no direction by less.
        max_steps: budget of training steps.
        max_seconds: budget of wall-clock time for training, or None. The step size anneals on the larger fraction of
            the two.
        batch_size: points in a step.
        learning_rate: Adam's, at its peak.
        patience: held-out evaluations without progress after which training is brought to its end; None: never.
        progress: show a progress bar on standard error.
        callbacks: functions of each history record and the :class:`~ot_lift.flows_map.FlowMap` of that moment; one
            that returns True ends training.
        random_state: int, ``numpy.random.RandomState``, or None for another seed at every fit.
        device: where to train (default: that of a torch ``X``, else the CPU).
        dtype: of training, ``"float32"`` or ``"float64"``. What the fitted flow says is computed in float64.

    Attributes:
        map_: x ↦ z as a :class:`torch.distributions.Transform`, a :class:`~ot_lift.flows_map.FlowMap`.
        held_out_log_likelihood_: mean log-density of points used for nothing else, nats; of a Gaussian that is kept,
            before it was fitted again.
        held_out_standard_error_: its standard error.
        history_: one record per held-out evaluation; ``held_out`` is the mean negative log-density, nats.
        stop_reason_: why training ended.
        used_network_: False if the Gaussian start was kept.
        n_features_in_: d.
        fit_seconds_: wall-clock time of the whole fit.

    References:
        Huang, Chen, Tsirigotis & Courville 2021, "Convex Potential Flows" (arXiv 2012.05942); "A lift for
        input-convex neural network training" (arXiv 2605.24274).

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X = 3.0 + 2.0 * rng.normal(size=(4000, 1))
        >>> flow = ConvexPotentialFlow(max_steps=20, random_state=0).fit(X)
        >>> round(flow.log_prob([[3.0]]).item(), 1)  # of N(3, 4) at its mean: −½ log 8π = −1.61
        -1.6
        >>> bool(np.allclose(flow.invert(flow.transport(X)), X, atol=1e-6))
        True
        >>> flow.sample(5, random_state=0).shape
        (5, 1)
    """

    def __init__(
        self,
        *,
        hidden_features: Sequence[int] = (128, 128),
        blocks: int = 1,
        direction: str = "inverse",
        positivity: PositivityLike = "lift",
        activation: str = "softplus",
        sharpness: float = 8.0,
        strong_convexity: float = 1e-3,
        max_steps: int = 2000,
        max_seconds: float | None = None,
        batch_size: int = 512,
        learning_rate: float = 4e-2,
        patience: int | None = 5,
        progress: bool = False,
        callbacks: Sequence[Callable[[dict[str, float], FlowMap], bool | None]] | None = None,
        random_state: Any = None,
        device: str | torch.device | None = None,
        dtype: str = "float32",
    ) -> None:
        self.hidden_features = hidden_features
        self.blocks = blocks
        self.direction = direction
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
        self, X: Any, y: Any = None, *, sample_weight: Any = None, resume: str | Path | None = None
    ) -> ConvexPotentialFlow:
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
        self._check_parameters()
        home = torch.empty(0, dtype=training_dtype(self.dtype), device=training_device(self.device, X))
        folder = None if resume is None else open_checkpoints(resume, X)
        seed = seed_of(self.random_state, resumable=resume is not None)
        split, init, order, noise = (torch.Generator().manual_seed(seed + k) for k in range(4))
        side = Side.open(numbers_of(X), name="X", features=None, weight=sample_weight, generator=split)
        whitening = Whitening.of(side)
        sample = whitening.points(side.sample(_ALIGNMENT_ROWS, init), init).to(home.dtype)
        objective = MaximumLikelihood(
            whitening.batches(side, home, batch_size=self.batch_size, generator=order),
            whitening.points(side.stop, init).to(home),
            side.stop_weight,
            generator=noise,
            blur=whitening.blur,
            log_volume=whitening.log_volume,
        )
        trained = train(
            self._make_model(sample, init).to(home),
            objective,
            training_options(self.get_params(), tolerance=_PROGRESS * sample.shape[1]),
            callbacks=[in_data_units(callback, whitening.coordinates) for callback in self.callbacks or ()],
            progress=self.progress,
            resume=folder,
            fingerprint=fingerprint(self.get_params(), seed, side),
        )
        self._keep(trained, whitening, side, init)
        self.fit_seconds_ = time.monotonic() - began
        return self

    def _check_parameters(self) -> None:
        check_training(self.get_params())
        check_keeps_convex(self.positivity, otherwise="the map has no inverse and the density no total of 1")
        if self.direction not in DIRECTIONS:
            raise ValueError(f"expected direction 'inverse' or 'forward', got {self.direction!r}")

    def _make_model(self, x: Tensor, generator: torch.Generator) -> Constrained:
        """Blocks that are the identity on average over whitened points ``(n, d)``, under the positivity."""
        blocks = network_blocks(
            x,
            self.blocks,
            direction=self.direction,
            hidden_features=tuple(self.hidden_features),
            generator=generator,
            activation=self.activation,
            sharpness=self.sharpness,
            strong_convexity=self.strong_convexity,
        )
        return constrain(blocks, self.positivity, features=x.shape[1], generator=generator)

    def _keep(self, trained: Trained, whitening: Whitening, side: Side, generator: torch.Generator) -> None:
        """Set the fitted attributes, of the blocks or of the Gaussian start, as unseen points choose."""
        blocks = trained.module.cpu()
        assert isinstance(blocks, Blocks)  # for the type checker: constrained blocks bake to blocks
        choice = choose(blocks, whitening, whitening.points(side.certificate, generator))
        self.map_, self.used_network_ = choice.map_, choice.used_network
        if not choice.used_network:
            self.map_ = FlowMap(choice.map_.blocks, whitening.of_all(side).coordinates)
        self.held_out_log_likelihood_, self.held_out_standard_error_ = choice.log_likelihood, choice.standard_error
        self.history_ = trained.history
        self.stop_reason_ = trained.stop_reason
        self.n_features_in_ = side.rows.features
        self._reach = side.reach()
        warn_of_end(trained.stop_reason)

    # --- using the flow -----------------------------------------------------------------------------------------

    def transport(self, X: Any) -> Any:
        """Images z of data in the latent, ``(n, d)`` → ``(n, d)``; NumPy in, NumPy out; torch in, torch out."""

        def check(x: Tensor) -> None:
            warn_of_extrapolation(self._reach, x, name="X", stacklevel=5)

        return self._apply(lambda x: self.map_(x), X, "X", check=check)

    def invert(self, Z: Any) -> Any:
        """The data whose images are ``Z``, ``(m, d)`` → ``(m, d)``, solved in float64.

        Raises:
            ConvergenceError: if a point cannot be solved for to tolerance.
        """
        return self._apply(lambda z: self.map_.inv(z), Z, "Z")

    def log_prob(self, X: Any) -> Any:
        """Log-density at X, ``(n, d)`` → ``(n,)``, in nats and the units of the data; exact, computed in float64.

        Raises:
            ConvergenceError: with ``direction="forward"``, if a point cannot be solved for to tolerance.
        """
        return self._apply(lambda x: log_density(*self.map_.image_and_log_det(x)), X, "X")

    def sample(self, n: int = 1, *, random_state: Any = None) -> Any:
        """Draw from the fitted density.

        Args:
            n: how many points.
            random_state: int, ``numpy.random.RandomState``, or None for others at every call.

        Returns:
            float64 array ``(n, d)`` in the units of the data. (For torch see :meth:`distribution`.)

        Raises:
            ValueError: if ``n`` is not a whole number > 0.
        """
        self._check_fitted()
        check_count("n", n)
        generator = torch.Generator().manual_seed(seed_of(random_state))
        latent = torch.randn(n, self.n_features_in_, generator=generator, dtype=torch.float64)
        return in_blocks(lambda z: self.map_.inv(z), latent, block_rows(self.n_features_in_)).numpy()

    def distribution(self) -> TransformedDistribution:
        """The fitted density as a torch distribution over vectors ``(d,)``, float64, on the CPU.

        ``rsample`` is differentiable in the parameters of ``map_.blocks`` by the implicit function theorem,
        ``log_prob`` in the points too; both take any batch shape.
        """
        self._check_fitted()
        mean = torch.zeros(self.n_features_in_, dtype=torch.float64)
        base = Independent(Normal(mean, torch.ones_like(mean)), 1)
        return TransformedDistribution(base, [self.map_.inv])

    def transform(self, X: Any) -> Any:
        """:meth:`transport` under scikit-learn's name."""
        return self.transport(X)

    def inverse_transform(self, X: Any) -> Any:
        """:meth:`invert` under scikit-learn's name."""
        return self.invert(X)

    # --- files --------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the fitted flow to a folder: weights (safetensors), settings and records (JSON), checksums."""
        self._check_fitted()
        records = {name: getattr(self, name) for name in _RECORDS}
        FlowFiles(self.get_params(), records, self.map_, self._reach).write(Path(path))

    @classmethod
    def load(cls, path: str | Path) -> ConvexPotentialFlow:
        """Read a flow that :meth:`save` wrote; needs no training data.

        Raises:
            DataError: if the folder is damaged, of another kind, or newer than this version of the library.
        """
        files = FlowFiles.read(Path(path))
        flow = cls(**files.settings)
        for name, value in files.records.items():
            setattr(flow, name, value)
        flow.map_, flow._reach = files.map_, files.reach
        return flow
