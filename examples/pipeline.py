"""A map is a scikit-learn transformer: in a pipeline, and compared by cross-validation on sides of any sizes."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from ot_lift import BrenierMap
from ot_lift.splits import paired_splits

rng = np.random.default_rng(0)
mixing = rng.normal(size=(2, 5))
X = rng.normal(size=(1500, 2)) @ mixing + 0.01 * rng.normal(size=(1500, 5))  # five columns, about two dimensions
Y = rng.exponential(size=(1200, 2))

settings = {"hidden_features": (16, 16), "max_steps": 200, "batch_size": 256, "random_state": 0}
pipeline = make_pipeline(PCA(2, whiten=True), BrenierMap(**settings)).fit(X, Y)
moved = pipeline.transform(X)
back = pipeline.inverse_transform(moved)
print("means:", moved.mean(0).round(2), "of", Y.mean(0).round(2), "| back within", np.abs(back - X).max().round(2))

# The score is the held-out dual value, a lower bound of W2²: greater is better.
Z = PCA(2, whiten=True).fit_transform(X)
scores = {}
for steps in (10, 200):
    model = BrenierMap(**settings | {"max_steps": steps})
    splits = paired_splits(len(Z), len(Y), folds=2, random_state=0)
    scores[steps] = np.mean([model.fit(Z[a], Y[b]).score(Z[c], Y[d]) for (a, b), (c, d) in splits])
    print(f"{steps} steps: score {scores[steps]:.3f}")
