"""The decode pool: images that are late or unwanted are never decoded, and a bad one fails by itself."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest

from classifier.errors import ClassifierError
from classifier.pixels import Decoded
from runners.results import ImageResult
from serving.decode_pool import DecodePool


def test_what_waits_to_be_decoded_is_refused_when_late_and_dropped_when_unwanted() -> None:
    decoded: list[bytes] = []
    gate = threading.Event()

    def decode(data: bytes) -> Decoded:
        gate.wait(10)
        decoded.append(data)
        return Decoded(np.zeros((2, 2, 3), np.uint8))

    async def submit_pixels(images: list[Any]) -> list[Any]:
        return [ImageResult(np.zeros(1, np.float32), 0.0, 1.0) for _ in images]

    async def crowd() -> None:
        pool = DecodePool(decode, 1)
        now = time.monotonic()
        pool.check_admission(now)  # an idle one takes what comes
        asked = [asyncio.create_task(pool.submit([name], now + seconds, submit_pixels)) for name, seconds in
                 ((b"first", 9), (b"late", 0.2), (b"unwanted", 9), (b"last", 9))]  # fmt: skip
        await asyncio.sleep(0.3)
        asked[0].cancel()  # its thread goes on, and is not given to another meanwhile
        asked[2].cancel()
        await asyncio.sleep(0.1)
        with pytest.raises(ClassifierError, match="after its deadline"):
            pool.check_admission(time.monotonic() - 1)
        gate.set()
        (late,), (last,) = await asked[1], await asked[3]
        assert isinstance(late, ClassifierError) and late.facts["reason"] == "expired"
        assert isinstance(last, ImageResult) and last.decode_ms >= 0

    asyncio.run(crowd())
    assert decoded == [b"first", b"last"]


def test_a_bad_image_fails_by_itself_and_the_order_is_kept() -> None:
    def decode(data: bytes) -> Decoded:
        if data == b"bad":
            raise ClassifierError("unreadable_image", "broken")
        return Decoded(np.full((2, 2, 3), int(data), np.uint8), (data.decode(),))

    submitted: list[int] = []

    async def submit_pixels(images: list[Any]) -> list[Any]:
        submitted.append(len(images))
        return [ImageResult(image[0, 0, :1].astype(np.float32), 0.0, 1.0) for image in images]

    async def run(*images: bytes) -> list[Any]:
        return await DecodePool(decode, 2).submit(list(images), time.monotonic() + 9, submit_pixels)

    results = asyncio.run(run(b"1", b"bad", b"3"))
    assert [getattr(result, "code", None) for result in results] == [None, "unreadable_image", None]
    assert [float(results[index].probabilities[0]) for index in (0, 2)] == [1, 3]
    assert [results[index].warnings for index in (0, 2)] == [("1",), ("3",)]
    assert asyncio.run(run(b"bad"))[0].code == "unreadable_image"
    assert submitted == [2], "the pixels of a request are submitted together, and never none"
