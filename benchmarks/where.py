"""`python -m benchmarks.where`: where should decoding and inference run on a CPU? One artifact, in interleaved rounds.

API workers that infer one image at a time; one front with a pool of threads and one queue (the default), and with one
thread more, which could fill what waiting for Python's lock leaves idle, and with decoding contained in processes; one
front and a runner process; and a prototype, here only, of one front with a pool of processes that are fed raw bytes.
"""

from __future__ import annotations

import asyncio
import pickle
import random
import socket
import statistics
import struct
import sys
import time
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from benchmarks import artifact, ours, results
from benchmarks.bare import Bare, bare
from benchmarks.measure import Point, closed_loop
from benchmarks.results import Sheet
from harness import photographs
from harness.machine import cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runners.results import ImageResult

CONNECTIONS = (8, 32)
WARM_UP_SECONDS = 2.0
_POOL = (sys.executable, "-m", "benchmarks.where", "--serve", "{port}")
PLACES: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "workers inline, a thread each": ((), {"workers": cores(), "threads": 1}),
    "one front, threads (default)": ((), {}),
    "one front, a thread more than cores": ((), {"threads": cores() + 1}),
    "one front, threads, decoders contained": ((), {"decoder": "contained"}),
    "one front, runner process": ((), {"placement": "dedicated"}),
    "one front, pool of processes": (_POOL, {}),
}


class _Pool:
    """A placement of processes that decode and infer, fed from one queue: whoever is idle takes what came first."""

    def __init__(self, tag: str, processes: int) -> None:
        import multiprocessing

        from runners import artifacts

        self.artifact = artifacts.open_artifact(tag)
        self._queue: asyncio.Queue[tuple[bytes, asyncio.Future[Any]]] = asyncio.Queue()
        self._sockets = []
        context = multiprocessing.get_context("spawn")
        for _ in range(processes):
            near, far = socket.socketpair()
            context.Process(target=_infer_forever, args=(tag, far), daemon=True).start()
            far.close()
            near.recv(1)  # ready
            self._sockets.append(near)

    async def feed(self) -> None:
        """Give each process one image at a time, as long as the server runs."""
        await asyncio.gather(*(self._feed(near) for near in self._sockets))

    async def _feed(self, near: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=near)
        while True:
            image, future = await self._queue.get()
            writer.write(struct.pack("!I", len(image)) + image)
            (length,) = struct.unpack("!I", await reader.readexactly(4))
            answer = await reader.readexactly(length)
            if not future.cancelled():
                future.set_result(pickle.loads(answer))

    def check_admission(self, deadline: float) -> None:
        """Take everything."""

    async def submit(self, images: list[bytes], deadline: float) -> list[ImageResult | Exception]:
        """The answers to ``images``; the prototype knows no deadlines."""
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in images]
        for image, future in zip(images, futures, strict=True):
            self._queue.put_nowait((image, future))
        return list(await asyncio.gather(*futures))


def _infer_forever(tag: str, far: socket.socket) -> None:
    from classifier import pixels
    from classifier.settings import Settings
    from runners.predictor import image_run, open_predictor

    settings = Settings()
    predictor = open_predictor(settings, tag, "cpu")
    preprocessing = predictor.artifact.manifest.preprocessing
    run = image_run(predictor, lambda data: pixels.read(data, preprocessing, settings.max_pixels))
    far.sendall(b"!")
    with far.makefile("rb") as file:
        while head := file.read(4):
            (result,) = run([file.read(struct.unpack("!I", head)[0])], lambda: 1)
            answer = pickle.dumps(result)
            far.sendall(struct.pack("!I", len(answer)) + answer)


def serve(port: int) -> None:
    """Serve the prototype on ``port`` until it is ended.

    It is this service's Classifier around processes that each decode and infer one image at a time.
    """
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import Response

    from classifier.settings import Settings
    from runners import artifacts
    from serving.classify import Classifier
    from serving.metrics import RequestMetrics

    settings = Settings()
    # It tells nothing of itself and never stops, so it is no Placement to a type checker.
    pool: Any = _Pool(artifacts.choose(settings, "cpu"), cores())
    classifier = Classifier(settings, pool, RequestMetrics(settings.slo_ms / 1e3))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        ready = scope["path"] == "/readyz"
        response = Response() if ready else await classifier.classify(Request(scope, receive))
        await response(scope, receive, send)

    async def run() -> None:
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", access_log=False, lifespan="off"))
        feeding = asyncio.ensure_future(pool.feed())
        await server.serve()
        feeding.cancel()

    asyncio.run(run())


