"""A server's capacity: the highest rate that it holds within its SLO, found by bisecting, with stated confidence.

A rate passes when the trial shows, with the asked confidence, that the asked share of requests is answered rightly
within the SLO. The rule is that of MLPerf's LoadGen (inference_policies, "Early Stopping Criterion"): each request
meets the SLO or misses it, misses are taken as independent, and if at least a share 1 − q of all requests missed it,
then seeing no more than h misses among n would have had a chance of

    P[Binomial(n, 1 − q) ≤ h]  =  Σ_{k≤h} C(n, k) (1 − q)^k q^(n−k)

The smallest n for which this is at most 1 − confidence is enough: for q = 0.99 and 99 % confidence that is 459
requests without a miss, 662 with one, 838 with two. The length of a trial is fixed before it starts and it is judged
once, at its end; it is broken off only where its misses already exceed all that it could be allowed, which no further
request can mend. So looking often does not raise the chance of a false pass. Late requests come in bursts, which
independence does not know: therefore the rate found is tried once more, for longer and with other arrivals; and so is
the miss that bounds the search from above, for a moment in which something else took the machine misses at any rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.samples import Summary

STEP_DOWN = 0.97
MAX_CONFIRMATIONS = 6
MAX_REOPENED = 3
MIN_RATE = 0.1


class CapacityError(Exception):
    """No rate could be found; the message says how far the search came."""


@dataclass(frozen=True)
class Rule:
    """What a rate must show: a share ``quantile`` of requests within ``slo_ms``, at ``confidence``."""

    slo_ms: float
    quantile: float = 0.99
    confidence: float = 0.99

    def __post_init__(self) -> None:
        for name in ("quantile", "confidence"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"{name} {value!r}: it must be between 0 and 1")
        if not self.slo_ms > 0:
            raise ValueError(f"an SLO of {self.slo_ms!r} ms: it must be more than 0")

    def chance(self, queries: int, misses: int) -> float:
        """The chance of at most ``misses`` in ``queries`` requests, if a share 1 − quantile of all requests missed."""
        p, q = math.log1p(-self.quantile), math.log(self.quantile)
        log_n = math.lgamma(queries + 1)
        return math.fsum(
            math.exp(log_n - math.lgamma(k + 1) - math.lgamma(queries - k + 1) + k * p + (queries - k) * q)
            for k in range(misses + 1)
        )

    def needed(self, misses: int) -> int:
        """The fewest requests that are enough to pass with ``misses`` misses."""
        low, high = misses, misses + 1
        while self.chance(high, misses) > 1 - self.confidence:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.chance(middle, misses) > 1 - self.confidence else (low, middle)
        return high

    def allowed(self, queries: int) -> int:
        """The most misses with which ``queries`` requests pass; -1 where they are too few even without a miss."""
        allowed = -1
        while allowed + 1 <= queries and self.chance(queries, allowed + 1) <= 1 - self.confidence:
            allowed += 1
        return allowed


@dataclass(frozen=True)
class Trial:
    """One rate that was tried. ``generator``: why the generator may have been the bottleneck; "" where it was not.

    ``examples``: the first of what failed, in words.
    """

    rate: float
    summary: Summary
    allowed: int
    generator: str = ""
    cpu_shares: tuple[float, ...] = ()
    examples: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the rate holds."""
        return self.summary.misses <= self.allowed and self.summary.failed == 0

    def body(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rate": round(self.rate, 2),
            "passed": self.passed,
            "allowed_misses": self.allowed,
            "generator": self.generator,
            "cpu_shares": [round(share, 3) for share in self.cpu_shares],
            **self.summary.body(),
        }


@dataclass
class Capacity:
    """The search's result: ``rate`` holds, ``best`` is the trial that shows it, ``trials`` are all in their order."""

    rate: float
    best: Trial
    trials: list[Trial] = field(default_factory=list)

    @property
    def warning(self) -> str:
        """Why the true capacity may be higher; "" where there is no reason."""
        limiting = [trial for trial in self.trials if trial.generator and trial.rate <= 1.5 * self.rate]
        return limiting[0].generator if limiting else ""


def find(trial: Callable[[float, float], Trial], start: float, resolution: float) -> Capacity:
    """The highest rate that passes: ``trial(rate, scale)`` tries one, ``scale`` times as long as usual.

    Doubles ``start`` until a rate misses, or halves it until one passes; bisects geometrically until both are within
    ``resolution`` of each other. If what missed passes when it is tried again, the search goes on upwards from there.
    Then confirms what passed in a trial of twice the length, going down where it misses. Raises CapacityError.
    """
    trials: list[Trial] = []

    def passes(rate: float, scale: float = 1.0) -> bool:
        trials.append(trial(rate, scale))
        return trials[-1].passed

    def bounds_above(low: float) -> tuple[float, float]:
        while passes(high := 2 * low):
            low = high
        return low, high

    if passes(start):
        low, high = bounds_above(start)
    else:
        high = start
        while not passes(low := high / 2):
            high = low
            if low < MIN_RATE:
                raise CapacityError(f"not even {low:.2f} requests a second are answered within the SLO")
    for reopened in range(MAX_REOPENED + 1):
        while high > low * (1 + resolution):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if passes(middle) else (low, middle)
        if reopened == MAX_REOPENED or not passes(high):
            break
        low, high = bounds_above(high)
    for _ in range(MAX_CONFIRMATIONS):
        if passes(low, 2.0):
            return Capacity(low, trials[-1], trials)
        low *= STEP_DOWN
    tried = f"from {low / STEP_DOWN**MAX_CONFIRMATIONS:.1f} requests a second down to {low / STEP_DOWN:.1f}"
    raise CapacityError(f"{tried} no rate held a second time: the server's speed is not steady")
