"""The outermost layer of the HTTP server: one error shape, request ids, and only paths that exist.

BentoML's own layers label their metrics by raw path, answer errors in four shapes and leave 404 to Starlette; they
are wrapped rather than patched: a ``bentoml.Service`` subclass puts ``Edge`` around the application it makes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import uvicorn
from _bentoml_impl.server.app import ServiceAppFactory
from _bentoml_sdk import Service
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context
from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from classifier.errors import ClassifierError
from serving import metrics, page, protocol, worker
from serving.replies import ERROR_HEADER, error_response

if TYPE_CHECKING:
    from types import FrameType

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CODE_OF_STATUS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
_CODE_OF_STATUS |= {415: "unsupported_media_type", 429: "overloaded", 500: "internal", 503: "unavailable"}
_CODE_OF_STATUS |= {504: "timeout"}
_MESSAGE = {
    "internal": "an unexpected error; the server's log tells more under this request id",
    "unavailable": "the service is not ready",
    "timeout": "the request took too long",
}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# For how long after SIGTERM connections are answered on which nothing is in flight.
DRAIN_S = 0.5


logger = logging.getLogger("bentoml.resnet18")
Lane = Callable[[Request], Awaitable[Response]]
_Headers = list[tuple[bytes, bytes]]
_T = TypeVar("_T")


class EdgeService(Service[Any]):
    """A BentoML service whose application is wrapped in Edge.

    Its class may have ``lanes``: a dict of paths whose POST requests skip BentoML's layers, and what answers them;
    ``guarded_by``: what puts a door around all that a request meets, or None; ``settings``, by which the HTTP
    protocol itself is bounded; and ``describe_api``, which gives the OpenAPI document.
    """

    @property
    def openapi_spec(self) -> Any:
        """What ``/docs.json`` answers, and a bento's ``apis/openapi.yaml`` holds."""
        describe = getattr(self.inner, "describe_api", None)
        return super().openapi_spec if describe is None else describe()

    def to_asgi(self, is_main: bool = True) -> Any:
        """The wrapped ASGI application."""
        self.inject_config()
        metrics.reserve()
        settings = getattr(self.inner, "settings", None)
        if settings is not None:
            protocol.install(settings)
        factory = _Factory(self, is_main=is_main)
        factory.tie = worker.tie()
        app = factory()
        guard = getattr(self.inner, "guarded_by", None)
        return Edge(app, _paths(app), page.files() if is_main else {}, guard)


class _Factory(ServiceAppFactory):
    """BentoML's application with its page at ``/docs``; the outermost layer, which counts requests, is a FastLane.

    ``tie``: to the supervisor, which the main service's workers tell when they are ready.
    """

    tie: worker.Tie | None = None

    async def create_instance(self, app: Any) -> None:
        """Make the service's object."""
        await super().create_instance(app)
        if self.tie is not None and self.is_main:
            self._telling = asyncio.ensure_future(self.tie.tell(self._service_instance.__is_ready__))

    def __call__(self) -> Any:
        """The application."""
        app = super().__call__()
        if self.is_main:
            app.router.routes.append(page.swagger(self.index_page))
        return app

    @property
    def middlewares(self) -> list[Middleware]:
        layers: list[Middleware] = super().middlewares
        logged = self.is_main and BentoMLContainer.api_server_config.logging.access.enabled.get()
        # Filled when the service starts, which is after this.
        lanes = getattr(self.service.inner, "lanes", None)
        if lanes is None or logged or BentoMLContainer.tracing.exporter_type.get() or not self.enable_metrics:
            return layers
        assert layers[0].cls is RunnerTrafficMetricsMiddleware
        outermost: Any = FastLane
        return [Middleware(outermost, lanes=lanes, **layers[0].kwargs), *layers[1:]]


