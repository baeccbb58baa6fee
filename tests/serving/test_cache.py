"""The cache: equal images are inferred once, each caller keeps its own limits, and memory is what is promised."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from classifier.errors import ClassifierError
from classifier.preprocessing import Preprocessing
from classifier.settings import Settings
from runners.admission import overloaded
from runners.results import ImageResult
from serving.cache import Cached, ResultCache
from tests import hostile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from numpy.typing import NDArray

    from tests.conftest import Server

LATER = 1e9


def row(value: float, classes: int = 10) -> NDArray[np.float32]:
    return np.full(classes, value, np.float32)


class Placement:
    """Answers an image with its first byte, once ``gate`` is open; ``fails``: what it answers with instead, in turn."""

    def __init__(self, digest: str = "0" * 64, preprocessing: Preprocessing | None = None) -> None:
        manifest = SimpleNamespace(digest=digest, preprocessing=preprocessing or Preprocessing(32, 36))
        self.artifact: Any = SimpleNamespace(manifest=manifest)
        self.asked: list[list[Any]] = []
        self.cancelled = 0
        self.fails: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def submit(self, images: list[Any], deadline: float) -> list[Any]:
        self.asked.append(images)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails:
            raise self.fails.pop(0)
        return [
            ClassifierError("unreadable_image", "broken")
            if bytes(image[:3]) == b"bad"
            else ImageResult(row(np.asarray(memoryview(image)).ravel()[0]), 3.0, 2.0, 1.0)
            for image in images
        ]

    async def describe(self) -> dict[str, Any]:
        return {"pid": 1}


class Metrics:
    """Sums what was counted: hits, shared, misses."""

    def __init__(self) -> None:
        self.counts = [0, 0, 0]

    def answered(self, *counts: int) -> None:
        self.counts = [old + new for old, new in zip(self.counts, counts, strict=False)]


def cached(placement: Any, **settings: Any) -> tuple[Cached, Metrics]:
    metrics: Any = Metrics()
    return Cached(placement, Settings(cache_mb=1, **settings), metrics), metrics


def run(work: Callable[[Placement], Awaitable[None]]) -> None:
    async def with_placement() -> None:
        await work(Placement())

    asyncio.run(with_placement())


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_an_image_that_comes_again_is_not_inferred_again() -> None:
    async def work(placement: Placement) -> None:
        cache, metrics = cached(placement)
        (first,), (again,), (other,) = [await cache.submit([image], LATER) for image in (b"a", b"a", b"b")]
        assert isinstance(first, ImageResult) and isinstance(again, ImageResult) and isinstance(other, ImageResult)
        np.testing.assert_array_equal(again.probabilities, first.probabilities)
        assert first.probabilities[0] == ord("a") and other.probabilities[0] == ord("b")
        assert (first.cached, again.cached, other.cached) == (False, True, False)
        assert (first.decode_ms, again.decode_ms, again.inference_ms, again.queue_ms) == (3.0, 0, 0, 0)
        assert placement.asked == [[b"a"], [b"b"]]
        assert metrics.counts == [1, 0, 2]
        told = await cache.describe()
        assert told["pid"] == 1 and told["cache"]["results"] == 2
        assert 0 < told["cache"]["bytes"] < told["cache"]["limit_bytes"] == 2**20

    run(work)


def test_of_a_call_s_equal_images_one_is_inferred_and_the_order_is_kept() -> None:
    async def work(placement: Placement) -> None:
        cache, metrics = cached(placement)
        await cache.submit([b"k"], LATER)
        results: list[Any] = await cache.submit([b"a", b"bad", b"k", b"a", b"bad", b"b"], LATER)
        assert placement.asked[1] == [b"a", b"bad", b"b"], "one call, so that all are admitted or none"
        assert [getattr(one, "cached", one) for one in results if isinstance(one, ImageResult)] == [
            False,
            True,
            True,
            False,
        ]
        assert [chr(int(one.probabilities[0])) for one in results if isinstance(one, ImageResult)] == list("akab")
        assert [one.code for one in results if isinstance(one, ClassifierError)] == ["unreadable_image"] * 2
        assert metrics.counts == [1, 2, 4]

    run(work)


def test_equal_images_in_flight_wait_for_one_inference() -> None:
    async def work(placement: Placement) -> None:
        cache, metrics = cached(placement)
        placement.gate.clear()
        calls = [asyncio.ensure_future(cache.submit([b"a"], LATER + number)) for number in range(5)]
        await asyncio.sleep(0.02)
        assert placement.asked == [[b"a"]]
        placement.gate.set()
        results: list[Any] = [one for (one,) in await asyncio.gather(*calls)]
        assert [one.cached for one in results] == [False, True, True, True, True]
        assert all(one.queue_ms >= 15 and one.inference_ms == 0 for one in results[1:])
        assert metrics.counts == [0, 4, 1]

    run(work)


@pytest.mark.parametrize("gone", [0, 1])
def test_one_that_hangs_up_leaves_the_others_their_inference(gone: int) -> None:
    async def work(placement: Placement) -> None:
        cache, _ = cached(placement)
        placement.gate.clear()
        calls = [asyncio.ensure_future(cache.submit([b"a"], LATER)) for _ in range(3)]
        await settled()
        calls[gone].cancel()
        await settled()
        assert calls[gone].cancelled() and not placement.cancelled
        placement.gate.set()
        for number, call in enumerate(calls):
            if number != gone:
                assert isinstance((await call)[0], ImageResult)
        assert placement.asked == [[b"a"]]

    run(work)


def test_an_inference_that_nobody_waits_for_is_cancelled_and_joined_by_nobody() -> None:
    async def work(placement: Placement) -> None:
        cache, _ = cached(placement)
        placement.gate.clear()
        calls = [asyncio.ensure_future(cache.submit([b"a"], LATER)) for _ in range(2)]
        await settled()
        for call in calls:
            call.cancel()
        late = asyncio.ensure_future(cache.submit([b"a"], LATER))
        await settled()
        assert placement.cancelled == 1
        placement.gate.set()
        assert isinstance((await late)[0], ImageResult)
        assert placement.asked == [[b"a"]] * 2

    run(work)


def test_a_deadline_is_its_own() -> None:
    """One that is in more of a hurry than the inference that goes on does not wait for it."""

    async def work(placement: Placement) -> None:
        cache, _ = cached(placement)
        placement.gate.clear()
        slow = asyncio.ensure_future(cache.submit([b"a"], LATER))
        await settled()
        quick = asyncio.ensure_future(cache.submit([b"a"], LATER / 2))
        third = asyncio.ensure_future(cache.submit([b"a"], LATER))
        await settled()
        assert placement.asked == [[b"a"]] * 2, "the third waits for the quicker one"
        placement.gate.set()
        results = await asyncio.gather(slow, quick, third)
        assert [getattr(one, "cached", None) for (one,) in results] == [False, False, True]

    run(work)


def test_who_waited_for_one_that_was_given_up_is_inferred_itself() -> None:
    async def work(placement: Placement) -> None:
        cache, metrics = cached(placement)
        placement.gate.clear()
        placement.fails = [overloaded("expired", 1.0)]
        calls = [asyncio.ensure_future(cache.submit([b"a"], LATER + number)) for number in range(3)]
        await settled()
        placement.gate.set()
        results: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results[0], ClassifierError) and results[0].facts == {"reason": "expired"}
        assert [one.cached for (one,) in results[1:]] == [False, True]
        assert placement.asked == [[b"a"]] * 2
        assert metrics.counts == [0, 1, 1]

    run(work)


def test_another_error_is_of_all_who_wait_and_is_not_kept() -> None:
    async def work(placement: Placement) -> None:
        cache, _ = cached(placement)
        for error in (ClassifierError("unavailable", "no device"), RuntimeError("bug")):
            placement.gate.clear()
            placement.fails, placement.asked = [error], []
            calls = [asyncio.ensure_future(cache.submit([b"a"], LATER)) for _ in range(3)]
            await settled()
            placement.gate.set()
            assert await asyncio.gather(*calls, return_exceptions=True) == [error] * 3
            assert placement.asked == [[b"a"]]
        for _ in range(2):
            (broken,) = await cache.submit([b"bad"], LATER)
            assert isinstance(broken, ClassifierError)
        assert placement.asked[1:] == [[b"bad"]] * 2
        (good,) = await cache.submit([b"a"], LATER)
        assert isinstance(good, ImageResult) and not good.cached

    run(work)


def test_those_who_wait_are_bounded() -> None:
    async def work(placement: Placement) -> None:
        cache, _ = cached(placement, max_queue=2)
        placement.gate.clear()
        calls = [asyncio.ensure_future(cache.submit([b"a"], LATER)) for _ in range(3)]
        await settled()
        with pytest.raises(ClassifierError, match="the queue is full"):
            await cache.submit([b"a"], LATER)
        calls[2].cancel()
        await settled()
        calls.append(asyncio.ensure_future(cache.submit([b"a"], LATER)))
        await settled()
        placement.gate.set()
        assert len(await asyncio.gather(calls[0], calls[1], calls[3])) == 3

    run(work)


def test_a_key_is_of_bytes_model_and_pixels() -> None:
    async def keys() -> list[bytes]:
        array = np.zeros((4, 4, 3), np.uint8)
        first, _ = cached(Placement())
        others = [Placement("1" * 64), Placement(preprocessing=Preprocessing(32, 36, interpolation="bicubic"))]
        found = [key for each in others for key in await cached(each)[0]._keys([b"a"])]
        found += await first._keys([b"a", b"b", array, array.tobytes(), bytes(3 << 20)])
        assert await first._keys([b"a"]) == await first._keys([bytearray(b"a")]) == found[2:3]
        return found

    found = asyncio.run(keys())
    assert len(set(found)) == len(found) == 7
    assert {len(key) for key in found} == {32}


@pytest.mark.parametrize(("size", "aside"), [(1 << 10, False), (1 << 16, True)])
def test_many_images_are_digested_in_another_thread(monkeypatch: pytest.MonkeyPatch, size: int, aside: bool) -> None:
    """However small each is: a call of much data must not keep other requests waiting."""
    threads: list[int] = []

    async def keys() -> list[bytes]:
        cache, _ = cached(Placement())
        digests = cache._digests

        def noted(images: list[Any]) -> list[bytes]:
            threads.append(threading.get_ident())
            return digests(images)

        monkeypatch.setattr(cache, "_digests", noted)
        return await cache._keys([bytes([number]) * size for number in range(20)])

    assert len(set(asyncio.run(keys()))) == 20
    assert (threads != [threading.get_ident()]) == aside


def test_the_least_recently_used_go_first() -> None:
    cache = ResultCache(1 << 16)
    probabilities = row(0.5, 1000)
    for number in range(40):
        cache.add(b"%032d" % number, probabilities)
        assert cache.get(b"%032d" % 0) is not None
    assert 12 <= len(cache) <= 16
    known = [number for number in range(40) if cache.get(b"%032d" % number) is not None]
    assert known == [0, *range(40 - len(known) + 1, 40)]
    again = cache.get(b"%032d" % 0)
    assert again is not None and again.dtype == np.float32
    np.testing.assert_array_equal(again, probabilities)


@pytest.mark.parametrize("classes", [10, 1000])
def test_what_is_held_is_what_memory_it_takes(classes: int) -> None:
    batch = np.zeros((64, classes), np.float32)
    limit = 2 << 20
    tracemalloc.start()
    try:
        cache = ResultCache(limit)
        for number in range(20_000):
            cache.add(b"%032d" % number, batch[number % 64])
            assert cache.held <= limit
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(cache) > (5000 if classes == 10 else 400)
    assert 0.9 * cache.held <= taken <= 1.02 * cache.held


def test_a_result_larger_than_all_is_not_kept() -> None:
    cache = ResultCache(1 << 10)
    cache.add(b"k" * 32, row(0, 1000))
    assert len(cache) == 0 and cache.get(b"k" * 32) is None


def test_a_service_says_what_came_from_the_cache_and_counts_it(launch: Callable[..., Server]) -> None:
    server = launch(cache_mb="1").wait()
    png, jpeg = (hostile.encode(hostile.picture(), kind) for kind in ("PNG", "JPEG"))
    first, again = (server.client.post("/classify", content=png, headers={"content-type": "image/png"}) for _ in "12")
    assert "cached" not in first.json()
    assert again.json()["cached"] is True
    assert again.json()["predictions"] == first.json()["predictions"]
    five = server.client.post("/classify?top_k=5", content=png, headers={"content-type": "image/png"}).json()
    assert five["cached"] is True and five["predictions"][:3] == first.json()["predictions"]
    files = [("images", body) for body in (jpeg, png, jpeg, b"no image")]
    batch = server.client.post("/classify_batch", files=files).json()["results"]
    assert [one.get("cached", "error" in one) for one in batch] == [False, True, True, True]
    for _ in range(2):
        broken = server.client.post("/classify", content=b"\xff\xd8\xffbad", headers={"content-type": "image/jpeg"})
        assert broken.status_code == 400
    metrics = server.client.get("/metrics").text
    counted = {
        outcome: sum(
            float(line.split()[-1])
            for line in metrics.splitlines()
            if line.startswith(f'resnet18_cache_images_total{{outcome="{outcome}"')
        )
        for outcome in ("hit", "shared", "miss")
    }
    assert counted == {"hit": 3, "shared": 1, "miss": 5}
    (held,) = [line for line in metrics.splitlines() if line.startswith("resnet18_cache_bytes")]
    assert 0 < float(held.split()[-1]) < 2**20
    assert server.client.get("/model").json()["runner"]["cache"]["results"] == 2


def test_without_the_setting_nothing_is_wrapped_or_said(server: Server) -> None:
    png = hostile.encode(hostile.picture(), "PNG")
    replies = [server.client.post("/classify", content=png).json() for _ in range(2)]
    assert all("cached" not in reply for reply in replies)
    assert "cache" not in server.client.get("/model").json()["runner"]
    assert "resnet18_cache" not in server.client.get("/metrics").text
