"""`python -m benchmarks.cache`: what RESNET18_CACHE_MB brings where images come again, and costs where none does.

The same requests go to the service without and with the cache, in turn. The images of a catalogue are drawn by Zipf's
law: the one of rank r is asked for in proportion to 1 / r^s. Each image is a photograph with a comment of its own.

What the cache costs is less than what a machine's rate changes by within seconds. So both services are up, and short
stretches of images that are all different go to one and the other in turn: the medians of the pairs' ratios count.
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
# More images than a stretch of a second can send.
STRETCH = 600
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


def cost(photos: list[bytes], pairs: int, seconds: float) -> list[tuple[Point, Point]]:
    """Stretches of ``seconds`` in which no image comes twice: of the service without and with its cache, in pairs."""
    found = []
    with ours.running(cache_mb=0) as off, ours.running(cache_mb=CACHE_MB) as on:
        for number in range(-1, pairs):
            first = (number + 1) * STRETCH
            bodies = [commented(photos[at % len(photos)], first + at) for at in range(STRETCH)]
            order = (off, on) if number % 2 else (on, off)
            points = {each: closed_loop(each.tree, each.url, bodies, ours.JPEG, CONNECTIONS, seconds) for each in order}
            if number >= 0:  # the first warms up
                found.append((points[off], points[on]))
    return found


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
    stretches = cost(pictures.bodies, 3 if quick else 40, 0.5 if quick else 1.0)
    ratios = sorted(on.result.throughput / off.result.throughput for off, on in stretches)
    spent = sorted(on.cpu_ms / off.cpu_ms for off, on in stretches)
    quarter = len(stretches) // 4
    costs = Sheet(
        f"Its cost where no image comes twice: on to off, {len(stretches)} pairs of a second",
        ("", "lower quartile", "median", "upper quartile"),
        [
            [name, values[quarter], statistics.median(values), values[-1 - quarter]]
            for name, values in (("throughput", ratios), ("CPU time a request", spent))
        ],
    )
    title = f"The cache, {cores()} cores, closed loop of {CONNECTIONS}, {CATALOGUE} images; medians of {rounds} rounds"
    heads = ("load", "known", "off req/s", "on req/s", "on/off", "CPU ms off", "CPU ms on", "p50 ms on", "not 200")
    sheet = Sheet(title, heads, [list(row.values()) for row in rows])
    goals = [at_least("throughput where no image comes twice, on to off", statistics.median(ratios), 0.98)]
    worst = max(point.others_cores for runs in found.values() for off, on, _ in runs for point in (off, on))
    data = {"rounds": rounds, "cache_mb": CACHE_MB, "catalogue": CATALOGUE, "loads": rows}
    data |= {"cost_throughput": ratios, "cost_cpu": spent}
    results.finish("cache", data, [sheet, costs], goals, worst, pictures)


if __name__ == "__main__":
    main()
