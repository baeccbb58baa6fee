"""The decode pool: threads that decode images in front of executors, which infer pixels."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from classifier.errors import ClassifierError
from runners.admission import overloaded

if TYPE_CHECKING:
    from classifier.pixels import Decoded
    from runners.results import ImageResult

    Decode = Callable[[Any], Decoded]

# The weight of the newest image in the moving mean of decoding times.
_NEWEST = 0.1


class DecodePool:
    """Decodes images on ``threads`` threads with ``decode``: an encoded image to pixels uint8[S, S, 3].

    Images wait in the event loop until a thread is free. An image that is late or unwanted by then is never decoded.
    """

    def __init__(self, decode: Decode, threads: int) -> None:
        self._decode, self._threads = decode, threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="resnet18-decode")
        self._free = asyncio.Semaphore(threads)
        self._waiting = 0
        # Seconds that decoding an image has lately taken.
        self._took = 0.0

    async def submit(
        self, images: list[Any], deadline: float, submit_pixels: Callable[[list[Any]], Any]
    ) -> list[ImageResult | Exception]:
        """A result or an Exception for each encoded image, in order. ``submit_pixels`` infers those that were decoded.

        ``deadline``: seconds of ``time.monotonic()``.
        """
        decoded = await asyncio.gather(*(self._one(image, deadline) for image in images))
        good = [item.pixels for item, _ in decoded if not isinstance(item, ClassifierError)]
        inferred = iter(await submit_pixels(good) if good else [])
        results: list[ImageResult | Exception] = []
        for item, took in decoded:
            if isinstance(item, ClassifierError):
                results.append(item)
                continue
            result = next(inferred)
            if not isinstance(result, Exception):
                result.decode_ms, result.warnings = took, item.warnings
            results.append(result)
        return results

    def check_admission(self, deadline: float) -> None:
        """Raise ClassifierError if an image that comes now would not be decoded by ``deadline``."""
        late = time.monotonic() + self._backlog() - deadline
        if self._waiting and late > 0:
            raise overloaded("deadline", late)

    def _backlog(self) -> float:
        """Seconds until the waiting images, and one more, would be decoded."""
        return (1 + self._waiting / self._threads) * self._took

    async def _one(self, image: Any, deadline: float) -> tuple[Any, float]:
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        if time.monotonic() >= deadline:
            self._free.release()
            return overloaded("expired", self._backlog()), 0.0
        loop = asyncio.get_running_loop()
        running = self._executor.submit(self._timed, image)
        # A call may be cancelled before its thread is free; the thread is given away when it is free.
        running.add_done_callback(lambda _: self._release(loop))
        item, took = await asyncio.wrap_future(running)
        self._took += _NEWEST * (took / 1e3 - self._took)
        return item, took

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nothing waits any more
            loop.call_soon_threadsafe(self._free.release)

    def _timed(self, image: Any) -> tuple[Any, float]:
        start = time.perf_counter()
        try:
            item: Any = self._decode(image)
        except ClassifierError as error:
            item = error
        return item, 1e3 * (time.perf_counter() - start)
