"""The start and the end of the HTTP server: the garbage collector is frozen, and connections drain."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from serving import lifespan

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _same_handler_afterwards() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_garbage_collection_is_frozen_once_the_application_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: events.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: events.append("freeze"))

    async def send(message: Any) -> None:
        events.append(message["type"])

    async def start() -> None:
        for kind in ("startup.complete", "shutdown.complete"):
            await lifespan.freezing(send)({"type": f"lifespan.{kind}"})

    asyncio.run(start())
    assert events == ["collect", "freeze", "lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_sigterm_ends_the_server_only_after_the_time_for_draining(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifespan, "DRAIN_S", 0.2)
    events: list[tuple[str, float]] = []

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            events.append(("end", asyncio.get_running_loop().time()))

    async def run() -> None:
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGTERM, Server(uvicorn.Config("nowhere:app", log_config=None)).handle_exit)
        lifespan.drain_first(lambda: events.append(("begin", loop.time())))
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)
        assert [name for name, _ in events] == ["begin"]
        await asyncio.sleep(0.3)

    asyncio.run(run())
    (_, begin), (name, end) = events
    assert name == "end"
    assert end - begin >= 0.2


def test_a_handler_that_is_no_server_s_is_left_alone() -> None:
    def handler(*_: object) -> None:
        """Not uvicorn's."""

    async def run() -> None:
        lifespan.drain_first(lambda: None)

    signal.signal(signal.SIGTERM, handler)
    asyncio.run(run())
    assert signal.getsignal(signal.SIGTERM) is handler
