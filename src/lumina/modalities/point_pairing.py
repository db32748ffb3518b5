"""Which noise goes to which point of a cloud, in training."""

import numpy as np
from jaxtyping import Float

from lumina.errors import refuse_missing_library


def pair_noise(
    noise: Float[np.ndarray, "n 3"], points: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 3"]:
    """The same noise in the order that brings it nearest to the points of a cloud.

    A cloud has no order, so that any is as good. In this one, paths from noise to data are short
    and do not cross: they are easier to learn, and need fewer steps to follow.

    Args:
        noise: Independent of the points.
        points: As the network sees them (`encode_points`), not in [-0.5, 0.5].

    Raises:
        LuminaError: If the package that solves it is not installed.

    Source:
        Equivariant flow matching, arXiv:2306.15030.
    """
    refuse_missing_library("scipy", extra="points")
    from scipy.optimize import linear_sum_assignment

    costs = np.square(points[:, None] - noise[None]).sum(-1)
    _, order = linear_sum_assignment(costs)
    return noise[order]