class FastLane(RunnerTrafficMetricsMiddleware):
    """BentoML's counting layer, which answers POST requests to the paths of ``lanes`` itself and counts them, too.

    What they skip (tracing, access log, timeout, context) costs more than the rest of the HTTP path together, so
    nothing is skipped where BentoML is to trace or to log. Labels are looked up once, not at each request.
    """

    def __init__(self, app: ASGIApp, lanes: dict[str, Lane], **options: Any) -> None:
        super().__init__(app, **options)
        self._lanes = lanes
        self._children: dict[tuple[str, int], tuple[Any, Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        lane = self._lanes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if lane is None:
            await super().__call__(scope, receive, send)
            return
        start = time.perf_counter()
        response = await lane(Request(scope, receive))
        await response(scope, receive, send)
        total, duration = self._counters(scope["path"], response.status_code)
        total.inc()
        duration.observe(time.perf_counter() - start)

    def _counters(self, path: str, status: int) -> tuple[Any, Any]:
        if (path, status) not in self._children:
            if not self._is_setup:
                self._setup()
            labels = {
                "endpoint": path,
                "service_name": server_context.bento_name,
                "service_version": server_context.bento_version,
                "http_response_code": status,
                "runner_name": server_context.service_name,
            }
            self._children[path, status] = (
                self.metrics_request_total.labels(**labels),
                self.metrics_request_duration.labels(**labels),
            )
        return self._children[path, status]


async def unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of ``work``, which is cancelled when the client hangs up. Raises ClientDisconnect."""
    task = asyncio.ensure_future(work)
    # It tells nothing else: the body has been read.
    gone = asyncio.ensure_future(request.receive())
    gone.add_done_callback(lambda _: task.cancel())
    try:
        return await task
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        gone.cancel()


def refuse(error: Exception) -> NoReturn:
    """End this worker for ``error``, and its supervisor with it."""
    logger.error("refused to start: %s", error)
    if tie := worker.tie():
        tie.refuse()
    # No clean exit: the frameworks on the way up would print their tracebacks over the message.
    os._exit(1)


class Edge:
    """ASGI middleware around a whole application whose paths and methods are known.

    ``files`` are answered here, before the application: each would add a dozen series to ``/metrics`` otherwise.
    """

    def __init__(
        self,
        app: ASGIApp,
        paths: dict[str, frozenset[str]],
        files: dict[str, ASGIApp],
        guard: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        self._app, self._files = app, files
        self._paths = paths | dict.fromkeys(files, frozenset({"GET", "HEAD"}))
        # Headers of every answer: from SIGTERM on, that it is its connection's last.
        self._always: _Headers = []
        self._processes: metrics.ProcessMetrics | None = None
        # Inside what stamps replies, so that a refusal at the door has its request id too.
        self._entrance: ASGIApp = guard(self._routed) if guard else self._routed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] == "lifespan":
            self._drain_first()
            await self._app(scope, receive, _freezing(send))
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        stamped = _stamped(send, [(b"x-request-id", _request_id(scope))], self._always, scope["method"] == "HEAD")
        await self._entrance(scope, receive, stamped)

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        methods = self._paths.get(scope["path"])
        if methods is None:
            paths = ", ".join(sorted(path for path in self._paths if path.count("/") == 1))
            message = f"there is no {scope['path'][:200]!r} here; there are {paths}"
            await error_response(ClassifierError("not_found", message))(scope, receive, send)
        elif scope["method"] not in methods:
            allowed = ", ".join(sorted(methods))
            message = f"{scope['method']} is not allowed on {scope['path']}; {allowed} is"
            response = error_response(ClassifierError("method_not_allowed", message))
            response.headers["Allow"] = allowed
            await response(scope, receive, send)
        else:
            if scope["path"] == "/metrics":
                if self._processes is None:
                    self._processes = metrics.ProcessMetrics()
                await asyncio.to_thread(self._processes.measure)
            try:
                await self._files.get(scope["path"], self._app)(scope, receive, send)
            except asyncio.CancelledError:
                # By uvicorn, which has waited long enough for what is in flight at its end.
                message = "the service is shutting down, and the request is not complete yet"
                response = error_response(ClassifierError("unavailable", message, retry_after=1))
                await response(scope, receive, send)

    def _drain_first(self) -> None:
        """Let DRAIN_S pass between SIGTERM and the end of the uvicorn server around this.

        That closes at once each connection on which nothing is in flight, also where the next request is under way,
        whose client would see a reset. In DRAIN_S it gets its answer, and is told that it is the connection's last.
        """
        end, loop = signal.getsignal(signal.SIGTERM), asyncio.get_running_loop()
        if not callable(end) or not isinstance(getattr(end, "__self__", None), uvicorn.Server):
            return  # no server, as in a test

        def drain(number: int, frame: FrameType | None) -> None:
            self._always.append((b"connection", b"close"))
            loop.call_soon_threadsafe(loop.call_later, DRAIN_S, end, number, frame)

        signal.signal(signal.SIGTERM, drain)


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            sent: bytes = value
            return sent
    return uuid.uuid4().hex.encode()


def _stamped(send: Send, own: _Headers, always: _Headers, head: bool) -> Send:
    """``send`` that adds an answer's own headers and every answer's, and puts the framework's errors in our shape."""
    replaced = False

    async def stamped(message: Message) -> None:
        nonlocal replaced
        if message["type"] == "http.response.start":
            headers = [(name.lower(), value) for name, value in message.get("headers", [])]
            if message["status"] >= 400 and all(name != ERROR_HEADER.encode() for name, _ in headers):
                replaced = True
                code = _CODE_OF_STATUS.get(message["status"], "internal")
                response = error_response(ClassifierError(code, _MESSAGE.get(code, "the request was refused")))
                # Without what the door has allowed it, a browser would not show its page the error.
                allowed = [item for item in headers if item[0] == b"vary" or item[0].startswith(b"access-control-")]
                await send({**message, "headers": [*response.raw_headers, *allowed, *own, *always]})
                await send({"type": "http.response.body", "body": b"" if head else response.body})
                return
            message = {**message, "headers": [*message.get("headers", []), *own, *always]}
        elif replaced:
            return
        await send(message)

    return stamped


def _freezing(send: Send) -> Send:
    """``send`` that, when the application has started, takes all that lives by then out of the collector's reach.

    What is loaded at start is never garbage, and walking it in each full collection stops the process for 67-100 ms.
    """

    async def freezing(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            gc.collect()
            gc.freeze()
        await send(message)

    return freezing


def _paths(app: Any) -> dict[str, frozenset[str]]:
    """Every path that ``app`` answers, with its methods; a mount of static files counts each of its files."""
    paths: dict[str, frozenset[str]] = {}
    for route in app.routes:
        if isinstance(route, Route):
            paths[route.path] = paths.get(route.path, frozenset()) | frozenset(route.methods or {"GET", "HEAD"})
        elif isinstance(route, Mount) and isinstance(route.app, StaticFiles):
            for folder in route.app.all_directories:
                for file in Path(folder).rglob("*"):
                    if file.is_file():
                        path = f"{route.path}/{file.relative_to(folder).as_posix()}"
                        paths[path] = frozenset({"GET", "HEAD"})
        elif isinstance(route, Mount):
            for inner, methods in _paths(route.app).items():
                paths[route.path + inner] = methods
    return paths
