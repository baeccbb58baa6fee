"""The outermost middleware: every reply has a request id, every error one shape, and only known paths go further."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from typing import TYPE_CHECKING

from classifier.errors import ClassifierError
from serving import lifespan, metrics
from serving.replies import ERROR_HEADER, error_response, json_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    _Headers = list[tuple[bytes, bytes]]

_CODE_OF_STATUS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
_CODE_OF_STATUS |= {415: "unsupported_media_type", 429: "overloaded", 500: "internal", 503: "unavailable"}
_CODE_OF_STATUS |= {504: "timeout"}
_MESSAGE = {
    "internal": "an unexpected error; the server's log tells more under this request id",
    "unavailable": "the service is not ready",
    "timeout": "the request took too long",
}
# The beginning of the Open Inference Protocol's paths.
_V2 = "/v2"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class OutermostMiddleware:
    """ASGI middleware around a whole application. A request passes the request ids, the access middleware, the router.

    ``paths``: the application's paths and their methods. ``files``: small applications by path, which are called before
    the whole application, because it would add a dozen series to ``/metrics`` for each. ``access``: a function that
    puts access middleware around the router, so that its refusals have a request id too; None: there is none.
    """

    def __init__(
        self,
        app: ASGIApp,
        paths: dict[str, frozenset[str]],
        files: dict[str, ASGIApp],
        access: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        self._app, self._files = app, files
        self._paths = paths | dict.fromkeys(files, frozenset({"GET", "HEAD"}))
        # The headers of every reply. From SIGTERM on they say that it is its connection's last.
        self._always: _Headers = []
        self._processes: metrics.ProcessMetrics | None = None
        self._inner: ASGIApp = access(self._route) if access else self._route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] == "lifespan":
            lifespan.drain_first(lambda: self._always.append((b"connection", b"close")))
            await self._app(scope, receive, lifespan.freezing(send))
        elif scope["type"] == "http":
            request_id = [(b"x-request-id", _request_id(scope))]
            if scope["path"][:3] == _V2:
                send = _flat(send)
            await self._inner(scope, receive, _stamped(send, request_id, self._always, scope["method"] == "HEAD"))

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
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
                # uvicorn cancels requests that are still in flight some seconds after SIGTERM.
                message = "the service is shutting down, and the request is not complete yet"
                response = error_response(ClassifierError("unavailable", message, retry_after=1))
                await response(scope, receive, send)


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            sent: bytes = value
            return sent
    return uuid.uuid4().hex.encode()


def _flat(send: Send) -> Send:
    """``send`` that gives an error the shape of the Open Inference Protocol: ``{"error": message, "code": …}``.

    Its clients take the error for text, and Triton's can't even print another.
    """
    started: Message | None = None

    async def flattened(message: Message) -> None:
        nonlocal started
        if message["type"] == "http.response.start" and message["status"] >= 400:
            started = message
        elif started is not None and message["type"] == "http.response.body":
            # An error is sent in one piece; one of a HEAD request has none.
            told = json.loads(message["body"])["error"] if message.get("body") else None
            if told is not None:
                body = json_response({"error": told.pop("message"), **told}).body
                kept = [(name, value) for name, value in started["headers"] if name.lower() != b"content-length"]
                started = {**started, "headers": [*kept, (b"content-length", str(len(body)).encode())]}
                message = {**message, "body": body}
            await send(started)
            await send(message)
            started = None
        else:
            await send(message)

    return flattened


def _stamped(send: Send, own: _Headers, always: _Headers, head: bool) -> Send:
    """``send`` that adds the reply's ``own`` headers and those of every reply, and gives a framework's error our shape.

    ``head``: whether it answers a HEAD request, which has no body.
    """
    replaced = False

    async def stamped(message: Message) -> None:
        nonlocal replaced
        if message["type"] == "http.response.start":
            headers = [(name.lower(), value) for name, value in message.get("headers", [])]
            if message["status"] >= 400 and all(name != ERROR_HEADER.encode() for name, _ in headers):
                replaced = True
                code = _CODE_OF_STATUS.get(message["status"], "internal")
                response = error_response(ClassifierError(code, _MESSAGE.get(code, "the request was refused")))
                # A browser shows its page the error only with the CORS headers.
                allowed = [item for item in headers if item[0] == b"vary" or item[0].startswith(b"access-control-")]
                await send({**message, "headers": [*response.raw_headers, *allowed, *own, *always]})
                await send({"type": "http.response.body", "body": b"" if head else response.body})
                return
            message = {**message, "headers": [*message.get("headers", []), *own, *always]}
        elif replaced:
            return
        await send(message)

    return stamped
