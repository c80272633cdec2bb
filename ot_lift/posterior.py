"""A Bayesian posterior as the image of N(0, I) under a convex potential's gradient: fit, sample, invert, trust."""

from __future__ import annotations

import numbers
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ot_lift.data import as_batch
from ot_lift.errors import DataError, NotFittedError
from ot_lift.estimators import plain_settings, seed_of, warn_of_end
from ot_lift.positivity import PositivityLike
from ot_lift.posterior_arviz import to_inference_data
from ot_lift.posterior_correction import Correction, corrected_draws
from ot_lift.posterior_files import read_map, write_map
from ot_lift.posterior_fit import FitOptions, Fitted, fit_to_draws, fit_to_target
from ot_lift.posterior_gaussian import best_gaussian
from ot_lift.posterior_jax import Preconditioned
from ot_lift.posterior_latent import Direction, LatentMap
from ot_lift.posterior_mode import Laplace, find_mode
from ot_lift.posterior_target import Target
from ot_lift.posterior_trust import Diagnosis, TrustWarning, diagnose, judge, undiagnosed
from ot_lift.posterior_weights import Evidence
from ot_lift.potentials import Quadratic
from ot_lift.standardizer import weighted_moments

_JUDGED = 4096  # draws of the evidence and of the diagnosis


