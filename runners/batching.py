"""The adaptive batcher: one promise, the SLO; everything else it learns.

A batch of b images takes ℓ(b) = α·b + β seconds (as in Nexus, SOSP 2019, Clockwork, OSDI 2020, and Symphony, 2023).
From α, β and the deadlines of what waits follows which images to run together, which can still be answered in time, and
which must be refused. Nothing here knows of threads, clocks or devices: ``now`` is always given, in seconds of a
monotonic clock, so the same code is driven by worker threads, by a simulation, and by tests. It is not thread-safe: the
caller holds a lock.

How well it does beside other policies, and beside the best schedule there is: ``python -m benchmarks.batching``.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# Batches that the cost model remembers, of which RECENT tell the pace; it is fitted anew every REFIT_EVERY batches.
WINDOW = 64
RECENT = 16
REFIT_EVERY = 8
QUANTILE = 0.95
# No batch counts as more than this many times the usual, or a few hiccups would make it refuse everyone.
HICCUP = 2
# If the recent batches took this many times as long as expected, or as short, what was before is forgotten.
CHANGE = 1.5
# What the smallest and the largest batch were thought to cost counts as this many measurements of each.
ANCHOR = 8
# A batch is large enough when it runs at this share of a device's limit, 1/α images a second. Where β is below 4 % of
# α, as on a CPU thread, that is a batch of one: batching would gain nothing, and make images wait for one another.
EFFICIENCY = 0.96
# Where more waits than can be done, batches may be as large as this share takes.
LIMIT = 0.99
# Seconds without a refusal that end an overload.
PAUSE = 1.0


class CostModel:
    """ℓ(b) = α·b + β, fitted to the last WINDOW batches; ``upper`` is what QUANTILE of them stay below.

    ``measured``: seconds by batch size, from the warm-up; at least one. A change of pace, the same for all sizes, is
    followed within RECENT batches; a single batch that took far too long changes next to nothing.
    """

    def __init__(self, measured: Mapping[int, float]) -> None:
        self._window = deque([(images, max(seconds, 1e-9)) for images, seconds in measured.items()], maxlen=WINDOW)
        self._largest = max(measured)
        self._unseen = 0
        self.alpha, self.beta = _fit([(images, seconds, seconds**-2) for images, seconds in self._window])
        self.spread = 1.0

    def expected(self, images: int) -> float:
        """The mean seconds of a batch of ``images``."""
        return self.alpha * images + self.beta

    def upper(self, images: int) -> float:
        """The seconds that a batch of ``images`` stays below with the probability QUANTILE."""
        return self.spread * (self.alpha * images + self.beta)

    def observe(self, images: int, seconds: float) -> bool:
        """Learn from one batch; whether α, β and the spread have changed."""
        self._window.append((images, max(seconds, 1e-9)))
        self._unseen += 1
        if self._unseen < REFIT_EVERY:
            return False
        self._unseen = 0
        pace = self._pace(RECENT)
        if not 1 / CHANGE < pace < CHANGE:
            while len(self._window) > REFIT_EVERY:
                self._window.popleft()
            pace = self._pace(REFIT_EVERY)
        # Where all batches are of nearly one size, α and β can't be told apart: the anchors then keep their proportion.
        usual = HICCUP * pace
        points = [(images, min(seconds, usual * self.expected(images)), 1) for images, seconds in self._window]
        anchors = [(images, pace * self.expected(images), ANCHOR) for images in (1, self._largest)]
        self.alpha, self.beta = _fit([(b, seconds, n / self.expected(b) ** 2) for b, seconds, n in points + anchors])
        ratios = sorted([seconds / self.expected(images) for images, seconds in self._window])
        self.spread = min(max(1.0, ratios[int(QUANTILE * len(ratios))]), HICCUP)
        return True

    def _pace(self, last: int) -> float:
        """How many times as long as expected the ``last`` batches took."""
        return median([seconds / self.expected(images) for images, seconds in list(self._window)[-last:]])


def _fit(points: list[tuple[int, float, float]]) -> tuple[float, float]:
    """α > 0 and β ≥ 0 with the least weighted squares of α·images + β - seconds, over (images, seconds, weight)."""
    total = sum([weight for _, _, weight in points])
    images_mean = sum([weight * images for images, _, weight in points]) / total
    seconds_mean = sum([weight * seconds for _, seconds, weight in points]) / total
    variance = sum([weight * (images - images_mean) ** 2 for images, _, weight in points])
    covariance = sum([weight * (images - images_mean) * seconds for images, seconds, weight in points])
    # If all is of one size, or β would be negative, it is 0; if α would be negative, it is next to 0.
    limit = seconds_mean / images_mean
    alpha = min(covariance / variance, limit) if variance > 0 else limit
    alpha = max(alpha, 1e-6 * limit)
    return alpha, max(0.0, seconds_mean - alpha * images_mean)


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
    """Jobs to run together on ``device`` from ``start`` on; ``predicted_end`` is the cost model's upper bound."""

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


