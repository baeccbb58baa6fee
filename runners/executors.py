"""The executor pool: threads that run the batches of a Batcher in real time, fed from event loops."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from classifier.errors import ClassifierError
from runners import health
from runners.admission import overloaded
from runners.devices import DeviceLost, OutOfMemory
from runners.jobs import Job
from runners.results import ImageResult

if TYPE_CHECKING:
    from runners.batching import Batcher
    from runners.jobs import Batch

# Payloads of a batch, and a function that says, when inference begins, how many cores it may have.
Run = Callable[[list[Any], Callable[[], int]], Sequence[Any]]

logger = logging.getLogger("bentoml.resnet18")


@dataclass(eq=False, slots=True)
class _Group:
    """The jobs of one ``submit`` call: their results so far, and the future that all of them settle."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Any]]
    results: list[Any]
    missing: int


class ExecutorPool:
    """Runs the batches of ``batcher`` on ``executors`` threads, each of which is an executor.

    ``run`` takes the payloads of a batch and returns an ImageResult for each, or an Exception for one that failed by
    itself. When its inference begins, it calls its second argument, which gives the width: how many cores the batch may
    use from then on. A batch that fails is halved until the failing part is one image. Where memory was short, batches
    stay that small. If the device itself is at fault, nothing is admitted until ``trial``, which infers something,
    works again.

    ``unready_after``: seconds of overload after which the pool is not ready; 0: never. ``prepare_s``: seconds that
    preparing one image in ``run`` may take without its device being at fault.
    """

    def __init__(
        self,
        batcher: Batcher,
        run: Run,
        executors: int,
        trial: Callable[[], Any],
        unready_after: float = 0,
        prepare_s: float = 0,
    ) -> None:
        self.batcher = batcher
        self._unready_after, self._prepare_s = unready_after, prepare_s
        # Called under the lock with each batch that is done, and with None when the queue shrank without a batch.
        self.observers: list[Callable[[Batch | None, float], None]] = []
        self._run, self._health = run, health.DeviceHealth(trial)
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"resnet18-executor-{number}", daemon=True)
            for number in range(executors)
        ]
        for thread in self._threads:
            thread.start()

    async def submit(self, payloads: Sequence[Any], deadline: float) -> list[Any]:
        """A result or an Exception for each of ``payloads``, in order; all are admitted, or none.

        ``deadline``: seconds of ``time.monotonic()``. Raises ClassifierError("overloaded") when they can't be
        answered in time, or "unavailable" while the device fails. Cancelling the call drops the payloads that wait.
        """
        loop = asyncio.get_running_loop()
        group = _Group(loop, loop.create_future(), [None] * len(payloads), len(payloads))
        now = time.monotonic()
        jobs = [Job(now, deadline, (group, index, payload)) for index, payload in enumerate(payloads)]
        with self._changed:
            if self._stopping:
                raise ClassifierError("unavailable", "the service is shutting down", retry_after=1)
            self._check_health(now)
            refusal = self.batcher.admit(jobs, now)
            if refusal is None:
                self._wake()
        if refusal is not None:
            raise overloaded(refusal.reason, refusal.retry_after)
        try:
            return await group.future
        except asyncio.CancelledError:
            with self._changed:
                for job in jobs:
                    self.batcher.cancel(job)
                self._notify_observers(None, time.monotonic())
            raise

    def check_admission(self, deadline: float) -> None:
        """Raise the error that ``submit`` would raise for one payload of ``deadline``, before there is a payload."""
        now = time.monotonic()
        with self._changed:
            self._check_health(now)
            refusal = self.batcher.refusal(1, deadline, now)
        if refusal is not None:
            raise overloaded(refusal.reason, refusal.retry_after)

    def stop(self) -> None:
        """Refuse new payloads, finish the admitted ones, and end the threads."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            # A thread whose backend does not return ends with the process.
            thread.join(health.OVERDUE_S)

    def alive(self) -> bool:
        """Whether every executor's thread lives."""
        return all(thread.is_alive() for thread in self._threads)

    def ready(self) -> bool:
        """Whether another image should be sent here: the device works, and no overload lasts too long."""
        now = time.monotonic()
        try:
            with self._changed:
                self._check_health(now)
                overload = self.batcher.overload.seconds(now)
        except ClassifierError:
            return False
        return self.alive() and not 0 < self._unready_after <= overload

    def _check_health(self, now: float) -> None:
        self._health.check(*self.batcher.overdue(now), self._prepare_s * self.batcher.most)

    def describe(self) -> dict[str, Any]:
        """The batcher's state: α, β and the budget in ms, the queue, counts of images.

        ``slo_ms`` and ``devices`` are former names of ``budget_ms`` and ``executors``.
        """
        with self._changed:
            batcher, now = self.batcher, time.monotonic()
            budget_ms = round(1e3 * batcher.budget, 1)
            return {
                "budget_ms": budget_ms,
                "slo_ms": budget_ms,
                "executors": len(self._threads),
                "devices": len(self._threads),
                "alpha_ms": round(1e3 * batcher.cost.alpha, 3),
                "beta_ms": round(1e3 * batcher.cost.beta, 3),
                "spread": round(batcher.cost.spread, 3),
                "batch": batcher.batch,
                "max_batch": batcher.max_batch,
                "queue": batcher.waiting(),
                "queue_age_ms": round(1e3 * batcher.oldest(now), 1),
                "admitted": batcher.counts.admitted,
                "refused": dict(batcher.counts.refused),
                "expired": batcher.counts.expired,
                "cancelled": batcher.counts.cancelled,
                "batches": {str(size): count for size, count in sorted(batcher.counts.batches.items())},
                "widths": {str(width): count for width, count in sorted(batcher.counts.widths.items())},
                "width": batcher.widths.preferred(),
                "width_ms": batcher.widths.describe(),
            }

    def _wake(self) -> None:
        """Wake as many threads as there is work for: those of executors that a wide batch holds would find none."""
        self._changed.notify(min(self.batcher.waiting(), len(self.batcher.idle)))

    def _widen(self, batch: Batch) -> int:
        with self._changed:
            return self.batcher.widen(batch, time.monotonic())

    def _notify_observers(self, done: Batch | None, now: float) -> None:
        for observe in self.observers:
            observe(done, now)

    def _work(self) -> None:
        done: Batch | None = None
        whole = True
        while True:
            with self._changed:
                now = time.monotonic()
                if done is not None:
                    self.batcher.done(done, now, learn=whole)
                    self._notify_observers(done, now)
                batch, expired = self.batcher.next(now)
                if done is not None and len(done.executors) > 1:
                    self._wake()
                while batch is None and not expired:
                    if self._stopping:
                        return
                    if not self._changed.wait(health.TRY_EVERY_S if self._health.failing else None):
                        break
                    now = time.monotonic()
                    batch, expired = self.batcher.next(now)
                backlog = self.batcher.backlog(now) if expired else 0.0
                if expired and batch is None:
                    self._notify_observers(None, now)
            for job in expired:
                _settle(job, overloaded("expired", backlog))
            if batch is not None:
                results, whole = self._results([job.payload[2] for job in batch.jobs], partial(self._widen, batch))
                for job, result in zip(batch.jobs, results, strict=True):
                    if isinstance(result, ImageResult):
                        result.queue_ms = 1e3 * (batch.start - job.arrival)
                    _settle(job, result)
            elif not expired:
                self._health.try_again()
            done = batch

    def _results(self, payloads: list[Any], widen: Callable[[], int]) -> tuple[Sequence[Any], bool]:
        """A result for each payload, and whether one run inferred all of them: else their halves ran, and so on."""
        try:
            results = self._checked(payloads, widen)
        except Exception as error:
            if len(payloads) == 1 or isinstance(error, DeviceLost):
                return [self._failed(error)] * len(payloads), False
            half = (len(payloads) + 1) // 2
            if isinstance(error, OutOfMemory):
                logger.warning("batches have at most %d images from now on: %s", half, error)
                with self._changed:
                    self.batcher.cap_batches(half)
            return [*self._results(payloads[:half], widen)[0], *self._results(payloads[half:], widen)[0]], False
        self._health.works()
        # An image that can't be decoded was not inferred: such a batch says nothing about the cost of inference.
        return results, all(isinstance(result, ImageResult) for result in results)

    def _failed(self, error: Exception) -> Exception:
        with self._changed:
            failing = self._health.failing
            told = self._health.failed(error)
            if self._health.failing and not failing:
                # Executors that wait for images are to try the device, too.
                self._changed.notify_all()
        return told

    def _checked(self, payloads: list[Any], widen: Callable[[], int]) -> Sequence[Any]:
        results = self._run(payloads, widen)
        if len(results) != len(payloads):
            raise RuntimeError(f"{len(payloads)} images gave {len(results)} results")
        return results


def _settle(job: Job, result: Any) -> None:
    """Give ``job`` its result, from an executor's thread."""
    group, index, _ = job.payload
    group.loop.call_soon_threadsafe(_fill, group, index, result)


def _fill(group: _Group, index: int, result: Any) -> None:
    group.results[index] = result
    group.missing -= 1
    if not group.missing and not group.future.done():
        group.future.set_result(group.results)
