"""This repository's service, started with settings, asked, and stopped."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import ROOT, Peer
from harness import http
from harness.http import free_port
from harness.processes import Tree, serving

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
        """The JSON of ``GET /model``."""
        return http.ask_json(f"http://127.0.0.1:{self.port}/model")

    def classify(self, photo: bytes) -> dict[str, Any]:
        """The reply to one photo."""
        return http.ask_json(self.url, "POST", photo, JPEG)


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
