"""Arrival times have the law they claim, and are dealt out to workers without loss."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness import arrivals
from harness.arrivals import Segment


def test_poisson_gaps_are_exponential_and_independent() -> None:
    at = arrivals.times("poisson", [Segment(200.0, 50.0)], seed=7)
    gaps = np.diff(at)
    assert stats.kstest(gaps, "expon", args=(0, 1 / 50)).pvalue > 0.01
    # Neighbouring gaps tell nothing of each other.
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 3 / np.sqrt(len(gaps))
    counts = np.bincount(at.astype(int), minlength=200)
    # The variance of a Poisson count is its mean: index of dispersion, chi-square with n - 1 degrees of freedom.
    dispersion = np.sum((counts - counts.mean()) ** 2) / counts.mean()
    assert 0.005 < stats.chi2.cdf(dispersion, len(counts) - 1) < 0.995


def test_the_law_is_told_from_others() -> None:
    even = arrivals.times("constant", [Segment(200.0, 50.0)], seed=7)
    assert stats.kstest(np.diff(even), "expon", args=(0, 1 / 50)).pvalue < 1e-9


def test_a_changing_rate_is_followed_exactly() -> None:
    segments = [Segment(100.0, 20.0), Segment(50.0, 0.0), Segment(100.0, 80.0)]
    at = arrivals.times("poisson", segments, seed=3)
    first, silent, last = (at < 100).sum(), ((at >= 100) & (at < 150)).sum(), (at >= 150).sum()
    assert silent == 0
    assert stats.poisson.cdf(first, 2000) > 0.005 and stats.poisson.sf(first, 2000) > 0.005
    assert stats.poisson.cdf(last, 8000) > 0.005 and stats.poisson.sf(last, 8000) > 0.005
    assert stats.kstest(at[at >= 150], "uniform", args=(150, 100)).pvalue > 0.01
    assert np.all(np.diff(at) > 0) and at[-1] < 250


def test_a_seed_makes_the_same_arrivals_and_another_others() -> None:
    segments = [Segment(10.0, 30.0)]
    assert np.array_equal(arrivals.times("poisson", segments, 1), arrivals.times("poisson", segments, 1))
    assert not np.array_equal(arrivals.times("poisson", segments, 1)[:50], arrivals.times("poisson", segments, 2)[:50])


def test_constant_arrivals_are_evenly_spaced_also_over_a_step() -> None:
    at = arrivals.times("constant", [Segment(2.0, 10.0), Segment(1.0, 100.0)], seed=0)
    assert len(at) == 120
    assert np.allclose(np.diff(at[:20]), 0.1) and np.allclose(np.diff(at[20:]), 0.01)


def test_nothing_arrives_at_rate_nought() -> None:
    assert len(arrivals.times("poisson", [Segment(5.0, 0.0)], 1)) == 0
    assert len(arrivals.times("constant", [Segment(5.0, 0.0)], 1)) == 0


def test_a_day_is_lowest_at_its_begin_and_highest_at_noon() -> None:
    segments = arrivals.diurnal(mean=100.0, swing=0.8, period_s=86.4, seconds=86.4)
    rates = [segment.rate for segment in segments]
    assert rates[0] == pytest.approx(20, abs=0.1) and rates[-1] == pytest.approx(20, abs=0.1) and min(rates) >= 20
    assert 179 < max(rates) <= 180 and abs(rates.index(max(rates)) - 43) <= 1
    assert sum(segment.seconds for segment in segments) == pytest.approx(86.4)
    assert np.average(rates, weights=[segment.seconds for segment in segments]) == pytest.approx(100, rel=0.01)


def test_a_replayed_trace_has_its_counts_each_second() -> None:
    counts = [3, 0, 7, 1, 0, 400]
    at = arrivals.replay(counts, seed=1)
    assert (np.diff(at) >= 0).all()
    assert at.tolist() == arrivals.replay(counts, seed=1).tolist()
    assert np.array_equal(np.bincount(at.astype(int), minlength=6), counts)
    assert stats.kstest(at[at >= 5] - 5, "uniform").pvalue > 0.01


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_shares_are_the_plan_and_nothing_twice(workers: int) -> None:
    at = arrivals.times("poisson", [Segment(20.0, 100.0)], seed=5)
    shares = [arrivals.share(at, index, workers) for index in range(workers)]
    assert np.array_equal(np.sort(np.concatenate(shares)), at)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("law", "segment", "quoted"),
    [
        ("poisson", Segment(0.0, 1.0), "0.0 seconds"),
        ("poisson", Segment(1.0, -2.0), "-2.0 requests"),
        ("poisson", Segment(1.0, float("inf")), "inf requests"),
        ("pareto", Segment(1.0, 2.0), "'pareto'"),
    ],
)
def test_what_can_not_be_is_said(law: str, segment: Segment, quoted: str) -> None:
    with pytest.raises(ValueError, match=quoted):
        arrivals.times(law, [segment], 1)


def test_a_swing_over_one_would_be_a_negative_rate() -> None:
    with pytest.raises(ValueError, match=r"1\.5"):
        arrivals.diurnal(1.0, 1.5, 10.0, 10.0)
