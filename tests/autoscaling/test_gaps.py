"""Gaps of a trace are found, filled and not counted; and steps become seconds."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaling import reporting
from autoscaling.console import console
from autoscaling.gaps import prepare
from autoscaling.traces import Trace, TraceError, read
from tests.autoscaling.test_traces import SHARED


def test_a_silence_inside_traffic_is_a_gap_and_is_not_counted() -> None:
    counts = np.full(4000, 10.0)
    counts[1000:1061] = 0
    counts[2000:2060] = 0  # a minute is none
    prepared = prepare(Trace(counts, 1))
    assert [gap[:2] for gap in prepared.gaps] == [(1000, 61)]
    assert not prepared.load.counted[1000:1061].any() and prepared.load.counted.sum() == 4000 - 61
    assert prepared.load.offered[1000:1061].tolist() == [10.0] * 61
    assert prepared.load.offered[2000:2060].sum() == 0
    assert prepare(Trace(counts, 1), zeros=True).gaps == ()


@pytest.mark.parametrize("silent", [slice(0, 1000), slice(3000, 4000)])
def test_a_silence_at_an_end_is_a_gap(silent: slice) -> None:
    counts = np.full(4000, 10.0)
    counts[silent] = 0
    prepared = prepare(Trace(counts, 1))
    assert [gap[:2] for gap in prepared.gaps] == [(silent.start, 1000)]
    assert not prepared.load.counted[silent].any() and prepared.load.counted.sum() == 3000
    assert prepare(Trace(counts, 1), zeros=True).gaps == ()


def test_a_trace_that_is_mostly_gap_is_refused() -> None:
    counts = np.full(1000, np.nan)
    counts[::60] = 10.0
    with pytest.raises(TraceError, match="983 of the trace's 1000 steps are gaps"):
        prepare(Trace(counts, 1))


def test_a_rate_that_is_too_high_is_told() -> None:
    with pytest.raises(TraceError, match=r"times 1e\+30 has 2e\+30 images a second"):
        prepare(Trace(np.array([1.0, 2.0]), 1), 1e30)


def test_few_images_an_hour_make_no_gap() -> None:
    counts = np.zeros(7200)
    counts[::100] = 1
    assert prepare(Trace(counts, 1)).gaps == ()


def test_a_gap_is_filled_from_the_day_before_and_missing_rows_are_gaps() -> None:
    counts = np.tile(np.arange(1.0, 1441), 3)
    counts[1440 + 600 : 1440 + 700] = np.nan
    prepared = prepare(Trace(counts, 60), scale=60.0)
    ((first, length, how),) = prepared.gaps
    assert (first, length, how) == ((1440 + 600) * 60, 6000, "the same time 1 day before")
    mean = prepared.load.offered[first : first + length].mean()
    assert mean == pytest.approx(counts[600:700].mean(), rel=0.02)


def test_steps_become_poisson_seconds_of_their_mean_and_the_seed_decides() -> None:
    trace = Trace(np.array([6000.0, 600.0]), 60)
    one, same, other = (prepare(trace, 2.0, seed=seed).load.offered for seed in (1, 1, 2))
    assert len(one) == 120 and (one == same).all() and (one != other).any()
    assert one[:60].mean() == pytest.approx(200, rel=0.1) and one[:60].var() == pytest.approx(200, rel=0.6)
    assert prepare(Trace(np.array([3.0, 4.0]), 1), 2.0).load.offered.tolist() == [6.0, 8.0]


def test_smoothing_keeps_the_mean_and_loses_the_noise() -> None:
    random = np.random.default_rng(0)
    counts = random.poisson(0.5, 20_000).astype(np.float64)
    rough = prepare(Trace(counts, 1), 100).load.offered
    smooth = prepare(Trace(counts, 1), 100, smooth_s=300).load.offered
    assert smooth.mean() == pytest.approx(rough.mean(), rel=0.02)
    assert smooth.std() < rough.std() / 5


@pytest.mark.parametrize(
    ("silent", "start", "told"),
    [
        (
            [(1000, 1100)],
            None,
            "a gap of 100 s from second 1,000 of the trace (day 0.01157) on. It was filled with",
        ),
        ([(1000, 1100)], 1.7e9, "a gap of 100 s from 2023-11-14 22:30:00 UTC on."),
        (
            [(1000, 1100), (3000, 3200)],
            1.7e9,
            "2 gaps, 300 s in all, the longest of 200 s from 2023-11-14 23:03:20 UTC",
        ),
    ],
)
def test_gaps_are_told_with_their_times(
    silent: list[tuple[int, int]], start: float | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = np.full(4000, 10.0)
    for first, end in silent:
        counts[first:end] = 0
    reporting.gaps(prepare(Trace(counts, 1, start)), console())
    assert told in capsys.readouterr().out


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared traces are not here")
def test_the_gaps_of_twitter_are_those_that_are_known() -> None:
    known = [line.split(",") for line in (SHARED / "twitter-gaps.csv").read_text().split()[1:]]
    trace = read(SHARED / "twitter-per-second.csv.gz")
    found = prepare(trace).gaps
    assert [(first, length) for first, length, _ in found] == [(int(first), int(length)) for first, length in known]
