"""A device, simulated event by event with a batching policy, and the best schedule that there could be."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# How long a batch takes varies by this factor's logarithm, normally distributed with mean 0: about 5 %.
NOISE = 0.05
# The first part of a run is learning, and not counted; for every policy alike.
LEARNING = 0.1


@dataclass(frozen=True)
class Backend:
    """A device on which b images take alpha·b + beta seconds; ``source`` says where the figures come from."""

    name: str
    alpha: float
    beta: float
    max_batch: int
    source: str

    def seconds(self, images: int) -> float:
        """The mean seconds of a batch."""
        return self.alpha * images + self.beta

    def best_batch(self, slo: float, devices: int = 1) -> int:
        """The largest batch that can be sustained: (1 + 1/devices)·ℓ(b) ≤ SLO (Symphony's staggered bound)."""
        fits = (slo / (1 + 1 / devices) - self.beta) / self.alpha
        return max(1, min(self.max_batch, int(fits + 1e-9)))

    def capacity(self, slo: float, devices: int = 1) -> float:
        """Images a second of all devices in batches of ``best_batch``: the load 1.0 of the tables."""
        batch = self.best_batch(slo, devices)
        return devices * batch / self.seconds(batch)


class Policy(Protocol):
    """A batching policy, fed by the simulation. A request is known by its arrival time; all have the same SLO."""

    def arrive(self, arrival: float) -> None:
        """Queue or refuse a request that comes now."""

    def next(self, now: float) -> tuple[Sequence[float] | None, float]:
        """The batch that an idle device runs now; or None, and the time to ask again unless something happens."""

    def done(self, batch: Sequence[float], seconds: float, now: float) -> None:
        """A device has finished what ``next`` gave it. Called before it is offered to ``next`` again."""


@dataclass(frozen=True)
class Result:
    """A run's figures, of the requests after LEARNING. Latencies in seconds are of all answers, also of late ones."""

    goodput: float
    p50: float
    p99: float
    late: float
    refused: float
    mean_batch: float


def simulate(
    policy: Policy, arrivals: NDArray[np.float64], backend: Backend, slo: float, *, devices: int = 1, seed: int = 0
) -> Result:
    """Drive ``policy`` through ``arrivals``."""
    noise = np.exp(np.random.default_rng(seed).normal(0, NOISE, len(arrivals) + 1)).tolist()
    times: list[float] = [*arrivals.tolist(), math.inf]
    starts: list[float] = []
    finishes: list[float] = []
    running: list[tuple[float, int, float, Sequence[float]]] = []
    came, batches, idle, wake = 0, 0, devices, math.inf
    while True:
        arrival, finish = times[came], running[0][0] if running else math.inf
        if finish <= arrival and finish <= wake:
            if finish == math.inf:
                break
            now, _, seconds, finished = heapq.heappop(running)
            idle += 1
            policy.done(finished, seconds, now)
        elif arrival <= wake:
            now = arrival
            came += 1
            policy.arrive(now)
        else:
            now = wake
        wake = math.inf
        while idle:
            batch, wake = policy.next(now)
            if batch is None:
                break
            seconds = backend.seconds(len(batch)) * noise[batches]
            batches += 1
            idle -= 1
            heapq.heappush(running, (now + seconds, batches, seconds, batch))
            starts += batch
            finishes += [now + seconds] * len(batch)
        else:
            wake = math.inf
    return _result(arrivals, np.array(starts), np.array(finishes), slo, batches)


def _result(
    arrivals: NDArray[np.float64], asked: NDArray[np.float64], answered: NDArray[np.float64], slo: float, batches: int
) -> Result:
    first = arrivals[int(LEARNING * len(arrivals))]
    counted = asked >= first
    latencies = (answered - asked)[counted]
    count = int(np.count_nonzero(arrivals >= first))
    good = int(np.count_nonzero(latencies <= slo))
    p50, p99 = np.quantile(latencies, [0.5, 0.99]) if len(latencies) else (math.nan, math.nan)
    return Result(
        goodput=good / float(arrivals[-1] - first),
        p50=float(p50),
        p99=float(p99),
        late=(len(latencies) - good) / count,
        refused=1 - len(latencies) / count,
        mean_batch=len(asked) / max(1, batches),
    )


def optimum(arrivals: NDArray[np.float64], backend: Backend, slo: float, *, learning: float = LEARNING) -> int:
    """How many requests after ``learning`` one device can serve in time, where it knows all arrivals in advance.

    Its batches take exactly ℓ(b).

    With equal SLOs and ℓ increasing, some best schedule runs batches in arrival order, each of consecutive requests:
    exchanging two requests of two batches into arrival order keeps both in time, and a request that is left out amid a
    batch may take the place of the batch's oldest, whose deadline is earlier. So it is enough to know, of the first i
    requests, the earliest time E[i][s] at which the device can be done with all but s of them:

        E[i][s] = min(E[i-1][s-1], min over b of max(E[i-b][s], a_i) + ℓ(b) where that is ≤ a_{i-b+1} + SLO)

    Of the states that are done when the next request comes, only the one with the fewest left out can matter, and of
    all states at most those between it and the fewest possible: the window of s that is kept.
    """
    arrivals = arrivals[int(learning * len(arrivals)) :]
    count = len(arrivals)
    largest = max(1, min(backend.max_batch, int((slo - backend.beta) / backend.alpha + 1e-9)))
    times, cost = arrivals.tolist(), backend.alpha * np.arange(largest, 0, -1)[:, None] + backend.beta
    deadlines = (arrivals + slo)[:, None]
    # Row i % rows holds E[i], by s. Each is stored twice, so that any run of rows is one slice.
    rows = largest + 1
    table = np.full((2 * rows, count + 2), np.inf)
    table[0, 0] = table[rows, 0] = -np.inf
    windows = [slice(0, 0)] * rows
    low, high, first = 0, 1, 0
    for index, now in enumerate(times):
        # Requests first … index are those that could be one batch, if it started now.
        while first <= index and (
            index - first >= largest or now + backend.seconds(index - first + 1) > times[first] + slo
        ):
            first += 1
        size = index + 1 - first
        # Left out is one more than before; or the last b requests are a batch.
        states = np.append(np.inf, table[index % rows, low:high])
        if size:
            begin = (index - size + 1) % rows
            done = np.maximum(table[begin : begin + size, low:high], now)
            done += cost[-size:]
            done[done > deadlines[first : index + 1]] = np.inf
            np.minimum(states[:-1], done.min(axis=0), out=states[:-1])
        fewest = int(np.argmax(states < np.inf))
        idle = states <= (times[index + 1] if index + 1 < count else np.inf)
        most = int(np.argmax(idle)) if idle.any() else len(states) - 1
        low, high = low + fewest, low + most + 1
        row = (index + 1) % rows
        for copy in (table[row], table[row + rows]):
            copy[windows[row]] = np.inf
            copy[low:high] = states[fewest : most + 1]
        windows[row] = slice(low, high)
    return count - low
