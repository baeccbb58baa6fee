"""What a run shows while it lasts is what happens."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from loadtests.answers import Outcome
from loadtests.progress import Meter
from loadtests.samples import DTYPE
from loadtests.session import Progress


def test_samples_that_come_late_are_counted() -> None:
    console = Console(file=io.StringIO(), width=120)
    # 40 answers and 10 refusals a second, told of twice a second and up to 0.9 s after they were sent.
    at = np.arange(0, 12, 0.02)
    rows = np.zeros(len(at), DTYPE)
    rows["at"], rows["latency"] = at, 0.012
    rows["outcome"] = np.where(np.arange(len(at)) % 5, Outcome.OK, Outcome.REFUSED)
    with Meter(console, "steady") as meter:
        told = 0.0
        for now in np.arange(0.5, 12, 0.5):
            meter.show(Progress(now, 12.0, rows[(at >= told) & (at < now - 0.9)]))
            told = max(0.0, now - 0.9)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "  10 of 12 s: steady 40/s right, p99 12 ms, 10/s refused\n"
