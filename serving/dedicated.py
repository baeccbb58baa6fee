"""The dedicated runner as a BentoML service: HTTP around an executor pool, in a process of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

import bentoml
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from classifier.errors import ClassifierError
from runners import predictor, remote
from serving import replies, worker
from serving.application import HttpService
from serving.disconnect import unless_gone
from serving.metrics import BatchMetrics

if TYPE_CHECKING:
    from starlette.requests import Request

    from classifier.settings import Settings
    from serving.fast_path import DirectHandler

NAME = "resnet18-runner"


async def _describe(_: Request) -> Response:
    return replies.json_response(bentoml.get_current_service().describe())


async def _answer(request: Request) -> Response:
    # Without the fast path (tracing is on, or metrics are off) requests come this way.
    answer: Response = await bentoml.get_current_service().answer(request)
    return answer


def service(settings: Settings, tag: str, device: str) -> Any:
    """The runner of the artifact ``tag`` on ``device``: an argument for ``bentoml.depends``."""

    @bentoml.service(
        name=NAME,
        service_class=HttpService,
        workers=1,
        traffic={"timeout": settings.timeout_ms / 1e3 + 5},
        logging={"access": {"enabled": False}},
        # BentoML closes its client session every 100 requests by default, with calls in flight.
        runner_connection={"max_requests": 10**9, "max_age": 1e9},
    )
    @bentoml.asgi_app(Starlette(routes=[Route("/describe", _describe), Route(remote.PATH, _answer, methods=["POST"])]))
    class ResNet18Runner:
        """Pixels to probabilities, batched across API workers."""

        stored = bentoml.models.BentoModel(tag)
        direct_handlers: ClassVar[dict[str, DirectHandler]] = {}

        def __init__(self) -> None:
            try:
                threads = settings.threads_of(1) if device == "cpu" else 1
                self.predictor = predictor.open_predictor(settings, tag, device, threads)
                run = predictor.pixel_run(self.predictor)
                self.executors = predictor.start_executors(settings, self.predictor, run, executors=threads)
            except predictor.START_ERRORS as error:
                worker.abort(error)
            BatchMetrics(self.executors, settings.slo_ms / 1e3)
            self.direct_handlers[remote.PATH] = self.answer

        async def answer(self, request: Request) -> Response:
            """The reply to RunnerClient.submit."""
            try:
                time_left = float(request.headers[remote.TIME_LEFT])
                work = remote.answer(self.executors, self.predictor, await request.body(), time_left)
                return Response(await unless_gone(request, work))
            except ClassifierError as error:
                return replies.error_response(error)
            except ClientDisconnect:
                return Response()  # nobody reads it

        def describe(self) -> dict[str, Any]:
            """The field ``runner`` of ``GET /model``."""
            return {"pid": os.getpid(), **self.predictor.describe(), "batcher": self.executors.describe()}

        async def __is_ready__(self) -> bool:
            return self.executors.ready()

        @bentoml.on_shutdown
        def stop(self) -> None:
            """Finish the admitted images."""
            self.executors.stop()

    return ResNet18Runner