class Overload:
    """For how long images have been refused that had time enough, with no pause of PAUSE seconds."""

    def __init__(self) -> None:
        self._first = self._last = -math.inf

    def refused(self, now: float) -> None:
        """An image was refused."""
        if now - self._last > PAUSE:
            self._first = now
        self._last = now

    def seconds(self, now: float) -> float:
        """From the first refusal to the last; 0 once it is over."""
        return self._last - self._first if now - self._last <= PAUSE else 0.0


def _start(free: list[float], number: int, seconds: float) -> float:
    """When a batch starts that has ``number`` others before it, of ``seconds`` each; ``free``: the devices, a heap."""
    free = free.copy()
    while number and max(free) - free[0] > seconds:
        heapq.heapreplace(free, free[0] + seconds)
        number -= 1
    # From here on they take turns.
    rounds, place = divmod(number, len(free))
    return sorted(free)[place] + rounds * seconds


class Batcher:
    """One queue, earliest deadline first, for ``devices`` equal devices. An idle device never waits for company.

    ``slo``: seconds an image may take from arrival to answer. ``max_batch``: images that fit a device's memory.
    ``max_queue``: images that may wait. ``batch``: how many images it runs together while all are in time.
    """

    def __init__(self, cost: CostModel, *, slo: float, max_batch: int, max_queue: int, devices: int = 1) -> None:
        self.cost, self.slo, self.max_batch, self.max_queue = cost, slo, max_batch, max_queue
        self.counts = Counts()
        self.overload = Overload()
        # What waits, by deadline, and the deadlines alone, which are searched.
        self._queue: list[Job] = []
        self._deadlines: list[float] = []
        self._free_at = [-math.inf] * devices
        self._idle = set(range(devices))
        self._resize()

    # Admission.

    def admit(self, jobs: list[Job], now: float) -> Refusal | None:
        """Queue ``jobs``, all of one deadline, or say why not: all or none."""
        refusal = self.refuse(len(jobs), jobs[0].deadline, now)
        if refusal is not None:
            return refusal
        self.counts.admitted += len(jobs)
        at = bisect_right(self._deadlines, jobs[0].deadline)
        self._queue[at:at] = jobs
        self._deadlines[at:at] = [job.deadline for job in jobs]
        return None

    def refuse(self, images: int, deadline: float, now: float) -> Refusal | None:
        """Why ``images`` of ``deadline`` would not be admitted now, counted as refused; None where they would."""
        refusal = self._refusal(images, deadline, now)
        if refusal is not None:
            self.counts.refused[refusal.reason] += images
            # A client's own short deadline, or a request of more images than the queue holds, is no overload.
            if images == 1 and deadline - now > self.slo / 2:
                self.overload.refused(now)
        return refusal

    def _refusal(self, images: int, deadline: float, now: float) -> Refusal | None:
        if len(self._queue) + images > self.max_queue:
            return Refusal("queue_full", self.backlog(now))
        if deadline <= now:
            return Refusal("deadline", 0.0)
        # An idle device takes what comes: refusing would save nothing, and a wrong model would never learn better.
        if self._idle and not self._queue:
            return None
        late = self.predict(images, deadline, now) - deadline
        return Refusal("deadline", late) if late > 0 else None

    def predict(self, images: int, deadline: float, now: float) -> float:
        """When ``images`` of ``deadline`` would all be done, if they were queued now and nobody came later.

        An estimate: where batches must shrink for early deadlines it is short, by half a batch at most.
        """
        at = bisect_right(self._deadlines, deadline)
        deadlines = self._deadlines.copy()
        deadlines[at:at] = [deadline] * images
        starts = self._starts(now)
        skipped, size = self._choose(deadlines, starts)
        # Counted from the first who is not in the next batch; who would be given up is told when that batch is done.
        first, last, waiting = [number - skipped - size for number in (at, at + images - 1, len(deadlines))]
        ends = [starts[0] + self.cost.upper(max(1, size))] if first < 0 else []
        if last >= 0:
            heapq.heapreplace(starts, starts[0] + self.cost.expected(size))
            # Further ahead, batches are taken to be of the usual size. Of a group that is torn apart, the last full one
            # may end after the very last, on another device.
            size = size if len(self._idle) > 1 else self.batch
            full = last // size
            sizes = {full: min(size, waiting - full * size)}
            if first < full * size and full:
                sizes[full - 1] = size
            ends += [_start(starts, at, self.cost.expected(size)) + self.cost.upper(b) for at, b in sizes.items()]
        return max(ends)

    def backlog(self, now: float) -> float:
        """Seconds until all that waits would be done, as the model sees it: what to put into a Retry-After."""
        full, rest = divmod(len(self._queue), self.batch)
        work = full * self.cost.expected(self.batch) + (self.cost.expected(rest) if rest else 0.0)
        return (work + sum([max(0.0, free - now) for free in self._free_at])) / len(self._free_at)

    # Dispatch.

    def next(self, now: float) -> tuple[Batch | None, list[Job]]:
        """A batch for an idle device, and the jobs that were given up; the caller answers both.

        To be asked when jobs were admitted and when a batch is done, until it has no batch.
        """
        if not self._queue:
            return None, []
        if self._idle:
            skipped, size = self._choose(self._deadlines, self._starts(now))
        else:
            skipped, size = bisect_right(self._deadlines, now), 0
        expired, jobs = self._queue[:skipped], self._queue[skipped : skipped + size]
        del self._queue[: skipped + size], self._deadlines[: skipped + size]
        self.counts.expired += skipped
        if not jobs:
            return None, expired
        device = self._idle.pop()
        self._free_at[device] = now + self.cost.expected(size)
        self.counts.batches[size] = self.counts.batches.get(size, 0) + 1
        return Batch(jobs, device, now, now + self.cost.upper(size)), expired

    def _starts(self, now: float) -> list[float]:
        """When the devices are expected to be free, the soonest first."""
        return sorted([max(now, free) for free in self._free_at])

    def _choose(self, deadlines: list[float], starts: list[float]) -> tuple[int, int]:
        """How many of the jobs with ``deadlines`` to give up when the first device starts, and how many to run then."""
        count, now, upper = len(deadlines), starts[0], self.cost.upper
        # Idle devices share what waits.
        size = min(self.batch, -(-count // max(1, len(self._idle))))
        if deadlines[0] >= now + upper(size):
            return 0, size
        lost = bisect_left(deadlines, now + upper(1))
        if lost == count:
            # No one is in time, says the model. The last is tried while it lives: a device has nothing better to do,
            # and a model that is too pessimistic learns better.
            return (count - 1, 1) if deadlines[-1] > now else (count, 0)
        # The first who can be in time can't wait for so many. They get a smaller batch, if no one is left over, or if
        # there is another device for the rest.
        size = min(size, count - lost, self._fits(deadlines[lost] - now))
        rest = count - lost - size
        if not rest or (len(starts) > 1 and deadlines[-rest] >= starts[1] + upper(min(self.batch, rest))):
            return lost, size
        # Else there is more than can be done, and serving the first would cost the many behind them. What serves most
        # in the device's time is the longest run of the latest deadlines that is in time as one batch (Nexus's early
        # drop, with a window as long as it can be), and of the batches that long the one that gives up the fewest.
        run = bisect_left(range(count), True, key=lambda skip: deadlines[skip] >= now + upper(count - skip))
        size = min(self.most, count - run)
        return bisect_left(deadlines, now + upper(size)), size

    def done(self, batch: Batch, now: float, *, learn: bool = True) -> None:
        """The device of ``batch`` is idle again. ``learn``: false for a batch whose time is not that of its images."""
        self._idle.add(batch.device)
        self._free_at[batch.device] = -math.inf
        if learn and self.cost.observe(len(batch.jobs), now - batch.start):
            self._resize()

    def cancel(self, job: Job) -> None:
        """``job`` is not wanted any more: if it still waits, it is dropped."""
        job.cancelled = True
        for at in range(bisect_left(self._deadlines, job.deadline), bisect_right(self._deadlines, job.deadline)):
            if self._queue[at] is job:
                del self._queue[at], self._deadlines[at]
                self.counts.cancelled += 1
                return

    def limit(self, images: int) -> None:
        """Let no batch have more than ``images`` from now on: the device's memory was found to hold no more."""
        self.max_batch = max(1, min(self.max_batch, images))
        self._resize()

    def overdue(self, now: float) -> tuple[float, float]:
        """Seconds for which all devices, and for which any, have been past the expected ends of their batches."""
        late = [0.0 if device in self._idle else max(0.0, now - free) for device, free in enumerate(self._free_at)]
        return min(late), max(late)

    def capacity(self) -> float:
        """Images a second that all devices answer in batches of the usual size, by the cost model."""
        return len(self._free_at) * self.batch / self.cost.expected(self.batch)

    def waiting(self) -> int:
        """Images that wait."""
        return len(self._queue)

    def oldest(self, now: float) -> float:
        """Seconds that the longest-waiting image has waited."""
        return max((now - job.arrival for job in self._queue), default=0.0)

    def _fits(self, seconds: float) -> int:
        """The images that ``seconds`` are enough for, but at least one."""
        return max(1, min(self.max_batch, int((seconds / self.cost.spread - self.cost.beta) / self.cost.alpha)))

    def _resize(self) -> None:
        """Set ``batch`` from the cost model."""
        # The smallest b with α·b / ℓ(b) ≥ share is share / (1 - share) · β/α.
        enough, most = [
            math.ceil(share / (1 - share) * self.cost.beta / self.cost.alpha) for share in (EFFICIENCY, LIMIT)
        ]
        self.batch = max(1, min(enough, self._fits(self.slo)))
        # Twice the usual at least, or a model that thinks batching doesn't pay would never see that it does.
        self.most = min(self.max_batch, max(most, 2 * self.batch))
