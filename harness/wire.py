"""Just enough HTTP/1.1 for a load generator: one connection, one request in flight, the status of its answer."""

from __future__ import annotations

import asyncio

NO_ANSWER = 0


class Client(asyncio.Protocol):
    """One connection with at most one request in flight. It reconnects after the server has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[int] | None = None
        self.buffer = bytearray()

    @property
    def is_open(self) -> bool:
        """Whether the connection is open."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def heard(self) -> bool:
        """Whether a part of the current answer has come."""
        return bool(self.buffer)

    async def connect(self) -> None:
        """Open the connection. Raises OSError."""
        await asyncio.get_running_loop().create_connection(lambda: self, self.host, self.port)

    async def ask(self, request: bytes) -> int:
        """Send a request; the status of its answer, or NO_ANSWER where the connection breaks."""
        if not self.is_open:
            await self.connect()
        self.buffer.clear()
        self.answer = asyncio.get_running_loop().create_future()
        if self.transport is None:  # closed again before it was used
            return NO_ANSWER
        self.transport.write(request)
        return await self.answer

    def close(self) -> None:
        """Drop the connection at once."""
        if self.transport is not None:
            self.transport.abort()
            self.transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """For the event loop."""
        self.transport = transport  # type: ignore[assignment]  # a TCP connection's is a Transport

    def data_received(self, data: bytes) -> None:
        """For the event loop."""
        self.buffer += data
        self._settle(at_end=False)

    def connection_lost(self, error: Exception | None) -> None:
        """For the event loop."""
        self.transport = None
        self._settle(at_end=True)
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(NO_ANSWER)

    def _settle(self, *, at_end: bool) -> None:
        if self.answer is None or self.answer.done():
            return
        answer = _parse(self.buffer, at_end=at_end)
        if answer is not None:
            status, keep = answer
            if not keep:
                self.close()
            self.answer.set_result(status)


def _parse(data: bytearray, *, at_end: bool) -> tuple[int, bool] | None:
    """The status of an answer and whether the connection stays open, or None while it is incomplete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(data[:end]).lower()
    status = int(head[9:12])
    keep = b"\r\nconnection: close" not in head and not head.startswith(b"http/1.0")
    if (at := head.find(b"\r\ncontent-length:")) >= 0:
        length = int(head[at + 17 :].split(b"\r\n", 1)[0])
        complete = len(data) >= end + 4 + length
    elif b"\r\ntransfer-encoding: chunked" in head:
        complete = data.endswith(b"\r\n0\r\n\r\n")
    else:
        complete = at_end
    return (status, keep) if complete else None
