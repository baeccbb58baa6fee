"""Where images become probabilities: inside the API worker, or in the runner's process. Two classes, one interface."""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from bentoml._internal.configuration.containers import BentoMLContainer

from classifier import pixels
from classifier.decoder import Limits
from classifier.errors import ClassifierError
from runners import artifacts, remote, runner
from runners.pump import overloaded
from serving.containment import ContainedDecoder
from serving.metrics import BatchMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from classifier.settings import Settings
    from runners.artifacts import Artifact
    from runners.pump import Outcome

    Decode = Callable[[bytes], NDArray[np.uint8]]


class Placement(Protocol):
    """What answers encoded images, wherever it is. ``artifact``: what it serves."""

    artifact: Artifact

    async def infer(self, images: list[bytes], deadline: float) -> list[Outcome | Exception]:
        """An Outcome or an Exception for each encoded image; ``deadline``: seconds of ``time.monotonic()``.

        Raises ClassifierError where none of them can be answered.
        """
        ...

    def refuse(self, deadline: float) -> None:
        """Raise ClassifierError if it is known already that an image of ``deadline`` would not be taken."""
        ...

    async def is_ready(self) -> bool:
        """Whether images would be answered now."""
        ...

    async def describe(self) -> dict[str, Any]:
        """Its device, provider and batcher, for ``GET /model``."""
        ...

    async def stop(self) -> None:
        """Finish what was admitted."""
        ...


class Inline:
    """A pump in this process. On a CPU its threads decode too: the cores are the devices, and know no hand-over."""

    def __init__(self, settings: Settings, tag: str, device: str) -> None:
        engine = runner.open_engine(settings, tag, device)
        self.artifact, self._engine = engine.artifact, engine
        decode = _decoder(settings, self.artifact)
        threads = settings.inference_threads(settings.workers)
        self._pool: _DecodePool | None = None
        if device == "cpu":
            run = runner.preparing(engine, decode)
            self._pump = runner.start(settings, engine, run, devices=threads, decodes=True)
        else:
            self._pool = _DecodePool(decode, threads)
            self._pump = runner.start(settings, engine, runner.inferring(engine), devices=1)
        BatchMetrics(self._pump, settings.slo_ms / 1e3)

    async def infer(self, images: list[bytes], deadline: float) -> list[Outcome | Exception]:
        """See Placement."""
        if self._pool is None:
            return await self._pump.infer(images, deadline)
        return await self._pool.infer(images, deadline, lambda decoded: self._pump.infer(decoded, deadline))

    def refuse(self, deadline: float) -> None:
        """See Placement."""
        if self._pool is not None:
            self._pool.refuse(deadline)
        self._pump.refuse(deadline)

    async def is_ready(self) -> bool:
        """See Placement."""
        return self._pump.ready()

    async def describe(self) -> dict[str, Any]:
        """See Placement."""
        return {**self._engine.describe(), "batcher": self._pump.describe()}

    async def stop(self) -> None:
        """See Placement."""
        await asyncio.to_thread(self._pump.stop)


class Dedicated:
    """The runner's process, sent the pixels that threads of this one have decoded."""

    def __init__(self, settings: Settings, tag: str, name: str) -> None:
        self.artifact = artifacts.open_artifact(tag)
        url = BentoMLContainer.remote_runner_mapping.get()[name]
        grace = runner.MARGIN * settings.slo_ms / 1e3
        self._client = remote.Client(url, len(self.artifact.manifest.labels), grace)
        threads = settings.inference_threads(settings.workers)
        self._pool = _DecodePool(_decoder(settings, self.artifact), threads)

    async def infer(self, images: list[bytes], deadline: float) -> list[Outcome | Exception]:
        """See Placement."""
        return await self._pool.infer(images, deadline, lambda decoded: self._client.infer(decoded, deadline))

    def refuse(self, deadline: float) -> None:
        """See Placement. What this process can know; the runner sees pixels alone."""
        self._pool.refuse(deadline)

    async def is_ready(self) -> bool:
        """See Placement."""
        return await self._client.is_ready()

    async def describe(self) -> dict[str, Any]:
        """See Placement."""
        return await self._client.describe()

    async def stop(self) -> None:
        """See Placement."""
        await self._client.close()


class _DecodePool:
    """Threads that decode, in front of what infers pixels.

    Images wait in the event loop until a thread is free, where those that are late or unwanted by then cost nothing.
    """

    def __init__(self, decode: Decode, threads: int) -> None:
        self._decode, self._threads = decode, threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="resnet18-decode")
        self._free = asyncio.Semaphore(threads)
        self._waiting = 0
        # What decoding has lately taken, in seconds an image.
        self._took = 0.0

    async def infer(
        self, images: list[bytes], deadline: float, infer: Callable[[list[Any]], Any]
    ) -> list[Outcome | Exception]:
        decoded = await asyncio.gather(*(self._one(image, deadline) for image in images))
        good = [(item, took) for item, took in decoded if not isinstance(item, ClassifierError)]
        outcomes = iter(await infer([item for item, _ in good]) if good else [])
        results: list[Outcome | Exception] = []
        for item, took in decoded:
            if isinstance(item, ClassifierError):
                results.append(item)
                continue
            outcome = next(outcomes)
            if not isinstance(outcome, Exception):
                outcome.decode_ms = took
            results.append(outcome)
        return results

    def refuse(self, deadline: float) -> None:
        """Raise ClassifierError if an image that comes now would not be decoded by ``deadline``."""
        late = time.monotonic() + self._backlog() - deadline
        if self._waiting and late > 0:
            raise overloaded("deadline", late)

    def _backlog(self) -> float:
        """Seconds until what waits, and one more, would be decoded."""
        return (1 + self._waiting / self._threads) * self._took

    async def _one(self, image: bytes, deadline: float) -> tuple[Any, float]:
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
        # When the thread is free, not when nobody waits for it any more.
        running.add_done_callback(lambda _: self._release(loop))
        item, took = await asyncio.wrap_future(running)
        self._took += 0.1 * (took / 1e3 - self._took)
        return item, took

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it all that could wait
            loop.call_soon_threadsafe(self._free.release)

    def _timed(self, image: bytes) -> tuple[Any, float]:
        start = time.perf_counter()
        try:
            item: Any = self._decode(image)
        except ClassifierError as error:
            item = error
        return item, 1e3 * (time.perf_counter() - start)


def _decoder(settings: Settings, artifact: Artifact) -> Decode:
    preprocessing, max_pixels = artifact.manifest.preprocessing, settings.max_pixels
    seconds = settings.decode_timeout_ms / 1e3
    if settings.decoder == "contained":
        return ContainedDecoder(Limits(preprocessing, max_pixels, seconds, settings.decode_memory_mb * 2**20))
    return lambda data: pixels.decode(data, preprocessing, max_pixels, seconds)
