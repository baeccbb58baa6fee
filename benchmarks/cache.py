"""`python -m benchmarks.cache`: what RESNET18_CACHE_MB brings where images come again, and costs where none does.

The same requests go to the service without and with the cache, in turn. The images of a catalogue are drawn by Zipf's
law: the one of rank r is asked for in proportion to 1 / r^s. Each image is a photograph with a comment of its own.
"""

from __future__ import annotations

import random
import re
import statistics
import struct
from typing import Any

import click
import numpy as np
from rich.console import Console

from benchmarks import artifact, ours, results
from benchmarks.measure import Point, closed_loop
from benchmarks.results import Sheet, at_least
from harness import http, photographs
from harness.machine import cores

CONNECTIONS = 8
CACHE_MB = 16
CATALOGUE = 500
# The exponent of Zipf's law; None: every image is another.
EXPONENTS = (None, 0.6, 1.0, 1.4)
WARM_UP_SECONDS = 1.0
_COUNTED = re.compile(r'^resnet18_cache_images_total\{outcome="(\w+)"\} (\S+)$', re.MULTILINE)


def commented(photo: bytes, number: int) -> bytes:
    """``photo``, a JPEG, with ``number`` as a comment: another file of the same pixels."""
    return photo[:2] + b"\xff\xfe" + struct.pack(">HQ", 10, number) + photo[2:]


def drawn(photos: list[bytes], exponent: float | None, count: int, seed: int) -> list[bytes]:
    """``count`` images, drawn from the catalogue by Zipf's law, or all different."""
    if exponent is None:
        return [commented(photos[number % len(photos)], number + CATALOGUE) for number in range(count)]
    weights = 1 / np.arange(1, CATALOGUE + 1) ** exponent
    ranks = np.random.default_rng(seed).choice(CATALOGUE, count, p=weights / weights.sum())
    catalogue = [commented(photos[rank % len(photos)], rank) for rank in range(CATALOGUE)]
    return [catalogue[rank] for rank in ranks]


def _counted(port: int) -> dict[str, float]:
    """Images by what the cache made of them, so far; empty without a cache."""
    _, _, page = http.ask(f"http://127.0.0.1:{port}/metrics")
    return {outcome: float(count) for outcome, count in _COUNTED.findall(page.decode())}


def _measure(bodies: list[bytes], warm_up: list[bytes], cache_mb: int, seconds: float) -> tuple[Point, float]:
    """One closed loop of a fresh service, and the share of images that were not inferred."""
    with ours.running(cache_mb=cache_mb) as service:
        closed_loop(service.tree, service.url, warm_up, ours.JPEG, CONNECTIONS, WARM_UP_SECONDS)
        before = _counted(service.port)
        point = closed_loop(service.tree, service.url, bodies, ours.JPEG, CONNECTIONS, seconds)
        counts = {name: value - before.get(name, 0.0) for name, value in _counted(service.port).items()}
    total = sum(counts.values())
    return point, 1 - counts["miss"] / total if total else 0.0


def _name(exponent: float | None) -> str:
    return "no image twice" if exponent is None else f"Zipf, s = {exponent:g}"


@click.command()
@click.option("--quick", is_flag=True, help="A smoke test: one short round.")
@click.option("--rounds", type=click.IntRange(1, 20), default=3, show_default=True)
def main(quick: bool, rounds: int) -> None:
    """Compare the service without and with its cache; the last line of stdout is one JSON object."""
    artifact.ready()
    progress = Console(stderr=True)
    pictures = photographs.read()
    rounds, seconds, count = (1, 0.5, 400) if quick else (rounds, 3.0, 2000)
    warm_up = [commented(photo, -1 % 2**64) for photo in pictures.bodies[:1]]
    found: dict[float | None, list[tuple[Point, Point, float]]] = {exponent: [] for exponent in EXPONENTS}
    for number in range(rounds):
        for exponent in EXPONENTS:
            bodies = drawn(pictures.bodies, exponent, count, number)
            points: dict[int, Point] = {}
            share = 0.0
            for cache_mb in random.Random(number).sample((0, CACHE_MB), 2):
                points[cache_mb], known = _measure(bodies, warm_up, cache_mb, seconds)
                share = max(share, known)
            found[exponent].append((points[0], points[CACHE_MB], share))
            rates = [points[cache_mb].result.throughput for cache_mb in (0, CACHE_MB)]
            progress.print(f"  {_name(exponent)}: {rates[0]:.0f} and {rates[1]:.0f} req/s, {share:.0%} known")
    rows: list[dict[str, Any]] = [
        {
            "load": _name(exponent),
            "hit_rate": statistics.median(share for _, _, share in runs),
            "off": statistics.median(off.result.throughput for off, _, _ in runs),
            "on": statistics.median(on.result.throughput for _, on, _ in runs),
            "ratio": statistics.median(on.result.throughput / off.result.throughput for off, on, _ in runs),
            "cpu_ms_off": statistics.median(off.cpu_ms for off, _, _ in runs),
            "cpu_ms_on": statistics.median(on.cpu_ms for _, on, _ in runs),
            "p50_ms_on": statistics.median(on.result.p50_ms for _, on, _ in runs),
            "not_200": sum(off.result.failures + on.result.failures for off, on, _ in runs),
        }
        for exponent, runs in found.items()
    ]
    title = f"The cache, {cores()} cores, closed loop of {CONNECTIONS}, {CATALOGUE} images; medians of {rounds} rounds"
    heads = ("load", "known", "off req/s", "on req/s", "on/off", "CPU ms off", "CPU ms on", "p50 ms on", "not 200")
    sheet = Sheet(title, heads, [list(row.values()) for row in rows])
    goals = [at_least("throughput where no image comes twice, on to off", rows[0]["ratio"], 0.98)]
    worst = max(point.others_cores for runs in found.values() for off, on, _ in runs for point in (off, on))
    data = {"rounds": rounds, "cache_mb": CACHE_MB, "catalogue": CATALOGUE, "loads": rows}
    results.finish("cache", data, [sheet], goals, worst, pictures)


if __name__ == "__main__":
    main()
