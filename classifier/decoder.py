"""A process that only decodes and may die of it: ``python -m classifier.decoder``, started by serving/containment.py.

The process that is started decodes nothing itself. At each order it forks one that does, which takes a millisecond
and next to no memory, because Python and Pillow are loaded already; and it ends those that it is told to.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import resource
import signal
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from classifier import pixels
from classifier.errors import ClassifierError
from classifier.preprocessing import Preprocessing

# What the parent orders: fork a decoder for the socket that comes along, or end the one of a process id.
FORK, END = b"F", b"E"
ORDER = struct.Struct("!cI")
# In front of each image and each answer: its bytes. An answer's first byte tells pixels from an error. Behind the
# pixels come their warnings, as JSON, where there are any.
LENGTH = struct.Struct("!I")
PIXELS, ERROR = b"P", b"E"


@dataclass(frozen=True)
class Limits:
    """How to decode (see ``pixels.read``), and what one image may take: seconds, and bytes of memory."""

    preprocessing: Preprocessing
    max_pixels: int
    seconds: float
    memory: int
    truncated: bool = False

    @classmethod
    def parse(cls, text: str) -> Limits:
        """What ``command`` wrote."""
        fields = json.loads(text)
        return cls(**fields | {"preprocessing": Preprocessing(**fields["preprocessing"])})


def exactly(connection: socket.socket, count: int) -> bytearray:
    """``count`` bytes from ``connection``. Raises EOFError if it ends before, TimeoutError as the socket is set."""
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        received = connection.recv_into(view[got:])
        if not received:
            raise EOFError
        got += received
    return data


def main(control: socket.socket, limits: Limits) -> None:
    """Fork decoders and end them as ``control`` orders, until it closes; then end all."""
    gc.freeze()
    children: set[int] = set()
    try:
        while True:
            message, sockets, _, _ = socket.recv_fds(control, ORDER.size, 1)
            if not message:
                return
            order, child = ORDER.unpack(message)
            if order == FORK:
                child = os.fork()
                if not child:
                    try:
                        control.close()
                        _decode(socket.socket(fileno=sockets[0]), limits)
                    finally:  # whatever happens here, the others are not this one's to end
                        os._exit(0)
                os.close(sockets[0])
                children.add(child)
                control.sendall(LENGTH.pack(child))
            elif child in children:
                _end(child)
                children.remove(child)
    finally:
        for child in children:
            _end(child)


def _end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _decode(connection: socket.socket, limits: Limits) -> None:
    """Answer each image that comes, until ``connection`` closes."""
    _confine(limits)
    with contextlib.suppress(EOFError, OSError, MemoryError):
        while True:
            (length,) = LENGTH.unpack(exactly(connection, LENGTH.size))
            data = bytes(exactly(connection, length))
            # If nobody ends it in time, the kernel does.
            spent = math.ceil(time.process_time() + limits.seconds)
            resource.setrlimit(resource.RLIMIT_CPU, (spent + 1, resource.RLIM_INFINITY))
            try:
                found = pixels.read(data, limits.preprocessing, limits.max_pixels, limits.seconds, limits.truncated)
                answer = PIXELS + found.pixels.tobytes()
                if found.warnings:
                    answer += json.dumps(found.warnings).encode()
            except ClassifierError as error:
                answer = ERROR + json.dumps([error.code, error.message, error.facts]).encode()
            connection.sendall(LENGTH.pack(len(answer)) + answer)


def _confine(limits: Limits) -> None:
    """Bound this process: so much memory more than it has, no file that it could write, and silence.

    What C libraries print of a broken file would let strangers fill the log.
    """
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with contextlib.suppress(OSError):  # no /proc, no bound: macOS
        has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + limits.memory, has + limits.memory))


def command(control: socket.socket, limits: Limits) -> list[str]:
    """The command that runs ``main``; ``control`` must be passed on to it."""
    return [sys.executable, "-m", __name__, str(control.fileno()), json.dumps(asdict(limits))]


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), Limits.parse(sys.argv[2]))
