"""Code written for POT's `ot.da` runs with a BrenierMap: fit(Xs=…, Xt=…), transform(Xs=…), inverse_transform(Xt=…)."""

import numpy as np
import ot

from ot_lift import BrenierMap
from ot_lift.diagnostics import energy_distance

rng = np.random.default_rng(0)


def moons(rows: int) -> np.ndarray:
    """Two half circles that hook into each other."""
    angle, side = rng.uniform(0, np.pi, rows), rng.choice([-1.0, 1.0], rows)
    points = np.stack([side * np.cos(angle) + 0.5 * (side < 0), side * np.sin(angle) - 0.3 * (side > 0)], axis=1)
    return points + 0.1 * rng.normal(size=(rows, 2))


Xs, Xt = 0.5 * rng.normal(size=(1000, 2)), moons(1000)
new_source, new_target = 0.5 * rng.normal(size=(1000, 2)), moons(1000)

errors = {}
for model in (
    ot.da.LinearTransport(),
    ot.da.EMDTransport(),
    BrenierMap(hidden_features=(32, 32), max_steps=300, batch_size=256, random_state=0),
):
    model.fit(Xs=Xs, Xt=Xt)
    moved = model.transform(Xs=new_source)  # points that no fit has seen
    back = model.inverse_transform(Xt=moved)
    name = type(model).__name__
    errors[name] = energy_distance(moved, new_target)
    print(f"{name:16s} energy distance {errors[name]:.4f}, round trip {np.abs(back - new_source).max():.1e}")
