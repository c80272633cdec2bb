"""Fit a density to points, check it against the truth, draw from it, and score new points with it."""

import numpy as np
from scipy.stats import multivariate_normal, norm

from ot_lift import ConvexPotentialFlow

rng = np.random.default_rng(0)


def draw(count: int) -> np.ndarray:
    """A skewed, curved density: a gamma variable, and about the square of it."""
    first = rng.gamma(2.0, size=count)
    return np.column_stack([first, first**2 + 0.5 * rng.normal(size=count)])


X, fresh = draw(4000), draw(2000)
first, second = fresh.T
truth = np.mean(np.log(first) - first + norm.logpdf(second, first**2, 0.5))  # of Gamma(2, 1) and N(x₁², ½²)
gaussian = multivariate_normal(X.mean(0), np.cov(X.T)).logpdf(fresh).mean()

flow = ConvexPotentialFlow(hidden_features=(32, 32), max_steps=300, batch_size=256, random_state=0).fit(X)
score = flow.score(fresh)
print(f"mean log-density of fresh points: {score:.3f} nats; in truth {truth:.3f}; of a Gaussian {gaussian:.3f}")

drawn = flow.sample(2000, random_state=0)  # exact samples: points of N(0, I), solved back to the data
round_trip = np.abs(flow.invert(flow.transport(X)) - X).max()
print(f"means {drawn.mean(0).round(2)} of {fresh.mean(0).round(2)}, round trip {round_trip:.1e}")

odd = np.array([[3.0, 9.0], [3.0, 3.0]])  # on the curve, and off it
print("log-density on and off the curve:", flow.log_prob(odd).round(1))

law = flow.distribution()  # a torch distribution: rsample is differentiable, log_prob takes any batch shape
print("torch:", law.log_prob(law.sample((3, 2))).shape)
