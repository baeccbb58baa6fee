"""The best schedule of the batching benchmark is the best there is."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.batching.simulation import Backend, optimum


def by_trying_all(arrivals: list[float], backend: Backend, slo: float) -> int:
    """The most requests that any schedule of one device can serve in time, batches of any of them in any order."""
    best = 0

    def go_on(left: frozenset[int], free: float) -> None:
        nonlocal best
        best = max(best, len(arrivals) - len(left))
        for size in range(1, min(backend.max_batch, len(left)) + 1):
            for chosen in itertools.combinations(sorted(left), size):
                done = max(free, arrivals[chosen[-1]]) + backend.seconds(size)
                if done <= arrivals[chosen[0]] + slo:
                    go_on(left - set(chosen), done)

    go_on(frozenset(range(len(arrivals))), -math.inf)
    return best


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    gaps=st.lists(st.floats(0, 2), min_size=2, max_size=6),
    alpha=st.floats(0.1, 1),
    beta=st.floats(0, 2),
    slo=st.floats(0.5, 5),
    max_batch=st.integers(1, 4),
)
def test_the_offline_optimum_is_exact(gaps: list[float], alpha: float, beta: float, slo: float, max_batch: int) -> None:
    arrivals = np.cumsum([0.001, *gaps])
    backend = Backend("", alpha, beta, max_batch, "")
    assert optimum(arrivals, backend, slo, learning=0.0) == by_trying_all(arrivals.tolist(), backend, slo)
