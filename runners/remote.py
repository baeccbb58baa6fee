"""The dedicated placement: a BentoML service that infers pixels, and the client by which API workers reach it.

Pixels go as raw bytes over the socket that BentoML gave the runner; its own pickled calls cost several times as much.
A request is ``uint8[N, S, S, 3]`` with its remaining time in a header, an answer is ``float32[N, C + 2]``: each
image's probabilities, its milliseconds in the queue and those of its batch, all NaN where it failed alone.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np

from classifier.errors import ClassifierError
from runners.pump import Outcome, Pump, overloaded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp
    from numpy.typing import NDArray

    from runners.runner import Engine

PATH = "/infer"
TIME_LEFT = "x-time-left-ms"
CONNECTIONS = 256


class Client:
    """An API worker's connections to the runner. ``url``: what BentoML's runner map says, file:// or http://.

    ``grace``: seconds after a deadline for which the runner's answer, its refusals among them, is still waited for.
    """

    def __init__(self, url: str, classes: int, grace: float) -> None:
        self._url, self._classes, self._grace = url, classes, grace
        self._heard = 0.0
        self._session: aiohttp.ClientSession | None = None

    async def infer(self, pixels: Sequence[NDArray[np.uint8]], deadline: float) -> list[Any]:
        """An Outcome or an Exception for each of ``pixels`` uint8[S, S, 3].

        A dropped connection is tried once more, which is safe because inference changes nothing. Raises
        ClassifierError: what the runner answered, "overloaded" where it was late, or "unavailable".
        """
        body = pixels[0].tobytes() if len(pixels) == 1 else b"".join(image.tobytes() for image in pixels)
        sent = time.monotonic()
        try:
            answer = await self._ask("POST", PATH, body, deadline, self._grace)
        except TimeoutError:
            # One that answered others meanwhile is late with this one.
            raise (overloaded("expired", 0.0) if self._heard > sent else _silent()) from None
        rows = np.frombuffer(answer, np.float32).reshape(len(pixels), self._classes + 2)
        return [
            RuntimeError("the image failed in the runner")
            if np.isnan(row[0])
            else Outcome(row[:-2], 0.0, inference_ms=float(row[-1]), queue_ms=float(row[-2]))
            for row in rows
        ]

    async def describe(self) -> dict[str, Any]:
        """The runner's own description: its engine's and its pump's."""
        try:
            description: dict[str, Any] = json.loads(await self._ask("GET", "/describe", b"", time.monotonic() + 5))
        except TimeoutError:
            raise _silent() from None
        return description

    async def is_ready(self) -> bool:
        """Whether the runner answers within a second that it is ready."""
        try:
            await self._ask("GET", "/readyz", b"", time.monotonic() + 1)
        except (ClassifierError, TimeoutError):
            return False
        return True

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, method: str, path: str, body: bytes, deadline: float, grace: float = 0.0) -> bytes:
        """The body of a 200; ClassifierError for any other answer, the runner's own with its Retry-After, or none.

        Raises TimeoutError ``grace`` seconds after ``deadline``.
        """
        import asyncio

        import aiohttp

        try:
            async with asyncio.timeout(deadline + grace - time.monotonic()):
                try:
                    return await self._once(method, path, body, deadline)
                except (aiohttp.ClientError, ConnectionError):
                    return await self._once(method, path, body, deadline)
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise _silent() from error

    async def _once(self, method: str, path: str, body: bytes, deadline: float) -> bytes:
        left = 1e3 * (deadline - time.monotonic())
        async with self._open().request(method, path, data=body, headers={TIME_LEFT: f"{left:.1f}"}) as response:
            answer = await response.read()
            self._heard = time.monotonic()
            if response.status != 200:
                raise _error(answer, response.headers.get("Retry-After"))
            return answer

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            parts = urlsplit(self._url)
            if parts.scheme == "file":
                connector: aiohttp.BaseConnector = aiohttp.UnixConnector(unquote(parts.path), limit=CONNECTIONS)
                base = "http://runner"
            else:
                connector = aiohttp.TCPConnector(limit=CONNECTIONS)
                base = f"http://{parts.netloc}"
            self._session = aiohttp.ClientSession(base, connector=connector)
        return self._session


def _silent() -> ClassifierError:
    return ClassifierError("unavailable", "the runner does not answer; try again", retry_after=1)


def _error(answer: bytes, retry_after: str | None) -> ClassifierError:
    """The error in the runner's JSON answer and its Retry-After header."""
    error = json.loads(answer)["error"]
    wait = int(retry_after) if retry_after is not None else None
    return ClassifierError(error.pop("code"), error.pop("message"), retry_after=wait, **error)


async def answer(pump: Pump, engine: Engine, body: bytes, time_left_ms: float) -> bytes:
    """The runner's side of ``Client.infer``: the answer's bytes. Raises ClassifierError."""
    size = engine.artifact.manifest.preprocessing.size
    one = size * size * 3
    if not body or len(body) % one:
        raise ClassifierError("bad_request", f"{len(body)} bytes are no whole number of images of {size} px")
    images = np.frombuffer(body, np.uint8).reshape(-1, size, size, 3)
    results = await pump.infer(list(images), time.monotonic() + time_left_ms / 1e3)
    rows = np.full((len(images), len(engine.artifact.manifest.labels) + 2), np.nan, np.float32)
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, ClassifierError):
            raise result
        if isinstance(result, Outcome):
            row[:-2], row[-2], row[-1] = result.probabilities, result.queue_ms, result.inference_ms
    return rows.tobytes()
