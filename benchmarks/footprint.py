"""`python -m benchmarks.footprint`: seconds to ready, and memory after ten thousand requests.

One worker, int8, inline: what an edge box would run.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from typing import TYPE_CHECKING, Any

import click

from benchmarks import artifact, ours, results
from benchmarks.load import closed
from benchmarks.peers import ROOT
from benchmarks.results import Goal, Sheet, at_least, at_most
from harness import photographs
from harness.processes import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS = 8
CHUNK_SECONDS = 4.0
MAX_CHUNKS = 200
# PSS moves by this much from one reading to the next without any trend: freed pages go back when malloc likes to.
TOLERANCE_MB = 3.0
WARM_UP_TRIES = 3


def start_command() -> list[str]:
    """`make serve`; the service's own command where make would first have to set up its environment."""
    fresh = subprocess.run(["make", "-q", ".venv/build.done"], cwd=ROOT, capture_output=True).returncode == 0
    return ["make", "serve", "PORT={port}"] if fresh else []


def cold_starts(command: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Seconds from the command to ready, with files in the page cache, and the part that loading took."""
    starts = []
    for _ in range(count):
        begin, usage = time.perf_counter(), Usage()
        with ours.running(command) as service:
            seconds = time.perf_counter() - begin
            # The processes are new: all the CPU time they have had is of this stretch.
            others = max(0.0, usage.stop()[1] - service.tree.cpu_seconds() / seconds)
            runner = service.model()["runner"]
        starts.append(
            {
                "ready_s": seconds,
                "load_ms": runner["load_ms"],
                # GET /model tells the fastest of each batch size's tries.
                "warm_up_ms": WARM_UP_TRIES * sum(runner["warm_up_ms"].values()),
                "others_cores": others,
            }
        )
    return starts


def memory(bodies: Sequence[bytes], requests: int) -> list[dict[str, float]]:
    """PSS of the service's processes as ``requests`` of photographs ``bodies`` are answered."""
    readings: list[dict[str, float]] = []
    with ours.running(workers=1, placement="inline") as service:
        precision = service.model()["precision"]
        if precision != "int8":
            raise click.ClickException(f"this CPU would be served {precision}, the goal is about int8")
        readings.append({"requests": 0, "pss_mb": service.tree.memory().pss_mb})
        answered = 0
        for _ in range(MAX_CHUNKS):
            if answered >= requests:
                break
            result = closed(service.url, bodies, ours.JPEG, CONNECTIONS, CHUNK_SECONDS)
            if result.failures:
                raise click.ClickException(f"not all requests were answered with 200: {result.statuses}")
            answered += result.statuses[200]
            readings.append({"requests": answered, "pss_mb": service.tree.memory().pss_mb})
    return readings


def growth(readings: Sequence[dict[str, float]]) -> float:
    """MB gained over the last half of the requests, by the slope of all its readings (Theil and Sen's median)."""
    total = readings[-1]["requests"]
    half = [reading for reading in readings if reading["requests"] >= total / 2]
    slopes = [
        (later["pss_mb"] - one["pss_mb"]) / (later["requests"] - one["requests"])
        for at, one in enumerate(half)
        for later in half[at + 1 :]
    ]
    return statistics.median(slopes) * total / 2 if slopes else 0.0


def _goals(starts: Sequence[dict[str, Any]], readings: Sequence[dict[str, float]]) -> list[Goal]:
    load_s = statistics.median(start["load_ms"] + start["warm_up_ms"] for start in starts) / 1e3
    answered = readings[-1]["requests"]
    return [
        at_most("cold start to ready, median", statistics.median(start["ready_s"] for start in starts), 6.0, " s"),
        at_most("model load and warm-up, median", load_s, 1.2, " s"),
        at_most("PSS at the end", readings[-1]["pss_mb"], 300, " MB"),
        at_least("requests answered before", answered, 10_000),
        at_most(f"growth over their last half (tolerance {TOLERANCE_MB:g} MB)", growth(readings), TOLERANCE_MB, " MB"),
    ]


def _sheets(command: str, starts: Sequence[dict[str, Any]], readings: Sequence[dict[str, float]]) -> list[Sheet]:
    every = max(1, len(readings) // 8)
    shown = [*readings[:-1:every], readings[-1]]
    return [
        Sheet(
            f"Cold start of `{command}` on a built store, files in the page cache",
            ("start", "ready s", "load ms", "warm-up ms"),
            [
                [at + 1, *(start[key] for key in ("ready_s", "load_ms", "warm_up_ms"))]
                for at, start in enumerate(starts)
            ],
        ),
        Sheet(
            "PSS of all processes of the service: one worker, int8, inline",
            ("requests", "PSS MB"),
            [[int(reading["requests"]), reading["pss_mb"]] for reading in shown],
        ),
    ]


@click.command()
@click.option("--quick", is_flag=True, help="A smoke test: one start, few requests.")
def main(quick: bool) -> None:
    """Measure start and memory of the service; the last line of stdout is one JSON object."""
    artifact.ready()
    command = start_command()
    starts = cold_starts(command, 1 if quick else 5)
    found = photographs.read()
    readings = memory(found.bodies, 300 if quick else 10_000)
    said = " ".join(command).replace(" PORT={port}", "") or "bentoml serve"
    data = {"command": said, "starts": starts, "memory": readings, "growth_mb": growth(readings)}
    worst = max(start["others_cores"] for start in starts)
    results.finish("footprint", data, _sheets(said, starts, readings), _goals(starts, readings), worst, found)


if __name__ == "__main__":
    main()
