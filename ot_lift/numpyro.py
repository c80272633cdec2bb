"""The bridge: a NumPyro model as a target with a torch log density in unconstrained coordinates."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ot_lift.data import as_batch
from ot_lift.errors import DataError

__all__ = ["NumPyroTarget", "from_numpyro"]

# Batches are padded to one of these sizes, so that a handful of compiled functions serve every number of points.
_SIZES = (16, 64, 256, 1024)
_PROBES = 128  # points of U(−2, 2)ᵈ at which a density must be finite at least once
_RADIUS = 2.0


def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> NumPyroTarget:
    """A NumPyro model, at given data, as a target for :class:`~ot_lift.posterior.PosteriorMap`.

    The target lives in NumPyro's unconstrained coordinates, log-Jacobians included, and computes in float64 without
    changing JAX's global precision. Data that are JAX arrays keep the precision they were made with: pass NumPy
    arrays of float64. Improper priors (``dist.ImproperUniform``) are fine if the posterior is proper.

    Args:
        model: a NumPyro model with continuous latent sites.
        *args: its positional arguments.
        **kwargs: its keyword arguments.

    Returns:
        The target.

    Raises:
        ImportError: without NumPyro: ``pip install ot-lift[posteriors]``.
        DataError: for discrete latent sites, no latent site, sites that change between calls, or a density that is
            finite nowhere near the origin. An error of the model itself is passed on as it is.

    Example:
        >>> import numpyro
        >>> import numpyro.distributions as dist
        >>> def model():
        ...     numpyro.sample("rate", dist.Exponential(1.0))
        >>> target = from_numpyro(model)
        >>> x = torch.tensor([[0.0]], dtype=torch.float64)  # log rate: the log density is −exp(x) + x
        >>> target.dim, target.log_density(x).item(), target.constrain(x)["rate"].item()
        (1, -1.0, 1.0)
    """
    return NumPyroTarget(model, args, kwargs)


def _jax() -> Any:
    """JAX, once it is known that NumPyro is there too; importing this module imports neither."""
    try:
        import jax
        import numpyro  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"expected NumPyro to be installed, got {error}; install it with pip install 'ot-lift[posteriors]'"
        ) from error
    return jax


def float64(jax: Any) -> AbstractContextManager[Any]:
    """A context in which JAX computes in float64; the global switch stays as it is."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return importlib.import_module("jax.experimental").enable_x64()  # before JAX 0.8


