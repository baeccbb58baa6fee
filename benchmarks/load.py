"""A load generator that costs little: closed loop for throughput, open loop for what users see.

It speaks just enough HTTP/1.1 over keep-alive connections, and only to this machine. The closed loop keeps a number of
requests in flight. The open loop sends at seeded Poisson times whether or not the server keeps up, and counts latency
from the time at which a request was meant to be sent, so that a stall shows in every request it delays.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import itertools
import math
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from harness import arrivals
from harness.arrivals import Segment
from harness.figures import plain, quantile
from harness.wire import NO_ANSWER, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

ANSWER_TIMEOUT_S = 30.0
MAX_CONNECTIONS = 512
CONNECT_EVERY_S = 0.005


class Sample(NamedTuple):
    """One request: its planned second from the start, its latency in seconds, and its status (0: no answer)."""

    start_s: float
    latency_s: float
    status: int


@dataclass(frozen=True)
class Result:
    """What a run measured. Rates are in requests a second, latencies in ms and of the replies with status 200.

    ``throughput``: 200s that came within the run. ``goodput``: those within the SLO too. ``late``: answers of any
    status that took longer than the SLO. ``retried``: requests sent again because the server closed an idle
    connection under them. ``lag_p99_ms``: how late the open loop itself sent, by its clock or for want of one of its
    MAX_CONNECTIONS connections; latencies include it. ``cpu_share``: its use of one core. ``after``: what was
    sent after the run, which counts in no figure.
    """

    loop: str
    seconds: float
    offered: float
    slo_ms: float
    statuses: dict[int, int]
    throughput: float
    goodput: float
    late: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    retried: int
    lag_p99_ms: float
    cpu_share: float
    samples: list[Sample] = field(repr=False)
    after: list[Sample] = field(repr=False)

    @property
    def failures(self) -> int:
        """Requests that were not answered with 200."""
        return sum(count for status, count in self.statuses.items() if status != 200)

    def summary(self) -> dict[str, Any]:
        """The figures without the samples, ready for JSON."""
        names = [name for name in self.__dataclass_fields__ if name not in ("samples", "after")]
        figures = {name: plain(getattr(self, name)) for name in names}
        return figures | {"statuses": {str(status): count for status, count in sorted(self.statuses.items())}}


def closed(
    url: str,
    bodies: Sequence[bytes],
    content_type: str,
    connections: int,
    seconds: float,
    headers: Mapping[str, str] | None = None,
) -> Result:
    """Keep ``connections`` requests in flight for ``seconds``, taking the bodies in turn."""
    run = _Run(url, bodies, content_type, headers or {})
    run.go(run.closed(connections, seconds))
    return run.result("closed", seconds, connections, math.inf)


def open_loop(
    url: str,
    bodies: Sequence[bytes],
    content_type: str,
    rate: float,
    seconds: float,
    slo_ms: float,
    seed: int,
    headers: Mapping[str, str] | None = None,
    then: tuple[float, float] = (0.0, 0.0),
    hopeless: Callable[[Sample], bool] = lambda sample: False,
) -> Result:
    """Send ``rate`` requests a second on average for ``seconds``, then wait for the last answers.

    ``then``: a rate and seconds for which to go on without a pause, to see how a server recovers. ``hopeless``: called
    with each sample; once it is true, nothing more is sent.
    """
    run = _Run(url, bodies, content_type, headers or {})
    run.hopeless = hopeless
    stretches = [Segment(length, at_rate) for length, at_rate in ((seconds, rate), then[::-1]) if length]
    run.go(run.open(arrivals.times("poisson", stretches, seed).tolist()))
    return run.result("open", seconds, rate, slo_ms)


class _Run:
    def __init__(self, url: str, bodies: Sequence[bytes], content_type: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self.host, self.port = _loopback(parts.hostname or ""), parts.port or 80
        lines = [f"POST {parts.path or '/'}{'?' + parts.query if parts.query else ''} HTTP/1.1"]
        lines += [f"Host: {self.host}:{self.port}", f"Content-Type: {content_type}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(lines)
        requests = [f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
        self.requests: Iterator[bytes] = itertools.cycle(requests)
        self.samples: list[Sample] = []
        self.lags: list[float] = []
        self.retried = 0
        self.start = self.cpu_share = 0.0
        self.hopeless: Callable[[Sample], bool] = lambda sample: False
        self.given_up = False

    def go(self, load: Coroutine[Any, Any, None]) -> None:
        # A collection of the samples would stop the clock's reader for milliseconds.
        gc.collect()
        gc.disable()
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(load)
        finally:
            gc.enable()
        self.cpu_share = (time.process_time() - cpu) / (time.perf_counter() - wall)

    async def closed(self, connections: int, seconds: float) -> None:
        clients = [Client(self.host, self.port) for _ in range(connections)]
        for client in clients:
            with contextlib.suppress(OSError):  # counted when its first request fails too
                await client.connect()
            # Of workers that share a socket, the first awake takes all connections that wait: users don't come at once.
            await asyncio.sleep(CONNECT_EVERY_S)
        self.start = time.perf_counter()
        await asyncio.gather(*(self._in_turn(client, self.start + seconds) for client in clients))

    async def _in_turn(self, client: Client, end: float) -> None:
        while (begin := time.perf_counter()) < end:
            if await self._ask(client, begin) == NO_ANSWER:
                await asyncio.sleep(0.05)  # a server that is down must not be hammered
        client.close()

    async def open(self, planned: Sequence[float]) -> None:
        # First in, first out: requests spread over all connections, and so over all worker processes.
        idle = deque(Client(self.host, self.port) for _ in range(MAX_CONNECTIONS))
        used: deque[Client] = deque()
        free = asyncio.Semaphore(MAX_CONNECTIONS)

        async def one(intended: float) -> None:
            async with free:
                client = used.popleft() if used else idle.popleft()
                self.lags.append(time.perf_counter() - intended)
                await self._ask(client, intended)
                used.append(client)

        self.start = time.perf_counter()
        tasks = []
        for at in planned:
            wait = self.start + at - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            if self.given_up:
                break
            tasks.append(asyncio.ensure_future(one(self.start + at)))
        if tasks:
            await asyncio.wait(tasks, timeout=2 * ANSWER_TIMEOUT_S)
        for task in tasks:
            task.cancel()
        for client in used:
            client.close()
        waited = time.perf_counter() - self.start
        unanswered = len(tasks) - len(self.samples)
        # They were sent at some time before the end: counted at its start, they can't be taken for what came after.
        self.samples += [Sample(0.0, waited, NO_ANSWER)] * unanswered

    async def _ask(self, client: Client, intended: float) -> int:
        request = next(self.requests)
        reused = client.is_open
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                status = await client.ask(request)
                if status == NO_ANSWER and reused and not client.heard:
                    # As HTTP clients do: servers may close an idle connection at any time.
                    self.retried += 1
                    status = await client.ask(request)
        except (OSError, TimeoutError):
            status = NO_ANSWER
            client.close()
        sample = Sample(intended - self.start, time.perf_counter() - intended, status)
        self.samples.append(sample)
        self.given_up = self.hopeless(sample) or self.given_up
        return status

    def result(self, loop: str, seconds: float, offered: float, slo_ms: float) -> Result:
        closed = loop == "closed"
        samples = [sample for sample in self.samples if closed or sample.start_s < seconds]
        after = [sample for sample in self.samples if not closed and sample.start_s >= seconds]
        good = [sample for sample in samples if sample.status == 200]
        latencies = [sample.latency_s * 1000 for sample in good]
        throughput = sum(sample.start_s + sample.latency_s <= seconds for sample in good) / seconds
        answered = [sample for sample in samples if sample.status != NO_ANSWER]
        return Result(
            loop=loop,
            seconds=seconds,
            offered=offered,
            slo_ms=slo_ms,
            statuses=dict(Counter(sample.status for sample in samples)),
            throughput=throughput,
            goodput=throughput if math.isinf(slo_ms) else sum(latency <= slo_ms for latency in latencies) / seconds,
            late=sum(sample.latency_s * 1000 > slo_ms for sample in answered),
            p50_ms=quantile(latencies, 0.5),
            p95_ms=quantile(latencies, 0.95),
            p99_ms=quantile(latencies, 0.99),
            max_ms=quantile(latencies, 1.0),
            retried=self.retried,
            lag_p99_ms=quantile([lag * 1000 for lag in self.lags], 0.99),
            cpu_share=self.cpu_share,
            samples=samples,
            after=after,
        )


def _loopback(host: str) -> str:
    """``host`` as a loopback address. Raises ValueError for any other: this is no tool to load strangers with."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise ValueError(f"host {host!r} is not this machine's loopback; the load generator sends nowhere else")
    return str(address)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
