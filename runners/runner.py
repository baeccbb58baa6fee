"""The runner: an artifact's engine, and what a device does with a batch for it.

In the *inline* placement the engine and its Pump live in the API worker; in the *dedicated* one they live in a process
of their own (runners/remote.py) and API workers send it pixels.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.errors import ClassifierError
from runners import artifacts, backends
from runners.batching import Batcher, CostModel
from runners.devices import DeviceError, failure
from runners.pump import Outcome, Pump

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from classifier.settings import Settings
    from runners.artifacts import Artifact
    from runners.pump import Run

# The share of the SLO kept for what happens outside the batcher: the event loop's turns and writing the reply.
MARGIN = 0.15


class SloError(Exception):
    """The SLO is shorter than one image takes here; the message says how long that is."""


class Engine:
    """A loaded and warmed-up backend; ``infer`` is synchronous and may be called from several threads."""

    def __init__(self, artifact: Artifact, device: str, max_batch: int) -> None:
        self.artifact = artifact
        start = time.perf_counter()
        # One intra-op thread: images run side by side on the cores, which beats all cores on one image in throughput.
        self.backend = backends.load(artifact.folder, artifact.manifest, device, threads=1)
        self.load_ms = 1e3 * (time.perf_counter() - start)
        self.warm_up_s = backends.warm_up(self.backend, artifact.manifest.preprocessing.size, max_batch)

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32[N, C] of ``pixels`` uint8[N, S, S, 3]; RuntimeError if the backend gives others.

        Raises OutOfMemory, DeviceLost or what else the backend does.
        """
        try:
            probabilities = self.backend.infer(pixels)
        except Exception as error:
            raise failure(error) from error
        expected = (len(pixels), len(self.artifact.manifest.labels))
        if probabilities.shape != expected:
            raise RuntimeError(f"the backend gave {probabilities.shape} probabilities, expected {expected}")
        return probabilities

    def trial(self) -> None:
        """Infer one image of nothing; raises what ``infer`` does."""
        size = self.artifact.manifest.preprocessing.size
        self.infer(np.zeros((1, size, size, 3), np.uint8))

    def describe(self) -> dict[str, Any]:
        """Where the artifact really runs, and the milliseconds its loading and its warm-up batches took."""
        return {
            "device": self.backend.device,
            "provider": self.backend.provider,
            "load_ms": round(self.load_ms, 1),
            "warm_up_ms": {batch: round(1e3 * seconds, 2) for batch, seconds in self.warm_up_s.items()},
        }


# Why a worker can't serve, told in a sentence and no traceback.
REFUSALS = (artifacts.ArtifactError, DeviceError, SloError)


def inferring(engine: Engine) -> Run:
    """What a device does with a batch of pixels, each uint8[S, S, 3]."""

    def run(pixels: list[Any]) -> list[Any]:
        start = time.perf_counter()
        rows = engine.infer(pixels[0][None] if len(pixels) == 1 else np.stack(pixels))
        inference_ms = 1e3 * (time.perf_counter() - start)
        return [Outcome(row, 0.0, inference_ms) for row in rows]

    return run


def preparing(engine: Engine, prepare: Callable[[Any], NDArray[np.uint8]]) -> Run:
    """What a device does where it is a core that prepares pixels as well: it saves a thread's hand-over an image."""
    infer = inferring(engine)

    def run(payloads: list[Any]) -> list[Any]:
        results: list[Any] = []
        took = []
        for payload in payloads:
            start = time.perf_counter()
            try:
                results.append(prepare(payload))
            except ClassifierError as error:
                results.append(error)
            took.append(1e3 * (time.perf_counter() - start))
        good = [index for index, result in enumerate(results) if not isinstance(result, ClassifierError)]
        if good:
            for index, outcome in zip(good, infer([results[index] for index in good]), strict=True):
                outcome.decode_ms = took[index]
                results[index] = outcome
        return results

    return run


def open_engine(settings: Settings, tag: str, device: str) -> Engine:
    """The warmed-up engine of the artifact ``tag``."""
    return Engine(artifacts.open_artifact(tag), device, settings.max_batch)


def start(settings: Settings, engine: Engine, run: Run, *, devices: int, decodes: bool = False) -> Pump:
    """A running pump for ``engine``, with the SLO of ``settings``; ``decodes``: ``run`` does so, too.

    Raises SloError if one image takes longer than the SLO.
    """
    cost = CostModel(engine.warm_up_s)
    slo = (1 - MARGIN) * settings.slo_ms / 1e3
    if cost.expected(1) > slo:
        raise SloError(
            f"RESNET18_SLO_MS={settings.slo_ms} can't be honoured: one image takes {1e3 * cost.expected(1):.1f} ms here"
        )
    batcher = Batcher(cost, slo=slo, max_batch=settings.max_batch, max_queue=settings.max_queue, devices=devices)
    prepare_s = settings.decode_timeout_ms / 1e3 if decodes else 0.0
    return Pump(batcher, run, devices, engine.trial, settings.unready_after_s, prepare_s)
