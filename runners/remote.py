"""The wire between API workers and a dedicated runner: the client in the workers, and the runner's side of it.

It is HTTP over the socket that BentoML gave the runner, with pixels as raw bytes: BentoML's own pickled calls cost
several times as much. A request's body is ``uint8[N, S, S, 3]``, its remaining time a header. A reply's body is
``float32[N, C + 2]``: each image's probabilities, its milliseconds in the queue and those of its batch, all of them NaN
where the image failed by itself.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np

from classifier.errors import ClassifierError
from runners.admission import overloaded
from runners.results import ImageResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp
    from numpy.typing import NDArray

    from runners.executors import ExecutorPool
    from runners.predictor import Predictor

PATH = "/infer"
TIME_LEFT = "x-time-left-ms"
CONNECTIONS = 256


class RunnerClient:
    """An API worker's connections to the runner. ``url``: its entry in BentoML's runner map, file:// or http://.

    ``grace``: seconds after a deadline for which the client still waits for the runner's answer or refusal.
    """

    def __init__(self, url: str, classes: int, grace: float) -> None:
        self._url, self._classes, self._grace = url, classes, grace
        self._heard = 0.0
        self._session: aiohttp.ClientSession | None = None

    async def submit(self, pixels: Sequence[NDArray[np.uint8]], deadline: float) -> list[Any]:
        """An ImageResult or an Exception for each of ``pixels`` uint8[S, S, 3].

        Where the connection breaks, the request is sent once more, which is safe because inference changes nothing.
        Raises ClassifierError: the runner's own, "overloaded" where it was late, or "unavailable".
        """
        body = pixels[0].tobytes() if len(pixels) == 1 else b"".join(image.tobytes() for image in pixels)
        sent = time.monotonic()
        try:
            answer = await self._ask("POST", PATH, body, deadline, self._grace)
        except TimeoutError:
            # A runner that has answered other requests meanwhile is late with this one.
            raise (overloaded("expired", 0.0) if self._heard > sent else _silent()) from None
        rows = np.frombuffer(answer, np.float32).reshape(len(pixels), self._classes + 2)
        return [
            RuntimeError("the image failed in the runner")
            if np.isnan(row[0])
            else ImageResult(row[:-2], 0.0, inference_ms=float(row[-1]), queue_ms=float(row[-2]))
            for row in rows
        ]

    async def describe(self) -> dict[str, Any]:
        """The runner's own description: its predictor's and its executor pool's.

        Raises ClassifierError("unavailable") where the runner does not answer within 5 s.
        """
        try:
            description: dict[str, Any] = json.loads(await self._ask("GET", "/describe", b"", time.monotonic() + 5))
        except TimeoutError:
            raise _silent() from None
        return description

    async def is_ready(self) -> bool:
        """Whether the runner says within a second that it is ready."""
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
        """The body of a 200. Raises ClassifierError, with the runner's Retry-After, for anything else.

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


async def answer(executors: ExecutorPool, predictor: Predictor, body: bytes, time_left_ms: float) -> bytes:
    """The runner's side of ``RunnerClient.submit``: the reply's body. Raises ClassifierError."""
    size = predictor.artifact.manifest.preprocessing.size
    one = size * size * 3
    if not body or len(body) % one:
        raise ClassifierError("bad_request", f"{len(body)} bytes are no whole number of images of {size} px")
    images = np.frombuffer(body, np.uint8).reshape(-1, size, size, 3)
    results = await executors.submit(list(images), time.monotonic() + time_left_ms / 1e3)
    rows = np.full((len(images), len(predictor.artifact.manifest.labels) + 2), np.nan, np.float32)
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, ClassifierError):
            raise result
        if isinstance(result, ImageResult):
            row[:-2], row[-2], row[-1] = result.probabilities, result.queue_ms, result.inference_ms
    return rows.tobytes()
