"""The batching policies that are compared: ours, and what else is in use; BentoML's is in cork.py.

Each is written from its source or paper, knows only what the original knows, and drops what the original drops.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from runners.batching import Batcher
from runners.cost_model import CostModel
from runners.jobs import Batch, Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.batching.simulation import Backend

WAIT = (None, math.inf)


class Ours:
    """runners.batching.Batcher as the runner drives it. It has no knob.

    The warm-up has measured batches of 1, 2, 4 … max_batch, ``wrong`` times what they take.
    """

    def __init__(self, backend: Backend, slo: float, devices: int = 1, *, wrong: float = 1.0) -> None:
        sizes = [2**power for power in range(backend.max_batch.bit_length()) if 2**power <= backend.max_batch]
        cost = CostModel({size: wrong * backend.seconds(size) for size in sizes})
        self.batcher = Batcher(
            cost, budget=slo, max_batch=backend.max_batch, max_queue=16 * backend.max_batch, executors=devices
        )
        self.slo = slo
        self._running: dict[int, Batch] = {}

    def arrive(self, arrival: float) -> None:
        """See Policy."""
        self.batcher.admit([Job(arrival, arrival + self.slo)], arrival)

    def next(self, now: float) -> tuple[list[float] | None, float]:
        """See Policy."""
        batch, _ = self.batcher.next(now)
        if batch is None:
            return WAIT
        arrivals = [job.arrival for job in batch.jobs]
        self._running[id(arrivals)] = batch
        return arrivals, math.inf

    def done(self, batch: Sequence[float], seconds: float, now: float) -> None:
        """See Policy."""
        self.batcher.done(self._running.pop(id(batch)), now)


class Queue:
    """Requests in their order; what every other policy than ours begins with."""

    def __init__(self) -> None:
        self.queue: deque[float] = deque()

    def arrive(self, arrival: float) -> None:
        """See Policy."""
        self.queue.append(arrival)

    def done(self, batch: Sequence[float], seconds: float, now: float) -> None:
        """See Policy."""

    def take(self, most: int) -> list[float]:
        """The oldest requests."""
        queue = self.queue
        return [queue.popleft() for _ in range(min(most, len(queue)))]


class BatchOne(Queue):
    """First come, first served, one by one. A request that can't be in time is dropped: ``margin`` × the mean time."""

    def __init__(self, backend: Backend, slo: float, margin: float) -> None:
        super().__init__()
        self._patience = slo - margin * backend.seconds(1)

    def next(self, now: float) -> tuple[list[float] | None, float]:
        """See Policy."""
        queue = self.queue
        while queue and now - queue[0] > self._patience:
            queue.popleft()
        return (self.take(1), math.inf) if queue else WAIT


class FixedDelay(Queue):
    """Triton's dynamic batcher: a batch when ``max_batch`` requests wait, or the oldest has waited ``delay`` seconds.

    ``timeout``: its default_queue_policy with timeout_action REJECT: who has waited longer is dropped when the batch is
    made (docs/user_guide/model_configuration.md; src/dynamic_batch_scheduler.cc and scheduler_utils.cc of Triton core).
    """

    def __init__(self, max_batch: int, delay: float, timeout: float) -> None:
        super().__init__()
        self._max_batch, self._delay, self._timeout = max_batch, delay, timeout

    def next(self, now: float) -> tuple[list[float] | None, float]:
        """See Policy."""
        queue = self.queue
        while queue and now - queue[0] > self._timeout:
            queue.popleft()
        if not queue:
            return WAIT
        if len(queue) < self._max_batch and now < queue[0] + self._delay:
            return None, queue[0] + self._delay
        return self.take(self._max_batch), math.inf


class Aimd(Queue):
    """Clipper's adaptive batching (Crankshaw et al., NSDI 2017, section 4.3.1).

    The largest batch grows by one while full batches stay within ``objective`` seconds, and shrinks by a tenth when one
    doesn't. Requests whose deadline has passed are not run, but those are that will be late (ModelQueue's
    remove_tasks_with_elapsed_deadlines() in Clipper's task_executor.hpp): in overload, nearly all of them.
    """

    def __init__(self, max_batch: int, slo: float, objective: float) -> None:
        super().__init__()
        self._max_batch, self._slo, self._objective = max_batch, slo, objective
        self._batch = 1.0

    def next(self, now: float) -> tuple[list[float] | None, float]:
        """See Policy."""
        queue = self.queue
        while queue and now - queue[0] > self._slo:
            queue.popleft()
        return (self.take(int(self._batch)), math.inf) if queue else WAIT

    def done(self, batch: Sequence[float], seconds: float, now: float) -> None:
        """See Policy."""
        if seconds > self._objective:
            self._batch = max(1.0, 0.9 * self._batch)
        elif len(batch) >= int(self._batch):
            self._batch = min(float(self._max_batch), self._batch + 1)