class PosteriorMap(BaseEstimator):
    r"""Transport map between N(0, I) and a posterior, for independent draws, densities and a latent space.

    In coordinates :math:`\theta = c + Ru`, with c and RRᵀ the mean and covariance of the best Gaussian, sought from
    the Laplace approximation at the highest mode of several searches, the map is the gradient of a convex potential:
    :math:`u = \nabla\varphi(z)` (``"forward"``) or :math:`z = \nabla\varphi(u)` (``"inverse"``). So it is a Brenier
    map in standardised coordinates. It minimises the reverse KL divergence with exact log-determinants, starts at
    that Gaussian and is never left worse than it on held-out latents: ``potential_`` is then a quadratic.

    Args:
        direction: ``"forward"``: a draw is a gradient and a density needs an inversion; ``"inverse"``: the reverse.
        hidden_features: widths of the network.
        positivity: how its weights stay non-negative: ``"lift"``, ``"softplus"``, ``"square"``, ``"projection"``.
        strong_convexity: μ in (0, 1), in standardised coordinates.
        max_steps: budget of training steps.
        max_seconds: budget of wall-clock time for training, or None.
        batch_size: latents in a step, in antithetic pairs; of draws, which have no antitheses, twice as many.
        learning_rate: Adam's, at its peak; it decays to zero, and weights are averaged.
        patience: held-out evaluations that raise the ELBO by less than 0.05 nats, or than its resolution, after which
            training is brought to its end; None: never.
        progress: show a progress bar on standard error.
        random_state: int, ``numpy.random.RandomState``, or None for another seed at every fit.
        device: where to train the network (default: the CPU).
        dtype: of training, ``"float32"`` or ``"float64"``. Densities, draws and inverses are always in float64.

    Attributes:
        laplace_: modes and coordinates, a :class:`~ot_lift.posterior_mode.Laplace`.
        potential_: φ in standardised coordinates.
        map_: both ways between latents and parameters, a :class:`~ot_lift.posterior_latent.LatentMap`.
        evidence_: :class:`~ot_lift.posterior_weights.Evidence`; None for a fit to draws without a target.
        diagnosis_: the :class:`~ot_lift.posterior_trust.Diagnosis` made at the end of the fit.
        target_: the target, or None.
        history_: one record per held-out evaluation.
        stop_reason_: why training ended; ``"laplace"`` if there was nothing to train.
        used_network_: False if the start was kept.
        n_features_in_: d.
        fit_seconds_: wall-clock time of the whole fit.

    References:
        Marzouk et al. 2016 (arXiv 1602.05023); Huang et al. 2021, convex potential flows (arXiv 2012.05942);
        "A lift for input-convex neural network training" (arXiv 2605.24274).

    Example:
        >>> class Normal:  # N(3, 4)
        ...     dim = 1
        ...     def log_density(self, x):
        ...         return -0.5 * ((x - 3) / 2).square().sum(-1)
        >>> posterior = PosteriorMap(random_state=0).fit(Normal())
        >>> posterior.invert([[1.0]]).round(6).tolist(), posterior.transport([[5.0]]).round(6).tolist()
        ([[5.0]], [[1.0]])
        >>> round(posterior.evidence_.log_evidence, 6), posterior.diagnose().verdict  # ½ log 8π
        (1.612086, 'good')
    """

    def __init__(
        self,
        *,
        direction: Direction = "forward",
        hidden_features: Sequence[int] = (64, 64),
        positivity: PositivityLike = "lift",
        strong_convexity: float = 1e-2,
        max_steps: int = 1000,
        max_seconds: float | None = None,
        batch_size: int = 128,
        learning_rate: float = 2e-2,
        patience: int | None = 2,
        progress: bool = False,
        random_state: Any = None,
        device: str | torch.device | None = None,
        dtype: str = "float32",
    ) -> None:
        self.direction = direction
        self.hidden_features = hidden_features
        self.positivity = positivity
        self.strong_convexity = strong_convexity
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.progress = progress
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    # --- fitting ------------------------------------------------------------------------------------------------

    def fit(self, target: Any, y: Any = None, *, resume: str | Path | None = None) -> PosteriorMap:
        """Fit the map to an unnormalised log density.

        Args:
            target: anything with ``dim`` and ``log_density(x)``, ``(n, dim)`` → ``(n,)``, differentiable by torch;
                also ``value_gradient``, ``hessian``, ``constrain``, ``log_likelihood`` and ``names`` where it has
                them. :func:`ot_lift.numpyro.from_numpyro` makes one of a NumPyro model.
            y: not used; scikit-learn's convention.
            resume: folder for checkpoints; a fit that was killed continues from the one in it (a ``random_state`` of
                None then means 0).

        Returns:
            self. A :class:`~ot_lift.posterior_trust.TrustWarning` says so if the map is not to be used as it is.

        Raises:
            DataError: if the target is not one, or its log density is finite at no start.
            ConvergenceError: if the log density has no maximum or does not fall in some direction.
        """
        began = time.monotonic()
        options, checked = self._options(), Target(target)
        seed = seed_of(self.random_state, resumable=resume is not None)
        starts, init, latents, judge = (torch.Generator().manual_seed(seed + k) for k in range(4))
        units = best_gaussian(checked, find_mode(checked, starts), starts)
        folder = None if resume is None else Path(resume)
        fitted = fit_to_target(checked, units, options, init=init, latents=latents, resume=folder)
        return self._keep(fitted, units, target, judge, began)

    def fit_draws(self, draws: Any, *, target: Any = None) -> PosteriorMap:
        """Fit the map to existing draws of the posterior by maximum likelihood; a fifth of them is held out.

        Args:
            draws: unconstrained draws ``(n, d)``, n ≥ 20.
            target: their log density, for the evidence, the diagnosis and corrections; None: there are none.

        Returns:
            self. Coordinates are those of the draws' mean and covariance.

        Raises:
            DataError: for draws that cannot be fitted.
        """
        began = time.monotonic()
        options = self._options()
        features = None if target is None else Target(target).dim
        points = as_batch(draws, name="draws", features=features, minimum_rows=20)[0].double().cpu()
        seed = seed_of(self.random_state)
        split, init, batches, judge = (torch.Generator().manual_seed(seed + k) for k in range(4))
        units = Laplace.gaussian(*weighted_moments(points))
        u = units.from_user(points[torch.randperm(len(points), generator=split)])
        fitted = fit_to_draws(u, options, init=init, batches=batches)
        return self._keep(fitted, units, target, judge, began)

    def _options(self) -> FitOptions:
        return FitOptions(**{name: getattr(self, name) for name in FitOptions.__dataclass_fields__})

    def _keep(
        self, fitted: Fitted, units: Laplace, target: Any, generator: torch.Generator, began: float
    ) -> PosteriorMap:
        """Set the fitted attributes, judge the map, and warn if it is not to be used as it is."""
        self.laplace_, self.potential_ = units, fitted.potential
        self.map_ = LatentMap(fitted.potential, units, self.direction)
        self.history_, self.stop_reason_, self.used_network_ = fitted.history, fitted.stop_reason, fitted.used_network
        self.n_features_in_, self.target_ = len(units.mode), target
        warn_of_end(fitted.stop_reason)
        self.evidence_: Evidence | None = None
        if target is None:
            self.diagnosis_ = undiagnosed("fitted to draws without a target to check against")
        else:
            self.diagnosis_, self.evidence_ = judge(Target(target), self.map_, draws=_JUDGED, generator=generator)
            if self.diagnosis_.verdict != "good":
                warnings.warn(str(self.diagnosis_), TrustWarning, stacklevel=3)
        self.fit_seconds_ = time.monotonic() - began
        return self

    # --- using the map ------------------------------------------------------------------------------------------

    def _check_fitted(self) -> None:
        if not hasattr(self, "map_"):
            raise NotFittedError("this PosteriorMap is not fitted yet: call fit(target) first, or PosteriorMap.load")

    def _target(self) -> Target:
        """The target, checked; a map that was fitted to draws or loaded may have none."""
        self._check_fitted()
        if self.target_ is None:
            raise DataError("expected a target to weigh draws with, got none; pass target= to fit_draws or load")
        return Target(self.target_)

    def _latents(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.n_features_in_, generator=generator, dtype=torch.float64)

    def _apply(self, function: Callable[[Tensor], Tensor], points: Any, name: str) -> Any:
        self._check_fitted()
        tensor, restore = as_batch(points, name=name, features=self.n_features_in_)
        return restore(function(tensor.double().cpu()).to(tensor.device))

    def transport(self, theta: Any) -> Any:
        """Parameters → latents, ``(n, d)`` → ``(n, d)``; NumPy in, NumPy out; torch in, torch out.

        Raises:
            ConvergenceError: forward, if a point cannot be inverted to tolerance.
        """
        return self._apply(lambda rows: self.map_.latents(rows), theta, "theta")

    def invert(self, z: Any) -> Any:
        """Latents → parameters, ``(n, d)`` → ``(n, d)``: the inverse of :meth:`transport`.

        Raises:
            ConvergenceError: inverse, if a point cannot be inverted to tolerance.
        """
        return self._apply(lambda rows: self.map_.parameters(rows), z, "z")

    def log_prob(self, theta: Any) -> Any:
        """Normalised log density of the map at unconstrained parameters, ``(n, d)`` → ``(n,)``; in float64.

        Raises:
            ConvergenceError: forward, if a point cannot be inverted to tolerance.
        """
        return self._apply(lambda rows: self.map_.log_prob(rows), theta, "theta")

    def sample(self, n: int, *, correct: Correction | None = None, random_state: Any = None) -> npt.NDArray[np.float64]:
        """Draws of the unconstrained parameters.

        Args:
            n: how many.
            correct: None: independent draws from the map; ``"importance"``: resampled in proportion to
                Pareto-smoothed weights from four times as many; ``"metropolis"``: independence Metropolis chains,
                which are exact in the limit of long ones.
            random_state: int, ``numpy.random.RandomState``, or None for other draws at every call.

        Returns:
            ``(n, d)``, float64; ``target.constrain`` gives the named sites of a NumPyro model.
        """
        self._check_fitted()
        if not (isinstance(n, numbers.Integral) and int(n) > 0):
            raise ValueError(f"expected n to be a whole number > 0, got {n!r}")
        generator = torch.Generator().manual_seed(seed_of(random_state))
        if self.target_ is not None and (
            self.diagnosis_.verdict == "reject" or (correct is None and self.diagnosis_.verdict == "correct")
        ):
            warnings.warn(str(self.diagnosis_), TrustWarning, stacklevel=2)
        if correct is None:
            return np.asarray(self.map_.parameters(self._latents(int(n), generator)))
        draws = corrected_draws(self._target(), self.map_, int(n), correct=correct, generator=generator)
        return np.asarray(draws)

    def diagnose(self, *, draws: int = _JUDGED, random_state: Any = 0) -> Diagnosis:
        """Judge the map against its target on fresh draws; it never raises once the map is fitted.

        Args:
            draws: how many to weigh.
            random_state: of the draws.

        Returns:
            :class:`~ot_lift.posterior_trust.Diagnosis`; its ``str`` begins with the verdict.
        """
        self._check_fitted()
        if self.target_ is None:
            return self.diagnosis_
        generator = torch.Generator().manual_seed(seed_of(random_state))
        return diagnose(Target(self.target_), self.map_, draws=draws, generator=generator)

    def to_arviz(self, n: int, *, chains: int = 4, correct: Correction | None = None, random_state: Any = None) -> Any:
        """Draws for ArviZ, by named site, with the pointwise log likelihood where the target has one.

        Args:
            n: how many draws, a multiple of ``chains``.
            chains: into how many chains to split them; they are independent.
            correct: as in :meth:`sample`.
            random_state: as in :meth:`sample`.
        """
        if n % chains:
            raise ValueError(f"expected n to be a multiple of {chains} chains, got {n}")
        draws = self.sample(n, correct=correct, random_state=random_state)
        source = self.target_
        sites = source.constrain(draws) if hasattr(source, "constrain") else {"theta": draws}
        likelihood = source.log_likelihood(draws) if hasattr(source, "log_likelihood") else {}
        return to_inference_data(sites, likelihood, chains=chains)

    def precondition(self, *, target: Any = None) -> Preconditioned:
        """The posterior in the latent space, for NumPyro's samplers: ``NUTS(p.precondition().model)``.

        Args:
            target: a target that :func:`ot_lift.numpyro.from_numpyro` made; None: the one of the fit.

        Returns:
            :class:`~ot_lift.posterior_jax.Preconditioned`; its draws come back as the model's named sites.

        Raises:
            DataError: for a map with direction ``"inverse"``, or a target of another kind.
            ImportError: without NumPyro.
        """
        self._check_fitted()
        return Preconditioned(self.target_ if target is None else target, self.map_)

    # --- files --------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the fitted map to a folder: weights (safetensors), settings and records (JSON), checksums.

        The target is not in it: pass it to :meth:`load` again.
        """
        self._check_fitted()
        write_map(
            Path(path),
            self.map_,
            {
                "parameters": plain_settings(self.get_params()),
                "history": self.history_,
                "stop_reason": self.stop_reason_,
                "fit_seconds": self.fit_seconds_,
                "evidence": None if self.evidence_ is None else self.evidence_.to_dict(),
                "diagnosis": self.diagnosis_.to_dict(),
            },
        )

    @classmethod
    def load(cls, path: str | Path, *, target: Any = None) -> PosteriorMap:
        """Read a map that :meth:`save` wrote.

        Args:
            path: the folder.
            target: the target that it was fitted to, for new diagnoses, corrections and named sites.

        Raises:
            DataError: if the folder is damaged, of another kind, or newer than this version of the library.
        """
        latent, record = read_map(Path(path))
        model = cls(**record["parameters"])
        model.map_, model.potential_, model.laplace_ = latent, latent.potential, latent.units
        model.used_network_ = not isinstance(latent.potential, Quadratic)
        model.history_, model.stop_reason_ = record["history"], record["stop_reason"]
        model.evidence_ = None if record["evidence"] is None else Evidence(**record["evidence"])
        model.diagnosis_ = Diagnosis.from_dict(record["diagnosis"])
        model.n_features_in_, model.fit_seconds_ = len(latent.units.mode), record["fit_seconds"]
        model.target_ = target
        return model
