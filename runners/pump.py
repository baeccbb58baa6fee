"""The pump: a Batcher on real time, driven by one thread a device and fed from event loops."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from classifier.errors import ClassifierError
from runners.batching import Job
from runners.devices import DeviceLost, OutOfMemory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from runners.batching import Batch, Batcher

Run = Callable[[list[Any]], Sequence[Any]]
# So many images in a row that fail, each alone, are no longer taken to be at fault: the device is.
FAILURES = 3
# How often a device that fails is tried, and how long the batches of all may be overdue before they count as failing.
TRY_EVERY_S = 1.0
OVERDUE_S = 5.0
# After so long the process ends, to be started anew: a CUDA context that is broken stays so.
GIVE_UP_S = 10.0

logger = logging.getLogger("bentoml.resnet18")


@dataclass(slots=True)
class Outcome:
    """One image's answer: ``probabilities`` float32[C], and the milliseconds it was decoded, waited and inferred."""

    probabilities: NDArray[np.float32]
    decode_ms: float
    inference_ms: float
    queue_ms: float = 0.0


@dataclass(eq=False, slots=True)
class _Group:
    """The jobs of one ``infer`` call: their results so far, and the future that all of them settle."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Any]]
    results: list[Any]
    missing: int


class Pump:
    """Runs a Batcher on real time: one thread a device, fed from an event loop.

    ``run`` takes the payloads of a batch and returns an Outcome for each, an Exception where one failed by itself.

    A batch that fails is halved until what fails is one image; where memory was short, batches stay that small. If
    the device itself is at fault, nothing is taken until ``trial``, which infers something, works again.
    ``unready_after``: seconds of overload after which it is not ready; 0: never. ``prepare_s``: seconds that
    preparing one image in ``run`` may take, without its device being at fault.
    """

    def __init__(
        self,
        batcher: Batcher,
        run: Run,
        devices: int,
        trial: Callable[[], Any],
        unready_after: float = 0,
        prepare_s: float = 0,
    ) -> None:
        self.batcher = batcher
        self._unready_after, self._prepare_s = unready_after, prepare_s
        # Told under the lock of each batch that is done, and with None that what waits has become less without one.
        self.observers: list[Callable[[Batch | None, float], None]] = []
        self._run, self._trial = run, trial
        self._failures = 0
        self._failing_since: float | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"resnet18-device-{number}", daemon=True)
            for number in range(devices)
        ]
        for thread in self._threads:
            thread.start()

    async def infer(self, payloads: Sequence[Any], deadline: float) -> list[Any]:
        """A result or an Exception for each of ``payloads``, in order; all are admitted, or none.

        ``deadline``: seconds of ``time.monotonic()``. Raises ClassifierError("overloaded") when they can't be
        answered in time, or "unavailable" while the device fails. Cancelling the call drops what still waits.
        """
        loop = asyncio.get_running_loop()
        group = _Group(loop, loop.create_future(), [None] * len(payloads), len(payloads))
        now = time.monotonic()
        jobs = [Job(now, deadline, (group, index, payload)) for index, payload in enumerate(payloads)]
        with self._changed:
            if self._stopping:
                raise ClassifierError("unavailable", "the service is shutting down", retry_after=1)
            self._check(now)
            refusal = self.batcher.admit(jobs, now)
            if refusal is None:
                self._changed.notify(len(jobs))
        if refusal is not None:
            raise overloaded(refusal.reason, refusal.retry_after)
        try:
            return await group.future
        except asyncio.CancelledError:
            with self._changed:
                for job in jobs:
                    self.batcher.cancel(job)
                self._tell(None, time.monotonic())
            raise

    def refuse(self, deadline: float) -> None:
        """Raise what ``infer`` would raise for one payload of ``deadline``, before there is a payload."""
        now = time.monotonic()
        with self._changed:
            self._check(now)
            refusal = self.batcher.refuse(1, deadline, now)
        if refusal is not None:
            raise overloaded(refusal.reason, refusal.retry_after)

    def stop(self) -> None:
        """Refuse what comes from now on, finish what was admitted, and end the threads."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            # One that a backend does not return from ends with the process.
            thread.join(OVERDUE_S)

    def alive(self) -> bool:
        """Whether every device still has its thread."""
        return all(thread.is_alive() for thread in self._threads)

    def ready(self) -> bool:
        """Whether another image should be sent here: every device works, and it is not overloaded for too long."""
        now = time.monotonic()
        try:
            with self._changed:
                self._check(now)
                overload = self.batcher.overload.seconds(now)
        except ClassifierError:
            return False
        return self.alive() and not 0 < self._unready_after <= overload

    def _check(self, now: float) -> None:
        """Raise ClassifierError("unavailable") where the device fails, or no device ends its batch.

        One that does not end its batch while others work ends the process in the end: it would never come back.
        """
        slow = self._prepare_s * self.batcher.most
        all_late, one_late = self.batcher.overdue(now)
        if one_late > GIVE_UP_S + slow:
            _give_up(f"its batch is overdue for {one_late:.0f} s")
        if self._failing_since is not None or all_late > OVERDUE_S + slow:
            raise _unavailable()

    def describe(self) -> dict[str, Any]:
        """What the batcher has learned and done: α and β in ms, queue, counts of images."""
        with self._changed:
            batcher, now = self.batcher, time.monotonic()
            return {
                "slo_ms": round(1e3 * batcher.slo, 1),
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
            }

    def _tell(self, done: Batch | None, now: float) -> None:
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
                    self._tell(done, now)
                batch, expired = self.batcher.next(now)
                while batch is None and not expired:
                    if self._stopping:
                        return
                    if not self._changed.wait(None if self._failing_since is None else TRY_EVERY_S):
                        break
                    now = time.monotonic()
                    batch, expired = self.batcher.next(now)
                backlog = self.batcher.backlog(now) if expired else 0.0
                if expired and batch is None:
                    self._tell(None, now)
            for job in expired:
                _settle(job, overloaded("expired", backlog))
            if batch is not None:
                results, whole = self._results([job.payload[2] for job in batch.jobs])
                for job, result in zip(batch.jobs, results, strict=True):
                    if isinstance(result, Outcome):
                        result.queue_ms = 1e3 * (batch.start - job.arrival)
                    _settle(job, result)
            elif not expired:
                self._try()
            done = batch

    def _results(self, payloads: list[Any]) -> tuple[Sequence[Any], bool]:
        """A result for each payload, and whether one run gave them all: else their halves were run, and so on."""
        try:
            results = self._checked(payloads)
        except Exception as error:
            if len(payloads) == 1 or isinstance(error, DeviceLost):
                return [self._failed(error)] * len(payloads), False
            half = (len(payloads) + 1) // 2
            if isinstance(error, OutOfMemory):
                logger.warning("batches have at most %d images from now on: %s", half, error)
                with self._changed:
                    self.batcher.limit(half)
            return [*self._results(payloads[:half])[0], *self._results(payloads[half:])[0]], False
        self._works()
        # What was not inferred, like an image that can't be decoded, tells nothing of what inference costs.
        return results, all(isinstance(result, Outcome) for result in results)

    def _failed(self, error: Exception) -> Exception:
        """What the image is told that failed alone with ``error``."""
        self._failures += 1
        lost = isinstance(error, OutOfMemory | DeviceLost)
        if not lost and self._failures < FAILURES:
            return error
        with self._changed:
            if self._failing_since is None:
                logger.error("the device fails, images are refused until it works again: %s", error)
                self._failing_since = time.monotonic()
                # Devices that wait for images are to try, too.
                self._changed.notify_all()
        return _unavailable()

    def _works(self) -> None:
        self._failures = 0
        if self._failing_since is not None:
            logger.warning("the device works again")
            self._failing_since = None

    def _try(self) -> None:
        """Whether a device that fails works again, asked of the device."""
        since = self._failing_since
        try:
            self._trial()
        except Exception as error:
            if since is not None and time.monotonic() - since > GIVE_UP_S:
                _give_up(str(error))
        else:
            self._works()

    def _checked(self, payloads: list[Any]) -> Sequence[Any]:
        results = self._run(payloads)
        if len(results) != len(payloads):
            raise RuntimeError(f"{len(payloads)} images gave {len(results)} results")
        return results


def _unavailable() -> ClassifierError:
    return ClassifierError("unavailable", "the device that infers fails; try again", retry_after=1)


def _give_up(reason: str) -> NoReturn:
    logger.critical("the device has failed for too long, this process ends to be started anew: %s", reason)
    os._exit(1)


def _settle(job: Job, result: Any) -> None:
    """Give ``job`` its result, from a device's thread."""
    group, index, _ = job.payload
    group.loop.call_soon_threadsafe(_fill, group, index, result)


def _fill(group: _Group, index: int, result: Any) -> None:
    group.results[index] = result
    group.missing -= 1
    if not group.missing and not group.future.done():
        group.future.set_result(group.results)


def overloaded(reason: str, retry_after: float) -> ClassifierError:
    """The refusal of what can't be answered in time; ``retry_after`` is in seconds."""
    why = {
        "queue_full": "the queue is full",
        "deadline": "it would be answered after its deadline",
        "expired": "its deadline passed while it waited",
    }[reason]
    return ClassifierError("overloaded", f"refused: {why}", retry_after=max(1, round(retry_after + 0.5)), reason=reason)
