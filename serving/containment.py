"""Contained decoding: each thread decodes its images in a process of its own, which may hang, grow or die."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from classifier import decoder, pixels
from classifier.errors import ClassifierError
from classifier.pixels import Decoded

if TYPE_CHECKING:
    from classifier.decoder import Limits

# A process that has decoded so many images is replaced, which frees the memory that it has leaked.
RECYCLE = 10_000
# The environment variables that a decoder gets. It needs no others, such as keys.
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")

logger = logging.getLogger("bentoml.resnet18")


@dataclass(eq=False)
class _Process:
    """A decoder: its id, the socket to it, and how many images it has had."""

    pid: int
    connection: socket.socket
    images: int = 0

    def ask(self, data: bytes, seconds: float) -> bytearray:
        """Its answer to ``data``. Raises TimeoutError after ``seconds``, EOFError or OSError if it is dead."""
        end = time.monotonic() + seconds
        self.connection.settimeout(seconds)
        self.images += 1
        self.connection.sendall(decoder.LENGTH.pack(len(data)))
        self.connection.sendall(data)
        self.connection.settimeout(max(1e-3, end - time.monotonic()))
        (length,) = decoder.LENGTH.unpack(decoder.exactly(self.connection, decoder.LENGTH.size))
        return decoder.exactly(self.connection, length)


class ContainedDecoder:
    """``pixels.read`` in other processes, one for each thread that calls."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._mine = threading.local()
        self._processes: set[_Process] = set()
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._forker: subprocess.Popen[bytes] | None = None
        # Python and Pillow are loaded now, and not while the first image waits.
        self._end(self._process())

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.connection.close()
        with self._lock:
            self._stop()

    def __call__(self, data: bytes) -> Decoded:
        """Pixels uint8[S, S, 3] of an encoded image.

        Raises the ClassifierError of ``pixels.read``, "decode_timeout" after the time that one image may take, or
        "unreadable_image" if two processes died of it.
        """
        for attempt in (1, 2):
            process = self._process()
            try:
                answer = process.ask(data, self._limits.seconds)
            except TimeoutError:
                self._end(process)
                raise pixels.too_slow(self._limits.seconds) from None
            except (EOFError, OSError):
                # It may have died for another reason than this image, so the image gets a second try.
                self._end(process)
                logger.warning("a decoder died, at its image %d, attempt %d", process.images, attempt)
                continue
            if process.images >= RECYCLE:
                self._end(process)
            return self._read(answer)
        raise ClassifierError("unreadable_image", "the image can't be decoded: the decoder died of it, twice")

    def _read(self, answer: bytearray) -> Decoded:
        size = self._limits.preprocessing.size
        if answer[:1] == decoder.PIXELS:
            found = np.frombuffer(answer, np.uint8, count=size * size * 3, offset=1).reshape(size, size, 3)
            told = answer[1 + found.nbytes :]
            return Decoded(found, tuple(json.loads(told)) if told else ())
        code, message, facts = json.loads(answer[1:])
        raise ClassifierError(code, message, **facts)

    def _process(self) -> _Process:
        """The calling thread's process, started if it has none."""
        process: _Process | None = getattr(self._mine, "process", None)
        if process is None:
            ours, theirs = socket.socketpair()
            with theirs:
                pid = self._order(decoder.FORK, 0, theirs)
            process = self._mine.process = _Process(pid, ours)
            self._processes.add(process)
        return process

    def _end(self, process: _Process) -> None:
        self._mine.process = None
        self._processes.discard(process)
        process.connection.close()
        self._order(decoder.END, process.pid)

    def _order(self, order: bytes, pid: int, passed: socket.socket | None = None) -> int:
        """Send ``order`` to the forker, which is started anew where it is dead; the process id that it answers.

        To FORK it answers the new process's, to END ``pid``.
        """
        with self._lock:
            for _ in range(2):
                if self._control is None:
                    self._control = self._start()
                try:
                    message = decoder.ORDER.pack(order, pid)
                    if passed is None:
                        self._control.sendall(message)
                        return pid
                    socket.send_fds(self._control, [message], [passed.fileno()])
                    return int(decoder.LENGTH.unpack(decoder.exactly(self._control, decoder.LENGTH.size))[0])
                except (EOFError, OSError):
                    self._stop()
                    if passed is None:
                        return pid  # it died, and its decoders with it
        raise ClassifierError("unavailable", "images can't be decoded now; try again", retry_after=1)

    def _stop(self) -> None:
        """End the forker, and with it all decoders."""
        if self._control is not None and self._forker is not None:
            self._control.close()
            self._forker.wait()
            self._control = self._forker = None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        with theirs:
            self._forker = subprocess.Popen(
                decoder.command(theirs, self._limits),
                pass_fds=[theirs.fileno()],
                cwd=Path(decoder.__file__).parents[1],
                # numpy's libraries get one thread: each more would count towards the memory limit.
                env=environment | {"OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                # It ends when this process does, not by a signal to the terminal's or the service's group.
                start_new_session=True,
            )
        return ours
