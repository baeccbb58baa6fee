"""Work for a client that hangs up is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from serving.disconnect import unless_gone


def request(*, gone: bool) -> Request:
    """A request whose body has been read, of a client that hangs up now or never."""

    async def receive() -> Any:
        if not gone:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


def test_the_result_of_work_whose_client_waits() -> None:
    async def work() -> int:
        await asyncio.sleep(0.01)
        return 7

    assert asyncio.run(unless_gone(request(gone=False), work())) == 7


def test_work_is_cancelled_when_the_client_has_gone() -> None:
    ends: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(5)
            ends.append("done")
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    with pytest.raises(ClientDisconnect):
        asyncio.run(unless_gone(request(gone=True), work()))
    assert ends == ["cancelled"]


def test_work_that_fails_and_work_that_is_cancelled_by_others_say_so() -> None:
    async def fails() -> None:
        raise ValueError("no luck")

    async def cancelled() -> None:
        task = asyncio.ensure_future(unless_gone(request(gone=False), asyncio.sleep(5)))
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(ValueError, match="no luck"):
        asyncio.run(unless_gone(request(gone=False), fails()))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
