"""A process that decodes what it is sent, so that a test sees what an image cost it, or that it died.

``python -m tests.classifier.decoder`` reads encoded images from standard input, each after its length in four bytes,
and answers each with a line of JSON. Decoder is the other end.
"""

from __future__ import annotations

import json
import resource
import select
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from classifier import pixels
from classifier.errors import ClassifierError
from classifier.preprocessing import Preprocessing
from tests.conftest import ROOT, environment

SIZE, RESIZE, MAX_PIXELS = 32, 36, 1_000_000
# The belt: what a decode must never need. The braces are what a test says of the peak.
ADDRESS_SPACE = 4 * 2**30


@dataclass(frozen=True)
class Decoded:
    """What came of an image: "pixels" or an error's code, its message, seconds, and the process' peak so far in MB."""

    outcome: str
    message: str
    seconds: float
    peak_mb: float


class Decoder:
    """The other end of ``python -m tests.classifier.decoder``, at ``max_pixels``."""

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        # A file: libtiff's words would fill a pipe that nobody reads, and stop it.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.classifier.decoder", str(max_pixels)],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def decode(self, data: bytes, seconds: float = 20) -> Decoded:
        """What comes of ``data``. AssertionError where the process dies or is silent for ``seconds``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(struct.pack("<I", len(data)) + data)
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        assert ready, f"no answer in {seconds} s"
        line = self._process.stdout.readline()
        assert line, f"the decoder died: {self.close()}"
        return Decoded(**json.loads(line))

    def close(self) -> str:
        """End it; its exit status and what it printed, libtiff's words about damage included."""
        try:
            self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        with self._errors as errors:
            errors.seek(0)
            printed = errors.read().decode(errors="replace")
        return f"status {self._process.returncode}: {printed}"


def main() -> None:
    """Decode until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    max_pixels = int(sys.argv[1])
    while head := sys.stdin.buffer.read(4):
        data = sys.stdin.buffer.read(struct.unpack("<I", head)[0])
        outcome, message, start = "pixels", "", time.perf_counter()
        try:
            array = pixels.decode(data, Preprocessing(SIZE, RESIZE), max_pixels)
            assert (array.shape, array.dtype.name, array.flags.c_contiguous) == ((SIZE, SIZE, 3), "uint8", True)
        except ClassifierError as error:
            outcome, message = error.code, error.message
        seconds = time.perf_counter() - start
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        sys.stdout.write(json.dumps(vars(Decoded(outcome, message, seconds, peak_mb))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
