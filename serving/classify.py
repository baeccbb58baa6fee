"""A request's way: body → images → pixels → runner → labels → reply. One Classifier an API process."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import ClientDisconnect

from classifier import pixels
from classifier.errors import ClassifierError
from serving import replies, upload
from serving.replies import Timing
from serving.schema import TOP_K

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from numpy.typing import NDArray
    from starlette.requests import Request
    from starlette.responses import Response

    from classifier.settings import Settings
    from runners.artifacts import Artifact
    from runners.runner import Outcome, Runner
    from serving.metrics import Metrics

logger = logging.getLogger("resnet18")


class Classifier:
    """Answers classify requests; decoding runs on ``executor``, inference wherever ``runner`` is."""

    def __init__(
        self, settings: Settings, artifact: Artifact, runner: Runner, executor: Executor, metrics: Metrics
    ) -> None:
        self._settings, self._runner, self._executor, self._metrics = settings, runner, executor, metrics
        manifest = artifact.manifest
        self._labels, self._size, self._resize = manifest.labels, manifest.size, manifest.resize
        self._model = {"tag": artifact.tag, "weights": manifest.weights["origin"], "precision": manifest.precision}
        self._held = 0

    async def classify(self, request: Request) -> Response:
        """The reply to ``POST /classify``."""
        return await self._answer(request, self._one)

    async def classify_batch(self, request: Request) -> Response:
        """The reply to ``POST /classify_batch``."""
        return await self._answer(request, self._many)

    async def _answer(self, request: Request, handle: Any) -> Response:
        timing, start = Timing(), time.perf_counter()
        try:
            async with asyncio.timeout(self._settings.timeout_ms / 1e3):
                body, images = await handle(request, timing)
        except ClassifierError as error:
            self._metrics.failed(error.code)
            return replies.error_response(error)
        except TimeoutError:
            limit = self._settings.timeout_ms
            self._metrics.failed("timeout")
            message = f"no answer within the limit of {limit} ms"
            return replies.error_response(ClassifierError("timeout", message, limit=limit))
        except ClientDisconnect:
            self._metrics.failed("disconnected")
            return replies.error_response(ClassifierError("bad_request", "the body ended early"))
        except Exception:
            logger.exception("unexpected error")
            self._metrics.failed("internal")
            return replies.error_response(ClassifierError("internal", "an unexpected error; the server's log has it"))
        timing.total = 1e3 * (time.perf_counter() - start)
        self._metrics.answered(images, timing)
        return replies.json_response(body | {"model": self._model, "timing_ms": timing.body()}, timing)

    async def _one(self, request: Request, timing: Timing) -> tuple[dict[str, Any], int]:
        sent = await upload.read(request, name="image", max_bytes=self._settings.max_body_bytes, max_images=1)
        top_k = self._top_k(request, sent.fields)
        (result,) = await self._infer(sent.images, timing)
        if isinstance(result, ClassifierError):
            raise result
        return {"predictions": self._labels.top(result.probabilities, top_k)}, 1

    async def _many(self, request: Request, timing: Timing) -> tuple[dict[str, Any], int]:
        sent = await upload.read(
            request, name="images", max_bytes=self._settings.max_body_bytes, max_images=self._settings.max_images
        )
        top_k = self._top_k(request, sent.fields)
        results: list[dict[str, Any]] = []
        for result in await self._infer(sent.images, timing):
            if isinstance(result, ClassifierError):
                self._metrics.failed(result.code)
                results.append(result.body())
            else:
                results.append({"predictions": self._labels.top(result.probabilities, top_k)})
        return {"results": results}, sum("predictions" in result for result in results)

    async def _infer(self, images: list[bytes], timing: Timing) -> list[Outcome | ClassifierError]:
        """An outcome or an error for each image, in order; the images that decode share the runner's batches."""
        if self._held + len(images) > self._settings.max_queue:
            raise ClassifierError(
                "overloaded",
                f"{self._held} images are being worked on; the limit is {self._settings.max_queue}",
                retry_after=1,
                limit=self._settings.max_queue,
            )
        self._held += len(images)
        try:
            start = time.perf_counter()
            loop = asyncio.get_running_loop()
            decoded = await asyncio.gather(
                *(loop.run_in_executor(self._executor, self._decode, image) for image in images)
            )
            timing.decode = 1e3 * (time.perf_counter() - start)
            good = [item for item in decoded if not isinstance(item, ClassifierError)]
            outcomes = iter(await self._runner.infer(np.stack(good)) if good else [])
            results = [item if isinstance(item, ClassifierError) else next(outcomes) for item in decoded]
        finally:
            self._held -= len(images)
        inferred = [result for result in results if not isinstance(result, ClassifierError)]
        timing.queue = max((outcome.queue_ms for outcome in inferred), default=0.0)
        timing.inference = max((outcome.inference_ms for outcome in inferred), default=0.0)
        return results

    def _decode(self, image: bytes) -> NDArray[np.uint8] | ClassifierError:
        try:
            return pixels.decode(image, self._size, self._resize, self._settings.max_pixels)
        except ClassifierError as error:
            return error

    def _top_k(self, request: Request, fields: dict[str, str]) -> int:
        text = fields.get("top_k", request.query_params.get("top_k", str(TOP_K)))
        classes = len(self._labels)
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= classes):
            # The default of 3 is no user's choice, so a model of two classes gives its two.
            if "top_k" not in fields and "top_k" not in request.query_params:
                return classes
            raise ClassifierError(
                "invalid_parameter", f"top_k={text[:100]!r}: must be a whole number from 1 to {classes}", limit=classes
            )
        return int(text)
