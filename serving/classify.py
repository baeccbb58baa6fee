"""A request's way: body → images → placement → labels → reply. One Classifier an API process."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

from classifier.errors import ClassifierError
from runners.runner import MARGIN
from serving import replies, upload
from serving.edge import unless_gone
from serving.replies import Timing
from serving.schema import TOP_K

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from classifier.settings import Settings
    from serving.metrics import RequestMetrics
    from serving.placements import Placement

# A client's own deadline, in milliseconds from the body's last byte; without it, the SLO is the deadline.
TIME_ALLOWED = "x-time-allowed-ms"
# The weight of the newest body among those lately read.
_NEWEST = 0.1

logger = logging.getLogger("bentoml.resnet18")


class Classifier:
    """Answers classify requests with what ``placement`` infers."""

    def __init__(self, settings: Settings, placement: Placement, metrics: RequestMetrics) -> None:
        self._settings, self._placement, self._metrics = settings, placement, metrics
        self._held = upload.Held(settings.max_held_bytes)
        self._single, self._batch = (
            upload.Limits(settings.max_body_bytes, images, settings.max_fields, settings.max_part_header_bytes)
            for images in (1, settings.max_images)
        )
        # Images in a body, by the name of its field, as a moving mean.
        self._usual: dict[str, float] = {}
        artifact = placement.artifact
        self._labels = artifact.manifest.labels
        self._model = {
            "tag": artifact.tag,
            "weights": artifact.manifest.weights["origin"],
            "precision": artifact.manifest.precision,
        }

    async def classify(self, request: Request) -> Response:
        """The reply to ``POST /classify``."""
        return await self._answer(request, "image", self._single, self._one)

    async def classify_batch(self, request: Request) -> Response:
        """The reply to ``POST /classify_batch``."""
        return await self._answer(request, "images", self._batch, self._many)

    async def _answer(self, request: Request, name: str, limits: upload.Limits, handle: Any) -> Response:
        # Of a body that is never read, which is how overload refuses, nobody knows how many images it holds. It counts
        # as those that were read lately, or offered load would seem to fall just when there is too much of it.
        timing, arrival, images = Timing(), None, round(self._usual.get(name, 1))
        settings = self._settings
        try:
            with upload.Share(self._held) as share:
                async with asyncio.timeout(settings.upload_timeout_ms / 1e3) as patience:
                    sent, arrival, deadline = await self._read(request, name, limits, share)
                    images = len(sent.images)
                    self._usual[name] = (1 - _NEWEST) * self._usual.get(name, images) + _NEWEST * images
                    patience.reschedule(asyncio.get_running_loop().time() + settings.timeout_ms / 1e3)
                    body, answered = await handle(request, sent, timing, deadline)
        except ClassifierError as error:
            self._metrics.failed(error, images)
            return replies.error_response(error)
        except TimeoutError:
            if arrival is None:
                code, what, limit = "upload_timeout", "the body did not arrive", settings.upload_timeout_ms
            else:
                code, what, limit = "timeout", "no answer", settings.timeout_ms
            self._metrics.failed(code, images)
            return replies.error_response(ClassifierError(code, f"{what} within the limit of {limit} ms", limit=limit))
        except ClientDisconnect:
            self._metrics.failed("disconnected", images)
            return replies.error_response(ClassifierError("bad_request", "the body ended early"))
        except Exception:
            logger.exception("unexpected error")
            self._metrics.failed("internal", images)
            return replies.error_response(ClassifierError("internal", "an unexpected error; the server's log has it"))
        timing.total = 1e3 * (time.monotonic() - arrival)
        self._metrics.answered(answered, timing)
        return replies.json_response(body | {"model": self._model, "timing_ms": timing.body()}, timing)

    async def _one(
        self, request: Request, sent: upload.Upload, timing: Timing, deadline: float
    ) -> tuple[dict[str, Any], int]:
        top_k = self._top_k(request, sent.fields)
        (result,) = await self._infer(request, sent.images, timing, deadline)
        if isinstance(result, ClassifierError):
            raise result
        return {"predictions": self._labels.top(result.probabilities, top_k)}, 1

    async def _many(
        self, request: Request, sent: upload.Upload, timing: Timing, deadline: float
    ) -> tuple[dict[str, Any], int]:
        top_k = self._top_k(request, sent.fields)
        results: list[dict[str, Any]] = []
        for result in await self._infer(request, sent.images, timing, deadline):
            if isinstance(result, ClassifierError):
                self._metrics.failed(result)
                results.append(result.body())
            else:
                results.append({"predictions": self._labels.top(result.probabilities, top_k)})
        return {"results": results}, sum("predictions" in result for result in results)

    async def _read(
        self, request: Request, name: str, limits: upload.Limits, share: upload.Share
    ) -> tuple[upload.Upload, float, float]:
        """The upload, when it had come, and its deadline: seconds of ``time.monotonic()``."""
        allowed = self._time_allowed(request)
        # Under overload a body that would be refused is not worth its reading.
        self._placement.refuse(time.monotonic() + allowed)
        sent = await upload.read(request, name, limits, share)
        # The SLO is of the service: a client's slow upload is not held against its own deadline.
        arrival = time.monotonic()
        return sent, arrival, arrival + allowed

    async def _infer(self, request: Request, images: list[bytes], timing: Timing, deadline: float) -> list[Any]:
        """An Outcome or a ClassifierError for each image, in order."""
        # What waits for a client that has hung up must not cost inference.
        results: list[Any] = list(await unless_gone(request, self._placement.infer(images, deadline)))
        for index, result in enumerate(results):
            if isinstance(result, ClassifierError):
                continue
            if isinstance(result, Exception):
                logger.error("an image could not be inferred", exc_info=result)
                results[index] = ClassifierError("internal", "the image could not be inferred")
                continue
            timing.decode = max(timing.decode, result.decode_ms)
            timing.queue = max(timing.queue, result.queue_ms)
            timing.inference = max(timing.inference, result.inference_ms)
        return results

    def _time_allowed(self, request: Request) -> float:
        """Seconds from arrival to answer: the SLO, or what the client says in the header TIME_ALLOWED."""
        text = request.headers.get(TIME_ALLOWED)
        if text is None:
            return (1 - MARGIN) * self._settings.slo_ms / 1e3
        if not 1 <= _whole(text) <= self._settings.timeout_ms:
            raise ClassifierError(
                "invalid_parameter",
                f"{TIME_ALLOWED}: {text[:100]!r} must be a whole number of milliseconds from 1 to "
                f"{self._settings.timeout_ms}",
                limit=self._settings.timeout_ms,
            )
        return (1 - MARGIN) * int(text) / 1e3

    def _top_k(self, request: Request, fields: dict[str, str]) -> int:
        text = fields.get("top_k", request.query_params.get("top_k", str(TOP_K)))
        classes = len(self._labels)
        if not 1 <= _whole(text) <= classes:
            # The default of 3 is no user's choice, so a model of two classes gives its two.
            if "top_k" not in fields and "top_k" not in request.query_params:
                return classes
            raise ClassifierError(
                "invalid_parameter", f"top_k={text[:100]!r}: must be a whole number from 1 to {classes}", limit=classes
            )
        return int(text)


def _whole(text: str) -> int:
    """The whole number that ``text`` is; -1 for what is none, or has more than nine digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else -1
