"""The start and the end of the HTTP server: garbage collection is frozen at the start, connections drain at SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import signal
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from starlette.types import Message, Send

# Seconds after SIGTERM during which idle connections may still send a request.
DRAIN_S = 0.5


def drain_first(begin: Callable[[], None]) -> None:
    """Let DRAIN_S pass between SIGTERM and the end of this process's uvicorn server; call ``begin`` at SIGTERM.

    At its end uvicorn closes each connection without a request in flight at once. A client whose next request is under
    way would see a reset. Within DRAIN_S it gets its answer, and ``begin`` can have it told that it is the last one.
    """
    end, loop = signal.getsignal(signal.SIGTERM), asyncio.get_running_loop()
    if not callable(end) or not isinstance(getattr(end, "__self__", None), uvicorn.Server):
        return  # there is no server, as in a test

    def drain(number: int, frame: FrameType | None) -> None:
        begin()
        loop.call_soon_threadsafe(loop.call_later, DRAIN_S, end, number, frame)

    signal.signal(signal.SIGTERM, drain)


def freezing(send: Send) -> Send:
    """``send`` that takes all living objects out of the collector's reach once the application has started.

    Objects that are loaded at the start are never garbage, and walking them in each full collection stops the process
    for 67-100 ms.
    """

    async def send_frozen(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            gc.collect()
            gc.freeze()
        await send(message)

    return send_frozen
