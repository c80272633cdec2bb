"""Fit a log-concave density, whose normaliser is known with an error, and find its mode and a density ratio."""

import numpy as np
from scipy.stats import gumbel_r

from ot_lift import LogConcaveDensity

rng = np.random.default_rng(0)
X = rng.gumbel(size=(4000, 2)) * [1.0, 20.0]  # two skewed columns of unlike size
fresh = rng.gumbel(size=(4000, 2)) * [1.0, 20.0]
truth = gumbel_r.logpdf(fresh / [1.0, 20.0]).sum(1).mean() - np.log(20.0)

density = LogConcaveDensity(hidden_features=(32, 32), max_steps=200, batch_size=256, random_state=0).fit(X)
score = density.score(fresh)
print(f"mean log-density of fresh points: {score:.3f} nats; in truth {truth:.3f}")
error, method = density.log_normalizer_standard_error_, density.normalizer_.method
print(f"log Z = {density.log_normalizer_:.4f} ± {error:.0e}, by {method}")

drawn = density.sample(4000, random_state=0)  # of the density, by Metropolis chains that start near it
print("quantiles:", np.quantile(drawn, [0.1, 0.9], axis=0).round(1).tolist())
print("of fresh :", np.quantile(fresh, [0.1, 0.9], axis=0).round(1).tolist())

mode = X[np.argmin(density.energy(X))]  # E is convex: it has one mode, in truth at 0
ratio = np.exp(-np.diff(density.energy([[0.0, 0.0], [2.0, 0.0]])))[0]  # energies differ without a normaliser
exact = np.exp(gumbel_r.logpdf(2.0) - gumbel_r.logpdf(0.0))
print(f"mode near {mode.round(1)}; p(2, 0)/p(0, 0) = {ratio:.3f}, in truth {exact:.3f}")
