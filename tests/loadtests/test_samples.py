"""Figures are made of raw samples, and merging workers' samples changes none of them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from loadtests import samples
from loadtests.answers import Outcome
from loadtests.samples import DTYPE


def made(rows: list[tuple[float, float, Outcome]]) -> NDArray[Any]:
    """Samples of (second, latency in ms, outcome)."""
    out = np.zeros(len(rows), DTYPE)
    out["at"] = [at for at, _, _ in rows]
    out["latency"] = [ms / 1e3 for _, ms, _ in rows]
    out["outcome"] = [outcome for _, _, outcome in rows]
    out["status"] = [429 if outcome is Outcome.REFUSED else 200 for _, _, outcome in rows]
    return out


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_merging_is_exact(workers: int) -> None:
    random = np.random.default_rng(1)
    at, ms = random.uniform(0, 10, 999).tolist(), random.lognormal(3, 1, 999).tolist()
    whole = made([(*row, Outcome.OK) for row in zip(at, ms, strict=True)])
    parts = [whole[index::workers].tobytes() for index in range(workers)]
    merged = samples.merged(parts)
    assert np.array_equal(merged, np.sort(whole, order="at"))
    alone = samples.summarise("x", samples.merged([whole.tobytes()]), 10.0, 50.0)
    assert samples.summarise("x", merged, 10.0, 50.0) == alone


def test_what_got_no_answer_is_a_miss_of_its_own_kind() -> None:
    at, kinds = np.array([0.1, 0.2, 0.3]), np.array([0, 2, 1], np.uint8)
    all_three = samples.with_unanswered(made([(0.1, 10, Outcome.OK)]), at, kinds)
    assert all_three["at"].tolist() == [0.1, 0.2, 0.3] and all_three["kind"].tolist() == [0, 2, 1]
    assert all_three["outcome"].tolist() == [Outcome.OK, Outcome.NO_ANSWER, Outcome.NO_ANSWER]
    assert samples.misses(all_three, 100) == 2


def test_a_summary_counts_every_outcome_once() -> None:
    rows = [(0.1, 10.0, Outcome.OK), (0.2, 20.0, Outcome.OK), (0.3, 200.0, Outcome.OK)]
    rows += [(0.4, 1.0, Outcome.REFUSED), (0.5, 2.0, Outcome.REJECTED), (0.6, 3.0, Outcome.WRONG_LABEL)]
    rows += [(0.7, math.nan, Outcome.DROPPED), (0.8, math.nan, Outcome.NO_ANSWER)]
    found = samples.summarise("x", made(rows), 2.0, slo_ms=100.0)
    assert (found.planned, found.answered, found.refused, found.rejected) == (8, 3, 1, 1)
    assert (found.failed, found.dropped) == (2, 1)
    assert found.failures == {"wrong_label": 1, "no_answer": 1}
    assert (found.offered, found.achieved, found.goodput) == (4.0, 3.5, 1.0)
    # Late, refused, wrong, unsent, unanswered.
    assert found.misses == 5
    assert (found.p50_ms, found.p99_ms, found.max_ms) == pytest.approx((20.0, 200.0, 200.0))


def test_a_run_without_answers_has_no_latency_and_its_json_says_null() -> None:
    found = samples.summarise("x", made([(0.1, 1.0, Outcome.REFUSED)]), 1.0, 100.0)
    assert math.isnan(found.p99_ms)
    assert found.body()["p99_ms"] is None


def test_recovery_ends_with_the_last_bad_answer() -> None:
    rows = [(0.5, 500.0, Outcome.OK), (1.2, 10.0, Outcome.REFUSED), (2.0, 300.0, Outcome.OK), (2.5, 10.0, Outcome.OK)]
    assert samples.recovery_s(made(rows), since=1.0, slo_ms=100.0) == pytest.approx(1.3)
    assert samples.recovery_s(made(rows), since=2.4, slo_ms=100.0) == 0.0


def test_the_timeline_puts_each_sample_into_the_second_it_was_meant_for() -> None:
    rows = [(0.1, 1500.0, Outcome.OK), (0.9, 10.0, Outcome.OK), (1.0, 20.0, Outcome.REFUSED), (2.4, 30.0, Outcome.OK)]
    found = samples.timeline(made(rows), seconds=2.5, slo_ms=100.0)
    assert [row["offered"] for row in found] == [2.0, 1.0, 2.0]
    assert [row["goodput"] for row in found] == [1.0, 0.0, 2.0]
    assert [row["refused"] for row in found] == [0.0, 1.0, 0.0]
    assert found[0]["max_ms"] == pytest.approx(1500.0) and found[1]["p99_ms"] is None


def test_the_tail_falls_from_all_to_one() -> None:
    found = samples.tail(made([(0.0, float(ms), Outcome.OK) for ms in range(1, 1001)]))
    assert found[0] == (1.0, 1.0) and found[-1] == (1000.0, 0.001)
    assert all(a[0] < b[0] and a[1] > b[1] for a, b in itertools.pairwise(found))
    assert dict(found)[1000.0] == 0.001 and samples.tail(made([])) == []
