"""The fast path: POST requests to its paths go to their handlers, are counted, and all others pass."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
from starlette.responses import Response

from serving.fast_path import FastPathMiddleware

if TYPE_CHECKING:
    import pytest
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send


class Metric:
    """A metric that counts the labels that it was asked for, and what was added to it."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, int]] = Counter()
        self.added: Counter[tuple[str, int]] = Counter()

    def labels(self, **labels: Any) -> Any:
        key = labels["endpoint"], labels["http_response_code"]
        self.asked[key] += 1

        class Child:
            def inc(_) -> None:
                self.added[key] += 1

            def observe(_, seconds: float) -> None:
                assert 0 <= seconds < 5
                self.added[key] += 1

        return Child()


class Middleware(FastPathMiddleware):
    """FastPathMiddleware whose metrics are not BentoML's."""

    def _setup(self) -> None:
        self._is_setup = True
        self.metrics_request_total, self.metrics_request_duration = Metric(), Metric()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(b"the application")(scope, receive, send)


async def classify(request: Request) -> Response:
    body = await request.body()
    return Response(b"the handler got " + body, status_code=200 if body else 400)


def ask(middleware: Middleware, method: str, path: str, body: bytes = b"image") -> bytes:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
    asyncio.run(middleware(scope, receive, send))
    return b"".join(message.get("body", b"") for message in sent)


def test_post_requests_to_a_path_with_a_handler_go_to_it_and_are_counted() -> None:
    # As in a service: BentoML makes the middleware before the service fills in the handlers.
    handlers: dict[str, Any] = {}
    middleware = Middleware(application, handlers)
    handlers["/classify"] = classify
    for _ in range(3):
        assert ask(middleware, "POST", "/classify") == b"the handler got image"
    assert ask(middleware, "POST", "/classify", b"") == b"the handler got "
    for metric in (middleware.metrics_request_total, middleware.metrics_request_duration):
        assert metric.added == {("/classify", 200): 3, ("/classify", 400): 1}
        assert metric.asked == {("/classify", 200): 1, ("/classify", 400): 1}, "labels are looked up once"


def test_other_methods_and_paths_are_left_to_bentoml(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pass_on(self: Any, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    monkeypatch.setattr(RunnerTrafficMetricsMiddleware, "__call__", pass_on)
    middleware = Middleware(application, {"/classify": classify})
    assert ask(middleware, "GET", "/classify") == b"the application"
    assert ask(middleware, "POST", "/other") == b"the application"
    assert not middleware._is_setup
