"""Every benchmark ends with its tables, its goals and one line of JSON, which say what was sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks import results
from benchmarks.__main__ import write_tables
from benchmarks.results import Sheet, at_least, at_most
from harness.photographs import Photographs

if TYPE_CHECKING:
    from pathlib import Path


def test_the_photographs_are_told_on_the_screen_and_in_the_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sent = Photographs({"a.jpg": b"a", "b.jpg": b"b"}, "scikit-image 1.0")
    results.finish("sizes", {"ms": 1.0}, [Sheet("title", ("a",), [[1.0]])], [], 0.0, sent)
    *printed, line = capsys.readouterr().out.splitlines()
    assert "Photographs: 2 of scikit-image 1.0" in printed
    data = json.loads(line)
    assert data["photographs"] == "2 of scikit-image 1.0" and data["ms"] == 1.0
    whole = {**data, "versions": {"bentoml": "1"}, "revision": "r", "command": "c", "took_s": 1}
    write_tables(tmp_path, {"sizes": whole})
    assert "`c`, 1 s. Photographs: 2 of scikit-image 1.0." in (tmp_path / "tables.md").read_text(encoding="utf-8")


def test_a_benchmark_that_sends_none_tells_of_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    results.finish("graph", {}, [], [], 0.0)
    printed = capsys.readouterr().out
    assert "hotographs" not in printed
    whole = {**json.loads(printed.splitlines()[-1]), "versions": {}, "revision": "r", "command": "c", "took_s": 1}
    write_tables(tmp_path, {"graph": whole})
    assert "hotographs" not in (tmp_path / "tables.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        (at_least("a", 1.1, 1.0), "met by 10%"),
        (at_least("a", 0.9, 1.0), "missed by 10%"),
        (at_most("a", 0.0, 0), "met"),
        (at_most("a", 3, 0, " ms"), "missed by 3 ms"),
        (at_most("a", None, 1.0), "not measured"),
        (at_most("a", float("nan"), 1.0), "not measured"),
    ],
)
def test_a_goal_is_met_or_missed_by_so_much(goal: results.Goal, verdict: str) -> None:
    assert goal.verdict() == verdict
    assert goal.met is verdict.startswith("met")
