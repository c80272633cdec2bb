"""A fitted map as a folder of plain files: saved, checked, loaded without the training data."""

import tempfile
from pathlib import Path

import numpy as np

from ot_lift import BrenierMap

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(2000, 3)), rng.exponential(size=(2500, 3))
fitted = BrenierMap(hidden_features=(16, 16), batch_size=256, max_steps=100, random_state=0).fit(X, Y)

with tempfile.TemporaryDirectory() as place:
    folder = Path(place, "map")
    fitted.save(folder)
    print({file.name: file.stat().st_size for file in sorted(folder.iterdir())})
    loaded = BrenierMap.load(folder)  # verifies the SHA-256 of every file; nothing is unpickled

same = np.array_equal(loaded.transport(X), fitted.transport(X))
print("the same transport, bit for bit:", same)
print(loaded.certificate_)
