"""The outermost middleware around a small application: request ids, one shape of errors, known paths only."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from serving.middleware import OutermostMiddleware

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

PATHS = {"/ok": frozenset({"GET", "HEAD"}), "/fails": frozenset({"GET", "HEAD"}), "/hangs": frozenset({"POST"})}
HEADERS = [(b"vary", b"Origin"), (b"access-control-allow-origin", b"*"), (b"server", b"frameworks own")]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/hangs":
        await asyncio.sleep(5)
    status = 500 if scope["path"] == "/fails" else 200
    await send({"type": "http.response.start", "status": status, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"a framework's page"})


async def file(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a file"})


def ask(
    method: str, path: str, *, request_id: bytes | None = None, access: Any = None, cancel: bool = False
) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and the body of the answer; ``cancel``: the request is cancelled on its way."""
    app = OutermostMiddleware(application, PATHS, {"/file": file}, access)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        headers = [] if request_id is None else [(b"x-request-id", request_id)]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        task = asyncio.ensure_future(app(scope, None, send))  # type: ignore[arg-type]
        if cancel:
            await asyncio.sleep(0.01)
            task.cancel()
        await task

    asyncio.run(run())
    (start, *bodies) = sent
    headers = [(name.decode(), value.decode()) for name, value in start["headers"]]
    assert len({name for name, _ in headers}) == len(headers), "no header twice"
    return start["status"], dict(headers), b"".join(body.get("body", b"") for body in bodies)


def test_an_answer_passes_with_a_request_id() -> None:
    status, headers, body = ask("GET", "/ok", request_id=b"abc-1")
    assert (status, body) == (200, b"a framework's page")
    assert headers == {name.decode(): value.decode() for name, value in HEADERS} | {"x-request-id": "abc-1"}
    made = [ask("GET", "/ok", request_id=bad)[1]["x-request-id"] for bad in (b"a b/c", b"x" * 65, b"", None)]
    assert all(len(one) == 32 for one in made)
    assert len(set(made)) == 4


def test_a_framework_s_error_gets_our_shape_and_keeps_what_browsers_need() -> None:
    status, headers, body = ask("GET", "/fails", request_id=b"abc-2")
    assert status == 500
    assert json.loads(body)["error"]["code"] == "internal" == headers["x-error-code"]
    assert (headers["x-request-id"], headers["vary"], headers["access-control-allow-origin"]) == (
        "abc-2",
        "Origin",
        "*",
    )
    assert "server" not in headers
    assert ask("HEAD", "/fails")[2] == b"", "a HEAD request has no body"


@pytest.mark.parametrize("path", ["/nowhere", "/ok/", "/OK", "//ok"])
def test_an_unknown_path_never_reaches_the_application(path: str) -> None:
    status, headers, body = ask("GET", path)
    assert (status, headers["x-error-code"]) == (404, "not_found")
    assert json.loads(body)["error"]["message"] == f"there is no {path!r} here; there are /fails, /file, /hangs, /ok"


def test_a_method_that_a_path_does_not_have() -> None:
    status, headers, body = ask("DELETE", "/ok")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert json.loads(body)["error"]["code"] == "method_not_allowed"
    assert ask("POST", "/file")[0] == 405


def test_files_are_answered_before_the_application() -> None:
    assert ask("GET", "/file")[2] == b"a file"


def test_a_request_that_is_cancelled_gets_503() -> None:
    status, headers, body = ask("POST", "/hangs", cancel=True)
    assert (status, headers["retry-after"]) == (503, "1")
    assert "shutting down" in json.loads(body)["error"]["message"]


def test_access_middleware_comes_before_the_router_and_its_refusals_have_a_request_id() -> None:
    def access(_: ASGIApp) -> ASGIApp:
        async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 401, "headers": [(b"x-error-code", b"unauthorized")]})
            await send({"type": "http.response.body", "body": b"no key"})

        return refuse

    for path in ("/ok", "/nowhere", "/file"):
        status, headers, body = ask("GET", path, access=access)
        assert (status, body) == (401, b"no key")
        assert headers["x-request-id"]
