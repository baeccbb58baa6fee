"""The device's health: a device that fails is told from an image that fails, is tried again, and is given up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import pytest

from classifier.errors import ClassifierError
from runners import devices, health
from tests.conftest import ROOT, eventually
from tests.runners.test_executors import Device, ask, started, values


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "before"),
    [(devices.OutOfMemory("no memory"), 0), (devices.DeviceLost("CUDA failure 999"), 0), (ValueError("odd"), 2)],
    ids=["out of memory", "lost", "unknown"],
)
def test_a_device_that_fails_is_told_at_once_and_recovers(error: Exception, before: int) -> None:
    device = Device()
    device.gate.set()
    pool = started(device, executors=2)
    assert pool.ready()
    device.error = error
    # Of an error that tells nothing of the device, the first are put down to the images.
    for _ in range(before):
        assert asyncio.run(ask(pool, 1)) == [error]
        assert pool.ready()
    (told,) = asyncio.run(ask(pool, 1))
    assert isinstance(told, ClassifierError)
    assert (told.status, told.retry_after) == (503, 1)
    assert not pool.ready()
    tries = len(device.sizes)
    for attempt in (lambda: asyncio.run(ask(pool, 1)), lambda: pool.check_admission(time.monotonic() + 5)):
        with pytest.raises(ClassifierError, match="the device that infers fails"):
            attempt()
    assert len(device.sizes) == tries, "what is refused must not cost the device a try"
    # It is tried without any request, and serves again.
    assert eventually(lambda: len(device.sizes) > tries)
    assert not pool.ready()
    device.error = None
    assert eventually(pool.ready)
    assert values(asyncio.run(ask(pool, 7))) == [7]
    pool.stop()


def test_a_batch_that_does_not_end_is_told_and_one_that_ends_late_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "OVERDUE_S", 0.2)
    device = Device()
    pool = started(device)

    async def hung() -> list[Any]:
        waiting = asyncio.ensure_future(ask(pool, 1))
        await asyncio.sleep(0.05)
        assert pool.ready(), "a batch of ordinary length is no failure"
        await asyncio.sleep(0.3)
        assert not pool.ready()
        with pytest.raises(ClassifierError, match="the device that infers fails"):
            await ask(pool, 2)
        device.gate.set()
        return await waiting

    assert values(asyncio.run(hung())) == [1]
    assert eventually(pool.ready)
    pool.stop()


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "executors"), [("fails", 1), ("hangs", 1), ("hangs alone", 2)])
def test_a_device_that_fails_for_too_long_ends_its_process(fault: str, executors: int) -> None:
    # It ends the process it is in, so it is given one.
    code = f"""if True:
        import asyncio, contextlib, time
        from classifier.errors import ClassifierError
        from runners import devices, health
        from tests.runners.test_executors import ask, results_of, started
        health.OVERDUE_S, health.GIVE_UP_S, health.TRY_EVERY_S = 0.1, 0.5, 0.1
        def run(payloads):
            if "{fault}" == "fails":
                raise devices.DeviceLost("CUDA failure 999")
            if payloads[0] == "hang":
                time.sleep(60)
            return results_of(payloads)
        pool = started(run, executors={executors})
        async def main():
            first = asyncio.ensure_future(ask(pool, "hang"))
            for number in range(300):
                await asyncio.sleep(0.1)
                if pool.ready() and {executors} == 2:
                    await ask(pool, number)
                    print("the other executor answers", flush=True)
        asyncio.run(main())
    """
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1, ended.stderr
    assert "the device has failed for too long" in ended.stderr
    assert ("the other executor answers" in ended.stdout) == (fault == "hangs alone")
