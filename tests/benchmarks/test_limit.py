"""The search for a server's limit: a trial ends where no further request can mend it."""

from __future__ import annotations

import contextlib
import http.server
import threading
from typing import TYPE_CHECKING

import pytest

from benchmarks.limit import WARM_UP_S, Misses
from benchmarks.load import Sample, open_loop
from harness.wire import NO_ANSWER

if TYPE_CHECKING:
    from collections.abc import Iterator


class Refusing(http.server.BaseHTTPRequestHandler):
    """Refuses whatever comes."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(429)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """The URL of a server that refuses."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/classify"
        finally:
            server.shutdown()
            thread.join()


def test_a_hopeless_run_sends_nothing_more() -> None:
    seen: list[Sample] = []

    def third(sample: Sample) -> bool:
        seen.append(sample)
        return len(seen) == 3

    with refusing() as url:
        result = open_loop(url, [b"image"], "image/jpeg", 50, 600, 100, seed=0, hopeless=third)
    assert len(result.samples) == len(seen) < 20
    assert set(result.statuses) == {429}


@pytest.mark.parametrize(
    ("status", "latency_s", "missed"), [(200, 0.05, False), (200, 0.11, True), (429, 0.05, True), (NO_ANSWER, 1, True)]
)
def test_a_trial_has_missed_with_more_misses_than_its_length_allows(
    status: int, latency_s: float, missed: bool
) -> None:
    misses = Misses(838)
    assert not any(misses.too_many(Sample(0.0, latency_s, status)) for _ in range(100))
    told = [misses.too_many(Sample(WARM_UP_S, latency_s, status)) for _ in range(10)]
    assert told == ([False] * 2 + [True] * 8 if missed else [False] * 10)
