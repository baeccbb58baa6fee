"""Line charts draw every line, leave gaps and keep peaks."""

from __future__ import annotations

import re

import pytest

from loadtests.linechart import Axis, Line, chart


def test_a_chart_draws_every_line_and_leaves_gaps() -> None:
    svg = chart([Line("a", [(0, 1.0), (1, 2.0), (2, None), (3, 4.0), (4, 5.0)], 1)], Axis("x"), Axis("y", log=True))
    assert svg.count("<polyline") == 2
    assert chart([Line("a", [], 1)], Axis("x"), Axis("y")) == ""
    assert chart([Line("a", [(0.0, 0.0)], 1)], Axis("x"), Axis("y", log=True)) == ""


@pytest.mark.parametrize("log", [False, True])
def test_a_flat_line_has_an_axis_too(log: bool) -> None:
    svg = chart([Line("a", [(0, 7.0), (1, 7.0)], 1)], Axis("x"), Axis("y", log=log))
    points = re.search(r'points="([^"]+)"', svg)
    assert points and all(0 < float(pair.split(",")[1]) < 260 for pair in points[1].split())


def test_a_long_run_keeps_its_peaks() -> None:
    points: list[tuple[float, float | None]] = [(float(at), 1.0) for at in range(10_000)]
    points[7777] = (7777.0, 50.0)
    drawn = re.search(r'points="([^"]+)"', chart([Line("a", points, 1)], Axis("x"), Axis("y")))
    assert drawn and len(drawn[1].split()) <= 1200
    heights = [float(pair.split(",")[1]) for pair in drawn[1].split()]
    assert min(heights) < 30 < max(heights)
