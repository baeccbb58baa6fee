"""A worker's start and end: it tells its supervisor when it can answer, and ends when its supervisor ends.

Both use the tie, a pair of sockets. Each worker inherits one end; the supervisor alone has the other, so the kernel
closes it even where the supervisor is killed. Linux's PR_SET_PDEATHSIG would watch the thread that has started the
worker, not the process, and would tell nothing if the supervisor had ended before.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# The environment variable in which the supervisor says which inherited sockets are the tie and the listening one.
VARIABLE = "BENTO_SUPERVISOR_SOCKETS"
# A worker sends its process id along the tie once it is ready, or ABORTED if no worker can serve.
MESSAGE = struct.Struct("!I")
ABORTED = 0
# Seconds from the supervisor's end to the worker's, at most: as long as a living supervisor would have given it.
END_S = 7.0

logger = logging.getLogger("bentoml.resnet18")


class Tie:
    """This process's end of the tie, and the socket on which it listens."""

    def __init__(self, tie: socket.socket, listening: socket.socket) -> None:
        self._tie, self._listening = tie, listening
        threading.Thread(target=self._follow, name="resnet18-tie", daemon=True).start()

    async def tell(self, is_ready: Callable[[], Awaitable[bool]]) -> None:
        """Tell the supervisor that this process is ready, as soon as it is."""
        while not await is_ready():  # noqa: ASYNC110 - it may ask another process, which sends no event
            await asyncio.sleep(0.1)
        self._send(os.getpid())

    def abort(self) -> None:
        """Tell the supervisor to end. Otherwise it would start this process again and again."""
        self._send(ABORTED)

    def _send(self, message: int) -> None:
        with contextlib.suppress(OSError):  # the supervisor has ended
            self._tie.sendall(MESSAGE.pack(message))

    def _follow(self) -> None:
        """Wait for the supervisor's end. Then free the port, answer the requests in flight, and end."""
        with contextlib.suppress(OSError):
            self._tie.recv(1)  # it never sends anything
        logger.error("the supervisor has ended, so this worker ends")
        self._free_port()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        end = time.monotonic() + END_S
        while time.monotonic() < end:
            # Another worker that was just starting may listen on the shared socket again.
            self._free_port()
            time.sleep(0.1)
        os._exit(1)

    def _free_port(self) -> None:
        with contextlib.suppress(OSError):  # it does not listen
            self._listening.shutdown(socket.SHUT_RDWR)


@functools.cache
def tie() -> Tie | None:
    """The tie of this process, which ends with its supervisor from here on; None without a supervisor of ours."""
    told = os.environ.pop(VARIABLE, None)
    if told is None:
        return None
    ours, listening = (int(number) for number in told.split(","))
    return Tie(socket.socket(fileno=ours), socket.socket(fileno=os.dup(listening)))


def abort(error: Exception) -> NoReturn:
    """End this worker, and its supervisor with it, because of ``error``: no worker could start."""
    logger.error("refused to start: %s", error)
    own = tie()
    if own is not None:
        own.abort()
    # No clean exit: the frameworks on the way up would print their tracebacks over the message.
    os._exit(1)
