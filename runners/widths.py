"""The width of a batch: how many executors' cores one image runs on.

An example: two cores, one image takes 7 ms on one core and 5 ms on both. A client that sends one image after the other
is served fastest with width 2. Two of these clients are served fastest side by side, with width 1. In between, the
arrivals decide. Each width has a *shadow*: a fleet of equal servers, as many as the executors hold of that width, which
answers the same arrivals first come, first served. The width of the shadow with the lowest mean latency is preferred.

The batcher asks only where cores idle, so a wide batch never takes a core from an image that waits. Packrat (Bhosale et
al., ICML 2025) chooses instances, threads and batch for hours; this chooses for each batch.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runners.cost_model import CostModel

# A wide image's seconds are the median of the last RECENT.
RECENT = 9
# The mean latency of a shadow forgets an arrival after about so many others.
MEMORY = 32
# Every so many lone images, the narrowest width that is wider than the preferred one is tried again. Otherwise a width
# that was slow once, for another process's sake, would never be seen to be fast.
RETRY_EVERY = 64


class _Shadow:
    """``servers`` that answer the real arrivals, first come, first served; ``latency``: the mean seconds of late."""

    def __init__(self, servers: int, patience: float) -> None:
        self._free_at, self._patience = [-math.inf] * servers, patience
        self.latency = 0.0

    def arrive(self, seconds: float, now: float) -> None:
        """Note an image that takes ``seconds``. One that would have to wait longer than the patience is not queued."""
        wait = max(0.0, self._free_at[0] - now)
        if wait > self._patience:
            wait = self._patience
        else:
            heapq.heapreplace(self._free_at, now + wait + seconds)
        self.latency += (wait + seconds - self.latency) / MEMORY


class Widths:
    """The widths that a backend offers, how fast an image is at each, and which of them suits the arrivals.

    ``cost``: the cost model of width 1. ``wide``: the seconds of a lone image at each other width, from the warm-up.
    ``executors``: how many there are. ``patience``: seconds that an image would wait at most.
    """

    def __init__(self, cost: CostModel, wide: Mapping[int, float], executors: int, patience: float) -> None:
        self._cost = cost
        offered = {width: seconds for width, seconds in sorted(wide.items()) if 1 < width <= executors}
        self._recent = {width: deque([seconds] * RECENT, maxlen=RECENT) for width, seconds in offered.items()}
        self._seconds = dict(offered)
        self._shadows = {width: _Shadow(executors // width, patience) for width in (1, *offered)}
        self._since_retry = 0

    def expected(self, width: int) -> float:
        """The seconds of one image at ``width``."""
        return self._cost.expected(1) if width == 1 else self._seconds[width]

    def upper(self, width: int) -> float:
        """The seconds that one image at ``width`` stays below with the probability of the cost model."""
        return self._cost.spread * self.expected(width)

    def soonest(self, cores: int) -> float:
        """``upper`` of the fastest width of at most ``cores``."""
        return min(self.upper(width) for width in self._shadows if width <= max(1, cores))

    def arrive(self, images: int, now: float) -> None:
        """Note that ``images`` were admitted at ``now``."""
        if self._seconds:
            for width, shadow in self._shadows.items():
                for _ in range(images):
                    shadow.arrive(self.expected(width), now)

    def choose(self, cores: int, left: float) -> int:
        """The width for an image while ``cores`` idle, its own among them, and ``left`` seconds remain for it."""
        if cores < 2 or not self._seconds:
            return 1
        best = preferred = self.preferred()
        self._since_retry += 1
        if self._since_retry >= RETRY_EVERY:
            wider = [width for width in self._seconds if width > preferred]
            best = wider[0] if wider else best
            self._since_retry = 0
        allowed = [width for width in self._shadows if width <= cores]
        width = max(width for width in allowed if width <= best)
        if left < self.upper(width):
            width = min(allowed, key=self.upper)
        return width

    def preferred(self) -> int:
        """The width whose shadow has the lowest mean latency; of nearly equal ones, the one that costs fewer cores."""
        best = 1
        for width, shadow in self._shadows.items():
            if shadow.latency < 0.995 * self._shadows[best].latency:
                best = width
        return best

    def observe(self, width: int, seconds: float) -> None:
        """Learn the seconds of an image that ran at ``width`` > 1."""
        self._recent[width].append(seconds)
        self._seconds[width] = median(self._recent[width])

    def describe(self) -> dict[str, float]:
        """The milliseconds of one image, by width."""
        return {str(width): round(1e3 * self.expected(width), 2) for width in self._shadows}
