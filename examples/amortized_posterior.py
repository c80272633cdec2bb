"""Fit the posterior of every observation at once from simulations, and hold it against the exact one."""

import numpy as np

from ot_lift import AmortizedPosterior
from ot_lift.calibration import rank_histograms, simulation_ranks

rng = np.random.default_rng(0)
matrix, noise = np.array([[1.0, 0.5], [0.0, 1.0], [0.5, -1.0]]), 0.5


def simulate(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters from the prior N(0, I), and three noisy numbers that depend linearly on them."""
    theta = rng.normal(size=(count, 2))
    return theta, theta @ matrix.T + noise * rng.normal(size=(count, 3))


theta, y = simulate(10_000)
posterior = AmortizedPosterior(max_steps=100, random_state=0).fit(theta, y)

# The exact posterior is Gaussian: of covariance C and mean CHᵀy/σ².
covariance = np.linalg.inv(np.eye(2) + matrix.T @ matrix / noise**2)
fresh_theta, fresh_y = simulate(5000)
away = fresh_theta - fresh_y @ matrix @ covariance / noise**2
squares = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
exact = -0.5 * squares - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
divergence = np.mean(exact - posterior.log_prob(fresh_theta, fresh_y)) / 2
print(f"KL from the exact posterior to the fitted one: {divergence:.5f} nats a dimension")

observed = fresh_y[0]
draws = posterior.sample(observed, 4000, random_state=0)  # (k,) → (4000, 2); (m, k) → (m, 4000, 2)
print("posterior means", draws.mean(0).round(3), "of", (covariance @ matrix.T @ observed / noise**2).round(3))

calibration = rank_histograms(simulation_ranks(posterior, fresh_theta[:500], fresh_y[:500]))
print(f"ranks of the truth are uniform: p = {calibration.p_value:.2f}")
