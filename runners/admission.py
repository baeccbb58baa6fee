"""Admission control: why an image is refused, what its client is told, and how long an overload lasts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from classifier.errors import ClassifierError

# Seconds without a refusal that end an overload.
PAUSE = 1.0
_WHY = {
    "queue_full": "the queue is full",
    "deadline": "it would be answered after its deadline",
    "expired": "its deadline passed while it waited",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why jobs are not admitted: ``reason`` is "queue_full" or "deadline"; ``retry_after`` is in seconds."""

    reason: str
    retry_after: float


class Overload:
    """How long feasible images have been refused without a gap of PAUSE seconds.

    An image is feasible if a service without load would have answered it in time.
    """

    def __init__(self) -> None:
        self._first = self._last = -math.inf

    def refused(self, now: float) -> None:
        """Note that a feasible image was refused at ``now``."""
        if now - self._last > PAUSE:
            self._first = now
        self._last = now

    def seconds(self, now: float) -> float:
        """Seconds from the first refusal to the last; 0 once the overload is over."""
        return self._last - self._first if now - self._last <= PAUSE else 0.0


def overloaded(reason: str, retry_after: float) -> ClassifierError:
    """The error 429 for ``reason``: "queue_full", "deadline" or "expired". ``retry_after`` is in seconds."""
    # Whole seconds, never too early: 7.0 is 8, since the estimate may err.
    retry_after_s = math.floor(retry_after) + 1
    return ClassifierError("overloaded", f"refused: {_WHY[reason]}", retry_after=retry_after_s, reason=reason)
