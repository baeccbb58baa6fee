"""The search ends at the highest rate that holds, by a rule that is exact."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from harness import arrivals
from harness.arrivals import Segment
from loadtests import samples
from loadtests.answers import Outcome
from loadtests.capacity import CapacityError, Rule, Trial, find
from loadtests.samples import DTYPE

RULE = Rule(slo_ms=100.0)
Try = Callable[[float, float], Trial]


def test_the_rule_is_that_of_mlperf() -> None:
    # The published table for the 99th percentile at 99 % confidence.
    assert [RULE.needed(misses) for misses in range(4)] == [459, 662, 838, 1001]


@pytest.mark.parametrize(("quantile", "confidence"), [(0.99, 0.99), (0.9, 0.95), (0.999, 0.9)])
def test_its_chances_are_binomial(quantile: float, confidence: float) -> None:
    rule = Rule(100.0, quantile, confidence)
    for queries, misses in ((100, 0), (662, 1), (5000, 40), (20_000, 100)):
        assert rule.chance(queries, misses) == pytest.approx(stats.binom.cdf(misses, queries, 1 - quantile), rel=1e-6)
    for misses in (0, 1, 7):
        needed = rule.needed(misses)
        assert rule.allowed(needed) >= misses > rule.allowed(needed - 1)


def test_too_few_queries_allow_no_verdict() -> None:
    assert RULE.allowed(458) == -1
    assert RULE.allowed(459) == 0


@pytest.mark.parametrize(
    ("arguments", "quoted"), [((0.0,), "SLO of 0.0"), ((1.0, 1.0), "quantile 1.0"), ((1.0, 0.9, 0.0), "confidence 0.0")]
)
def test_a_rule_that_nothing_can_hold_is_refused(arguments: tuple[float, ...], quoted: str) -> None:
    with pytest.raises(ValueError, match=quoted):
        Rule(*arguments)


class Queue:
    """One server that takes ``service_s`` for each request, fed Poisson arrivals: M/D/1, in virtual time."""

    def __init__(self, service_s: float) -> None:
        self.service_s, self.seed = service_s, 0

    def latencies(self, rate: float, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        self.seed += 1
        at = arrivals.times("poisson", [Segment(seconds, rate)], self.seed)
        # Lindley: what is left of the work when each request comes.
        steps = np.concatenate([[0.0], self.service_s - np.diff(at)])
        walk = np.cumsum(steps)
        return at, walk - np.minimum.accumulate(np.minimum(walk, 0.0)) + self.service_s

    def trial(self, rate: float, scale: float) -> Trial:
        seconds = scale * max(60.0, RULE.needed(2) / rate)
        at, latency = self.latencies(rate, seconds)
        rows = np.zeros(len(at), DTYPE)
        rows["at"], rows["latency"], rows["outcome"] = at, latency, Outcome.OK
        return Trial(rate, samples.summarise("", rows, seconds, RULE.slo_ms), RULE.allowed(len(rows)))


def true_capacity(queue: Queue) -> float:
    """The rate at which 1 % take longer than the SLO, of a million requests."""
    low, high = 0.5 / queue.service_s, 1 / queue.service_s
    while high > 1.002 * low:
        rate = math.sqrt(low * high)
        _, latency = queue.latencies(rate, 1e6 / rate)
        low, high = (rate, high) if np.mean(latency > RULE.slo_ms / 1e3) <= 0.01 else (low, rate)
    return low


@pytest.mark.slow
@pytest.mark.parametrize("start", [1.0, 50.0, 3000.0])
def test_the_capacity_of_a_queue_is_found_from_anywhere(start: float) -> None:
    queue = Queue(service_s=0.005)
    found = find(queue.trial, start, resolution=0.01)
    assert found.rate == pytest.approx(true_capacity(queue), rel=0.05)
    assert found.best.passed and found.best is found.trials[-1]
    assert found.warning == ""


def scripted(limit: float, twice: float | None = None, generator: str = "") -> tuple[list[float], Try]:
    """A trial that passes up to ``limit``, and one of double length up to ``twice``; and the rates it was given."""
    tried: list[float] = []

    def trial(rate: float, scale: float) -> Trial:
        tried.append(rate)
        holds = rate <= (limit if scale == 1 or twice is None else twice)
        rows = np.zeros(1000, DTYPE)
        rows["latency"] = 0.01 if holds else 1.0
        return Trial(rate, samples.summarise("", rows, 1.0, 100.0), 3, "" if holds else generator)

    return tried, trial


def test_what_does_not_hold_twice_is_lowered() -> None:
    tried, trial = scripted(110.0, twice=97.0)
    found = find(trial, 80.0, 0.02)
    assert 94 < found.rate <= 97
    assert found.rate == tried[-1] and len([rate for rate in tried if 97 < rate <= 110]) > 3


@pytest.mark.parametrize("disturbed", [{1}, {2}, {3}, {6}, {2, 3}])
def test_a_moment_s_disturbance_does_not_bound_the_search(disturbed: set[int]) -> None:
    tried, steady = scripted(300.0)

    def trial(rate: float, scale: float) -> Trial:
        found = steady(rate, scale)
        return scripted(0.0)[1](rate, scale) if len(tried) in disturbed else found

    assert find(trial, 50.0, 0.03).rate == pytest.approx(300.0, rel=0.031)


def test_a_server_that_holds_nothing_is_said() -> None:
    _, trial = scripted(0.0)
    with pytest.raises(CapacityError, match="not even"):
        find(trial, 10.0, 0.05)


def test_a_server_that_holds_nothing_for_long_is_said() -> None:
    _, trial = scripted(100.0, twice=1.0)
    with pytest.raises(CapacityError, match="no rate held a second time"):
        find(trial, 90.0, 0.02)


def test_a_generator_at_its_end_is_a_warning() -> None:
    _, trial = scripted(100.0, generator="a generator process used 99% of a core")
    assert "99%" in find(trial, 80.0, 0.05).warning


def test_a_single_wrong_answer_fails_a_rate() -> None:
    rows = np.zeros(10_000, DTYPE)
    assert Trial(1.0, samples.summarise("", rows, 1.0, 100.0), RULE.allowed(10_000)).passed
    rows["outcome"][5] = Outcome.WRONG_LABEL
    assert not Trial(1.0, samples.summarise("", rows, 1.0, 100.0), RULE.allowed(10_000)).passed
