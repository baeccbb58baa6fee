"""The baselines of a plan: fixed fleets and perfect foresight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autoscaling.fleet import MAX_PODS, Fleet, FleetError, Load, fixed, simulate

if TYPE_CHECKING:
    from numpy.typing import NDArray


def smallest_fixed(load: Load, fleet: Fleet, begin: int, end: int, late: float) -> int:
    """The smallest fixed fleet that is late for at most ``late`` of the images from ``begin`` to ``end``."""
    low, high = 0, highest_second(load, fleet, begin, end)
    while high - low > 1:
        middle = (low + high) // 2
        if simulate(load, fixed(middle), fleet, begin, end, share=late).late_share <= late:
            high = middle
        else:
            low = middle
    return high


def highest_second(load: Load, fleet: Fleet, begin: int, end: int) -> int:
    """The pods that answer the fullest second counted from ``begin`` to ``end`` without a queue; 1 at least.

    Raises FleetError for more than MAX_PODS.
    """
    most = _pods(_counted(load, load.offered, begin, end), fleet)
    if most > MAX_PODS:
        raise FleetError(
            f"the highest second has the images of {most:.4g} pods that answer {fleet.rate:g} a second; "
            f"at most {MAX_PODS:,} can be simulated"
        )
    return most


def five_minute_peak(load: Load, fleet: Fleet, begin: int, end: int) -> int:
    """The pods that answer the highest mean of 5 minutes that ends in a second counted; 1 at least."""
    at = np.arange(begin, end)
    since = np.maximum(at + 1 - 300, 0)
    means = (load.cumulated[at + 1] - load.cumulated[since]) / (at + 1 - since)
    return _pods(means[load.counted[begin:end] & (at - since >= min(299, end - begin - 1))], fleet)


def foresight(load: Load, fleet: Fleet, begin: int, end: int) -> float:
    """Pod-seconds of perfect foresight: in each second the fewest pods for the highest of the next ``start_s``."""
    reach = fleet.start_s + 1
    ahead = load.offered[begin : min(end + reach - 1, len(load))]
    needed = np.ceil(np.append(ahead, np.zeros(end - begin + reach - 1 - len(ahead))) / fleet.rate)
    return float(_sliding_maximum(needed, reach)[load.counted[begin:end]].sum())


def _sliding_maximum(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """The maximum of each ``width`` values in a row: float64[n - width + 1], in log2(width) passes."""
    reached, have = values, 1
    while have * 2 <= width:
        reached = np.maximum(reached[:-have], reached[have:])
        have *= 2
    return np.maximum(reached[: len(values) - width + 1], reached[width - have :])


def _counted(load: Load, values: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
    return values[begin:end][load.counted[begin:end]]


def _pods(rates: NDArray[np.float64], fleet: Fleet) -> int:
    return max(1, int(np.ceil(float(rates.max()) / fleet.rate))) if len(rates) else 1
