"""The wire between API workers and the runner, over a real socket, with a predictor whose answers are known."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from aiohttp import web

from classifier.errors import ClassifierError
from runners import remote
from runners.results import ImageResult
from tests.runners.test_executors import started

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Handler = Callable[[web.Request], Awaitable[web.Response]]

SIZE, CLASSES, BAD = 2, 3, 255


def image(value: int) -> NDArray[np.uint8]:
    return np.full((SIZE, SIZE, 3), value, np.uint8)


def run(pixels: list[Any]) -> Sequence[Any]:
    """A third of the first pixel for each class; no result for a BAD image."""
    values = [int(one[0, 0, 0]) for one in pixels]
    return [
        ValueError("bad") if value == BAD else ImageResult(np.full(CLASSES, value / 3, np.float32), 0.0, 4.0)
        for value in values
    ]


ENGINE: Any = SimpleNamespace(
    artifact=SimpleNamespace(
        manifest=SimpleNamespace(preprocessing=SimpleNamespace(size=SIZE), labels=["a", "b", "c"]),
    )
)


def ask(folder: Path, handler: Handler, work: Callable[[remote.RunnerClient], Awaitable[Any]], grace: float = 1) -> Any:
    """What ``work`` gives for a client of a server that answers POST requests with ``handler``."""

    async def both() -> Any:
        app = web.Application()
        app.router.add_post(remote.PATH, handler)
        server = web.AppRunner(app, shutdown_timeout=0.1)
        await server.setup()
        await web.UnixSite(server, str(folder / "runner.sock")).start()
        client = remote.RunnerClient(f"file://{folder}/runner.sock", CLASSES, grace)
        try:
            return await work(client)
        finally:
            await client.close()
            await server.cleanup()

    return asyncio.run(both())


def soon() -> float:
    return time.monotonic() + 5


def test_results_come_back_in_order_and_a_bad_image_fails_by_itself(tmp_path: Path) -> None:
    pool = started(run)

    async def handler(request: web.Request) -> web.Response:
        left = float(request.headers[remote.TIME_LEFT])
        assert 4000 < left <= 5000
        return web.Response(body=await remote.answer(pool, ENGINE, await request.read(), left))

    results = ask(tmp_path, handler, lambda client: client.submit([image(3), image(BAD), image(9)], soon()))
    pool.stop()
    assert isinstance(results[1], RuntimeError)
    for result, value in ((results[0], 1), (results[2], 3)):
        assert result.probabilities.tolist() == [value] * CLASSES
        assert (result.inference_ms, result.decode_ms) == (4.0, 0.0)
        assert result.queue_ms >= 0


def test_the_runner_s_error_keeps_its_code_facts_and_retry_after(tmp_path: Path) -> None:
    async def handler(_: web.Request) -> web.Response:
        body = '{"error": {"code": "overloaded", "message": "refused: full", "reason": "queue_full"}}'
        return web.Response(status=429, text=body, headers={"Retry-After": "7"})

    with pytest.raises(ClassifierError) as raised:
        ask(tmp_path, handler, lambda client: client.submit([image(1)], soon()))
    error = raised.value
    assert (error.status, error.facts, error.retry_after) == (429, {"reason": "queue_full"}, 7)


def test_a_runner_that_says_nothing_is_unavailable_after_the_grace(tmp_path: Path) -> None:
    async def handler(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    begin = time.monotonic()
    with pytest.raises(ClassifierError, match="the runner does not answer") as raised:
        ask(tmp_path, handler, lambda client: client.submit([image(1)], time.monotonic() + 0.2), grace=0.1)
    assert raised.value.status == 503
    assert 0.3 <= time.monotonic() - begin < 3


def test_one_that_answers_others_meanwhile_is_late_and_not_gone(tmp_path: Path) -> None:
    pool = started(run)

    async def handler(request: web.Request) -> web.Response:
        body = await request.read()
        if body[0] == 1:
            await asyncio.sleep(5)
        return web.Response(body=await remote.answer(pool, ENGINE, body, 1000))

    async def two(client: remote.RunnerClient) -> Any:
        slow = asyncio.ensure_future(client.submit([image(1)], time.monotonic() + 0.3))
        await asyncio.sleep(0.05)
        await client.submit([image(2)], soon())
        return await slow

    with pytest.raises(ClassifierError) as raised:
        ask(tmp_path, handler, two, grace=0.1)
    pool.stop()
    assert (raised.value.code, raised.value.facts["reason"]) == ("overloaded", "expired")


def test_no_runner_at_all(tmp_path: Path) -> None:
    async def alone() -> tuple[Any, bool]:
        client = remote.RunnerClient(f"file://{tmp_path}/nobody.sock", CLASSES, 1)
        try:
            told: list[Any] = await asyncio.gather(client.submit([image(1)], soon()), return_exceptions=True)
            return told[0], await client.is_ready()
        finally:
            await client.close()

    told, ready = asyncio.run(alone())
    assert isinstance(told, ClassifierError)
    assert told.status == 503
    assert not ready


@pytest.mark.parametrize("count", [0, 1, SIZE * SIZE * 3 + 1])
def test_a_body_of_no_whole_images_is_a_bad_request(count: int) -> None:
    pool = started(run)
    with pytest.raises(ClassifierError, match=f"{count} bytes are no whole number of images"):
        asyncio.run(remote.answer(pool, ENGINE, bytes(count), 1000))
    pool.stop()
