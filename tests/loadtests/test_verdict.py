"""Thresholds: what they bound, what they say when broken, and how a bad file is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from loadtests import profiles, samples, verdict
from loadtests.answers import Outcome
from loadtests.samples import DTYPE
from loadtests.verdict import Finding, Threshold, ThresholdError


def finding(value: float | None, low: float | None = None, high: float | None = None) -> Finding:
    return Finding(Threshold("p99_ms", low, high), value)


def test_bounds_are_inclusive() -> None:
    assert finding(100.0, high=100.0).holds and not finding(100.1, high=100.0).holds
    assert finding(5.0, low=5.0).holds and not finding(4.9, low=5.0).holds
    assert finding(0.0, high=0.0).holds and not finding(1e-9, high=0.0).holds


def test_the_line_says_what_broke_and_by_how_much() -> None:
    line = verdict.line([finding(150.0, high=100.0), finding(3.0, high=4.0)])
    assert line == "FAILED: p99_ms is 150; it must be at most 100 (50.0% over)"
    assert "at least 5 (20.0% under)" in finding(4.0, low=5.0).line()
    assert verdict.line([finding(1.0, high=2.0), finding(1.0, low=1.0)]) == "PASSED: all 2 thresholds hold"


def test_what_was_not_measured_is_not_judged_and_said() -> None:
    line = verdict.line([finding(None, high=2.0), finding(1.0, high=2.0)])
    assert line == "PASSED: all 1 thresholds hold (not judged: p99_ms)"


def test_a_latency_that_nothing_gave_breaks_its_bound() -> None:
    assert not finding(math.nan, high=100.0).holds and not finding(math.nan, low=0.0).holds


def test_figures_are_shares_of_what_was_planned() -> None:
    rows = np.zeros(200, DTYPE)
    rows["outcome"][:20], rows["outcome"][20:30], rows["outcome"][30:40] = 1, 2, 5
    summary = samples.summarise("x", rows, 2.0, 100.0)
    found = verdict.figures(
        summary, recovery_s=1.5, capacity=100.0, memory={"start_mb": 200.0, "growth_mb": 10.0}, ready_s=None
    )
    assert (found["refused_share"], found["failed_share"]) == (0.1, 0.05)
    assert found["goodput_share"] == pytest.approx(160 / 190)  # broken images are no goodput that was missed
    assert (found["goodput_to_limit"], found["memory_growth_share"], found["ready_s"]) == (0.8, 0.05, None)
    assert set(found) == set(verdict.FIGURES)


def test_every_profile_has_thresholds_and_every_table_a_profile() -> None:
    import tomllib

    tables = set(tomllib.loads(verdict.FILE.read_text(encoding="utf-8")))
    assert tables - {"all"} <= set(profiles.read())
    for name in profiles.read():
        figures = {threshold.figure for threshold in verdict.read(name)}
        assert {"failed_share", "dropped_share"} <= figures
    assert "memory_growth_share" in {threshold.figure for threshold in verdict.read("soak")}


def toml(folder: Path, text: str) -> Path:
    path = folder / "file.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_profiles_own_threshold_wins_and_an_empty_one_takes_it_back(tmp_path: Path) -> None:
    path = toml(tmp_path, "[all]\np50_ms = {max = 1}\np99_ms = {max = 2}\n[soak]\np50_ms = {max = 3}\np99_ms = {}\n")
    assert verdict.read("soak", path) == [Threshold("p50_ms", max=3)]
    assert verdict.read("steady", path) == [Threshold("p50_ms", max=1), Threshold("p99_ms", max=2)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[all]\np98_ms = {max = 1}", "no figure 'p98_ms'"),
        ("[all]\np99_ms = {most = 1}", "{'most': 1}"),
        ("[all]\np99_ms = 5", "p99_ms = 5"),
        ("[all]\np99_ms = {max = 'fast'}", "'fast'"),
        ("[all]\np99_ms = {max = nan}", "nan"),
        ("[all", "file.toml"),
    ],
)
def test_a_bad_threshold_is_quoted(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ThresholdError) as raised:
        verdict.read("all", toml(tmp_path, text))
    assert said in str(raised.value)


def test_what_fails_or_is_dropped_counts_outside_the_judged_phase_too() -> None:
    rows = np.zeros(100, DTYPE)
    good = samples.summarise("after", rows, 1.0, 100.0)
    rows["outcome"][:10], rows["outcome"][10:15] = Outcome.WRONG_LABEL, Outcome.DROPPED
    found = verdict.figures(good, total=samples.summarise("all", rows, 1.0, 100.0), recovery_s=0.0)
    assert (found["failed_share"], found["dropped_share"]) == (0.1, 0.05)


@pytest.mark.parametrize(
    ("text", "said"), [("[overlaod]\np99_ms = { max = 1 }", "'overlaod'"), ("x = 5", "'x'"), ("", "no threshold")]
)
def test_thresholds_that_would_judge_nothing_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(ThresholdError, match=said):
        verdict.read("steady", tmp_path / "t.toml")
