"""The images that wait, the batches that run, and the counts of both. They know nothing of how batches are chosen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False, slots=True)
class Job:
    """One image that waits. Times are seconds of the monotonic clock; ``payload`` belongs to the caller."""

    arrival: float
    deadline: float
    payload: Any = None
    cancelled: bool = False


@dataclass(eq=False, slots=True)
class Batch:
    """Jobs that run together on ``executors`` from ``start`` on; ``predicted_end`` is the cost model's upper bound.

    It starts with one executor. ``Batcher.widen`` adds those that idle, for a lone image.
    """

    jobs: list[Job]
    executors: list[int]
    start: float
    predicted_end: float


@dataclass
class Counts:
    """Images so far, by what became of them; ``batches`` and ``widths`` count batches by size and by width."""

    admitted: int = 0
    refused: dict[str, int] = field(default_factory=lambda: {"queue_full": 0, "deadline": 0})
    expired: int = 0
    cancelled: int = 0
    batches: Counter[int] = field(default_factory=Counter)
    widths: Counter[int] = field(default_factory=Counter)
