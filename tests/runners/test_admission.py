"""Admission: how long an overload lasts, and the error of a refusal."""

from __future__ import annotations

import pytest

from runners.admission import PAUSE, Overload, overloaded


def test_an_overload_lasts_from_refusal_to_refusal_and_ends_with_a_pause() -> None:
    overload = Overload()
    assert overload.seconds(5.0) == 0
    for now in (10.0, 10.0 + 0.9 * PAUSE, 10.0 + 1.8 * PAUSE):
        overload.refused(now)
    assert overload.seconds(10.0 + 2.5 * PAUSE) == pytest.approx(1.8 * PAUSE)
    assert overload.seconds(10.0 + 2.9 * PAUSE) == 0, "over, a pause after the last"
    overload.refused(10.0 + 2.9 * PAUSE)
    assert overload.seconds(10.0 + 2.9 * PAUSE) == 0, "a new one has just begun"


@pytest.mark.parametrize(
    ("reason", "message"),
    [("queue_full", "the queue is full"), ("deadline", "after its deadline"), ("expired", "passed while it waited")],
)
def test_a_refusal_is_429_with_its_reason(reason: str, message: str) -> None:
    error = overloaded(reason, 0.0)
    assert (error.status, error.code, error.facts) == (429, "overloaded", {"reason": reason})
    assert error.message.startswith("refused: ")
    assert message in error.message


@pytest.mark.parametrize(("seconds", "told"), [(0.0, 1), (0.3, 1), (0.6, 1), (1.0, 2), (1.2, 2), (2.0, 3), (7.0, 8)])
def test_retry_after_is_whole_seconds_and_never_too_early(seconds: float, told: int) -> None:
    assert overloaded("deadline", seconds).retry_after == told
