"""The contest: devices and loads, the settings that each policy is tried with, and their goodput.

Each other policy is tuned for each device and SLO, on other requests than those that count. Ours has no knob.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.batching.cork import Cork
from benchmarks.batching.policies import Aimd, BatchOne, FixedDelay, Ours
from benchmarks.batching.simulation import LEARNING, Backend, Policy, Result, optimum, simulate
from harness import arrivals
from runners.batching import Batcher
from runners.cost_model import CostModel
from runners.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CPU = Backend(
    "CPU thread", 11e-3, 0.3e-3, 32, "measured: this service's int8 ResNet18 at 224 px, one thread, AVX512-VNNI"
)
T4 = Backend(
    "T4",
    0.2261e-3,
    0.7839e-3,
    128,
    "ResNet18, TensorRT FP16 on a T4: 1.01 ms for 1, 8.02 ms for 32 images (github.com/libingwei/AI-Infer-Acc, release "
    "v0.1.0); the line through both",
)
A100 = Backend(
    "A100",
    0.2515e-3,
    1.794e-3,
    128,
    "ResNet50, ONNX Runtime with TensorRT FP16 in Triton on an A100 80GB: 2.128, 2.194, 2.759, 3.895, 5.793 ms for 1, "
    "2, 4, 8, 16 images (NVIDIA/DeepLearningExamples, PyTorch/Classification/ConvNets/triton/resnet50/README.md, "
    "offline); least squares. Requests and copies included: a device whose β rules",
)
SETTINGS = ((CPU, 0.1), (T4, 0.025), (T4, 0.05), (A100, 0.01), (A100, 0.025), (A100, 0.05))
LOADS = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0)
REQUESTS = 20_000
# The contest with several devices.
DEVICES, SEVERAL_SETTINGS, SEVERAL_LOADS = (2, 4), ((CPU, 0.1), (T4, 0.025), (A100, 0.025)), (0.6, 0.8, 1.0, 1.25, 2.0)
SEED = 1
# The loads that policies are tuned at, and the requests of each.
TUNING_LOADS, TUNING_REQUESTS = (0.6, 1.0, 1.5, 3.0), 4_000
OURS, CORK, FIXED, AIMD, ONE = "ours", "CORK (BentoML)", "fixed delay (Triton)", "AIMD (Clipper)", "batch 1"
OTHERS = (CORK, FIXED, AIMD, ONE)

Make = Callable[[], Policy]
Arrive = Callable[[float, int, float, int], "NDArray[np.float64]"]
# By name: the arrivals of a rate a second, a number of requests, an SLO in seconds, and a seed.
ARRIVALS: dict[str, Arrive] = {
    "Poisson": lambda rate, count, slo, seed: arrivals.poisson(rate, count, seed),
    "bursts": lambda rate, count, slo, seed: arrivals.bursts(rate, count, 4 * slo, seed),
    "clumps": lambda rate, count, slo, seed: arrivals.gamma(rate, count, seed),
}


@dataclass(frozen=True)
class Point:
    """One policy's figures at one load; goodput and capacity in images a second."""

    backend: str
    slo_ms: float
    devices: int
    arrivals: str
    load: float
    policy: str
    goodput: float
    capacity: float
    p50_ms: float
    p99_ms: float
    late: float
    refused: float
    mean_batch: float


