"""The predictor: an artifact that is loaded and warmed up, and the ways to run a batch on it.

In the *inline* placement the predictor and its ExecutorPool live in the API worker. In the *dedicated* one they live
in a process of their own (runners/remote.py), to which API workers send pixels.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.errors import ClassifierError
from runners import artifacts, backends, engines
from runners.batching import Batcher
from runners.budget import budget_s
from runners.cost_model import CostModel
from runners.devices import DeviceError, failure
from runners.executors import ExecutorPool
from runners.results import ImageResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from classifier.pixels import Decoded
    from classifier.settings import Settings
    from runners.artifacts import Artifact
    from runners.executors import Run


class SloError(Exception):
    """The budget of the SLO is shorter than the time of one image here; the message says how long that is."""


# The errors for which a worker can't serve; they are told in one sentence, without a traceback.
START_ERRORS = (artifacts.ArtifactError, engines.EngineError, DeviceError, SloError)

logger = logging.getLogger("bentoml.resnet18")


class Predictor:
    """A loaded and warmed-up backend; ``infer`` is synchronous and may be called from several threads.

    ``cores``: how many of the CPU's cores infer; one image may use all of them. ``engine``: see RESNET18_ENGINE; of
    several that may run the artifact, the one that infers an image fastest serves. Raises EngineError or DeviceError.
    """

    def __init__(self, artifact: Artifact, device: str, max_batch: int, cores: int = 1, engine: str = "auto") -> None:
        self.artifact = artifact
        size = artifact.manifest.preprocessing.size
        start = time.perf_counter()
        # One thread: images run side by side on the cores, which beats all cores on one image in throughput.
        found = {
            name: backends.load(artifact.folder, artifact.manifest, device, threads=1, callers=cores, engine=name)
            for name in engines.usable(engine, artifact.manifest, device)
        }
        self.load_ms = 1e3 * (time.perf_counter() - start)
        self.engines_s = backends.weigh(found, size) if len(found) > 1 else {}
        self.name = min(found, key=lambda name: self.engines_s.get(name, 0.0))
        self.backend = found[self.name]
        if self.engines_s:
            told = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in self.engines_s.items())
            logger.info("one image on one core: %s; %s serves", told, self.name)
        self.warm_up_s = backends.warm_up(self.backend, size, max_batch)
        # A lone image may have more of them.
        self._wide = backends.widen(self.backend, size, cores) if device == "cpu" else {}

    @property
    def wide_s(self) -> dict[int, float]:
        """The seconds of one image on more than one core, by their number."""
        return {width: seconds for width, (_, seconds) in self._wide.items()}

    def infer(self, pixels: NDArray[np.uint8], width: int = 1) -> NDArray[np.float32]:
        """Probabilities float32[N, C] of ``pixels`` uint8[N, S, S, 3]; RuntimeError if the backend gives others.

        ``width``: how many cores it may use: 1, or one of ``wide_s``. Raises OutOfMemory, DeviceLost, or another error
        of the backend as it is.
        """
        backend = self.backend if width == 1 else self._wide[width][0]
        try:
            probabilities = backend.infer(pixels)
        except Exception as error:
            raise failure(error) from error
        expected = (len(pixels), len(self.artifact.manifest.labels))
        if probabilities.shape != expected:
            raise RuntimeError(f"the backend gave {probabilities.shape} probabilities, expected {expected}")
        return probabilities

    def trial(self) -> None:
        """Infer one black image; raises what ``infer`` does."""
        size = self.artifact.manifest.preprocessing.size
        self.infer(np.zeros((1, size, size, 3), np.uint8))

    def describe(self) -> dict[str, Any]:
        """Where the artifact really runs, and the milliseconds its loading and its warm-up batches took."""
        return {
            "device": self.backend.device,
            "provider": self.backend.provider,
            "engine": self.name,
            "engines_ms": {name: round(1e3 * seconds, 2) for name, seconds in self.engines_s.items()},
            "load_ms": round(self.load_ms, 1),
            "warm_up_ms": {batch: round(1e3 * seconds, 2) for batch, seconds in self.warm_up_s.items()},
            "wide_ms": {width: round(1e3 * seconds, 2) for width, seconds in self.wide_s.items()},
        }


def pixel_run(predictor: Predictor) -> Run:
    """A Run for batches of pixels, each uint8[S, S, 3]."""

    def run(pixels: list[Any], widen: Callable[[], int]) -> list[Any]:
        width = widen()
        start = time.perf_counter()
        rows = predictor.infer(pixels[0][None] if len(pixels) == 1 else np.stack(pixels), width)
        inference_ms = 1e3 * (time.perf_counter() - start)
        return [ImageResult(row, 0.0, inference_ms) for row in rows]

    return run


def image_run(predictor: Predictor, decode: Callable[[Any], Decoded]) -> Run:
    """A Run for batches of encoded images: the executor's thread decodes them itself, which saves a change of threads.

    ``decode``: an encoded image to its Decoded pixels. Where it raises ClassifierError, that is the image's result.
    """
    run_pixels = pixel_run(predictor)

    def run(payloads: list[Any], widen: Callable[[], int]) -> list[Any]:
        results: list[Any] = []
        took = []
        for payload in payloads:
            start = time.perf_counter()
            try:
                results.append(decode(payload))
            except ClassifierError as error:
                results.append(error)
            took.append(1e3 * (time.perf_counter() - start))
        good = [index for index, result in enumerate(results) if not isinstance(result, ClassifierError)]
        if good:
            for index, result in zip(good, run_pixels([results[index].pixels for index in good], widen), strict=True):
                result.decode_ms, result.warnings = took[index], results[index].warnings
                results[index] = result
        return results

    return run


def open_predictor(settings: Settings, tag: str, device: str, cores: int = 1) -> Predictor:
    """The warmed-up predictor of the artifact ``tag``, on ``cores`` at most.

    Raises ArtifactError, EngineError or DeviceError.
    """
    return Predictor(artifacts.open_artifact(tag), device, settings.max_batch, cores, settings.engine)


def start_executors(
    settings: Settings, predictor: Predictor, run: Run, *, executors: int, decodes: bool = False
) -> ExecutorPool:
    """A started pool for ``predictor``, with the budget of the SLO of ``settings``.

    ``decodes``: whether ``run`` decodes. Raises SloError if one image takes longer than the budget.
    """
    cost = CostModel(predictor.warm_up_s)
    budget = budget_s(settings.slo_ms)
    fastest = min(cost.expected(1), *predictor.wide_s.values(), math.inf)
    if fastest > budget:
        raise SloError(
            f"RESNET18_SLO_MS={settings.slo_ms} can't be honoured: one image takes {1e3 * fastest:.1f} "
            f"ms here, and {1e3 * budget:.1f} ms of the SLO are there for it"
        )
    batcher = Batcher(
        cost,
        budget=budget,
        max_batch=settings.max_batch,
        max_queue=settings.max_queue,
        executors=executors,
        wide=predictor.wide_s,
    )
    prepare_s = settings.decode_timeout_ms / 1e3 if decodes else 0.0
    return ExecutorPool(batcher, run, executors, predictor.trial, settings.unready_after_s, prepare_s)
