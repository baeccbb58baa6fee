"""A load for real replicas, and how what was found is held against the prediction."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaling import live
from autoscaling.hpa import Autoscaler, Offered
from autoscaling.live import LEAD_S, Measured, Plan
from runners import budget


def plan(counts: np.ndarray[tuple[int], np.dtype[np.int64]], rate: float = 20.0) -> Plan:
    return Plan(counts, Autoscaler(1, 8, (Offered(0.87 * rate),)), rate, 1.0, 1)


def test_a_load_has_the_trace_s_shape_its_highest_minute_and_a_lead() -> None:
    offered = np.concatenate((np.full(3600, 10.0), np.full(3600, 40.0)))
    counts = live.counts(offered, 600, 12, 80, seed=1)
    assert len(counts) == LEAD_S + 600
    assert counts[:LEAD_S].mean() == pytest.approx(20, rel=0.1)
    assert counts[LEAD_S : LEAD_S + 300].mean() == pytest.approx(20, rel=0.1)
    assert counts[LEAD_S + 300 :].mean() == pytest.approx(80, rel=0.05)
    # Poisson: the variance is the mean.
    assert counts[LEAD_S + 300 :].var() == pytest.approx(80, rel=0.3)
    assert counts.tolist() == live.counts(offered, 600, 12, 80, seed=1).tolist()
    assert counts.tolist() != live.counts(offered, 600, 12, 80, seed=2).tolist()


def test_a_trace_that_is_too_short_or_silent_is_refused() -> None:
    with pytest.raises(ValueError, match="100 seconds of trace from there on; 1200 are needed"):
        live.counts(np.ones(100), 600, 2, 80, 1)
    with pytest.raises(ValueError, match="no image in this part"):
        live.counts(np.zeros(1200), 600, 2, 80, 1)


def test_the_first_size_is_that_of_the_simulation() -> None:
    steady = plan(np.full(LEAD_S + 60, 70, np.int64))
    # 70 a second of pods that are filled to 0.7.
    assert steady.first_size == 5
    assert live.predicted(steady, 30, 8)[1].wanted[0] == 5


def test_a_pod_keeps_of_the_slo_what_the_batcher_keeps() -> None:
    assert live.KEPT == budget.MARGIN


def test_what_comes_in_the_lead_is_not_judged() -> None:
    counts = np.full(LEAD_S + 100, 10, np.int64)
    wanted, late = np.full(len(counts), 2.0), np.zeros(len(counts))
    late[:LEAD_S], late[-1] = 10, 5
    found = Measured(wanted, wanted, late, 5, 0, 0.0, None, 30.0, 30.0)
    assert live.measured_total(plan(counts), found) == live.Total(200.0, 0.005, 2)


def test_the_prediction_holds_what_the_fleet_is() -> None:
    counts = np.full(LEAD_S + 600, 30, np.int64)
    counts[LEAD_S + 300 :] = 90
    slow, quick = (live.predicted(plan(counts), start_s, 8)[0] for start_s in (60, 5))
    assert slow.late_share > quick.late_share > 0
    # The rise is paid for from the asking on, however long a start takes.
    assert slow.pod_seconds == pytest.approx(quick.pod_seconds, rel=0.05)
