"""A NumPyro model's posterior as a transport map: draws at will, a latent space, and whether to believe them."""

import numpy as np
import numpyro
import numpyro.distributions as dist

from ot_lift import PosteriorMap
from ot_lift.numpyro import from_numpyro

failures = np.array([3.0, 0.0, 5.0, 1.0, 2.0])  # of five machines
hours = np.array([94.0, 16.0, 63.0, 126.0, 5.0])


def model(failures, hours):
    """Failure rates with Gamma priors: the posterior is known, Gamma(2 + failures, 10 + hours)."""
    with numpyro.plate("machines", len(failures)):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 10.0))
        numpyro.sample("failures", dist.Poisson(rate * hours), obs=failures)


target = from_numpyro(model, failures, hours)
posterior = PosteriorMap(max_steps=200, hidden_features=(16, 16), random_state=0).fit(target)

print(posterior.diagnose())
print(f"log evidence: {posterior.evidence_.log_evidence:.3f} ± {posterior.evidence_.log_evidence_standard_error:.3f}")

rates = target.constrain(posterior.sample(20_000, random_state=0))["rate"]
mean, deviation = (2 + failures) / (10 + hours), np.sqrt(2 + failures) / (10 + hours)
for machine, row in enumerate(np.stack([mean, rates.mean(0), deviation, rates.std(0)], 1)):
    print("machine {}: mean {:.4f} in truth, {:.4f} by the map; deviation {:.4f} and {:.4f}".format(machine, *row))

middle = target.constrain(posterior.invert(np.zeros((1, 5))))["rate"]  # the centre of the latent space
print(f"rates at the latent origin: {np.array2string(middle[0], precision=4)}")
verdict = posterior.diagnosis_.verdict
error = max(np.abs((rates.mean(0) - mean) / deviation).max(), np.abs(rates.std(0) / deviation - 1).max())
