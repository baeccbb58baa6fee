"""The open loop of HTTP requests: what it sends, when, and how it counts the answers."""

from __future__ import annotations

import asyncio
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from autoscaling import sender
from tests.conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = b"an image"


class Service(ThreadingHTTPServer):
    """Answers the n-th request with the n-th of ``statuses`` (0: hangs up), each after ``seconds``."""

    daemon_threads = True

    def __init__(self, statuses: list[int], seconds: float) -> None:
        self.statuses, self.seconds, self.bodies, self.at = iter(statuses), seconds, [], []  # type: ignore[var-annotated]
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        with self.server.lock:
            self.server.at.append(time.monotonic())
            self.server.bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            status = next(self.server.statuses)
        time.sleep(self.server.seconds)
        if status:
            self.send_response(status)
            self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with Service(*request.param) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.mark.parametrize("service", [([200, 429, 0, 200], 0.0)], indirect=True)
def test_answers_are_told_apart(service: Service) -> None:
    planned = np.array([0.0, 0.1, 0.2, 0.3])
    answers = asyncio.run(sender.send(service.server_port, BODY, planned, time.monotonic()))
    assert answers.status.tolist() == [200, 429, 0, 200]
    assert answers.late(1.0).tolist() == [False, True, True, False]
    assert answers.late(-1.0).all()
    assert service.bodies == [("/classify", BODY)] * 4


@pytest.mark.slow
@pytest.mark.parametrize("service", [([200] * 40, 0.5)], indirect=True)
def test_a_slow_service_delays_no_request(service: Service) -> None:
    planned, start = np.linspace(0, 0.78, 40), time.monotonic() + 0.1
    answers = asyncio.run(sender.send(service.server_port, BODY, planned, start))
    assert answers.status.tolist() == [200] * 40
    # All had left before the first could be answered twice.
    assert np.abs(np.sort(service.at) - start - planned).max() < 0.4
    assert (answers.latency >= 0.5).all()


def test_no_service_is_no_answer() -> None:
    answers = asyncio.run(sender.send(free_port(), BODY, np.zeros(3), time.monotonic()))
    assert answers.status.tolist() == [0, 0, 0]
