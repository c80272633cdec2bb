"""In one dimension the optimal map is quantile to quantile: learn it from two samples, one Gaussian, one skewed."""

import numpy as np
from scipy import stats

from ot_lift import BrenierMap

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(4000, 1)), rng.gamma(2.0, size=(4000, 1))

fitted = BrenierMap(hidden_features=(16, 16), batch_size=512, max_steps=300, random_state=0).fit(X, Y)

probability = np.array([[0.05], [0.25], [0.5], [0.75], [0.95]])
x = stats.norm.ppf(probability)
truth = stats.gamma(2.0).ppf(probability)
answer = fitted.transport(x)
linear = Y.mean() + Y.std() * x  # the best that a Gaussian fit can do
for row in np.hstack([probability, truth, answer, linear]):
    print("quantile {:4.0%}: {:.3f} in truth, {:.3f} by the map, {:.3f} by the linear map".format(*row))
error, baseline = (np.abs(values - truth).max() for values in (answer, linear))
