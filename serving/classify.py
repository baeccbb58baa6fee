"""The handlers of ``/classify`` and ``/classify_batch``: body → images → placement → labels → reply."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

from classifier.errors import ClassifierError
from classifier.labels import confidence
from runners.budget import budget_s
from serving import parameters, replies, upload
from serving.disconnect import unless_gone
from serving.replies import Timing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from classifier.settings import Settings
    from runners.results import ImageResult
    from serving.metrics import RequestMetrics
    from serving.placements import Placement

    Read = Callable[..., Awaitable[upload.Upload]]
    Handle = Callable[[Request, upload.Upload, Timing, float], Awaitable[tuple[Any, int]]]
    Reply = Callable[[Any, Timing], Response]

# The weight of the newest body in the moving mean of images in a body.
_NEWEST = 0.1

logger = logging.getLogger("bentoml.resnet18")


class Classifier:
    """Answers classify requests with the results of ``placement``; there is one in each API process."""

    def __init__(self, settings: Settings, placement: Placement, metrics: RequestMetrics) -> None:
        self._settings, self._placement, self._metrics = settings, placement, metrics
        self._body_budget = upload.BodyBudget(settings.max_held_bytes)
        self._read_one, self._read_many = (
            functools.partial(
                upload.read,
                name=name,
                limits=upload.Limits(
                    settings.max_body_bytes, images, settings.max_fields, settings.max_part_header_bytes
                ),
            )
            for name, images in (("image", 1), ("images", settings.max_images))
        )
        # Images in a body, by the route, as a moving mean.
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
        return await self.answer(request, "image", self._read_one, self._one, self._reply)

    async def classify_batch(self, request: Request) -> Response:
        """The reply to ``POST /classify_batch``."""
        return await self.answer(request, "images", self._read_many, self._many, self._reply)

    async def scores(self, request: Request) -> Response:
        """The reply to TorchServe's ``POST /predictions/resnet18``: the probability of each of the top five classes."""
        return await self.answer(request, "image", self._read_one, self._scores, _reply_scores)

    def _reply(self, body: dict[str, Any], timing: Timing) -> Response:
        return replies.json_response(body | {"model": self._model, "timing_ms": timing.body()}, timing)

    async def answer(self, request: Request, name: str, read: Read, handle: Handle, reply: Reply) -> Response:
        """The reply to ``request``, counted and within its limits of time, or its error.

        ``name``: of the route. ``read``: the request and its reservation to an Upload. ``handle``: what ``read`` gave,
        a Timing to fill in and the deadline to an answer, and its number of images with predictions. ``reply``: the
        answer and its Timing to a response.
        """
        # In overload a request is refused before its body is read, so its number of images is unknown. It counts as
        # many as the bodies that were read lately; otherwise the offered rate would seem to fall just when it is high.
        timing, arrival, images = Timing(), None, round(self._usual.get(name, 1))
        settings = self._settings
        try:
            with upload.Reservation(self._body_budget) as reservation:
                async with asyncio.timeout(settings.upload_timeout_ms / 1e3) as patience:
                    sent, arrival, deadline = await self._read(request, read, reservation)
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
        return reply(body, timing)

    async def _one(
        self, request: Request, sent: upload.Upload, timing: Timing, deadline: float
    ) -> tuple[dict[str, Any], int]:
        describe = self._describing(request, sent)
        (result,) = await self.results(request, sent.images, timing, deadline)
        if isinstance(result, ClassifierError):
            raise result
        return describe(result), 1

    async def _scores(
        self, request: Request, sent: upload.Upload, timing: Timing, deadline: float
    ) -> tuple[dict[str, Any], int]:
        parameters.check_top_k_alone(request, sent.fields)
        top_k = parameters.top_k(request, sent.fields, len(self._labels), default=5)
        (result,) = await self.results(request, sent.images, timing, deadline)
        if isinstance(result, ClassifierError):
            raise result
        scores = {one["label"]: one["probability"] for one in self._labels.top(result.probabilities, top_k)}
        return {"scores": scores, "warnings": result.warnings}, 1

    async def _many(
        self, request: Request, sent: upload.Upload, timing: Timing, deadline: float
    ) -> tuple[dict[str, Any], int]:
        describe = self._describing(request, sent)
        results: list[dict[str, Any]] = []
        for result in await self.results(request, sent.images, timing, deadline):
            if isinstance(result, ClassifierError):
                self._metrics.failed(result)
                results.append(result.body())
            else:
                results.append(describe(result))
        return {"results": results}, sum("predictions" in result for result in results)

    def _describing(self, request: Request, sent: upload.Upload) -> Callable[[ImageResult], dict[str, Any]]:
        """A function of an image's result that gives what ``request`` wants to know of it.

        Raises ClassifierError("invalid_parameter").
        """
        fields, labels, groups = sent.fields, self._labels, self._labels.groups
        level = parameters.level(request, fields, len(groups) if groups else 0)
        listed = groups if groups and level == "group" else labels
        top_k = parameters.top_k(request, fields, len(listed))
        enough = parameters.min_confidence(request, fields, self._settings.min_confidence)

        def describe(result: ImageResult) -> dict[str, Any]:
            probabilities = result.probabilities
            answer: dict[str, Any] = {"predictions": listed.top(probabilities, top_k)}
            if groups and listed is labels:
                answer["groups"] = groups.top(probabilities, min(top_k, len(groups)))
            return answer | confidence(answer["predictions"], enough) | result.notes()

        return describe

    async def _read(
        self, request: Request, read: Read, reservation: upload.Reservation
    ) -> tuple[upload.Upload, float, float]:
        """The upload, the time at which it was complete, and its deadline: seconds of ``time.monotonic()``."""
        parameters.check_query(request, parameters.NAMES)
        settings = self._settings
        milliseconds = parameters.time_allowed(request, settings.timeout_ms) or settings.slo_ms
        budget = budget_s(milliseconds)
        # In overload the body of a request that would be refused is not read.
        self._placement.check_admission(time.monotonic() + budget)
        sent = await read(request, reservation=reservation)
        # The SLO begins here: a slow upload costs the client none of its deadline.
        arrival = time.monotonic()
        return sent, arrival, arrival + budget

    async def results(self, request: Request, images: list[Any], timing: Timing, deadline: float) -> list[Any]:
        """An ImageResult or a ClassifierError for each image, in order."""
        # Images whose client has hung up must not cost inference.
        results: list[Any] = list(await unless_gone(request, self._placement.submit(images, deadline)))
        for index, result in enumerate(results):
            if isinstance(result, ClassifierError):
                continue
            if isinstance(result, Exception):
                logger.error("an image could not be inferred", exc_info=result)
                results[index] = ClassifierError("internal", "the image could not be inferred")
                continue
            timing.include(result)
        return results


def _reply_scores(body: dict[str, Any], timing: Timing) -> Response:
    """TorchServe's body has no place for warnings: they are in a header."""
    response = replies.json_response(body["scores"], timing)
    if body["warnings"]:
        response.headers["X-Warnings"] = "; ".join(body["warnings"])
    return response
