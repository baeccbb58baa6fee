"""A URL's answer is told whatever its status; a server is waited for until it is ready, has ended or takes too long."""

from __future__ import annotations

import contextlib
import http.server
import random
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from harness import http as asking

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Server(http.server.HTTPServer):
    """Gives one ``replies`` after the other, status and body, and notes what it was asked."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, bytes]] = []
        self.asked: list[tuple[str, str, str | None, bytes]] = []
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.asked.append((self.command, self.path, self.headers["Content-Type"], body))
        status, content = self.server.replies.pop(0)
        if status:
            self.send_response(status)
            self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def url(server: _Server, path: str = "/readyz") -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


@pytest.mark.parametrize("status", [200, 404, 503])
def test_an_answer_is_told_whatever_its_status(server: _Server, status: int) -> None:
    server.replies = [(status, b"said")]
    found, headers, content = asking.ask(url(server, "/a?b=c"), "POST", b"an image", {"Content-Type": "image/jpeg"})
    assert (found, content) == (status, b"said") and "Server" in headers
    assert server.asked == [("POST", "/a?b=c", "image/jpeg", b"an image")]


def test_no_http_and_nobody_are_both_an_error_of_the_system(server: _Server) -> None:
    server.replies = [(0, b"not http\r\n\r\n")]
    with pytest.raises(OSError, match=r"GET http://127\.0\.0\.1:\d+/x: BadStatusLine"):
        asking.ask(url(server, "/x"))
    with pytest.raises(ConnectionRefusedError):
        asking.ask(f"http://127.0.0.1:{asking.free_port()}")


def test_a_free_port_is_none_that_is_taken_nor_one_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asking.FREE_PORTS[-1] < 32_768
    with socket.create_server(("127.0.0.1", asking.free_port())) as listener:
        taken = listener.getsockname()[1]
        assert taken in asking.FREE_PORTS
        monkeypatch.setattr(random.SystemRandom, "sample", lambda *_: [taken, taken])
        with pytest.raises(OSError, match="none of 100 ports of 20000 to 31999 is free"):
            asking.free_port()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.0 200 OK\r\n\r\n"], ids=["head", "body"])
def test_an_answer_that_drips_ends_when_it_is_late(head: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            peer, _ = listener.accept()
            with peer, contextlib.suppress(OSError):
                peer.sendall(head)
                for _ in range(40):
                    peer.sendall(b"H")
                    time.sleep(0.1)

        thread = threading.Thread(target=drip)
        thread.start()
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match=r"its answer is not whole after 0\.4 s"):
            asking.ask(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout_s=5, within_s=0.4)
        assert time.monotonic() - begin < 2
        thread.join()


def test_a_body_is_read_up_to_a_limit(server: _Server) -> None:
    server.replies = [(200, b"a long body")]
    assert asking.ask(url(server), within_s=30, most=6)[2] == b"a long"


def test_a_host_that_can_be_no_name_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match=r"GET http://a\.\.b/x: UnicodeError"):
        asking.ask("http://a..b/x?long=query")


def test_an_object_is_read_and_anything_else_is_quoted(server: _Server) -> None:
    server.replies = [(200, b'{"a": 1}'), (500, b"broken"), (200, b"[1]"), (200, b"<html>")]
    assert asking.ask_json(url(server)) == {"a": 1}
    with pytest.raises(ValueError, match="GET /readyz was answered with 500: b'broken'"):
        asking.ask_json(url(server))
    with pytest.raises(ValueError, match=r"answered with no JSON object: b'\[1\]'"):
        asking.ask_json(url(server))
    with pytest.raises(ValueError, match="answered with no JSON object: b'<html>'"):
        asking.ask_json(url(server))


def test_a_server_is_ready_with_200_alone(server: _Server) -> None:
    server.replies = [(503, b""), (200, b"")]
    assert not asking.is_ready(url(server))
    assert asking.is_ready(url(server))
    assert not asking.is_ready(f"http://127.0.0.1:{asking.free_port()}")


def test_waiting_lasts_until_the_first_200(server: _Server) -> None:
    server.replies = [(503, b""), (503, b""), (200, b"")]
    assert asking.wait_ready(url(server), 30) >= 2 * asking.PROBE_EVERY_S
    assert len(server.asked) == 3


def test_a_server_that_is_never_ready_is_told_with_its_last_answer(server: _Server) -> None:
    server.replies = [(503, b"")] * 100
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:\d+ is not ready after 0 s: GET /readyz said status 503"):
        asking.wait_ready(url(server), 0.3)


def test_waiting_ends_with_the_server() -> None:
    looks = iter([False, False, True])
    with pytest.raises(OSError, match="refused"):
        asking.wait_ready(f"http://127.0.0.1:{asking.free_port()}/", 30, ended=lambda: next(looks))
    assert list(looks) == []
