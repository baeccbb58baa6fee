"""The settings that each policy of `python -m benchmarks.batching` is tried with, and which of them does best."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.policies import Aimd, BatchOne, Cork, FixedDelay, Ours
from benchmarks.simulation import LEARNING, Backend, Policy, Result, gamma, mmpp, optimum, poisson, simulate

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRIVALS = {"Poisson": poisson, "bursts": mmpp, "clumps": gamma}
LOADS, REQUESTS = (0.6, 1.0, 1.5, 3.0), 4_000
SEED = 1
OURS, CORK, FIXED, AIMD, ONE = "ours", "CORK (BentoML)", "fixed delay (Triton)", "AIMD (Clipper)", "batch 1"
OTHERS = (CORK, FIXED, AIMD, ONE)

Make = Callable[[], Policy]


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
    count = REQUESTS // (4 if quick else 1)
    series = [arrive(load * capacity, count, slo, SEED + 100) for arrive in ARRIVALS.values() for load in LOADS]
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
