"""An open loop of HTTP requests: each leaves at its planned second, whether or not earlier ones have been answered."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.wire import NO_ANSWER, Client

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Answers:
    """The requests' outcomes: float64[n], status int64[n].

    ``planned``: the second. ``sent``: how many seconds later it left. ``status``: HTTP's, 0 where there was no answer.
    ``latency``: seconds from the planned moment to the answer's last byte.
    """

    planned: NDArray[np.float64]
    sent: NDArray[np.float64]
    status: NDArray[np.int64]
    latency: NDArray[np.float64]

    def late(self, slo_s: float) -> NDArray[np.bool_]:
        """bool[n]: refused, failed, or answered later than ``slo_s`` after the planned moment."""
        late: NDArray[np.bool_] = (self.status != 200) | (self.latency > slo_s)
        return late


async def send(port: int, body: bytes, planned: NDArray[np.float64], start: float) -> Answers:
    """POST the image ``body`` to /classify on ``port`` of this machine at ``start`` + each of ``planned``.

    ``start``: seconds of ``time.monotonic()``. Each request has a connection of its own, which nothing closes too soon.
    """
    head = f"POST /classify HTTP/1.1\r\nHost: replay\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n"
    request = head.encode() + b"Connection: close\r\n\r\n" + body
    rows = np.zeros((len(planned), 3))
    running: set[asyncio.Task[None]] = set()

    async def one(number: int) -> None:
        due = start + planned[number]
        rows[number, 0] = time.monotonic() - due
        rows[number, 1] = await _status(port, request)
        rows[number, 2] = time.monotonic() - due

    for number, second in enumerate(planned):
        wait = start + second - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        elif number % 16 == 0:
            await asyncio.sleep(0)  # behind the plan: answers must be read all the same
        task = asyncio.create_task(one(number))
        running.add(task)
        task.add_done_callback(running.discard)
    while running:
        await asyncio.wait(running)
    return Answers(planned, rows[:, 0], rows[:, 1].astype(np.int64), rows[:, 2])


async def _status(port: int, request: bytes) -> int:
    """The status of the answer to ``request``; NO_ANSWER where there is none within TIMEOUT_S."""
    client = Client("127.0.0.1", port)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await client.ask(request)
    except (OSError, TimeoutError):
        return NO_ANSWER
    finally:
        client.close()