def options(backend: Backend, slo: float, devices: int) -> dict[str, list[tuple[str, Make]]]:
    """The settings that each other policy is tried with, most of them near what theory calls best."""
    best = backend.best_batch(slo, devices)
    sizes = {1, 2, 3, 4, 6, 8, *(round(share * best) for share in (0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2))}
    sizes = {size for size in sizes if best / 4 <= size <= backend.max_batch and backend.seconds(size) < 0.85 * slo}
    found: dict[str, list[tuple[str, Make]]] = {OURS: [("", partial(Ours, backend, slo, devices))]}
    found[FIXED], found[CORK] = [], []
    for size, delay, margin in itertools.product(sorted(sizes), (0, 0.1), (1, 1.08, 1.2)):
        timeout = slo - margin * backend.seconds(size)
        label = f"batch {size}, delay {1e3 * delay * slo:.3g} ms, timeout {1e3 * timeout:.3g} ms"
        found[FIXED].append((label, partial(FixedDelay, size, delay * slo, timeout)))
    for size, share in itertools.product(sorted(sizes), (0.7, 0.85, 1)):
        label = f"max_batch_size {size}, max_latency_ms {1e3 * share * slo:.3g}"
        found[CORK].append((label, partial(Cork, size, share * slo)))
    found[AIMD] = [
        (f"objective {1e3 * share * slo:.3g} ms", partial(Aimd, backend.max_batch, slo, share * slo))
        for share in (0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
    ]
    found[ONE] = [(f"margin {margin}", partial(BatchOne, backend, slo, margin)) for margin in (1, 1.1, 1.2)]
    return found


def run(make: Make, arrivals: NDArray[np.float64], backend: Backend, slo: float, devices: int, cork: bool) -> Result:
    """One policy on one series of requests; each of CORK's workers gets every n-th: it has no common queue."""
    if not cork or devices == 1:
        return simulate(make(), arrivals, backend, slo, devices=devices, seed=SEED)
    parts = [simulate(make(), arrivals[worker::devices], backend, slo, seed=worker) for worker in range(devices)]
    means = {key: float(np.mean([asdict(part)[key] for part in parts])) for key in asdict(parts[0])}
    return Result(**{**means, "goodput": sum(part.goodput for part in parts)})


def tuned(backend: Backend, slo: float, devices: int, quick: bool) -> dict[str, tuple[str, Make]]:
    """For each policy the setting with the best mean goodput, as a share of the best schedule's, and its maker."""
    capacity = backend.capacity(slo, devices)
    count = TUNING_REQUESTS // (4 if quick else 1)
    series = [arrive(load * capacity, count, slo, SEED + 100) for arrive in ARRIVALS.values() for load in TUNING_LOADS]
    best = [best_goodput(one, backend, slo, devices) for one in series]
    chosen = {}
    for policy, tried in options(backend, slo, devices).items():
        if len(tried) == 1:
            chosen[policy] = tried[0]
            continue
        shares = {
            label: sum(
                run(make, one, backend, slo, devices, policy == CORK).goodput / limit
                for one, limit in zip(series, best, strict=True)
            )
            for label, make in tried
        }
        chosen[policy] = max(tried, key=lambda option: shares[option[0]])
    return chosen


def best_goodput(arrivals: NDArray[np.float64], backend: Backend, slo: float, devices: int) -> float:
    """The best schedule's goodput; of several devices, what is offered or their capacity."""
    first = int(LEARNING * len(arrivals))
    seconds = float(arrivals[-1] - arrivals[first])
    if devices > 1:
        return min((len(arrivals) - first) / seconds, backend.capacity(slo, devices))
    return optimum(arrivals, backend, slo) / seconds


def compare(
    settings: Sequence[tuple[Backend, float]], devices: int, loads: Sequence[float], count: int, quick: bool
) -> tuple[list[Point], list[tuple[str, float, int, str, str]]]:
    """All policies, and the best schedule, at all loads; and the settings they were tuned to."""
    points, knobs = [], []
    for backend, slo in settings:
        capacity = backend.capacity(slo, devices)
        policies = tuned(backend, slo, devices, quick)
        knobs += [(backend.name, 1e3 * slo, devices, name, label) for name, (label, _) in policies.items() if label]
        for (arrival, arrive), load in itertools.product(ARRIVALS.items(), loads):
            series = arrive(load * capacity, count, slo, SEED)
            key = (backend.name, 1e3 * slo, devices, arrival, load)
            if devices == 1:
                best = best_goodput(series, backend, slo, devices)
                points.append(Point(*key, "optimum", best, capacity, *[math.nan] * 5))
            for name, (_, make) in policies.items():
                made = run(make, series, backend, slo, devices, name == CORK)
                points.append(
                    Point(
                        *key,
                        name,
                        made.goodput,
                        capacity,
                        1e3 * made.p50,
                        1e3 * made.p99,
                        made.late,
                        made.refused,
                        made.mean_batch,
                    )
                )
    return points, knobs


def decisions_us(backend: Backend, waiting: int) -> tuple[float, float]:
    """Microseconds of this machine that admit(), and done() with next(), take while ``waiting`` images wait."""
    slo = 10 * waiting * backend.seconds(1)
    cost = CostModel({size: backend.seconds(size) for size in (1, 2, 4, 8, 16, 32)})
    batcher = Batcher(cost, budget=slo, max_batch=backend.max_batch, max_queue=10**6)
    batcher.admit([Job(0.0, slo)], 0.0)
    running, _ = batcher.next(0.0)
    assert running is not None
    batcher.admit([Job(0.0, slo) for _ in range(waiting)], 0.0)
    jobs = [Job(0.0, slo + number * 1e-6) for number in range(2000)]
    begin = time.perf_counter()
    for job in jobs:
        batcher.admit([job], 0.0)
    # With what was admitted meanwhile, the queue has been longer than ``waiting``: the figure is on the safe side.
    admit = (time.perf_counter() - begin) / len(jobs)
    for job in jobs:
        batcher.cancel(job)
    took, now, count = 0.0, 0.0, 0
    for _ in range(500):
        now += backend.seconds(len(running.jobs))
        begin = time.perf_counter()
        batcher.done(running, now)
        following, _ = batcher.next(now)
        took, count = took + time.perf_counter() - begin, count + 1
        assert following is not None
        running = following
        batcher.admit([Job(now, now + slo) for _ in running.jobs], now)
    return 1e6 * admit, 1e6 * took / count
