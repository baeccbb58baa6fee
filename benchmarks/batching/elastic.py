"""`python -m benchmarks.batching.elastic`: elastic width beside every fixed width, in a simulation.

The cores of a CPU answer clients that each send one image after the other, or Poisson arrivals. A fixed width w has
cores / w servers, first come, first served. Elastic width is ``runners.batching.Batcher`` as the executors drive it.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from runners.batching import Batcher
from runners.cost_model import CostModel
from runners.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds from an answer to the same client's next image.
THINK_S = 0.0005
# How long an image takes varies by this factor's logarithm, normally distributed with mean 0.
NOISE = 0.05
# Images of a run that are learning, and not counted.
LEARNING = 200
CONNECTIONS = (1, 2, 3, 4, 6, 8, 16, 32)
LOADS = (0.2, 0.4, 0.6, 0.8, 0.9)


@dataclass(frozen=True)
class Cpu:
    """``seconds`` of one image by the number of cores that it runs on; ``cores`` in all."""

    cores: int
    seconds: dict[int, float]


@dataclass(frozen=True)
class Run:
    """``latency``: mean seconds; ``rate``: images a second; ``widths``: images by width."""

    latency: float
    rate: float
    widths: dict[int, int]


class Fixed:
    """Every image runs on ``width`` cores, first come, first served."""

    def __init__(self, cpu: Cpu, width: int) -> None:
        self.width, self.queue, self.idle = width, list[float](), cpu.cores // width

    def arrive(self, now: float) -> None:
        """Queue an image."""
        self.queue.append(now)

    def next(self, now: float) -> tuple[float, int, object] | None:
        """The arrival, the width and the token of an image that starts now."""
        if not self.queue or not self.idle:
            return None
        self.idle -= 1
        return self.queue.pop(0), self.width, None

    def done(self, token: object, now: float) -> None:
        """Free the cores of an image."""
        self.idle += 1


class Elastic:
    """The service's batcher."""

    def __init__(self, cpu: Cpu, budget: float = 10.0) -> None:
        wide = {width: seconds for width, seconds in cpu.seconds.items() if width > 1}
        cost = CostModel({1: cpu.seconds[1]})
        self.budget = budget
        self.batcher = Batcher(cost, budget=budget, max_batch=1, max_queue=10_000, executors=cpu.cores, wide=wide)

    def arrive(self, now: float) -> None:
        """Queue an image."""
        self.batcher.admit([Job(now, now + self.budget)], now)

    def next(self, now: float) -> tuple[float, int, object] | None:
        """See Fixed."""
        batch, _ = self.batcher.next(now)
        if batch is None:
            return None
        (job,) = batch.jobs
        return job.arrival, self.batcher.widen(batch, now), batch

    def done(self, token: object, now: float) -> None:
        """See Fixed."""
        self.batcher.done(token, now)  # type: ignore[arg-type]


def simulate(
    cpu: Cpu, policy: Fixed | Elastic, images: int, seed: int, *, connections: float = 0, rate: float = 0.0
) -> Run:
    """Answer ``images`` of ``connections`` closed-loop clients, or of Poisson arrivals at ``rate`` a second."""
    draw = np.random.default_rng(seed)
    noise: Callable[[], float] = lambda: math.exp(draw.normal(0, NOISE))  # noqa: E731
    if connections:
        coming = [THINK_S * draw.random() for _ in range(int(connections))]
    else:
        coming = list(np.cumsum(draw.exponential(1 / rate, images)))
    heapq.heapify(coming)
    running: list[tuple[float, int, float, object]] = []
    finished: list[tuple[float, float]] = []
    widths: dict[int, int] = {}
    started = 0
    while len(finished) < images:
        if running and (not coming or running[0][0] <= coming[0]):
            now, _, arrival, token = heapq.heappop(running)
            policy.done(token, now)
            finished.append((now, now - arrival))
            if connections:
                heapq.heappush(coming, now + THINK_S * 2 * draw.random())
        else:
            now = heapq.heappop(coming)
            policy.arrive(now)
        while (found := policy.next(now)) is not None:
            arrival, width, token = found
            started += 1
            if started > LEARNING:
                widths[width] = widths.get(width, 0) + 1
            heapq.heappush(running, (now + cpu.seconds[width] * noise(), started, arrival, token))
    counted = finished[LEARNING:]
    seconds = counted[-1][0] - counted[0][0]
    return Run(float(np.mean([latency for _, latency in counted])), (len(counted) - 1) / seconds, widths)


def against_fixed(cpu: Cpu, images: int, seed: int, **load: float) -> tuple[Run, dict[int, Run]]:
    """The run of elastic width under ``load``, and those of the fixed widths."""
    fixed = {w: simulate(cpu, Fixed(cpu, w), images, seed, **load) for w in cpu.seconds}
    return simulate(cpu, Elastic(cpu), images, seed, **load), fixed


@click.command()
@click.option("--images", default=3_000, show_default=True, help="Images of a run.")
@click.option("--ms", default="7,5", show_default=True, help="Milliseconds of an image on 1, 2, 4, ... cores.")
@click.option("--cores", default=2, show_default=True, help="Cores.")
def main(images: int, ms: str, cores: int) -> None:
    """Mean latency of elastic width and of each fixed width, by load."""
    cpu = Cpu(cores, {2**power: float(value) / 1e3 for power, value in enumerate(ms.split(","))})
    table = Table("load", *(f"width {width}, ms" for width in cpu.seconds), "elastic, ms", "to the best", "widths")
    loads: list[tuple[str, dict[str, float]]] = [
        *((f"{count} connections", {"connections": float(count)}) for count in CONNECTIONS),
        *((f"{load} of capacity", {"rate": load * cores / cpu.seconds[1]}) for load in LOADS),
    ]
    for name, load in loads:
        elastic, fixed = against_fixed(cpu, images, 1, **load)
        best = min(run.latency for run in fixed.values())
        table.add_row(
            name,
            *(f"{1e3 * run.latency:.2f}" for run in fixed.values()),
            f"{1e3 * elastic.latency:.2f}",
            f"{elastic.latency / best:.3f}",
            str(dict(sorted(elastic.widths.items()))),
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
