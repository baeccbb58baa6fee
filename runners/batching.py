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
from typing import TYPE_CHECKING

from runners.admission import Overload, Refusal
from runners.jobs import Batch, Counts
from runners.widths import Widths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runners.cost_model import CostModel
    from runners.jobs import Job

# A batch is large enough when an executor reaches this part of its capacity, which is 1/α images a second. Where β is
# below 4 % of α, as on a CPU thread, one image is enough: batching would gain nothing, and images would wait longer.
EFFICIENCY = 0.96
# Where more images wait than can be answered, batches grow until an executor reaches this part of its capacity.
MAX_EFFICIENCY = 0.99


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
    wait. ``wide``: where a lone image can run on the cores of several executors, its seconds by their number.
    Attributes: ``batch``, how many images run together while all are in time, and ``idle``, the executors that idle.
    """

    def __init__(
        self,
        cost: CostModel,
        *,
        budget: float,
        max_batch: int,
        max_queue: int,
        executors: int = 1,
        wide: Mapping[int, float] | None = None,
    ) -> None:
        self.cost, self.budget, self.max_batch, self.max_queue = cost, budget, max_batch, max_queue
        self.counts = Counts()
        self.overload = Overload()
        # The jobs that wait, by deadline, and their deadlines alone, which are searched.
        self._queue: list[Job] = []
        self._deadlines: list[float] = []
        self._free_at = [-math.inf] * executors
        self.idle = set(range(executors))
        self.widths = Widths(cost, wide or {}, executors, budget)
        self._resize()

    def admit(self, jobs: list[Job], now: float) -> Refusal | None:
        """Queue all of ``jobs``, which share one deadline, or none of them; the refusal if none."""
        refusal = self.refusal(len(jobs), jobs[0].deadline, now)
        if refusal is not None:
            return refusal
        self.counts.admitted += len(jobs)
        self.widths.arrive(len(jobs), now)
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
        if self.idle and not self._queue:
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
            size = size if len(self.idle) > 1 else self.batch
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
        if self.idle:
            skipped, size = self._choose(self._deadlines, self._starts(now))
        else:
            skipped, size = bisect_right(self._deadlines, now), 0
        expired, jobs = self._queue[:skipped], self._queue[skipped : skipped + size]
        del self._queue[: skipped + size], self._deadlines[: skipped + size]
        self.counts.expired += skipped
        if not jobs:
            return None, expired
        executor = self.idle.pop()
        self._free_at[executor] = now + self.cost.expected(size)
        self.counts.batches[size] += 1
        return Batch(jobs, [executor], now, now + self.cost.upper(size)), expired

    def widen(self, batch: Batch, now: float) -> int:
        """Give ``batch`` idle executors where a lone image gains by them; its width, the number that it has then."""
        spare = len(self.idle) - len(self._queue)
        if spare < 1 or len(batch.jobs) > 1:
            return 1
        width = self.widths.choose(1 + spare, batch.jobs[0].deadline - now)
        if width > 1:
            batch.executors += [self.idle.pop() for _ in range(width - 1)]
            for executor in batch.executors:
                self._free_at[executor] = batch.start + self.widths.expected(width)
            batch.predicted_end = batch.start + self.widths.upper(width)
        return width

    def _starts(self, now: float) -> list[float]:
        """When the executors are expected to be free, the soonest first."""
        return sorted([max(now, free) for free in self._free_at])

    def _choose(self, deadlines: list[float], starts: list[float]) -> tuple[int, int]:
        """How many jobs with ``deadlines`` to give up when the first executor starts, and how many to run then."""
        count, now, upper = len(deadlines), starts[0], self.cost.upper
        # Idle executors divide the waiting images among themselves.
        size = min(self.batch, -(-count // max(1, len(self.idle))))
        soonest = upper(size) if size > 1 else self.widths.soonest(len(self.idle) // count)
        if deadlines[0] >= now + soonest:
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
        """Note that the executors of ``batch`` idle again. ``learn``: whether its time is that of its images."""
        width = len(batch.executors)
        self.counts.widths[width] += 1
        self.idle.update(batch.executors)
        for executor in batch.executors:
            self._free_at[executor] = -math.inf
        if learn and width > 1:
            self.widths.observe(width, now - batch.start)
        elif learn and self.cost.observe(len(batch.jobs), now - batch.start):
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
        late = [0.0 if executor in self.idle else max(0.0, now - at) for executor, at in enumerate(self._free_at)]
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
        self.batch = max(1, min(self.cost.batch_for(EFFICIENCY), self._fits(self.budget)))
        # At least twice the usual, or a model that thinks that batching doesn't pay would never see that it does.
        self.most = min(self.max_batch, max(self.cost.batch_for(MAX_EFFICIENCY), 2 * self.batch))
