"""When requests are meant to be sent: seeded arrival times that never depend on how fast replies come.

``times`` fills a stretch of time whose rate may change; the rate is given as segments of constant rate. A process of
rate 1 is drawn (Poisson) or laid out evenly (constant), and its time is stretched by the inverse of the cumulative
rate. This is the exact way to make a Poisson process with a changing rate (Çinlar, Introduction to Stochastic
Processes, ch. 4). ``replay`` follows a trace. ``poisson``, ``gamma`` and ``bursts`` draw a number of arrivals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LAWS = ("poisson", "constant")
# How many times as fast ``bursts`` is in a burst as between two.
_FASTER = 5


@dataclass(frozen=True)
class Segment:
    """A stretch of time with one rate, in requests a second."""

    seconds: float
    rate: float


def times(law: str, segments: Sequence[Segment], seed: int) -> NDArray[np.float64]:
    """Ascending arrival times float64[n], in seconds from the start, of a law out of LAWS. Raises ValueError."""
    for segment in segments:
        if not (segment.seconds > 0 and math.isfinite(segment.seconds)):
            raise ValueError(f"a segment of {segment.seconds!r} seconds: it must be more than 0")
        if not (segment.rate >= 0 and math.isfinite(segment.rate)):
            raise ValueError(f"a rate of {segment.rate!r} requests a second: it must be 0 or more")
    ends = np.cumsum([0.0, *(segment.seconds for segment in segments)])
    counted = np.cumsum([0.0, *(segment.seconds * segment.rate for segment in segments)])
    total = float(counted[-1])
    if law == "poisson":
        unit = _unit_poisson(total, seed)
    elif law == "constant":
        unit = np.arange(0.5, total, 1.0)
    else:
        raise ValueError(f"arrivals {law!r} are unknown; there are {', '.join(LAWS)}")
    # Segments without arrivals would make the inverse ambiguous: nothing can fall into them.
    rising = np.flatnonzero(np.diff(counted) > 0)
    at = np.searchsorted(counted[rising + 1], unit, side="right")
    segment_of = rising[np.minimum(at, len(rising) - 1)] if len(rising) else at
    rates = np.array([segment.rate for segment in segments])
    return ends[segment_of] + (unit - counted[segment_of]) / rates[segment_of] if len(unit) else unit


def _unit_poisson(total: float, seed: int) -> NDArray[np.float64]:
    """A Poisson process of rate 1 on [0, total)."""
    random = np.random.default_rng(seed)
    drawn = [np.zeros(0)]
    reached = 0.0
    while reached < total:
        # One draw is nearly always enough; another only continues it.
        more = reached + np.cumsum(random.exponential(size=max(16, int(1.1 * (total - reached) + 4 * total**0.5))))
        drawn.append(more)
        reached = float(more[-1])
    unit = np.concatenate(drawn)
    return unit[unit < total]


def diurnal(mean: float, swing: float, period_s: float, seconds: float) -> list[Segment]:
    """A day squeezed into ``period_s``: rate ``mean · (1 − swing · cos(2πt / period_s))``, held for a second each.

    It starts at night, with the lowest rate. ``swing`` from 0 to 1. Raises ValueError.
    """
    if not 0 <= swing <= 1:
        raise ValueError(f"a swing of {swing!r}: it must be from 0 to 1")
    widths = [min(1.0, seconds - at) for at in range(math.ceil(seconds))]
    middles = (at + width / 2 for at, width in enumerate(widths))
    rates = (mean * (1 - swing * math.cos(2 * math.pi * middle / period_s)) for middle in middles)
    return [Segment(width, rate) for width, rate in zip(widths, rates, strict=True)]


def replay(counts: Sequence[int], seed: int) -> NDArray[np.float64]:
    """Arrivals of a trace, ascending, float64[sum(counts)]: exactly ``counts[i]`` within second i, at random times.

    Given their number, the arrivals of a Poisson process within a second are independent and uniform.
    """
    seconds = np.repeat(np.arange(len(counts), dtype=np.float64), counts)
    return np.sort(seconds + np.random.default_rng(seed).random(len(seconds)))


def share(planned: NDArray[np.float64], index: int, of: int) -> NDArray[np.float64]:
    """The arrivals of worker ``index`` of ``of`` workers: every of-th. All shares together are ``planned``."""
    return planned[index::of]


def poisson(rate: float, count: int, seed: int) -> NDArray[np.float64]:
    """``count`` arrivals of a Poisson process of ``rate`` requests a second: seconds float64[count], ascending."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


def gamma(rate: float, count: int, seed: int) -> NDArray[np.float64]:
    """``count`` arrivals at ``rate`` a second on average, in clumps of some ten and then silence: float64[count].

    Gaps have a gamma distribution with a coefficient of variation of 4.
    """
    return np.cumsum(np.random.default_rng(seed).gamma(1 / 16, 16 / rate, count))


def bursts(rate: float, count: int, burst_s: float, seed: int) -> NDArray[np.float64]:
    """``count`` arrivals at ``rate`` a second on average, for a fifth of the time in bursts: float64[count].

    A Markov-modulated Poisson process of two states. A burst is five times as fast as the rest. It lasts ``burst_s``
    seconds on average, and the rest between two bursts four times as long.
    """
    random = np.random.default_rng(seed)
    slow = rate / (0.8 + 0.2 * _FASTER)
    gaps = random.exponential(1, count)
    lengths = random.exponential(1, 4 * count)
    # Unit gaps are stretched by the state's rate; a gap that spans a change of state is cut there.
    at, now, fast, switch = np.empty(count), 0.0, False, 4 * burst_s * lengths[0]
    changes = 1
    for index, gap in enumerate(gaps.tolist()):
        left = gap
        while now + left / (slow * (_FASTER if fast else 1)) > switch:
            left -= (switch - now) * slow * (_FASTER if fast else 1)
            now, fast = switch, not fast
            switch += (1 if fast else 4) * burst_s * lengths[changes]
            changes += 1
        now += left / (slow * (_FASTER if fast else 1))
        at[index] = now
    return at
