"""The dedicated runner as a BentoML service: HTTP around a pump, in a process of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

import bentoml
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from classifier.errors import ClassifierError
from runners import remote, runner
from serving import replies
from serving.edge import EdgeService, Lane, refuse, unless_gone
from serving.metrics import BatchMetrics

if TYPE_CHECKING:
    from starlette.requests import Request

    from classifier.settings import Settings

NAME = "resnet18-runner"


async def _describe(_: Request) -> Response:
    return replies.json_response(bentoml.get_current_service().describe())


async def _infer(request: Request) -> Response:
    # Without the fast lane (tracing is on, or metrics are off) requests come this way.
    answer: Response = await bentoml.get_current_service().infer(request)
    return answer


def service(settings: Settings, tag: str, device: str) -> Any:
    """The runner of the artifact ``tag`` on ``device``, to be given to ``bentoml.depends``."""

    @bentoml.service(
        name=NAME,
        service_class=EdgeService,
        workers=1,
        traffic={"timeout": settings.timeout_ms / 1e3 + 5},
        logging={"access": {"enabled": False}},
        # BentoML closes its client session every 100 requests by default, with calls in flight.
        runner_connection={"max_requests": 10**9, "max_age": 1e9},
    )
    @bentoml.asgi_app(Starlette(routes=[Route("/describe", _describe), Route(remote.PATH, _infer, methods=["POST"])]))
    class ResNet18Runner:
        """Pixels to probabilities, batched across API workers."""

        stored = bentoml.models.BentoModel(tag)
        lanes: ClassVar[dict[str, Lane]] = {}

        def __init__(self) -> None:
            try:
                self.engine = runner.open_engine(settings, tag, device)
                devices = settings.inference_threads(1) if device == "cpu" else 1
                self.pump = runner.start(settings, self.engine, runner.inferring(self.engine), devices=devices)
            except runner.REFUSALS as error:
                refuse(error)
            BatchMetrics(self.pump, settings.slo_ms / 1e3)
            self.lanes[remote.PATH] = self.infer

        async def infer(self, request: Request) -> Response:
            """The answer to remote.Client.infer."""
            try:
                time_left = float(request.headers[remote.TIME_LEFT])
                work = remote.answer(self.pump, self.engine, await request.body(), time_left)
                return Response(await unless_gone(request, work))
            except ClassifierError as error:
                return replies.error_response(error)
            except ClientDisconnect:
                return Response()  # to nobody

        def describe(self) -> dict[str, Any]:
            """What /model tells of the runner."""
            return {"pid": os.getpid(), **self.engine.describe(), "batcher": self.pump.describe()}

        async def __is_ready__(self) -> bool:
            return self.pump.ready()

        @bentoml.on_shutdown
        def stop(self) -> None:
            """Finish what was admitted."""
            self.pump.stop()

    return ResNet18Runner
