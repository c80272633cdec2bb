"""The trained flow or the Gaussian conditional it started at: the choice that pairs which neither has seen make."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ot_lift.amortized_map import ConditionalFlow, ConditionalMap
from ot_lift.amortized_start import Regression
from ot_lift.estimators_density import preferred
from ot_lift.likelihood import block_rows, log_density
from ot_lift.maps import in_blocks


@dataclass(frozen=True)
class Choice:
    """What was chosen and how well it does on the pairs.

    Attributes:
        map_: from parameters and context to the latent.
        used_network: whether it is the trained one.
        log_likelihood: mean log p(θ|y), nats, in the units of θ.
        standard_error: of that mean.
        gaussian_log_likelihood: the mean under the Gaussian conditional.
    """

    map_: ConditionalMap
    used_network: bool
    log_likelihood: float
    standard_error: float
    gaussian_log_likelihood: float


def choose(trained: ConditionalFlow, units: Regression, rows: Tensor) -> Choice:
    """Take the trained flow if its gain in log-density is significant, else the Gaussian conditional.

    Args:
        trained: a flow in standardised coordinates.
        units: these coordinates.
        rows: standardised pairs ``(n, d + k)`` with n ≥ 2, float64, used neither to train nor to stop.

    Example:
        >>> import torch
        >>> units = Regression.of_joint_moments(torch.zeros(2), torch.eye(2), parameters=1)
        >>> rows = torch.zeros(9, 2).double()
        >>> found = choose(ConditionalFlow(None, 1), units, rows)
        >>> found.used_network, round(found.log_likelihood, 6)  # −½ log 2π
        (False, -0.918939)
    """
    start = ConditionalFlow(None, units.parameters)

    def log_likelihood(flow: ConditionalFlow) -> Tensor:
        values = in_blocks(lambda block: log_density(*flow(block)), rows, block_rows(units.parameters))
        return values + units.log_volume

    before, after = log_likelihood(start), log_likelihood(trained.double())
    used, mean, error = preferred(before, after)
    return Choice(ConditionalMap(trained if used else start, units), used, mean, error, float(before.mean()))
