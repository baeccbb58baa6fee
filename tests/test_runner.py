"""The pump: a batcher on real threads, with a ``run`` whose behaviour is known."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from classifier.errors import ClassifierError
from runners.batching import Batcher, CostModel
from runners.runner import Engine, Outcome, Pump, inferring, preparing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


def pump(run: Callable[[list[Any]], Sequence[Any]], *, devices: int = 1, **limits: Any) -> Pump:
    # β rules, so that what waits together is run together.
    batcher = Batcher(
        CostModel({1: 0.01, 8: 0.0101}), **{"slo": 1.0, "max_batch": 8, "max_queue": 64} | limits, devices=devices
    )
    return Pump(batcher, run, devices)


def outcomes(payloads: list[Any]) -> list[Outcome]:
    return [Outcome(np.array([payload], np.float32), 0.0, 1.0) for payload in payloads]


def values(results: Sequence[Any]) -> list[float]:
    return [float(result.probabilities[0]) for result in results]


async def ask(target: Pump, *payloads: Any, seconds: float = 5) -> list[Any]:
    return await target.infer(payloads, time.monotonic() + seconds)


def test_each_payload_gets_its_own_result_in_order() -> None:
    target = pump(outcomes, devices=2)

    async def many() -> list[list[Any]]:
        return await asyncio.gather(*(ask(target, n, n + 0.5) for n in range(30)))

    assert [values(results) for results in asyncio.run(many())] == [[n, n + 0.5] for n in range(30)]
    target.stop()


def test_what_waits_together_shares_a_batch() -> None:
    sizes: list[int] = []
    first = threading.Event()

    def run(payloads: list[Any]) -> list[Outcome]:
        sizes.append(len(payloads))
        first.wait(5)
        return outcomes(payloads)

    target = pump(run)

    async def many() -> None:
        alone = asyncio.ensure_future(ask(target, 0))
        await asyncio.sleep(0.05)
        rest = asyncio.gather(*(ask(target, n) for n in range(1, 6)))
        await asyncio.sleep(0.05)
        first.set()
        await asyncio.gather(alone, rest)

    asyncio.run(many())
    assert sizes == [1, 5]
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
    gate = threading.Event()

    def run(payloads: list[Any]) -> list[Outcome]:
        gate.wait(5)
        return outcomes(payloads)

    target = pump(run, max_queue=4)

    async def many() -> tuple[Any, Any]:
        running = asyncio.ensure_future(ask(target, 0))
        await asyncio.sleep(0.05)
        waiting = asyncio.gather(*(ask(target, n) for n in range(4)))
        await asyncio.sleep(0.05)
        asked = ask(target, 9), ask(target, 9, seconds=-1)
        refused: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
        gate.set()
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
    seen: list[Any] = []
    gate = threading.Event()

    def run(payloads: list[Any]) -> list[Outcome]:
        seen.extend(payloads)
        gate.wait(5)
        return outcomes(payloads)

    target = pump(run)

    async def many() -> None:
        running = asyncio.ensure_future(ask(target, 0))
        await asyncio.sleep(0.05)
        gone = asyncio.ensure_future(ask(target, 1))
        await asyncio.sleep(0.05)
        gone.cancel()
        kept = asyncio.ensure_future(ask(target, 2))
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(running, kept)
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(many())
    assert seen == [0, 2]
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


class FakeEngine(Engine):
    """Gives each image its first pixel's value as the only probability."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pixels))
        return pixels[:, 0, 0, :1].astype(np.float32)


def image(value: int) -> NDArray[np.uint8]:
    return np.full((2, 2, 3), value, np.uint8)


def test_inferring_stacks_pixels() -> None:
    engine = FakeEngine()
    assert values(inferring(engine)([image(3), image(5)])) == [3, 5]
    assert engine.batches == [2]


def test_preparing_gives_an_unreadable_image_its_error_and_infers_the_others_together() -> None:
    engine = FakeEngine()

    def prepare(value: int) -> NDArray[np.uint8]:
        if value < 0:
            raise ClassifierError("unreadable_image", "broken")
        return image(value)

    results = preparing(engine, prepare)([1, -1, 2, -2])
    assert isinstance(results[1], ClassifierError)
    assert isinstance(results[3], ClassifierError)
    assert values([results[0], results[2]]) == [1, 2]
    assert engine.batches == [2]
    assert preparing(engine, prepare)([-1])[0].code == "unreadable_image"
    assert engine.batches == [2]
