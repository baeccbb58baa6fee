"""The load generators' client: answers of every length form, connections that are kept, closed and broken."""

from __future__ import annotations

import asyncio

import pytest

from harness.wire import NO_ANSWER, Client

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
KEPT = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = b"HTTP/1.1 429 Too Many Requests\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
CLOSED = b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
TO_THE_END = b"HTTP/1.0 404 Not Found\r\n\r\nuntil the end"


async def asked(replies: list[bytes]) -> tuple[list[int], int]:
    """The statuses of as many requests as there are ``replies``, and how many connections they took.

    A reply without a length, and half a reply, end with the connection.
    """
    left, connections = iter(replies), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            reply = next(left)
            # In two pieces: an answer is not there with its first bytes.
            writer.write(reply[:20])
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(reply[20:])
            if reply not in (KEPT, CHUNKED):
                break
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = Client("127.0.0.1", server.sockets[0].getsockname()[1])
        statuses = [await client.ask(REQUEST) for _ in replies]
        client.close()
    return statuses, connections


@pytest.mark.parametrize(
    ("replies", "statuses", "connections"),
    [
        ([KEPT, CHUNKED, KEPT], [200, 429, 200], 1),
        ([CLOSED, KEPT], [503, 200], 2),
        ([TO_THE_END, KEPT], [404, 200], 2),
        ([KEPT[:-2], KEPT], [NO_ANSWER, 200], 2),
        ([b"", KEPT], [NO_ANSWER, 200], 2),
    ],
    ids=["kept", "closed", "to the end", "half an answer", "none"],
)
def test_answers_are_read_whole_and_connections_kept_where_they_may_be(
    replies: list[bytes], statuses: list[int], connections: int
) -> None:
    assert asyncio.run(asyncio.wait_for(asked(replies), 10)) == (statuses, connections)
