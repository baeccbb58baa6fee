"""The comparison's figures and page.  Whole comparisons: test_compare.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from model_build import comparison, costs
from model_build.comparison import Row
from model_build.costs import Cost

if TYPE_CHECKING:
    import pytest

ROWS = [
    Row("resnet18", "fp32", 11_000_000, Path("a"), 44_000_000, 0.9, None, Cost(20, 90, 200)),
    Row("mobilenet_v2", "int8", 3_000_000, Path("b"), 3_500_000, 0.8, "it <misses>", Cost(5, 300, 120)),
]


def test_the_page_has_every_figure() -> None:
    page = comparison.document("Networks for <pets>", ROWS, ["Measured & told."])
    cells = re.findall(r"<td[^>]*>([^<]+)</td>", page)
    assert cells[:7] == ["11.00 M", "44.0 MB", "90.00%", "20.00 ms", "90/s", "200 MB", "passed"]
    assert cells[7:13] == ["3.00 M", "3.5 MB", "80.00%", "5.00 ms", "300/s", "120 MB"]
    assert "mobilenet_v2 int8 misses its gate: it &lt;misses&gt;." in page
    assert "<title>Networks for &lt;pets&gt;</title>" in page
    assert "<p>Measured &amp; told.</p>" in page


def test_it_is_drawn() -> None:
    """Slower is further right, better is higher, larger is a larger circle; one that misses its gate is hollow."""
    page = comparison.document("t", ROWS, [])
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)" fill="([^"]+)"', page)
    (slow_x, good_y, large, filled), (quick_x, worse_y, small, hollow) = circles
    assert float(slow_x) > float(quick_x)
    assert float(good_y) < float(worse_y)
    assert float(large) > float(small)
    assert (filled[0], hollow) == ("#", "none")


def test_equal_accuracies_can_be_drawn() -> None:
    page = comparison.document("t", [ROWS[0], ROWS[0]], [])
    assert "nan" not in page
    perfect = Row("resnet18", "fp32", 1, Path("a"), 1, 1.0, None, Cost(1, 1, 1))
    assert "nan" not in comparison.document("t", [perfect], [])


def test_the_table_is_told() -> None:
    console = Console(width=160, record=True, quiet=False, file=None)
    with console.capture() as said:
        console.print(comparison.table(ROWS, "Compared"))
    assert re.search(r"mobilenet_v2 int8 .* 3\.00 M .* 80\.00% .* missed", said.get())


def test_artifacts_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def measure(folder: Path, seconds: float) -> Cost:
        asked.append(folder)
        return Cost(float(len(asked)), 1, 1)

    monkeypatch.setattr(costs, "measure", measure)
    measured = comparison.measured(ROWS, 3, 0.1)
    assert asked == [Path("a"), Path("b")] * 3
    assert [row.cost.latency_ms for row in measured if row.cost] == [3, 4]