def _measure(place: str, bodies: list[bytes], seconds: float) -> tuple[list[Point], float]:
    command, settings = PLACES[place]
    with ours.running(command, **settings) as service:
        closed_loop(service.tree, service.url, bodies, ours.JPEG, CONNECTIONS[0], WARM_UP_SECONDS)
        points = [closed_loop(service.tree, service.url, bodies, ours.JPEG, count, seconds) for count in CONNECTIONS]
        return points, service.tree.memory().pss_mb


def _sheet(rows: Sequence[dict[str, Any]]) -> Sheet:
    keys = ("place", "connections", "throughput", "ratio", "p50_ms", "p99_ms", "p99_to_p50", "cpu_ms", "pss_mb")
    return Sheet(
        f"Where inference runs, {cores()} cores: closed loop of c connections; medians of the rounds",
        ("place", "c", "req/s", "to bare", "p50 ms", "p99 ms", "p99/p50", "CPU ms", "PSS MB"),
        [[row[key] for key in keys] for row in rows],
    )


def _rows(points: dict[str, dict[int, list[Point]]], pss: dict[str, list[float]]) -> list[dict[str, Any]]:
    def median(values: list[float]) -> float:
        return statistics.median(values)

    return [
        {
            "place": place,
            "connections": count,
            "throughput": median([one.result.throughput for one in found]),
            "ratio": median([one.ratio for one in found]),
            "p50_ms": median([one.result.p50_ms for one in found]),
            "p99_ms": median([one.result.p99_ms for one in found]),
            "p99_to_p50": median([one.result.p99_ms / one.result.p50_ms for one in found]),
            "cpu_ms": median([one.cpu_ms for one in found]),
            "pss_mb": median(pss[place]),
            "not_200": sum(one.result.failures for one in found),
            "others_cores": max(one.others_cores for one in found),
        }
        for count in CONNECTIONS
        for place, found in ((place, counts[count]) for place, counts in points.items())
    ]


@click.command()
@click.option("--quick", is_flag=True, help="A smoke test: one short round.")
@click.option("--rounds", type=click.IntRange(1, 50), default=2, show_default=True)
@click.option("--only", multiple=True, help="Measure only places whose names hold this; may be repeated.")
@click.option("--serve", "port", type=int, hidden=True)
def main(quick: bool, rounds: int, only: tuple[str, ...], port: int | None) -> None:
    """Compare placements of inference on a CPU; the last line of stdout is one JSON object."""
    file = artifact.ready().file
    if port is not None:
        serve(port)
        return
    progress = Console(stderr=True)
    pictures = photographs.read()
    bodies = pictures.bodies
    rounds, seconds = (1, 1.0) if quick else (rounds, 3.0)
    places = [place for place in PLACES if not only or any(word in place for word in only)]
    if not places:
        raise click.BadParameter(f"{only[0]!r} is in none of {', '.join(PLACES)}", param_hint="--only")
    points: dict[str, dict[int, list[Point]]] = {place: {count: [] for count in CONNECTIONS} for place in places}
    pss: dict[str, list[float]] = {place: [] for place in places}
    yardsticks: list[Bare] = [bare(file, bodies, seconds, cores())]
    for number in range(rounds):
        for place in random.Random(number).sample(places, len(places)):
            begin = time.monotonic()
            found, memory = _measure(place, bodies, seconds)
            yardsticks.append(bare(file, bodies, seconds, cores()))
            pss[place].append(memory)
            for count, point in zip(CONNECTIONS, found, strict=True):
                point.ratio = 2 * point.result.throughput / sum(one.images_s for one in yardsticks[-2:])
                points[place][count].append(point)
            said = ", ".join(f"{point.ratio:.2f}" for point in found)
            progress.print(f"  {place}: {said} ({time.monotonic() - begin:.0f} s)", markup=False)
    rows = _rows(points, pss)
    worst = max([*(row["others_cores"] for row in rows), *(cores() * (1 - one.cpu_share) for one in yardsticks)])
    bare_rate = statistics.median(one.images_s for one in yardsticks)
    data = {"bare": bare_rate, "rounds": rounds, "places": rows}
    results.finish("where", data, [_sheet(rows)], [], worst, pictures)


if __name__ == "__main__":
    main()
