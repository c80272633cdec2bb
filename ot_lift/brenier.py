"""The Brenier map between two datasets: fit, transport, invert, certify."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from sklearn.base import BaseEstimator, TransformerMixin
from torch import Tensor, nn

from ot_lift.brenier_files import MapFiles
from ot_lift.brenier_fit import FitOptions, MapTraining, certificate_of
from ot_lift.data import as_batch
from ot_lift.errors import DataError, NotFittedError
from ot_lift.estimators import (
    fingerprint,
    open_checkpoints,
    seed_of,
    training_device,
    training_dtype,
    warn_of_end,
    warn_of_extrapolation,
)
from ot_lift.maps import GradientMap, StandardisedPotential, in_blocks
from ot_lift.objectives import SemiDual
from ot_lift.positivity import PositivityLike, copy_with_marks
from ot_lift.potentials import Potential
from ot_lift.sides import Side
from ot_lift.training import Trained

# Fitted attributes that are plain values: what a file holds of them.
_RECORDS = ("used_network_", "history_", "stop_reason_", "fit_seconds_")


# Without scikit-learn's wrapper for set_output, which asks for a positional X: `transform(Xs=…)` is POT's spelling.
class BrenierMap(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    r"""Optimal transport map between two datasets for the cost ½‖x − y‖².

    The map is the gradient of a convex potential, :math:`T = \nabla\varphi` (Brenier 1991), an input-convex network
    trained on the semi-dual :math:`E\varphi(x) + E\varphi^*(y)` with exact conjugation. It starts at the optimal
    map between Gaussians of the same moments and is never left worse than that on held-out points: where the
    network's gain is within two standard errors of nothing, ``potential_`` is that quadratic. Data keep their
    geometry: coordinates change only by shifts and a reciprocal pair of matrices, under which a gradient stays one.

    Args:
        hidden_features: widths of the network.
        positivity: how its weights stay non-negative: ``"lift"``, ``"softplus"``, ``"square"``, ``"projection"``.
        activation: ``"softplus"``, ``"celu"`` or ``"squareplus"``.
        sharpness: β of the activation σ(βu)/β; larger bends the potential more sharply.
        strong_convexity: μ in (0, 1), in standardised coordinates; T stretches no direction by less.
        network: a :class:`~ot_lift.potentials.Potential` with marked weights to train in place of the default one, in
            standardised coordinates; any other torch module goes through
            :class:`~ot_lift.potentials.AutogradPotential`.
        start: ``"gaussian"``, ``"identity"`` (a translation), or ``"plan"``: Gaussian coordinates, then regression to
            the barycentric projection of an exact plan between subsamples.
        max_steps: budget of training steps.
        max_seconds: budget of wall-clock time for training, or None. The step size anneals on the larger fraction of
            the two. (The regression of ``start="plan"`` takes up to a quarter more.)
        batch_size: points of either side in a step.
        learning_rate: Adam's, at its peak.
        patience: held-out evaluations without progress after which training is brought to its end; None: never.
        progress: show a progress bar on standard error.
        callbacks: functions of each history record and the potential of that moment in data units (as
            ``potential_``); one that returns True ends training.
        random_state: int, ``numpy.random.RandomState``, or None for another seed at every fit.
        device: where to train (default: that of a torch ``X``, else the CPU).
        dtype: of training, ``"float32"`` or ``"float64"``. Inverses and certificates are always in float64.

    Attributes:
        potential_: φ in data units, a :class:`~ot_lift.maps.StandardisedPotential`.
        map_: x ↦ ∇φ(x) as a :class:`torch.distributions.Transform`.
        certificate_: :class:`~ot_lift.certificate.Certificate` on points used for nothing else.
        history_: one record per held-out evaluation.
        stop_reason_: why training ended.
        used_network_: False if the start was kept.
        n_features_in_: d.
        fit_seconds_: wall-clock time of the whole fit.

    References:
        Brenier 1991; Makkuva et al. 2020 (arXiv 1908.10347); Korotin et al. 2021 (arXiv 2106.01954);
        "A lift for input-convex neural network training" (arXiv 2605.24274).

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X, Y = rng.normal(size=(4000, 2)), 3.0 + 2.0 * rng.normal(size=(4000, 2))
        >>> T = BrenierMap(max_steps=20, random_state=0).fit(X, Y)  # between Gaussians: T(x) = 3 + 2x
        >>> bool(np.abs(T.transport([[1.0, -1.0]]) - [[5.0, 1.0]]).max() < 0.2)
        True
        >>> bool(np.allclose(T.invert(T.transport(X)), X, atol=1e-6))
        True
    """

    def __init__(
        self,
        *,
        hidden_features: Sequence[int] = (64, 64, 64),
        positivity: PositivityLike = "lift",
        activation: str = "softplus",
        sharpness: float = 8.0,
        strong_convexity: float = 1e-2,
        network: Potential | None = None,
        start: str = "gaussian",
        max_steps: int = 2000,
        max_seconds: float | None = None,
        batch_size: int = 1024,
        learning_rate: float = 4e-2,
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
        self.network = network
        self.start = start
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
        self,
        X: Any = None,
        Y: Any = None,
        *,
        source_weight: Any = None,
        target_weight: Any = None,
        resume: str | Path | None = None,
        Xs: Any = None,
        Xt: Any = None,
    ) -> BrenierMap:
        """Fit the map that pushes X to Y.

        Args:
            X: source ``(n, d)``: array, frame, memory-mapped array or path of a .npy file, DataLoader, or a callable
                ``sampler(count, generator) -> (count, d)``. Sizes of the two sides may differ.
            Y: target ``(m, d)``, likewise.
            source_weight: non-negative weights ``(n,)``.
            target_weight: non-negative weights ``(m,)``.
            resume: folder for checkpoints; a fit that was killed continues from the one in it and ends as it would
                have (exactly, under ``max_steps``; a ``random_state`` of None then means 0).
            Xs: POT's name for X.
            Xt: POT's name for Y.

        Returns:
            self.

        Raises:
            DataError: for data that cannot be fitted, said in words; it is a ValueError.
        """
        began = time.monotonic()
        X, Y = _one_of(X, Xs, "X", "Xs"), _one_of(Y, Xt, "Y", "Xt")
        training, objective, trained, split = self._train(X, Y, source_weight, target_weight, resume)
        potential, used_network = training.choose(trained, objective)
        source, target = training.source, training.target
        self._keep(trained, StandardisedPotential(potential, training.units), used_network, source, target)
        self.certificate_ = certificate_of(self.potential_, source.certificate, target.certificate, split)
        self.fit_seconds_ = time.monotonic() - began
        return self

    def _train(
        self, X: Any, Y: Any, source_weight: Any = None, target_weight: Any = None, resume: str | Path | None = None
    ) -> tuple[MapTraining, SemiDual, Trained, torch.Generator]:
        """Train as `fit` does, and keep nothing: what trained, towards what, what came of it, what splits points."""
        folder = None if resume is None else open_checkpoints(resume, X, Y)
        options = FitOptions(**{name: getattr(self, name) for name in FitOptions.__dataclass_fields__})
        dtype, device = training_dtype(self.dtype), training_device(self.device, X)
        seed = seed_of(self.random_state, resumable=resume is not None)
        split, init, left, right = (torch.Generator().manual_seed(seed + k) for k in range(4))
        source = Side.open(X, name="X", features=None, weight=source_weight, generator=split)
        target = Side.open(Y, name="Y", features=source.rows.features, weight=target_weight, generator=split)
        training = MapTraining(options, source, target, device=device, dtype=dtype)
        objective = training.objective(left, right)
        belongs = fingerprint(self.get_params(), seed, source, target)
        trained = training.run(objective, init, resume=folder, fingerprint=belongs)
        return training, objective, trained, split

    def _keep(
        self, trained: Trained, potential: StandardisedPotential, used_network: bool, source: Side, target: Side
    ) -> None:
        """Set the fitted attributes."""
        self.used_network_, self.potential_ = used_network, potential
        self.map_ = GradientMap(self.potential_)
        self.history_ = trained.history
        self.stop_reason_ = trained.stop_reason
        self.n_features_in_ = potential.features
        self._source_reach, self._target_reach = source.reach(), target.reach()
        warn_of_end(trained.stop_reason)

    # --- using the map ------------------------------------------------------------------------------------------

    def __sklearn_clone__(self) -> BrenierMap:
        """An unfitted copy; its network keeps the marks, which a deep copy of a parameter drops."""
        duplicate: BrenierMap = super().__sklearn_clone__()
        if isinstance(self.network, nn.Module):
            duplicate.network = cast(Potential, copy_with_marks(self.network))
        return duplicate

    def _check_fitted(self) -> None:
        if not hasattr(self, "potential_"):
            raise NotFittedError("this BrenierMap is not fitted yet: call fit(X, Y) first, or BrenierMap.load(folder)")

    def _apply(self, function: Callable[[Tensor], Tensor], points: Any, name: str, reach: str = "") -> Any:
        """Validate, warn about points far outside, apply in blocks, answer in the caller's kind of array."""
        self._check_fitted()
        tensor, restore = as_batch(points, name=name, features=self.n_features_in_)
        home = tensor.device
        tensor = tensor.cpu()
        if reach:
            warn_of_extrapolation(getattr(self, reach), tensor, name=name, stacklevel=3)
        return restore(in_blocks(function, tensor).to(home))

    def transport(self, X: Any) -> Any:
        """T(x) = ∇φ(x), ``(n, d)`` → ``(n, d)``, in the units of Y; NumPy in, NumPy out; torch in, torch out."""
        return self._apply(lambda x: self.potential_.gradient(x), X, "X", "_source_reach")

    def invert(self, Y: Any) -> Any:
        """T⁻¹(y) = ∇φ*(y), ``(m, d)`` → ``(m, d)``, in the units of X, solved in float64.

        Raises:
            ConvergenceError: if a point cannot be inverted to tolerance.
        """
        return self._apply(lambda y: self.potential_.conjugate(y.double()).argmax, Y, "Y", "_target_reach")

    def potential(self, X: Any) -> Any:
        """φ(x), ``(n,)``, in units of ⟨x, y⟩; computed in float64."""
        return self._apply(lambda x: self.potential_(x.double()), X, "X")

    def conjugate(self, Y: Any) -> Any:
        """φ*(y), ``(m,)``, in units of ⟨x, y⟩; computed in float64."""
        return self._apply(lambda y: self.potential_.conjugate(y.double()).value, Y, "Y")

    def interpolate(self, X: Any, t: float) -> Any:
        """McCann's displacement interpolation (1 − t)x + tT(x), ``(n, d)``; t in [0, 1]."""
        if not 0 <= t <= 1:
            raise ValueError(f"expected t in [0, 1], got {t!r}")
        return self._apply(lambda x: torch.lerp(x, self.potential_.gradient(x), t), X, "X", "_source_reach")

    def score(self, X: Any, Y: Any) -> float:
        """Dual value E‖x‖² + E‖y‖² − 2E[φ(x) + φ*(y)] on new points: a lower bound of W2², so greater is better.

        Args:
            X: source ``(n, d)``.
            Y: target ``(m, d)``; sizes may differ. For cross-validation with n ≠ m see
                :func:`ot_lift.splits.paired_splits`.
        """
        self._check_fitted()
        x, _ = as_batch(X, name="X", features=self.n_features_in_)
        y, _ = as_batch(Y, name="Y", features=self.n_features_in_)
        origin = self.potential_.coordinates.shift_x
        x, y = x.double().cpu(), y.double().cpu()
        phi = in_blocks(self.potential_, x) - x @ origin
        phi_star = in_blocks(lambda rows: self.potential_.conjugate(rows).value, y) - y @ origin
        squares = (x - origin).square().sum(1).mean() + (y - origin).square().sum(1).mean()
        return float(squares - 2 * (phi.mean() + phi_star.mean() + origin @ origin))

    def transform(self, X: Any = None, *, Xs: Any = None) -> Any:
        """:meth:`transport` under scikit-learn's and POT's name."""
        return self.transport(_one_of(X, Xs, "X", "Xs"))

    def inverse_transform(self, Y: Any = None, *, Xt: Any = None) -> Any:
        """:meth:`invert` under scikit-learn's and POT's name."""
        return self.invert(_one_of(Y, Xt, "Y", "Xt"))

    # --- files --------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the fitted map to a folder: weights (safetensors), settings and records (JSON), checksums."""
        self._check_fitted()
        reaches = {"source": self._source_reach, "target": self._target_reach}
        records = {name: getattr(self, name) for name in _RECORDS}
        MapFiles(self.get_params(), records, self.potential_, reaches, self.certificate_).write(Path(path))

    @classmethod
    def load(cls, path: str | Path, *, network: Potential | None = None) -> BrenierMap:
        """Read a map that :meth:`save` wrote; needs no training data.

        Args:
            path: the folder.
            network: for a map fitted with ``network=…``, a potential of the same structure to load into.

        Raises:
            DataError: if the folder is damaged, of another kind, or newer than this version of the library.
        """
        files = MapFiles.read(Path(path), network)
        model = cls(**files.settings)
        for name in _RECORDS:
            setattr(model, name, files.records[name])
        model.potential_, model.map_ = files.potential, GradientMap(files.potential)
        model._source_reach, model._target_reach = files.reaches["source"], files.reaches["target"]
        model.certificate_, model.n_features_in_ = files.certificate, files.potential.features
        return model


def _one_of(first: Any, second: Any, name: str, other: str) -> Any:
    """The one of two spellings of an argument that was given."""
    if (first is None) == (second is None):
        raise DataError(f"expected one of {name} and {other}, got {'neither' if first is None else 'both'}")
    return second if first is None else first
