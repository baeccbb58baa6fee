"""A worker's tie to its supervisor: it ends when that does, however that ends, and tells it when it can answer.

The tie is an end of a pair of sockets, which each worker inherits. The other end is the supervisor's alone, so that the
kernel closes it even where the supervisor is killed. Linux's PR_SET_PDEATHSIG would tell of the thread that has started
the worker, not of the process, and nothing at all if that had ended before.
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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Where the supervisor says which of the inherited sockets are the tie, and the one that listens.
VARIABLE = "BENTO_SUPERVISOR_SOCKETS"
# What a worker sends along the tie: its process id once it is ready, or that none can serve.
MESSAGE = struct.Struct("!I")
REFUSED = 0
# From the supervisor's end to the worker's, at most: as long as the supervisor itself would have given it.
END_S = 7.0

logger = logging.getLogger("bentoml.resnet18")


class Tie:
    """This process's end of the tie, and the socket on which it listens."""

    def __init__(self, tie: socket.socket, listening: socket.socket) -> None:
        self._tie, self._listening = tie, listening
        threading.Thread(target=self._follow, name="resnet18-tie", daemon=True).start()

    async def tell(self, is_ready: Callable[[], Awaitable[bool]]) -> None:
        """Tell the supervisor that this process is ready, as soon as it is."""
        while not await is_ready():  # noqa: ASYNC110 - it may ask another process, which tells nobody
            await asyncio.sleep(0.1)
        self._send(os.getpid())

    def refuse(self) -> None:
        """Tell the supervisor to end, which would else start this process again and again."""
        self._send(REFUSED)

    def _send(self, message: int) -> None:
        with contextlib.suppress(OSError):  # the supervisor has ended
            self._tie.sendall(MESSAGE.pack(message))

    def _follow(self) -> None:
        """Wait for the supervisor's end. Then free the port, answer what is in flight, and end."""
        with contextlib.suppress(OSError):
            self._tie.recv(1)  # it never sends anything
        logger.error("the supervisor has ended, so this worker ends")
        self._free_port()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        end = time.monotonic() + END_S
        while time.monotonic() < end:
            # A worker that was just starting listens on the shared socket again, and may be the first to end.
            self._free_port()
            time.sleep(0.1)
        os._exit(1)

    def _free_port(self) -> None:
        with contextlib.suppress(OSError):  # it does not listen
            self._listening.shutdown(socket.SHUT_RDWR)


@functools.cache
def tie() -> Tie | None:
    """The tie of this process, which follows its supervisor from here on; None where there is no supervisor of ours."""
    told = os.environ.pop(VARIABLE, None)
    if told is None:
        return None
    ours, listening = (int(number) for number in told.split(","))
    return Tie(socket.socket(fileno=ours), socket.socket(fileno=os.dup(listening)))
