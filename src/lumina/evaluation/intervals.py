"""How sure a measured number is."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

Z = 1.959963984540054  # of a 95 % interval of the normal distribution


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a share.

    Args:
        right: Samples that had the property.
        count: All samples, 1 or more.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    share = right / count
    middle = share + Z**2 / (2 * count)
    reach = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    scale = 1 + Z**2 / count
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def interval_of_mean(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a mean, for two values or more, better for dozens."""
    middle, reach = fmean(values), Z * stdev(values) / math.sqrt(len(values))
    return middle - reach, middle + reach
