"""The HTTP protocol's bounds: what trickles, swells or is no HTTP is answered in one shape, and held against time."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from serving.protocol import LINGER_S
from tests.test_service import raw, received

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL.Image import Image

    from tests.conftest import Server

TIMEOUT_S = 1.5
JPEG = {"content-type": "image/jpeg"}
HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"


@pytest.fixture(scope="module")
def bounded(launch: Callable[..., Server]) -> Server:
    return launch(
        upload_timeout_ms="1500", max_header_bytes="4096", max_body_bytes="300000", max_held_bytes="1000000"
    ).wait()


@pytest.fixture(scope="module")
def jpeg(photograph: Callable[[int, int], Image]) -> bytes:
    buffer = io.BytesIO()
    photograph(320, 240).save(buffer, "JPEG")
    return buffer.getvalue()


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        yield connection


def trickle(connection: socket.socket, data: bytes, every: float = 0.1) -> tuple[bytes, float]:
    """Send ``data`` byte by byte until the other side has had enough: its answer, and the seconds until it closed."""
    start = time.monotonic()
    connection.setblocking(False)
    answer = b""
    for byte in data:
        try:
            connection.send(bytes([byte]))
            received = connection.recv(65536)
            if not received:
                break
            answer += received
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            break
        time.sleep(every)
    return answer, time.monotonic() - start


def error(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, body = answer.split(b"\r\n\r\n", 1)
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert fields[b"content-type"] == b"application/json"
    assert fields[b"x-request-id"]
    told: dict[str, Any] = json.loads(body)["error"]
    assert fields[b"x-error-code"].decode() == told["code"]
    return int(head.split()[1]), told


def classified(server: Server, jpeg: bytes) -> bool:
    return server.client.post("/classify", content=jpeg, headers=JPEG).status_code == 200


@pytest.mark.parametrize("what", ["headers", "body"])
def test_who_trickles_is_cut_off_and_others_don_t_feel_it(bounded: Server, jpeg: bytes, what: str) -> None:
    def attack(_: int) -> tuple[bytes, float]:
        with connected(bounded) as connection:
            if what == "body":
                connection.sendall(HEAD + b"Content-Length: 5000\r\n\r\n")
            return trickle(connection, HEAD * 2)

    with ThreadPoolExecutor(20) as pool:
        attacks = [pool.submit(attack, number) for number in range(20)]
        answered = 0
        while not all(attack.done() for attack in attacks):
            assert classified(bounded, jpeg)
            answered += 1
    assert answered > 20
    for attempt in attacks:
        answer, seconds = attempt.result()
        status, told = error(answer)
        assert (status, told["code"], told["limit"]) == (408, "upload_timeout", 1500)
        assert TIMEOUT_S * 0.9 < seconds < TIMEOUT_S + LINGER_S + 3
    assert classified(bounded, jpeg)


def test_it_waits_no_longer_than_the_setting(launch: Callable[..., Server]) -> None:
    with connected(launch(keep_alive_s="1").wait()) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 200")
        start = time.monotonic()
        assert connection.recv(1) == b""
        assert 0.8 < time.monotonic() - start < 4


def test_an_offer_of_another_protocol_changes_nothing(launch: Callable[..., Server], jpeg: bytes) -> None:
    """Java's client offers HTTP/2 by default; its body is no other protocol's, nor the next request."""
    server = launch().wait()
    fields = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nHTTP2-Settings: AAMAAABk\r\n"
    with connected(server) as connection:
        for offer, pieces in itertools.product((b"websocket", b"h2c"), (1, 2, 400)):
            head = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + offer + b"\r\n" + fields
            request = head + b"Content-Length: %d\r\n\r\n" % len(jpeg) + jpeg
            step = -(-len(request) // pieces)
            for begin in range(0, len(request), step):
                connection.sendall(request[begin : begin + step])
                time.sleep(0.001)
            assert received(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 200")
    assert "pgrade" not in server.stop(), "strangers could fill the log"


def test_a_connection_that_says_nothing_is_closed(bounded: Server) -> None:
    with connected(bounded) as connection:
        assert connection.recv(1) == b""


def test_a_connection_that_was_used_may_wait_longer(bounded: Server) -> None:
    with connected(bounded) as connection:
        request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.sendall(request)
        assert received(connection).startswith(b"HTTP/1.1 200")
        time.sleep(6)  # uvicorn's own wait is five seconds
        connection.sendall(request)
        assert received(connection).startswith(b"HTTP/1.1 200")


def test_line_ends_do_not_keep_a_connection_open(bounded: Server) -> None:
    with connected(bounded) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(b"\r\n")
        start = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - start < TIMEOUT_S + 3


def test_pipelined_requests_are_answered(bounded: Server, jpeg: bytes) -> None:
    request = HEAD + f"Content-Length: {len(jpeg)}\r\n\r\n".encode() + jpeg
    with connected(bounded) as connection:
        connection.sendall(request * 5)
        answers = b""
        while answers.count(b"predictions") < 5:
            answers += connection.recv(65536)
    assert answers.count(b"HTTP/1.1 200") == 5


@pytest.mark.parametrize("piece", [100_000, 1000])
def test_headers_over_the_limit(bounded: Server, piece: int) -> None:
    head = HEAD + b"X-Padding: " + b"x" * 100_000
    with connected(bounded) as connection:
        for start in range(0, len(head), piece):
            connection.sendall(head[start : start + piece])
            time.sleep(0.002)
        answer = received(connection)
    status, told = error(answer)
    assert (status, told["code"], told["limit"]) == (431, "headers_too_large", 4096)


def test_a_head_that_is_whole_but_too_large(bounded: Server) -> None:
    with connected(bounded) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Padding: " + b"x" * 4096 + b"\r\n\r\n")
        status, told = error(received(connection))
    assert (status, told["code"]) == (431, "headers_too_large")


def test_many_small_headers_are_counted_together(bounded: Server) -> None:
    padding = b"".join(b"X-%d: y\r\n" % number for number in range(2000))
    with connected(bounded) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + padding + b"\r\n")
        status, told = error(received(connection))
    assert (status, told["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["tls", "version", "length", "smuggling", "chunk"],
)
def test_what_is_no_http(bounded: Server, request_: bytes) -> None:
    with connected(bounded) as connection:
        connection.sendall(request_)
        status, told = error(received(connection))
        assert (status, told["code"]) == (400, "bad_request")
        assert connection.recv(1) == b""


def test_the_rest_of_a_refused_body_is_not_read_for_ever(bounded: Server) -> None:
    with connected(bounded) as connection:
        connection.sendall(HEAD + b"Content-Length: 100000000\r\n\r\n")
        start = time.monotonic()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() - start < 20:
                connection.sendall(b"x" * 1000)
                time.sleep(0.05)
        assert time.monotonic() - start < LINGER_S + 5


def test_a_client_that_sends_before_it_reads_gets_its_413(bounded: Server) -> None:
    status, body = raw(bounded, HEAD + b"Content-Length: 400000\r\n\r\n" + b"x" * 400_000)
    assert status == 413
    assert json.loads(body)["error"]["code"] == "body_too_large"


def test_bodies_are_held_up_to_a_limit_and_given_back(bounded: Server, jpeg: bytes) -> None:
    with contextlib.ExitStack() as stack:
        answers = []
        for _ in range(6):  # four of them are more than may be held
            connection = stack.enter_context(connected(bounded))
            connection.sendall(HEAD + b"Content-Length: 300000\r\n\r\n" + b"x" * 299_000)
            answers.append(connection)
            time.sleep(0.05)
        told = [error(received(connection)) for connection in answers]
    refused = [facts for status, facts in told if status == 429]
    assert {status for status, _ in told} == {408, 429}
    assert 2 <= len(refused) <= 3
    assert {facts["reason"] for facts in refused} == {"memory"}
    assert all(classified(bounded, jpeg) for _ in range(20))
