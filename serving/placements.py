"""Where images are inferred: inside the API worker, or in the runner's process. Two classes, one interface."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from bentoml._internal.configuration.containers import BentoMLContainer

from classifier import pixels
from classifier.decoder import Limits
from classifier.pixels import Decoded
from runners import artifacts, predictor
from runners.budget import margin_s
from runners.remote import RunnerClient
from serving.containment import ContainedDecoder
from serving.decode_pool import DecodePool
from serving.metrics import BatchMetrics

if TYPE_CHECKING:
    from classifier.settings import Settings
    from runners.artifacts import Artifact
    from runners.results import ImageResult
    from serving.decode_pool import Decode


class Placement(Protocol):
    """Turns encoded images into results, wherever the predictor is. ``artifact``: the artifact that it serves."""

    artifact: Artifact

    async def submit(self, images: list[Any], deadline: float) -> list[ImageResult | Exception]:
        """An ImageResult or an Exception for each image, encoded or as pixels uint8[S, S, 3].

        ``deadline``: seconds of ``time.monotonic()``. Raises ClassifierError where none of them can be answered.
        """
        ...

    def check_admission(self, deadline: float) -> None:
        """Raise ClassifierError if it is known already that an image of ``deadline`` would not be admitted."""
        ...

    async def is_ready(self) -> bool:
        """Whether images would be answered now."""
        ...

    async def describe(self) -> dict[str, Any]:
        """Its device, provider and batcher, for ``GET /model``."""
        ...

    async def stop(self) -> None:
        """Finish the admitted images."""
        ...


class Inline:
    """The predictor in this process. On a CPU each executor's thread decodes and infers.

    On a GPU the threads of a decode pool decode, and one executor infers.
    """

    def __init__(self, settings: Settings, tag: str, device: str) -> None:
        threads = settings.threads_of(settings.workers)
        self._predictor = predictor.open_predictor(settings, tag, device, threads)
        self.artifact = self._predictor.artifact
        decode = decoder_of(settings, self.artifact)
        self._decode_pool: DecodePool | None = None
        if device == "cpu":
            run = predictor.image_run(self._predictor, decode)
            self._executors = predictor.start_executors(settings, self._predictor, run, executors=threads, decodes=True)
        else:
            self._decode_pool = DecodePool(decode, threads)
            run = predictor.pixel_run(self._predictor)
            self._executors = predictor.start_executors(settings, self._predictor, run, executors=1)
        BatchMetrics(self._executors, settings.slo_ms / 1e3)

    async def submit(self, images: list[Any], deadline: float) -> list[ImageResult | Exception]:
        """See Placement."""
        if self._decode_pool is None:
            return await self._executors.submit(images, deadline)
        return await self._decode_pool.submit(
            images, deadline, lambda decoded: self._executors.submit(decoded, deadline)
        )

    def check_admission(self, deadline: float) -> None:
        """See Placement."""
        if self._decode_pool is not None:
            self._decode_pool.check_admission(deadline)
        self._executors.check_admission(deadline)

    async def is_ready(self) -> bool:
        """See Placement."""
        return self._executors.ready()

    async def describe(self) -> dict[str, Any]:
        """See Placement."""
        return {**self._predictor.describe(), "batcher": self._executors.describe()}

    async def stop(self) -> None:
        """See Placement."""
        await asyncio.to_thread(self._executors.stop)


class Dedicated:
    """The predictor in the runner's process, to which this one sends the pixels that its decode pool has decoded."""

    def __init__(self, settings: Settings, tag: str, name: str) -> None:
        self.artifact = artifacts.open_artifact(tag)
        url = BentoMLContainer.remote_runner_mapping.get()[name]
        self._client = RunnerClient(url, len(self.artifact.manifest.labels), grace=margin_s(settings.slo_ms))
        threads = settings.threads_of(settings.workers)
        self._decode_pool = DecodePool(decoder_of(settings, self.artifact), threads)

    async def submit(self, images: list[Any], deadline: float) -> list[ImageResult | Exception]:
        """See Placement."""
        return await self._decode_pool.submit(images, deadline, lambda decoded: self._client.submit(decoded, deadline))

    def check_admission(self, deadline: float) -> None:
        """See Placement. Only the decode pool is asked: the runner's queue is known to its own process alone."""
        self._decode_pool.check_admission(deadline)

    async def is_ready(self) -> bool:
        """See Placement."""
        return await self._client.is_ready()

    async def describe(self) -> dict[str, Any]:
        """See Placement."""
        return await self._client.describe()

    async def stop(self) -> None:
        """See Placement."""
        await self._client.close()


def decoder_of(settings: Settings, artifact: Artifact) -> Decode:
    """Encoded images to pixels, as ``settings`` ask. What comes as pixels, of the artifact's size, passes."""
    preprocessing, max_pixels = artifact.manifest.preprocessing, settings.max_pixels
    seconds, truncated = settings.decode_timeout_ms / 1e3, settings.truncated == "accept"
    if settings.decoder == "contained":
        memory = settings.decode_memory_mb * 2**20
        read: Decode = ContainedDecoder(Limits(preprocessing, max_pixels, seconds, memory, truncated))
    else:

        def read(data: Any) -> Decoded:
            return pixels.read(data, preprocessing, max_pixels, seconds, truncated)

    return lambda data: Decoded(data) if isinstance(data, np.ndarray) else read(data)
