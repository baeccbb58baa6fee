"""Progress of a run: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from harness.figures import quantile
from loadtests.answers import FAILURES, Outcome
from loadtests.samples import ok

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from loadtests.session import Progress

_LINE_EVERY_S = 10.0
_WINDOW_S = 1.0
# What is shown is a second that has been reported whole: workers report twice a second, and are asked as often.
_LAG_S = 1.0


class Meter:
    """Shows a run's progress on ``console``; a context manager."""

    def __init__(self, console: Console, label: str) -> None:
        self._console, self._label = console, label
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal, auto_refresh=False)
        self._task = self._bar.add_task(label, total=1.0)
        self._recent: NDArray[Any] | None = None
        self._next_line = _LINE_EVERY_S

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def asked(self, number: int, of: int) -> None:
        """Show how many of the idle server's reference answers are there."""
        self._bar.update(self._task, description=f"{self._label} {number} of {of}", completed=number / of, refresh=True)

    def show(self, now: Progress) -> None:
        """Show the outcomes of the requests of a second ago."""
        parts = [now.recent] if self._recent is None else [self._recent, now.recent]
        recent = np.concatenate(parts)
        self._recent = recent = recent[recent["at"] >= now.at - _LAG_S - _WINDOW_S]
        text = f"{self._label} {_text(recent[recent['at'] < now.at - _LAG_S])}"
        self._bar.update(self._task, description=text, completed=min(1.0, now.at / now.of), refresh=True)
        if not self._console.is_terminal and now.at >= self._next_line:
            self._next_line = now.at + _LINE_EVERY_S
            self._console.print(f"  {now.at:.0f} of {now.of:.0f} s: {text}", markup=False, highlight=False)


def _text(recent: NDArray[Any]) -> str:
    good, outcomes = ok(recent), recent["outcome"]
    p99_ms = 1e3 * quantile(recent["latency"][good], 0.99)
    text = f"{np.count_nonzero(good) / _WINDOW_S:.0f}/s right, p99 {p99_ms:.0f} ms"
    for what, count in (
        ("refused", np.count_nonzero(outcomes == Outcome.REFUSED)),
        ("failed", np.count_nonzero(np.isin(outcomes, FAILURES))),
        ("dropped", np.count_nonzero(outcomes == Outcome.DROPPED)),
    ):
        if count:
            text += f", {count / _WINDOW_S:.0f}/s {what}"
    return text