class NumPyroTarget:
    """What :func:`from_numpyro` returns.

    Attributes:
        dim: number of unconstrained coordinates.
        names: a label for each of them, such as ``"beta[2]"``; coordinates follow the order of the model's sites.
        sites: shape of every latent site in the model's own, constrained space.
        model: the NumPyro model.
        arguments: its positional arguments.
        keywords: its keyword arguments.
    """

    def __init__(self, model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._jax = _jax()
        self.model, self.arguments, self.keywords = model, args, kwargs
        with float64(self._jax):
            self.sites, self._shapes = self._trace(0)
            if (self.sites, self._shapes) != (again := self._trace(1)):
                raise DataError(
                    "expected a model whose latent sites have the same names and shapes at every call, got "
                    f"{self._shapes} and then {again[1]}: let shapes depend on the arguments alone"
                )
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        self.dim = sum(sizes)
        self._ends = list(itertools.accumulate(sizes))
        self.names = tuple(label for site, shape in self._shapes.items() for label in _labels(site, shape))
        self._compiled: dict[str, Callable[..., Any]] = {}
        self._check_finite_somewhere()

    # --- looking at the model -----------------------------------------------------------------------------------

    def _seeded(self, key: int = 0) -> Callable[..., Any]:
        from numpyro import handlers

        return handlers.seed(self.model, self._jax.random.PRNGKey(key))  # what else the model draws stays fixed

    def _trace(self, key: int) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
        """Constrained and unconstrained shapes of the latent sites, in the order of the model."""
        from numpyro import handlers
        from numpyro.distributions import biject_to
        from numpyro.infer import init_to_uniform

        # Starting values in place of draws: an improper prior has no draws.
        started = handlers.substitute(self._seeded(key), substitute_fn=init_to_uniform)
        trace = handlers.trace(started).get_trace(*self.arguments, **self.keywords)
        latent = {name: s for name, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}
        if not latent:
            raise DataError("expected a model with latent sites, got none: sample them without obs=")
        if discrete := [name for name, site in latent.items() if site["fn"].support.is_discrete]:
            raise DataError(
                f"expected continuous latent sites, got discrete {', '.join(discrete)}: sum them out of the model"
            )
        sites = {name: tuple(site["fn"].shape()) for name, site in latent.items()}
        shapes = {
            name: tuple(biject_to(site["fn"].support).inverse_shape(sites[name])) for name, site in latent.items()
        }
        return sites, shapes

    def _check_finite_somewhere(self) -> None:
        generator = torch.Generator().manual_seed(0)
        points = _RADIUS * (2 * torch.rand(_PROBES, self.dim, generator=generator, dtype=torch.float64) - 1)
        points[0] = 0.0
        value, gradient = self.value_gradient(points)
        if not bool((torch.isfinite(value) & torch.isfinite(gradient).all(1)).any()):
            got = "NaN" if bool(value.isnan().any()) else str(float(value[0]))
            raise DataError(
                f"expected a log density that is finite, with its gradient, somewhere in [−2, 2]^{self.dim} "
                f"(unconstrained), got {got} at the origin and nothing finite at {_PROBES - 1} random points: check "
                "that the data lie in the likelihood's support"
            )

    # --- functions of flat, unconstrained points ----------------------------------------------------------------

    def _unravel(self, flat: Any) -> dict[str, Any]:
        starts = [0, *self._ends[:-1]]
        spans = zip(self._shapes.items(), starts, self._ends, strict=True)
        return {name: flat[start:end].reshape(shape) for (name, shape), start, end in spans}

    def jax_log_density(self, flat: Any) -> Any:
        """Log density at one flat, unconstrained point ``(dim,)``: a JAX function, in the precision JAX is set to."""
        from numpyro.infer.util import potential_energy

        return -potential_energy(self._seeded(), self.arguments, self.keywords, self._unravel(flat))

    def jax_constrain(self, flat: Any) -> Any:
        """Values of the model's sites, deterministic ones included, at one point ``(dim,)``: a JAX function."""
        from numpyro.infer.util import constrain_fn

        model = self._seeded()
        return constrain_fn(model, self.arguments, self.keywords, self._unravel(flat), return_deterministic=True)

    def _log_likelihood(self, flat: Any) -> Any:
        from numpyro.infer.util import log_likelihood

        values = self.jax_constrain(flat)
        return log_likelihood(self._seeded(), values, *self.arguments, parallel=False, batch_ndims=0, **self.keywords)

    def _function(self, name: str) -> Callable[..., Any]:
        """A compiled function of many points at once."""
        if name not in self._compiled:
            jax = self._jax
            single = {
                "value_gradient": lambda: jax.value_and_grad(self.jax_log_density),
                "hessian": lambda: jax.hessian(self.jax_log_density),
                "constrain": lambda: self.jax_constrain,
                "log_likelihood": lambda: self._log_likelihood,
            }[name]()
            self._compiled[name] = jax.jit(jax.vmap(single))
        return self._compiled[name]

    def _run(self, name: str, x: Tensor, collect: Callable[[list[Any]], Any]) -> Any:
        """Apply a compiled function to blocks of rows; `collect` gets the results as trees of torch tensors."""
        jax, function = self._jax, self._function(name)
        rows = x.detach().to("cpu", torch.float64).contiguous()
        blocks = []
        with float64(jax):
            for block in rows.split(_SIZES[-1]):
                count = len(block)
                padding = next(size for size in _SIZES if size >= count) - count
                if padding:
                    block = torch.cat([block, block[:1].expand(padding, -1)])
                result = jax.block_until_ready(function(jax.dlpack.from_dlpack(block)))
                blocks.append(jax.tree.map(lambda leaf, n=count: torch.utils.dlpack.from_dlpack(leaf)[:n], result))
        return collect(blocks)

    def _rows(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.ndim == 0 or x.shape[-1] != self.dim or not x.is_floating_point():
            got = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise DataError(f"expected a floating-point tensor of shape (..., {self.dim}), got {got}")
        return x.reshape(-1, self.dim)

    def log_density(self, x: Tensor) -> Tensor:
        """Unnormalised log density ``(...)`` at unconstrained ``x`` ``(..., dim)``, differentiable twice by autograd.

        Computed in float64; the result has the dtype and device of ``x``.
        """
        value: Tensor = _LogDensity.apply(self._rows(x), self)
        return value.reshape(x.shape[:-1])

    def value_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log density ``(n,)`` and its gradient ``(n, dim)`` at ``x`` ``(n, dim)``, without a graph."""
        rows = self._rows(x)
        if len(rows) == 0:
            return rows.new_zeros(0), rows.new_zeros(0, self.dim)
        value, gradient = self._run("value_gradient", rows, lambda blocks: map(torch.cat, zip(*blocks, strict=True)))
        return value.to(x), gradient.to(x)

    def hessian(self, x: Tensor) -> Tensor:
        """Hessian of the log density, ``(n, dim, dim)``, at ``x`` ``(n, dim)``, without a graph."""
        return self._run("hessian", self._rows(x), torch.cat).to(x)

    def constrain(self, x: Any) -> dict[str, Any]:
        """Values of the model's named sites, deterministic ones included.

        Args:
            x: unconstrained points ``(n, dim)``, NumPy or torch.

        Returns:
            ``(n, *shape)`` by site, in the caller's kind of array, float64.
        """
        return self._named("constrain", x)

    def log_likelihood(self, x: Any) -> dict[str, Any]:
        """Pointwise log likelihood of every observed site, ``(n, *shape)``, at unconstrained ``x`` ``(n, dim)``."""
        return self._named("log_likelihood", x)

    def _named(self, name: str, x: Any) -> dict[str, Any]:
        points, _ = as_batch(x, name="x", features=self.dim)
        result: Mapping[str, Tensor] = self._run(
            name, points, lambda blocks: {site: torch.cat([block[site] for block in blocks]) for site in blocks[0]}
        )
        if isinstance(x, Tensor):
            return {site: values.to(x.device) for site, values in result.items()}
        return {site: np.asarray(values) for site, values in result.items()}


def _labels(site: str, shape: tuple[int, ...]) -> list[str]:
    """``site`` for a scalar, else ``site[i,j]`` for every entry."""
    return [site + (f"[{','.join(map(str, index))}]" if index else "") for index in np.ndindex(shape)]


class _LogDensity(torch.autograd.Function):
    """The log density; its gradient is computed with its value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: NumPyroTarget) -> Tensor:
        value, gradient = target.value_gradient(x)
        ctx.save_for_backward(x, gradient)
        ctx.target = target
        return value

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        x, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants second derivatives
            gradient = _Gradient.apply(x, ctx.target)
        return outputs[0][:, None] * gradient, None


class _Gradient(torch.autograd.Function):
    """The gradient, differentiable once by the exact Hessian."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: NumPyroTarget) -> Tensor:
        ctx.save_for_backward(x)
        ctx.target = target
        return target.value_gradient(x)[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.einsum("nij,nj->ni", ctx.target.hessian(x), outputs[0]), None
