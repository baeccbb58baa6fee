"""Clients that hang up: work for a client that has gone is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

_T = TypeVar("_T")


async def unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of ``work``, which is cancelled when the client of ``request`` hangs up. Raises ClientDisconnect.

    Call it when the body has been read.
    """
    task = asyncio.ensure_future(work)
    # After the body, the only message that can come is that the client has gone.
    gone = asyncio.ensure_future(request.receive())
    gone.add_done_callback(lambda _: task.cancel())
    try:
        return await task
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        gone.cancel()
