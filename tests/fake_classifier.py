"""A classification server that behaves as told: known capacity, stalls, wrong labels. Run as a process of its own.

It answers in the service's words, works one request after the other in virtual time, and uses next to no CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
import time

LABELS = ("cat", "dog", "ship", "truck", "frog")


def reply(status: int, body: dict[str, object], extra: str = "") -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


class Fake:
    """What all connections share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.begin: float | None = None
        self.free_at = 0.0
        self.count = 0

    def answer(self, path: str, body: bytes) -> tuple[float, bytes]:
        """When to answer, on the loop's clock, and what."""
        now = time.monotonic()
        if path == "/readyz":
            return now, reply(200, {})
        if path == "/model":
            return now, reply(200, {"tag": "fake:1", "precision": "fp32", "runtime": "fake"})
        if path != "/classify":
            return now, reply(404, {"error": {"code": "not_found", "message": path}})
        self.count += 1
        o = self.options
        if o.die_after and self.count > o.die_after:
            os._exit(0)
        if o.capacity and o.refuse_after_ms and self.free_at - now > o.refuse_after_ms / 1e3:
            extra = "" if o.no_retry_after else "Retry-After: 1\r\n"
            return now, reply(429, {"error": {"code": "overloaded", "message": "too much"}}, extra)
        done = now
        if o.capacity:
            self.free_at = done = max(now, self.free_at) + 1 / o.capacity
        done += o.delay_ms / 1e3
        if o.stall_s and self.count > o.stall_after:
            if self.begin is None:
                self.begin = now
            done = max(done, self.begin + o.stall_s)
        digest = hashlib.sha256(body).digest()
        label = LABELS[digest[0] % len(LABELS)]
        if o.wrong_after and self.count > o.wrong_after:
            label = "unicorn"
        predictions = [{"class_id": 1, "label": label, "probability": 0.9}]
        model = {"tag": "fake:1", "weights": "fake", "precision": "fp32"}
        timing = {"decode": 0, "queue": 0, "inference": 0, "total": 0}
        return done, reply(200, {"predictions": predictions, "model": model, "timing_ms": timing})


class Connection(asyncio.Protocol):
    def __init__(self, fake: Fake) -> None:
        self.fake, self.data = fake, bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.data[:end]).decode("latin-1")
        lengths = [line.partition(":")[2] for line in head.split("\r\n") if line.lower().startswith("content-length")]
        length = int(lengths[0]) if lengths else 0
        if len(self.data) < end + 4 + length:
            return
        body = bytes(self.data[end + 4 : end + 4 + length])
        self.data.clear()
        at, answer = self.fake.answer(head.split(" ", 2)[1], body)
        asyncio.get_running_loop().call_later(max(0.0, at - time.monotonic()), self.transport.write, answer)


async def main(options: argparse.Namespace) -> None:
    fake = Fake(options)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(fake), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--capacity", type=float, default=0.0)
    parser.add_argument("--refuse-after-ms", type=float, default=0.0)
    parser.add_argument("--no-retry-after", action="store_true")
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--stall-after", type=int, default=0)
    parser.add_argument("--stall-s", type=float, default=0.0)
    parser.add_argument("--die-after", type=int, default=0)
    parser.add_argument("--wrong-after", type=int, default=0)
    asyncio.run(main(parser.parse_args()))
