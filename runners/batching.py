"""The adaptive batcher: it keeps one promise, the SLO, and learns everything else.

A batch of b images takes ℓ(b) = α·b + β seconds (as in Nexus, SOSP 2019, Clockwork, OSDI 2020, and Symphony, 2023).
From α, β and the deadlines of the waiting images the batcher decides which images run together, which images can still
be answered in time, and which images must be refused. It knows no threads, clocks or devices. The caller gives ``now``,
in seconds of a monotonic clock, so threads, a simulation and tests drive the same code. It is not thread-safe: the
caller holds a lock.

How well it does beside other policies, and beside the best schedule there is: ``python -m benchmarks.batching``.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runners.admission import Overload, Refusal

if TYPE_CHECKING:
    from runners.cost_model import CostModel

# A batch is large enough when an executor reaches this part of its capacity, which is 1/α images a second. Where β is
# below 4 % of α, as on a CPU thread, one image is enough: batching would gain nothing, and images would wait longer.
EFFICIENCY = 0.96
# Where more images wait than can be answered, batches grow until an executor reaches this part of its capacity.
MAX_EFFICIENCY = 0.99


@dataclass(eq=False, slots=True)
class Job:
    """One image that waits. Times are seconds of the monotonic clock; ``payload`` belongs to the caller."""

    arrival: float
    deadline: float
    payload: Any = None
    cancelled: bool = False


@dataclass(eq=False, slots=True)
class Batch:
    """Jobs that run together on ``executor`` from ``start`` on; ``predicted_end`` is the cost model's upper bound."""

    jobs: list[Job]
    executor: int
    start: float
    predicted_end: float


@dataclass
class Counts:
    """Images so far, by what became of them; ``batches`` counts batches by size."""

    admitted: int = 0
    refused: dict[str, int] = field(default_factory=lambda: {"queue_full": 0, "deadline": 0})
    expired: int = 0
    cancelled: int = 0
    batches: dict[int, int] = field(default_factory=dict)


def _start(free: list[float], number: int, seconds: float) -> float:
    """When a batch starts that waits for ``number`` others of ``seconds`` each.

    ``free``: when each executor is free, a heap.
    """
    free = free.copy()
    while number and max(free) - free[0] > seconds:
        heapq.heapreplace(free, free[0] + seconds)
        number -= 1
    # From here on they take turns.
    rounds, place = divmod(number, len(free))
    return sorted(free)[place] + rounds * seconds


