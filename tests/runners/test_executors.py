"""The executor pool: a batcher on real threads, with a ``run`` whose behaviour is known."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from classifier.errors import ClassifierError
from runners import devices
from runners.batching import Batcher
from runners.cost_model import CostModel
from runners.executors import ExecutorPool
from runners.results import ImageResult
from tests.conftest import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def started(run: Callable[[list[Any]], Sequence[Any]], *, executors: int = 1, **bounds: Any) -> ExecutorPool:
    # β rules, so that what waits together is run together.
    batcher = Batcher(
        CostModel({1: 0.01, 8: 0.0101}),
        **{"budget": 1.0, "max_batch": 8, "max_queue": 64} | bounds,
        executors=executors,
    )
    return ExecutorPool(batcher, lambda payloads, _: run(payloads), executors, lambda: run([0]))


def results_of(payloads: list[Any]) -> list[ImageResult]:
    return [ImageResult(np.array([payload], np.float32), 0.0, 1.0) for payload in payloads]


def values(results: Sequence[Any]) -> list[float]:
    return [float(result.probabilities[0]) for result in results]


async def ask(pool: ExecutorPool, *payloads: Any, seconds: float = 5) -> list[Any]:
    return await pool.submit(payloads, time.monotonic() + seconds)


class Device:
    """A ``run`` whose memory holds ``room`` images, and which fails with ``error`` while there is one."""

    def __init__(self, room: int = 100, error: Exception | None = None) -> None:
        self.room, self.error = room, error
        self.sizes: list[int] = []
        self.seen: list[Any] = []
        self.gate = threading.Event()

    def __call__(self, payloads: list[Any]) -> list[ImageResult]:
        self.gate.wait(5)
        self.sizes.append(len(payloads))
        self.seen.extend(payloads)
        if self.error is not None:
            raise self.error
        if len(payloads) > self.room:
            raise devices.OutOfMemory("CUDA failure 2: out of memory")
        return results_of(payloads)


def test_each_payload_gets_its_own_result_in_order() -> None:
    pool = started(results_of, executors=2)

    async def many() -> list[list[Any]]:
        return await asyncio.gather(*(ask(pool, n, n + 0.5) for n in range(30)))

    assert [values(results) for results in asyncio.run(many())] == [[n, n + 0.5] for n in range(30)]
    pool.stop()


def test_what_waits_together_shares_a_batch() -> None:
    device = Device()
    pool = started(device)

    async def many() -> None:
        alone = asyncio.ensure_future(ask(pool, 0))
        await asyncio.sleep(0.05)
        rest = asyncio.gather(*(ask(pool, n) for n in range(1, 6)))
        await asyncio.sleep(0.05)
        device.gate.set()
        await asyncio.gather(alone, rest)

    asyncio.run(many())
    assert device.sizes == [1, 5]
    assert pool.describe()["batches"] == {"1": 1, "5": 1}
    pool.stop()


def test_one_poison_image_fails_alone() -> None:
    gate = threading.Event()

    def run(payloads: list[Any]) -> list[ImageResult]:
        gate.wait(5)
        if 3 in payloads:
            raise ValueError("poison")
        return results_of(payloads)

    pool = started(run)

    async def many() -> list[Any]:
        waiting = asyncio.gather(*(ask(pool, n) for n in range(6)))
        await asyncio.sleep(0.05)
        gate.set()
        return await waiting

    results = [result for (result,) in asyncio.run(many())]
    assert [n for n, result in enumerate(results) if isinstance(result, ValueError)] == [3]
    assert values([result for result in results if isinstance(result, ImageResult)]) == [0, 1, 2, 4, 5]
    pool.stop()


def test_a_wrong_number_of_results_is_an_error_never_silence() -> None:
    pool = started(lambda payloads: results_of(payloads)[1:])
    (result,) = asyncio.run(ask(pool, 1))
    assert isinstance(result, RuntimeError)
    assert "1 images gave 0 results" in str(result)
    pool.stop()


def test_what_cannot_be_answered_in_time_is_refused_at_once() -> None:
    device = Device()
    pool = started(device, max_queue=4)

    async def many() -> tuple[Any, Any]:
        running = asyncio.ensure_future(ask(pool, 0))
        await asyncio.sleep(0.05)
        waiting = asyncio.gather(*(ask(pool, n) for n in range(4)))
        await asyncio.sleep(0.05)
        asked = ask(pool, 9), ask(pool, 9, seconds=-1)
        refused: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
        device.gate.set()
        await asyncio.gather(running, waiting)
        return refused[0], refused[1]

    full, late = asyncio.run(many())
    assert isinstance(full, ClassifierError)
    assert (full.status, full.facts["reason"]) == (429, "queue_full")
    assert full.retry_after is not None
    assert full.retry_after >= 1
    assert isinstance(late, ClassifierError)
    pool.stop()


def test_a_cancelled_call_costs_no_inference() -> None:
    device = Device()
    pool = started(device)

    async def many() -> None:
        running = asyncio.ensure_future(ask(pool, 0))
        await asyncio.sleep(0.05)
        gone = asyncio.ensure_future(ask(pool, 1))
        await asyncio.sleep(0.05)
        gone.cancel()
        kept = asyncio.ensure_future(ask(pool, 2))
        await asyncio.sleep(0.05)
        device.gate.set()
        await asyncio.gather(running, kept)
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(many())
    assert device.seen == [0, 2]
    assert pool.describe()["cancelled"] == 1
    pool.stop()


def test_stopping_finishes_what_was_admitted_and_refuses_the_rest() -> None:
    def run(payloads: list[Any]) -> list[ImageResult]:
        time.sleep(0.05)
        return results_of(payloads)

    pool = started(run, max_batch=1)

    async def many() -> tuple[list[Any], Any]:
        waiting = asyncio.gather(*(ask(pool, n) for n in range(5)))
        await asyncio.sleep(0.02)
        stopping = asyncio.ensure_future(asyncio.to_thread(pool.stop))
        await asyncio.sleep(0.02)
        refused: list[Any] = await asyncio.gather(ask(pool, 9), return_exceptions=True)
        await stopping
        return await waiting, refused[0]

    answered, refused = asyncio.run(many())
    assert values([result for (result,) in answered]) == [0, 1, 2, 3, 4]
    assert isinstance(refused, ClassifierError)
    assert refused.status == 503
    assert not pool.alive()


# A device that fails.


async def together(pool: ExecutorPool, device: Device, count: int) -> list[Any]:
    """What ``count`` images get that the device finds waiting when it has done one before them."""
    device.gate.clear()
    first = asyncio.ensure_future(ask(pool, 0))
    await asyncio.sleep(0.05)
    rest = asyncio.gather(*(ask(pool, n) for n in range(1, count + 1)))
    await asyncio.sleep(0.05)
    device.gate.set()
    await first
    return [result for (result,) in await rest]


def test_a_batch_that_memory_does_not_hold_is_halved_and_batches_stay_smaller() -> None:
    device = Device(room=3)
    pool = started(device)
    assert values(asyncio.run(together(pool, device, 8))) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert device.sizes == [1, 8, 4, 2, 2, 4, 2, 2]
    assert pool.describe()["max_batch"] == 2
    device.sizes.clear()
    assert values(asyncio.run(together(pool, device, 8))) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert device.sizes == [1, 2, 2, 2, 2]
    assert pool.ready()
    pool.stop()


def test_what_was_not_inferred_teaches_nothing_of_the_cost() -> None:
    async def many(pool: ExecutorPool, count: int) -> None:
        for n in range(count):
            await ask(pool, n)

    learned = []
    for result in (results_of, lambda payloads: [ValueError("no image")] * len(payloads)):
        pool = started(result)
        before = pool.batcher.cost.expected(1)
        asyncio.run(many(pool, 50))
        learned.append(pool.batcher.cost.expected(1) != before)
        pool.stop()
    assert learned == [True, False]


@pytest.mark.slow
def test_it_is_not_ready_while_it_refuses_for_too_long_and_ready_again_after_a_pause() -> None:
    pool = started(results_of, max_queue=0)
    patient = ExecutorPool(pool.batcher, lambda payloads, _: results_of(payloads), 0, lambda: None, unready_after=0.2)
    for _ in range(2):
        with pytest.raises(ClassifierError, match="the queue is full"):
            asyncio.run(ask(pool, 1))
        assert patient.ready(), "not at the first refusals"
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        with pytest.raises(ClassifierError, match="the queue is full"):
            pool.check_admission(time.monotonic() + 5)
        time.sleep(0.01)
    assert not patient.ready()
    assert pool.ready(), "0 means never"
    assert eventually(patient.ready, seconds=3)
    pool.stop()
