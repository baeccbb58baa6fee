"""The adaptive batcher: one promise, the SLO; everything else it learns.

A batch of b images costs ℓ(b) = α·b + β seconds (Clockwork, Nexus and Symphony use the same model). From α, β, the
number of devices and the SLO follows how large a batch pays, which request can still be answered in time, and which
must be refused at once. Nothing here knows of threads, clocks or devices: ``now`` is always given, in seconds of a
monotonic clock, so the same code is driven by worker threads, by a simulation, and by tests.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WINDOW = 256
QUANTILE = 0.95
REFIT_EVERY = 8
# The smallest batch within this share of the best throughput that the SLO allows is large enough.
EFFICIENCY = 0.98


class CostModel:
    """ℓ(b) = α·b + β, fitted to the last WINDOW batches; ``upper`` is what QUANTILE of them stay below.

    ``measured``: seconds by batch size, from the warm-up; at least one. Where recent batches are all of nearly one
    size, α and β can't be told apart: then only their common scale follows the measurements.
    """

    def __init__(self, measured: Mapping[int, float]) -> None:
        self._window: deque[tuple[int, float]] = deque(maxlen=WINDOW)
        self.alpha, self.beta = _fit(list(measured.items())) or (max(s / b for b, s in measured.items()), 0.0)
        self.spread = 1.0
        self._unseen = 0

    def expected(self, images: int) -> float:
        """The mean seconds of a batch of ``images``."""
        return self.alpha * images + self.beta

    def upper(self, images: int) -> float:
        """The seconds that a batch of ``images`` stays below with the probability QUANTILE."""
        return self.spread * (self.alpha * images + self.beta)

    def observe(self, images: int, seconds: float) -> bool:
        """Learn from one batch; whether α and β have changed."""
        self._window.append((images, seconds))
        self._unseen += 1
        if self._unseen < min(REFIT_EVERY, len(self._window)):
            return False
        self._unseen = 0
        fitted = _fit(self._window)
        if fitted is not None:
            self.alpha, self.beta = fitted
        else:
            scale = sum(s for _, s in self._window) / sum(self.expected(b) for b, _ in self._window)
            self.alpha, self.beta = self.alpha * scale, self.beta * scale
        ratios = sorted(seconds / self.expected(images) for images, seconds in self._window)
        self.spread = max(1.0, ratios[min(len(ratios) - 1, int(QUANTILE * len(ratios)))])
        return True


def _fit(points: Sequence[tuple[int, float]]) -> tuple[float, float] | None:
    """Least squares of seconds = α·images + β with α > 0 and β ≥ 0, or None where sizes vary too little."""
    count = len(points)
    mean_images = sum(images for images, _ in points) / count
    mean_seconds = sum(seconds for _, seconds in points) / count
    variance = sum((images - mean_images) ** 2 for images, _ in points) / count
    if variance < 0.25 * mean_images:
        return None
    covariance = sum((images - mean_images) * (seconds - mean_seconds) for images, seconds in points) / count
    alpha = covariance / variance
    beta = mean_seconds - alpha * mean_images
    if alpha <= 0:
        return None
    return (alpha, beta) if beta >= 0 else (mean_seconds / mean_images, 0.0)


@dataclass(eq=False, slots=True)
class Job:
    """One image to infer. Times are seconds of the monotonic clock; ``payload`` is the caller's."""

    arrival: float
    deadline: float
    payload: Any = None
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why jobs are not taken: ``reason`` is "queue_full" or "deadline"; ``retry_after`` is in seconds."""

    reason: str
    retry_after: float


@dataclass(eq=False, slots=True)
class Batch:
    """Jobs to run together on ``device``, dispatched at ``start`` and predicted to be done at ``predicted_end``."""

    jobs: list[Job]
    device: int
    start: float
    predicted_end: float


@dataclass
class Counts:
    """What has happened so far, in images; ``batches`` counts batches by size."""

    admitted: int = 0
    refused: dict[str, int] = field(default_factory=lambda: {"queue_full": 0, "deadline": 0})
    expired: int = 0
    cancelled: int = 0
    batches: dict[int, int] = field(default_factory=dict)


class Batcher:
    """One queue, earliest deadline first, for ``devices`` equal devices.

    ``slo``: seconds an image may take from arrival to answer. ``max_batch``: images that fit a device's memory.
    ``max_queue``: images that may wait.
    """

    def __init__(self, cost: CostModel, *, slo: float, max_batch: int, max_queue: int, devices: int = 1) -> None:
        self.cost, self.slo, self.max_batch, self.max_queue = cost, slo, max_batch, max_queue
        self.counts = Counts()
        self._queue: list[Job] = []
        self._free_at = [-math.inf] * devices
        self._idle = set(range(devices))
        self._rate, self._rate_at = 0.0, -math.inf
        self._resize()

    # Admission.

    def admit(self, jobs: list[Job], now: float) -> Refusal | None:
        """Queue ``jobs``, all of one deadline, or say why not."""
        self._note_arrivals(len(jobs), now)
        refusal = self._refusal(jobs, now)
        if refusal is not None:
            self.counts.refused[refusal.reason] += len(jobs)
            return refusal
        self.counts.admitted += len(jobs)
        for job in jobs:
            bisect.insort_right(self._queue, job, key=_deadline)
        return None

    def predict(self, images: int, deadline: float, now: float) -> float:
        """When ``images`` of ``deadline`` would be done if they were queued now, as the cost model's upper bound."""
        ahead = bisect.bisect_right(self._queue, deadline, key=_deadline) + images
        full, last = divmod(ahead - 1, self.batch)
        last += 1
        starts = [max(now, free) for free in self._free_at]
        rounds, rest = divmod(full, len(starts))
        one = self.cost.upper(self.batch)
        starts = [start + rounds * one for start in starts]
        heapq.heapify(starts)
        for _ in range(rest):
            heapq.heapreplace(starts, starts[0] + one)
        start = starts[0]
        # Whoever arrives until the batch starts joins it, and makes it longer.
        joined = min(self.batch, last + int(self._rate_now(now) * (start - now)))
        return start + self.cost.upper(joined)

    def _refusal(self, jobs: list[Job], now: float) -> Refusal | None:
        waiting = len(self._queue)
        if waiting + len(jobs) > self.max_queue:
            return Refusal("queue_full", self.cost.expected(self.batch) * waiting / self.batch / len(self._free_at))
        deadline = jobs[0].deadline
        if deadline <= now:
            return Refusal("deadline", 0.0)
        # An idle device takes what comes: refusing would save nothing, and a wrong model would never learn better.
        if self._idle and not waiting:
            return None
        late = self.predict(len(jobs), deadline, now) - deadline
        return Refusal("deadline", late) if late > 0 else None

    def _note_arrivals(self, images: int, now: float) -> None:
        self._rate = self._rate_now(now) + images / self.slo
        self._rate_at = now

    def _rate_now(self, now: float) -> float:
        """Images that arrive a second, remembered for about one SLO."""
        return self._rate * math.exp((self._rate_at - now) / self.slo) if self._rate else 0.0

    # Dispatch.

    def next(self, now: float) -> tuple[Batch | None, list[Job]]:
        """A batch for an idle device, and the jobs that expired meanwhile; the caller answers both."""
        expired = self._expire(now)
        if not self._queue or not self._idle:
            return None, expired
        room = min(len(self._queue), self.batch)
        slack = self._queue[0].deadline - now
        while room > 1 and self.cost.upper(room) > slack:
            room -= 1
        jobs = self._queue[:room]
        del self._queue[:room]
        device = self._idle.pop()
        self._free_at[device] = now + self.cost.upper(room)
        self.counts.batches[room] = self.counts.batches.get(room, 0) + 1
        return Batch(jobs, device, now, self._free_at[device]), expired

    def done(self, batch: Batch, now: float) -> None:
        """The device of ``batch`` is idle again."""
        self._idle.add(batch.device)
        self._free_at[batch.device] = -math.inf
        if self.cost.observe(len(batch.jobs), now - batch.start):
            self._resize()

    def cancel(self, job: Job) -> None:
        """``job`` is not wanted any more: it is dropped if it still waits."""
        job.cancelled = True

    def waiting(self) -> int:
        """Images that wait."""
        return len(self._queue)

    def oldest(self, now: float) -> float:
        """Seconds that the longest-waiting image has waited."""
        return max((now - job.arrival for job in self._queue), default=0.0)

    def _expire(self, now: float) -> list[Job]:
        """Take out what is cancelled or can't be answered in time any more; the expired ones."""
        if any(job.cancelled for job in self._queue):
            kept = [job for job in self._queue if not job.cancelled]
            self.counts.cancelled += len(self._queue) - len(kept)
            self._queue = kept
        late = 0
        soonest = now + self.cost.expected(1)
        while late < len(self._queue) and self._queue[late].deadline < (
            # The last one left is tried as long as it lives: the device has nothing better to do.
            soonest if late + 1 < len(self._queue) else now
        ):
            late += 1
        expired = self._queue[:late]
        del self._queue[:late]
        self.counts.expired += late
        return expired

    def _resize(self) -> None:
        """Set ``batch``, the images that a batch may have, from the cost model."""
        # Whoever arrives just after a batch has started waits for a device and then for a batch of their own.
        rounds = 1 + 1 / len(self._free_at)
        fits = 1
        while fits < self.max_batch and rounds * self.cost.upper(fits + 1) <= self.slo:
            fits += 1
        best = fits / self.cost.expected(fits)
        batch = 1
        while batch < fits and batch / self.cost.expected(batch) < EFFICIENCY * best:
            batch += 1
        self.batch = batch


def _deadline(job: Job) -> float:
    return job.deadline
