"""This repository's service, started with settings, asked, and stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import ROOT, Peer
from loadtests.processes import Tree, busy_seconds, free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

JPEG = "image/jpeg"


def peer() -> Peer:
    """The service as a row among its peers: as `make serve` starts it, in the environment that runs the benchmark."""
    return Peer(
        name="resnet18",
        argv=("{python}", "-m", "bentoml", "serve", "service:ResNet18", "--port", "{port}"),
        path="/classify",
        body="raw",
        ready="/readyz",
        python=Path(sys.executable),
        pixels="service",
    )


@dataclass(frozen=True)
class Service:
    """A running server of this repository's, on this machine's loopback."""

    port: int
    tree: Tree

    @property
    def url(self) -> str:
        """Where images are posted."""
        return f"http://127.0.0.1:{self.port}/classify"

    def model(self) -> dict[str, Any]:
        """What ``GET /model`` tells."""
        return ask(self.port, "GET", "/model")

    def classify(self, photo: bytes) -> dict[str, Any]:
        """The reply to one photo."""
        return ask(self.port, "POST", "/classify", photo, JPEG)


@contextlib.contextmanager
def running(command: Sequence[str] = (), **settings: object) -> Iterator[Service]:
    """The service with ``settings`` (``slo_ms=100`` is RESNET18_SLO_MS=100), or another ``command`` that serves alike.

    The command may hold ``{port}``. Raises StartError.
    """
    port = free_port()
    words = [word.format(port=port) for word in command] or peer().command(port, 1)
    environment = {f"RESNET18_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= {"PYTHONPATH": str(ROOT)}
    ready = f"http://127.0.0.1:{port}/readyz"
    with serving(words, ready=ready, environment=environment, folder=ROOT) as tree:
        yield Service(port, tree)


def ask(port: int, method: str, path: str, body: bytes | None = None, kind: str = JPEG) -> dict[str, Any]:
    """The JSON of one answer. Raises OSError, or ValueError where the answer is no 200."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body, {"Content-Type": kind} if body else {})
        reply = connection.getresponse()
        text = reply.read()
    if reply.status != 200:
        raise ValueError(f"{method} {path} was answered with {reply.status}: {text[:200]!r}")
    answer: dict[str, Any] = json.loads(text)
    return answer


class Watch:
    """What a stretch of time cost: our processes' CPU time, and what anything else on the machine took."""

    def __init__(self, *trees: Tree) -> None:
        self._trees = trees
        self._begin = self._read()

    def _read(self) -> tuple[float, float, float]:
        served = sum(tree.cpu_seconds() for tree in self._trees)
        return time.perf_counter(), busy_seconds() - time.process_time() - served, served

    def stop(self) -> tuple[float, float]:
        """Seconds of CPU that the trees used since the start, and the cores that others took on average."""
        wall, others, served = (now - then for now, then in zip(self._read(), self._begin, strict=True))
        return served, max(0.0, others / wall)
