"""The runner: an artifact's backend, warmed up, in one of two placements behind the same ``infer``.

*inline*: inside the API worker. *dedicated*: a BentoML service of its own process, reached by ``bentoml.depends``.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from classifier.errors import ClassifierError
from runners import artifacts, backends

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from classifier.settings import Settings
    from runners.artifacts import Artifact


@dataclass(frozen=True, slots=True)
class Outcome:
    """One image's answer: ``probabilities`` float32[C], and the milliseconds it waited and its batch took."""

    probabilities: NDArray[np.float32]
    queue_ms: float
    inference_ms: float


class Runner(Protocol):
    """What the HTTP edge needs of a runner, wherever it lives."""

    async def infer(self, pixels: NDArray[np.uint8]) -> list[Outcome]:
        """An Outcome for each image of ``pixels`` uint8[N, S, S, 3]. Raises ClassifierError("unavailable")."""
        ...

    async def is_ready(self) -> bool:
        """Whether a request would be inferred now."""
        ...

    async def describe(self) -> dict[str, Any]:
        """Engine.describe() of the engine that infers."""
        ...


class Engine:
    """A loaded and warmed-up backend; ``infer`` is synchronous and may be called from several threads."""

    def __init__(self, artifact: Artifact, device: str, *, threads: int, max_batch: int) -> None:
        self.artifact, self.threads, self.max_batch = artifact, threads, max_batch
        start = time.perf_counter()
        # One intra-op thread: images run side by side on the cores, which beats all cores on one image in throughput.
        self.backend = backends.load(artifact.folder, artifact.manifest, device, threads=1)
        self.load_ms = 1e3 * (time.perf_counter() - start)
        sizes = [2**power for power in range(max_batch.bit_length()) if 2**power <= max_batch]
        self.warm_up_ms = {
            batch: round(1e3 * seconds, 2)
            for batch, seconds in backends.warm_up(self.backend, artifact.manifest.size, sizes).items()
        }

    def describe(self) -> dict[str, Any]:
        """Where the artifact really runs, and the milliseconds its loading and its warm-up batches took."""
        return {
            "device": self.backend.device,
            "provider": self.backend.provider,
            "threads": self.threads,
            "max_batch": self.max_batch,
            "load_ms": round(self.load_ms, 1),
            "warm_up_ms": self.warm_up_ms,
        }

    def infer(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        """Probabilities float32[N, C] and the milliseconds they took; at most ``max_batch`` images go at once."""
        start = time.perf_counter()
        rows = [self.backend.infer(pixels[at : at + self.max_batch]) for at in range(0, len(pixels), self.max_batch)]
        probabilities = rows[0] if len(rows) == 1 else np.concatenate(rows)
        expected = (len(pixels), len(self.artifact.manifest.labels))
        if probabilities.shape != expected:
            raise RuntimeError(f"the backend gave {probabilities.shape} probabilities, expected {expected}")
        return probabilities, 1e3 * (time.perf_counter() - start)


class InlineRunner:
    """A runner in this process; inferences run on the threads of ``executor``."""

    def __init__(self, engine: Engine, executor: Executor) -> None:
        self._engine, self._executor = engine, executor

    async def infer(self, pixels: NDArray[np.uint8]) -> list[Outcome]:
        """See Runner."""
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        probabilities, inference_ms = await loop.run_in_executor(self._executor, self._engine.infer, pixels)
        queue_ms = max(0.0, 1e3 * (time.perf_counter() - start) - inference_ms)
        return [Outcome(row, queue_ms, inference_ms) for row in probabilities]

    async def is_ready(self) -> bool:
        """See Runner."""
        return True

    async def describe(self) -> dict[str, Any]:
        """See Runner."""
        return self._engine.describe()


class DedicatedRunner:
    """A runner in a process of its own, reached through the client that ``bentoml.depends`` gives."""

    def __init__(self, dependency: Any) -> None:
        self._dependency = dependency

    async def infer(self, pixels: NDArray[np.uint8]) -> list[Outcome]:
        """See Runner. A dropped connection is tried once more, which is safe because inference changes nothing."""

        start = time.perf_counter()
        rows = await self._call("infer", pixels)
        total_ms = 1e3 * (time.perf_counter() - start)
        return [Outcome(row, max(0.0, total_ms - inference_ms), inference_ms) for row, inference_ms in rows]

    async def _call(self, method: str, *arguments: Any) -> Any:
        import aiohttp
        from bentoml.exceptions import BentoMLException

        call = getattr(self._dependency.to_async, method)
        try:
            try:
                return await call(*arguments)
            except (aiohttp.ClientError, OSError):
                return await call(*arguments)
        except (aiohttp.ClientError, OSError, BentoMLException) as error:
            raise ClassifierError("unavailable", "the runner does not answer; try again", retry_after=1) from error

    async def describe(self) -> dict[str, Any]:
        """See Runner."""
        description: dict[str, Any] = await self._call("describe")
        return description

    async def is_ready(self) -> bool:
        """See Runner."""
        import aiohttp

        try:
            return bool(await self._dependency.to_async.is_ready(timeout=1))
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False


def open_engine(settings: Settings, tag: str, device: str, *, processes: int) -> Engine:
    """The engine of the artifact ``tag``, in one of ``processes`` processes that share the machine's cores."""
    threads = settings.inference_threads(processes) if device == "cpu" else 1
    return Engine(artifacts.open_artifact(tag), device, threads=threads, max_batch=settings.max_batch)


def dedicated_service(settings: Settings, tag: str, device: str, service_class: type[Any]) -> Any:
    """The runner as a BentoML service of one process, to be given to ``bentoml.depends``."""
    import bentoml

    @bentoml.service(
        name="resnet18-runner",
        workers=1,
        threads=settings.inference_threads(1) if device == "cpu" else 1,
        traffic={"timeout": settings.timeout_ms / 1e3 + 5},
        logging={"access": {"enabled": False}},
        # BentoML closes its client session every 100 requests by default, with calls in flight.
        runner_connection={"max_requests": 10**9, "max_age": 1e9},
        service_class=service_class,
    )
    class ResNet18Runner:
        """Pixels to probabilities, batched across API workers."""

        model = bentoml.models.BentoModel(tag)

        def __init__(self) -> None:
            self.engine = open_engine(settings, tag, device, processes=1)

        @bentoml.api
        def describe(self) -> dict[str, Any]:
            """See Engine.describe."""
            return self.engine.describe()

        @bentoml.api(batchable=True, max_batch_size=max(2, settings.max_batch), max_latency_ms=settings.timeout_ms)
        def infer(self, pixels: np.ndarray) -> list[Any]:
            """A (probabilities float32[C], inference milliseconds) pair for each image of uint8[N, S, S, 3]."""
            probabilities, inference_ms = self.engine.infer(pixels)
            return [(row, inference_ms) for row in probabilities]

    return ResNet18Runner
