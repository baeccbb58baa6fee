"""The pump: a batcher on real threads, with a ``run`` whose behaviour is known."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from classifier.errors import ClassifierError
from runners import devices
from runners import pump as pumps
from runners.batching import Batcher, CostModel
from runners.pump import Outcome, Pump
from tests.conftest import ROOT, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def pump(run: Callable[[list[Any]], Sequence[Any]], *, devices: int = 1, **limits: Any) -> Pump:
    # β rules, so that what waits together is run together.
    batcher = Batcher(
        CostModel({1: 0.01, 8: 0.0101}), **{"slo": 1.0, "max_batch": 8, "max_queue": 64} | limits, devices=devices
    )
    return Pump(batcher, run, devices, lambda: run([0]))


def outcomes(payloads: list[Any]) -> list[Outcome]:
    return [Outcome(np.array([payload], np.float32), 0.0, 1.0) for payload in payloads]


def values(results: Sequence[Any]) -> list[float]:
    return [float(result.probabilities[0]) for result in results]


async def ask(target: Pump, *payloads: Any, seconds: float = 5) -> list[Any]:
    return await target.infer(payloads, time.monotonic() + seconds)


class Device:
    """A ``run`` whose memory holds ``room`` images, and which fails with ``error`` while there is one."""

    def __init__(self, room: int = 100, error: Exception | None = None) -> None:
        self.room, self.error = room, error
        self.sizes: list[int] = []
        self.seen: list[Any] = []
        self.gate = threading.Event()

    def __call__(self, payloads: list[Any]) -> list[Outcome]:
        self.gate.wait(5)
        self.sizes.append(len(payloads))
        self.seen.extend(payloads)
        if self.error is not None:
            raise self.error
        if len(payloads) > self.room:
            raise devices.OutOfMemory("CUDA failure 2: out of memory")
        return outcomes(payloads)


def test_each_payload_gets_its_own_result_in_order() -> None:
    target = pump(outcomes, devices=2)

    async def many() -> list[list[Any]]:
        return await asyncio.gather(*(ask(target, n, n + 0.5) for n in range(30)))

    assert [values(results) for results in asyncio.run(many())] == [[n, n + 0.5] for n in range(30)]
    target.stop()


def test_what_waits_together_shares_a_batch() -> None:
    device = Device()
    target = pump(device)

    async def many() -> None:
        alone = asyncio.ensure_future(ask(target, 0))
        await asyncio.sleep(0.05)
        rest = asyncio.gather(*(ask(target, n) for n in range(1, 6)))
        await asyncio.sleep(0.05)
        device.gate.set()
        await asyncio.gather(alone, rest)

    asyncio.run(many())
    assert device.sizes == [1, 5]
    assert target.describe()["batches"] == {"1": 1, "5": 1}
    target.stop()


def test_one_poison_image_fails_alone() -> None:
    gate = threading.Event()

    def run(payloads: list[Any]) -> list[Outcome]:
        gate.wait(5)
        if 3 in payloads:
            raise ValueError("poison")
        return outcomes(payloads)

    target = pump(run)

    async def many() -> list[Any]:
        waiting = asyncio.gather(*(ask(target, n) for n in range(6)))
        await asyncio.sleep(0.05)
        gate.set()
        return await waiting

    results = [result for (result,) in asyncio.run(many())]
    assert [n for n, result in enumerate(results) if isinstance(result, ValueError)] == [3]
    assert values([result for result in results if isinstance(result, Outcome)]) == [0, 1, 2, 4, 5]
    target.stop()


def test_a_wrong_number_of_results_is_an_error_never_silence() -> None:
    target = pump(lambda payloads: outcomes(payloads)[1:])
    (result,) = asyncio.run(ask(target, 1))
    assert isinstance(result, RuntimeError)
    assert "1 images gave 0 results" in str(result)
    target.stop()


def test_what_cannot_be_answered_in_time_is_refused_at_once() -> None:
    device = Device()
    target = pump(device, max_queue=4)

    async def many() -> tuple[Any, Any]:
        running = asyncio.ensure_future(ask(target, 0))
        await asyncio.sleep(0.05)
        waiting = asyncio.gather(*(ask(target, n) for n in range(4)))
        await asyncio.sleep(0.05)
        asked = ask(target, 9), ask(target, 9, seconds=-1)
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
    target.stop()


def test_a_cancelled_call_costs_no_inference() -> None:
    device = Device()
    target = pump(device)

    async def many() -> None:
        running = asyncio.ensure_future(ask(target, 0))
        await asyncio.sleep(0.05)
        gone = asyncio.ensure_future(ask(target, 1))
        await asyncio.sleep(0.05)
        gone.cancel()
        kept = asyncio.ensure_future(ask(target, 2))
        await asyncio.sleep(0.05)
        device.gate.set()
        await asyncio.gather(running, kept)
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(many())
    assert device.seen == [0, 2]
    assert target.describe()["cancelled"] == 1
    target.stop()


def test_stopping_finishes_what_was_admitted_and_refuses_the_rest() -> None:
    def run(payloads: list[Any]) -> list[Outcome]:
        time.sleep(0.05)
        return outcomes(payloads)

    target = pump(run, max_batch=1)

    async def many() -> tuple[list[Any], Any]:
        waiting = asyncio.gather(*(ask(target, n) for n in range(5)))
        await asyncio.sleep(0.02)
        stopping = asyncio.ensure_future(asyncio.to_thread(target.stop))
        await asyncio.sleep(0.02)
        refused: list[Any] = await asyncio.gather(ask(target, 9), return_exceptions=True)
        await stopping
        return await waiting, refused[0]

    answered, refused = asyncio.run(many())
    assert values([result for (result,) in answered]) == [0, 1, 2, 3, 4]
    assert isinstance(refused, ClassifierError)
    assert refused.status == 503
    assert not target.alive()


# A device that fails.


async def together(target: Pump, device: Device, count: int) -> list[Any]:
    """What ``count`` images get that the device finds waiting when it has done one before them."""
    device.gate.clear()
    first = asyncio.ensure_future(ask(target, 0))
    await asyncio.sleep(0.05)
    rest = asyncio.gather(*(ask(target, n) for n in range(1, count + 1)))
    await asyncio.sleep(0.05)
    device.gate.set()
    await first
    return [result for (result,) in await rest]


def test_a_batch_that_memory_does_not_hold_is_halved_and_batches_stay_smaller() -> None:
    device = Device(room=3)
    target = pump(device)
    assert values(asyncio.run(together(target, device, 8))) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert device.sizes == [1, 8, 4, 2, 2, 4, 2, 2]
    assert target.describe()["max_batch"] == 2
    device.sizes.clear()
    assert values(asyncio.run(together(target, device, 8))) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert device.sizes == [1, 2, 2, 2, 2]
    assert target.ready()
    target.stop()


@pytest.mark.parametrize(
    ("error", "before"),
    [(devices.OutOfMemory("no memory"), 0), (devices.DeviceLost("CUDA failure 999"), 0), (ValueError("odd"), 2)],
    ids=["out of memory", "lost", "unknown"],
)
def test_a_device_that_fails_is_told_at_once_and_recovers(error: Exception, before: int) -> None:
    device = Device()
    device.gate.set()
    target = pump(device, devices=2)
    assert target.ready()
    device.error = error
    # Of an error that tells nothing of the device, the first are put down to the images.
    for _ in range(before):
        assert asyncio.run(ask(target, 1)) == [error]
        assert target.ready()
    (told,) = asyncio.run(ask(target, 1))
    assert isinstance(told, ClassifierError)
    assert (told.status, told.retry_after) == (503, 1)
    assert not target.ready()
    tries = len(device.sizes)
    for attempt in (lambda: asyncio.run(ask(target, 1)), lambda: target.refuse(time.monotonic() + 5)):
        with pytest.raises(ClassifierError, match="the device that infers fails"):
            attempt()
    assert len(device.sizes) == tries, "what is refused must not cost the device a try"
    # It is tried without any request, and serves again.
    assert eventually(lambda: len(device.sizes) > tries)
    assert not target.ready()
    device.error = None
    assert eventually(target.ready)
    assert values(asyncio.run(ask(target, 7))) == [7]
    target.stop()


def test_a_batch_that_does_not_end_is_told_and_one_that_ends_late_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pumps, "OVERDUE_S", 0.2)
    device = Device()
    target = pump(device)

    async def hung() -> list[Any]:
        waiting = asyncio.ensure_future(ask(target, 1))
        await asyncio.sleep(0.05)
        assert target.ready(), "a batch of ordinary length is no failure"
        await asyncio.sleep(0.3)
        assert not target.ready()
        with pytest.raises(ClassifierError, match="the device that infers fails"):
            await ask(target, 2)
        device.gate.set()
        return await waiting

    assert values(asyncio.run(hung())) == [1]
    assert eventually(target.ready)
    target.stop()


@pytest.mark.parametrize(("fault", "devices"), [("fails", 1), ("hangs", 1), ("hangs alone", 2)])
def test_a_device_that_fails_for_too_long_ends_its_process(fault: str, devices: int) -> None:
    # It ends the process it is in, so it is given one.
    code = f"""if True:
        import asyncio, contextlib, time
        from classifier.errors import ClassifierError
        from runners import devices, pump as pumps
        from tests.runners.test_pump import ask, outcomes, pump
        pumps.OVERDUE_S, pumps.GIVE_UP_S, pumps.TRY_EVERY_S = 0.1, 0.5, 0.1
        def run(payloads):
            if "{fault}" == "fails":
                raise devices.DeviceLost("CUDA failure 999")
            if payloads[0] == "hang":
                time.sleep(60)
            return outcomes(payloads)
        target = pump(run, devices={devices})
        async def main():
            first = asyncio.ensure_future(ask(target, "hang"))
            for number in range(300):
                await asyncio.sleep(0.1)
                if target.ready() and {devices} == 2:
                    await ask(target, number)
                    print("the other device answers", flush=True)
        asyncio.run(main())
    """
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1, ended.stderr
    assert "the device has failed for too long" in ended.stderr
    assert ("the other device answers" in ended.stdout) == (fault == "hangs alone")


def test_what_was_not_inferred_teaches_nothing_of_the_cost() -> None:
    async def many(target: Pump, count: int) -> None:
        for n in range(count):
            await ask(target, n)

    learned = []
    for result in (outcomes, lambda payloads: [ValueError("no image")] * len(payloads)):
        target = pump(result)
        before = target.batcher.cost.expected(1)
        asyncio.run(many(target, 50))
        learned.append(target.batcher.cost.expected(1) != before)
        target.stop()
    assert learned == [True, False]


def test_it_is_not_ready_while_it_refuses_for_too_long_and_ready_again_after_a_pause() -> None:
    target = pump(outcomes, max_queue=0)
    patient = Pump(target.batcher, outcomes, 0, lambda: None, unready_after=0.2)
    for _ in range(2):
        with pytest.raises(ClassifierError, match="the queue is full"):
            asyncio.run(ask(target, 1))
        assert patient.ready(), "not at the first refusals"
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        with pytest.raises(ClassifierError, match="the queue is full"):
            target.refuse(time.monotonic() + 5)
        time.sleep(0.01)
    assert not patient.ready()
    assert target.ready(), "0 means never"
    assert eventually(patient.ready, seconds=3)
    target.stop()
