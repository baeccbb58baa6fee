"""What an artifact costs on this machine's CPU: latency, throughput and memory, measured in a process of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from classifier import manifest as manifests
from runners import backends

BATCH = 8
LEAST = 3


@dataclass(frozen=True)
class Cost:
    """``latency_ms``: of one image on one core, the median. ``throughput``: images/s on all cores, in batches of BATCH,
    a thread a core. ``memory_mb``: resident memory of the process that measured, with Python and the runtime."""

    latency_ms: float
    throughput: float
    memory_mb: float


def measure(folder: Path, seconds: float) -> Cost:
    """The cost of the artifact in ``folder``, of which both times are measured for ``seconds``.

    ``python -m model_build.costs`` measures: what this process holds would count as memory. Raises CalledProcessError.
    """
    command = [sys.executable, "-m", __name__, str(folder), str(seconds)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    return Cost(**json.loads(done.stdout))


def median(costs: list[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(*(statistics.median(figures) for figures in zip(*(asdict(one).values() for one in costs), strict=True)))


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _here(folder: Path, seconds: float) -> Cost:
    """The cost, measured in this process."""
    manifest = manifests.read(folder)
    side = manifest.preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)
    backend = backends.load(folder, manifest, callers=cores())
    for count in (1, BATCH):
        backend.infer(pixels[:count])

    def times(count: int) -> list[float]:
        """The seconds of each inference of so many images."""
        found: list[float] = []
        end = time.perf_counter() + seconds
        while len(found) < LEAST or time.perf_counter() < end:
            start = time.perf_counter()
            backend.infer(pixels[:count])
            found.append(time.perf_counter() - start)
        return found

    latency = statistics.median(times(1))
    with ThreadPoolExecutor(cores()) as pool:
        rates = [BATCH / statistics.median(found) for found in pool.map(times, [BATCH] * cores())]
    return Cost(1e3 * latency, sum(rates), psutil.Process().memory_info().rss / 1e6)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_here(Path(sys.argv[1]), float(sys.argv[2])))))