class Batcher:
    """One queue, earliest deadline first, for ``executors`` equal executors, each of which runs one batch at a time.

    An idle executor takes what waits at once; it never waits for more images. ``budget``: seconds from an image's
    arrival to the end of its batch. ``max_batch``: images that fit the device's memory. ``max_queue``: images that may
    wait. The attribute ``batch``: how many images run together while all are in time.
    """

    def __init__(self, cost: CostModel, *, budget: float, max_batch: int, max_queue: int, executors: int = 1) -> None:
        self.cost, self.budget, self.max_batch, self.max_queue = cost, budget, max_batch, max_queue
        self.counts = Counts()
        self.overload = Overload()
        # The jobs that wait, by deadline, and their deadlines alone, which are searched.
        self._queue: list[Job] = []
        self._deadlines: list[float] = []
        self._free_at = [-math.inf] * executors
        self._idle = set(range(executors))
        self._resize()

    def admit(self, jobs: list[Job], now: float) -> Refusal | None:
        """Queue all of ``jobs``, which share one deadline, or none of them; the refusal if none."""
        refusal = self.refusal(len(jobs), jobs[0].deadline, now)
        if refusal is not None:
            return refusal
        self.counts.admitted += len(jobs)
        at = bisect_right(self._deadlines, jobs[0].deadline)
        self._queue[at:at] = jobs
        self._deadlines[at:at] = [job.deadline for job in jobs]
        return None

    def refusal(self, images: int, deadline: float, now: float) -> Refusal | None:
        """Why ``images`` of ``deadline`` would not be admitted now; None if they would be. A refusal is counted."""
        refusal = self._obstacle(images, deadline, now)
        if refusal is not None:
            self.counts.refused[refusal.reason] += images
            # A client's own short deadline, or a request of more images than the queue holds, is no overload.
            if images == 1 and deadline - now > self.budget / 2:
                self.overload.refused(now)
        return refusal

    def _obstacle(self, images: int, deadline: float, now: float) -> Refusal | None:
        if len(self._queue) + images > self.max_queue:
            return Refusal("queue_full", self.backlog(now))
        if deadline <= now:
            return Refusal("deadline", 0.0)
        # An idle executor takes what comes: refusing would save nothing, and a wrong model would never learn better.
        if self._idle and not self._queue:
            return None
        late = self.predict(images, deadline, now) - deadline
        return Refusal("deadline", late) if late > 0 else None

    def predict(self, images: int, deadline: float, now: float) -> float:
        """When the last of ``images`` of ``deadline`` would be done, if they were queued now and no image came later.

        It is an estimate: where batches must shrink for early deadlines it is too early, by half a batch at most.
        """
        at = bisect_right(self._deadlines, deadline)
        deadlines = self._deadlines.copy()
        deadlines[at:at] = [deadline] * images
        starts = self._starts(now)
        skipped, size = self._choose(deadlines, starts)
        # Counted from the first image behind the next batch. Images that are given up get their error when it is done.
        first, last, waiting = [number - skipped - size for number in (at, at + images - 1, len(deadlines))]
        ends = [starts[0] + self.cost.upper(max(1, size))] if first < 0 else []
        if last >= 0:
            heapq.heapreplace(starts, starts[0] + self.cost.expected(size))
            # Further ahead, all batches are taken to be of the usual size. Where a group is split over batches, its
            # last full batch may end on another executor after its very last batch.
            size = size if len(self._idle) > 1 else self.batch
            full = last // size
            sizes = {full: min(size, waiting - full * size)}
            if first < full * size and full:
                sizes[full - 1] = size
            ends += [_start(starts, at, self.cost.expected(size)) + self.cost.upper(b) for at, b in sizes.items()]
        return max(ends)

    def backlog(self, now: float) -> float:
        """Seconds until all waiting images would be done, by the cost model: the value of a Retry-After."""
        full, rest = divmod(len(self._queue), self.batch)
        work = full * self.cost.expected(self.batch) + (self.cost.expected(rest) if rest else 0.0)
        return (work + sum([max(0.0, free - now) for free in self._free_at])) / len(self._free_at)

    def next(self, now: float) -> tuple[Batch | None, list[Job]]:
        """A batch for an idle executor, and the jobs that were given up; the caller answers both.

        Call it when jobs were admitted and when a batch is done, until it gives no batch.
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
        executor = self._idle.pop()
        self._free_at[executor] = now + self.cost.expected(size)
        self.counts.batches[size] = self.counts.batches.get(size, 0) + 1
        return Batch(jobs, executor, now, now + self.cost.upper(size)), expired

    def _starts(self, now: float) -> list[float]:
        """When the executors are expected to be free, the soonest first."""
        return sorted([max(now, free) for free in self._free_at])

    def _choose(self, deadlines: list[float], starts: list[float]) -> tuple[int, int]:
        """How many jobs with ``deadlines`` to give up when the first executor starts, and how many to run then."""
        count, now, upper = len(deadlines), starts[0], self.cost.upper
        # Idle executors divide the waiting images among themselves.
        size = min(self.batch, -(-count // max(1, len(self._idle))))
        if deadlines[0] >= now + upper(size):
            return 0, size
        lost = bisect_left(deadlines, now + upper(1))
        if lost == count:
            # No image is in time, says the model. The last one is run while its deadline has not passed: the executor
            # has nothing better to do, and a model that is too pessimistic learns better.
            return (count - 1, 1) if deadlines[-1] > now else (count, 0)
        # The first images that can be in time can't wait for a batch of that size. They get a smaller batch if it
        # leaves none over, or if another executor takes the rest.
        size = min(size, count - lost, self._fits(deadlines[lost] - now))
        rest = count - lost - size
        if not rest or (len(starts) > 1 and deadlines[-rest] >= starts[1] + upper(min(self.batch, rest))):
            return lost, size
        # Else more images wait than can be answered, and a small batch for the first would cost the many behind them.
        # The most are answered by the longest run of the latest deadlines that is in time as one batch (Nexus's early
        # drop, with the longest possible window), and of the batches that long by the one that gives up the fewest.
        run = bisect_left(range(count), True, key=lambda skip: deadlines[skip] >= now + upper(count - skip))
        size = min(self.most, count - run)
        return bisect_left(deadlines, now + upper(size)), size

    def done(self, batch: Batch, now: float, *, learn: bool = True) -> None:
        """Note that the executor of ``batch`` is idle again. ``learn``: whether its time is that of its images."""
        self._idle.add(batch.executor)
        self._free_at[batch.executor] = -math.inf
        if learn and self.cost.observe(len(batch.jobs), now - batch.start):
            self._resize()

    def cancel(self, job: Job) -> None:
        """Drop ``job`` if it still waits: nobody wants its result any more."""
        job.cancelled = True
        for at in range(bisect_left(self._deadlines, job.deadline), bisect_right(self._deadlines, job.deadline)):
            if self._queue[at] is job:
                del self._queue[at], self._deadlines[at]
                self.counts.cancelled += 1
                return

    def cap_batches(self, images: int) -> None:
        """Let no batch have more than ``images`` from now on: more don't fit the device's memory."""
        self.max_batch = max(1, min(self.max_batch, images))
        self._resize()

    def overdue(self, now: float) -> tuple[float, float]:
        """Seconds by which every executor, and by which the latest one, is past the expected end of its batch."""
        late = [0.0 if executor in self._idle else max(0.0, now - at) for executor, at in enumerate(self._free_at)]
        return min(late), max(late)

    def capacity(self) -> float:
        """Images a second that all executors together answer in batches of the usual size, by the cost model."""
        return len(self._free_at) * self.batch / self.cost.expected(self.batch)

    def waiting(self) -> int:
        """The number of images that wait."""
        return len(self._queue)

    def oldest(self, now: float) -> float:
        """Seconds that the longest-waiting image has waited."""
        return max((now - job.arrival for job in self._queue), default=0.0)

    def _fits(self, seconds: float) -> int:
        """The largest batch that is done within ``seconds``; at least one image."""
        return max(1, min(self.max_batch, int((seconds / self.cost.spread - self.cost.beta) / self.cost.alpha)))

    def _resize(self) -> None:
        """Set ``batch`` from the cost model."""
        # The smallest b with α·b / ℓ(b) ≥ e is e / (1 - e) · β/α.
        enough, most = [math.ceil(e / (1 - e) * self.cost.beta / self.cost.alpha) for e in (EFFICIENCY, MAX_EFFICIENCY)]
        self.batch = max(1, min(enough, self._fits(self.budget)))
        # At least twice the usual, or a model that thinks that batching doesn't pay would never see that it does.
        self.most = min(self.max_batch, max(most, 2 * self.batch))
