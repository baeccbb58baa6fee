"""CORK, the batching policy of BentoML, with its training."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.batching.policies import WAIT, Queue

if TYPE_CHECKING:
    from collections.abc import Sequence


class Cork(Queue):
    """BentoML 1.4.39's CorkDispatcher (bentoml/_internal/marshal/dispatcher.py) with its training and its optimizer.

    Its controller looks at the queue every millisecond while something waits; here it is moved on to the moments that
    matter. One device: BentoML has one dispatcher a worker. Beside the original, run in real time on the same requests
    and a device that only sleeps, goodput and mean batch came out within 3 % (November 2026, four cases).
    """

    TICK = 1e-3
    DECAY = 0.95
    # (requests still required, batches to train, batch size), as controller() calls train_optimizer().
    TRAINING = ((2, 8, 1), (6, 1, 1), (5, 1, 2), (3, 1, 3))

    def __init__(self, max_batch: int, max_latency: float) -> None:
        super().__init__()
        self._max_batch, self._max_latency = max_batch, max_latency
        self._a, self._b, self._wait = min(2, max_latency * 2 / 30), min(1, max_latency / 30), 0.0
        self._samples: deque[tuple[int, float, float]] = deque(maxlen=50)
        self._logged, self._tokens, self._refreshed_at = 0, 2.0, 0.0
        self._stage, self._trained = 0, 0
        # When the controller began to look every TICK, and whether a batch has been running since.
        self._phase: float | None = None
        self._locked = False
        self._waited = 0.0

    def arrive(self, arrival: float) -> None:
        """See Policy."""
        self.queue.append(arrival)
        if self._phase is None:
            self._phase = arrival

    def next(self, now: float) -> tuple[list[float] | None, float]:
        """See Policy."""
        if self._phase is None:
            return WAIT
        ticks = (now - self._phase) / self.TICK
        if ticks - math.floor(ticks + 1e-6) > 1e-6:
            return None, self._phase + math.ceil(ticks) * self.TICK
        if self._locked:
            self._locked = False
            self._look_while_locked(now - self.TICK)
        if not self.queue:
            self._phase = None
            return WAIT
        return self._train(now) if self._stage < len(self.TRAINING) else self._control(now)

    def done(self, batch: Sequence[float], seconds: float, now: float) -> None:
        """Record a batch's time as BentoML's Optimizer.log_outbound() does, and fit the cost again if that is due."""
        if self._logged <= 6:
            self._logged += 1
            if self._logged <= 2:
                return
        self._samples.append((len(batch), seconds, self._waited))
        tokens = min(self._tokens + (now - self._refreshed_at) / 5, 1)
        if tokens >= 1:
            self._tokens, self._refreshed_at = tokens - 1, now
            self._refresh()

    def _refresh(self) -> None:
        if not self._samples:
            return
        x = np.array([(images, 1) for images, _, _ in self._samples])
        y = np.array([seconds for _, seconds, _ in self._samples])
        a, b = np.linalg.lstsq(x, y, rcond=None)[0]
        self._a, self._b = max(1e-6, float(a)), max(0.0, float(b))
        self._wait = max(0.0, sum(waited for _, _, waited in self._samples) / len(self._samples))

    def _look_while_locked(self, now: float) -> None:
        """The last look before the batch was done; earlier ones would drop no one else."""
        if self._stage < len(self.TRAINING) or self._phase is None or now < self._phase:
            return
        queue = self.queue
        later = []
        while queue and queue[-1] > now:
            later.append(queue.pop())
        while queue:
            count, oldest = len(queue), now - queue[0]
            if (count > 1 and oldest + self._a * count + self._b >= self._max_latency) or (
                count == 1 and oldest >= self._max_latency
            ):
                queue.popleft()
            else:
                break
        queue.extend(reversed(later))

    def _train(self, now: float) -> tuple[list[float] | None, float]:
        required, batches, size = self.TRAINING[self._stage]
        size = min(size, self._max_batch)
        wait = min(self._max_latency * 0.95, (2 * size + 1) * self._a + self._b) if size > 1 else 0.0
        queue = self.queue
        while queue:
            count, oldest = len(queue), now - queue[0]
            if count > required - self._trained and oldest >= self._max_latency:
                queue.popleft()
                continue
            if size > 1 and count < size and size * self._a + self._b + oldest <= wait:
                return None, now + self.TICK
            self._trained += 1
            if self._trained == batches:
                self._stage, self._trained = self._stage + 1, 0
                if self._stage > 1:
                    self._refresh()
            return self._dispatch(now, training=True)
        self._phase = None
        return WAIT

    def _control(self, now: float) -> tuple[list[float] | None, float]:
        queue = self.queue
        while queue:
            count = len(queue)
            if count > 1 and now - queue[0] + self._a * count + self._b >= self._max_latency:
                queue.popleft()
                continue
            if count < self._max_batch and count * (now - queue[-1] + self.TICK + self._a) <= self._wait * self.DECAY:
                return None, now + self.TICK
            return self._dispatch(now, training=False)
        self._phase = None
        return WAIT

    def _dispatch(self, now: float, *, training: bool) -> tuple[list[float], float]:
        self._waited = 0.0 if training else now - self.queue[0]
        batch = self.take(self._max_batch)
        self._locked = True
        self._phase = now if self.queue else None
        return batch, math.inf
