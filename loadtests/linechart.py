"""Line charts as SVG that lives inside an HTML page and follows its theme.

matplotlib draws the benchmarks' charts, but would be 60 MB more wherever a load test or a test runs, and what it draws
has its colours fixed; a plotting library in JavaScript is 1 to 4 MB in every report. A polyline on two axes is all that
the report needs: its colours are the page's CSS variables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 42
_MAX_POINTS = 1200


@dataclass(frozen=True)
class Line:
    """A named series of (x, y); a y of None leaves a gap. ``colour``: 1 to 6 of the page's palette."""

    name: str
    points: Sequence[tuple[float, float | None]]
    colour: int
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis' label, and whether it is logarithmic. A logarithmic axis leaves out values of 0 and below."""

    label: str
    log: bool = False


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    log: bool
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.begin + (self.end - self.begin) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if len(powers) < 4 else (1,)
            return [v for p in powers for s in steps if self.low <= (v := s * 10.0**p) <= self.high * 1.0001]
        step = _nice((self.high - self.low) / 5)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step * 1.0001) + 1)]


def chart(lines: Sequence[Line], x: Axis, y: Axis, bands: Sequence[tuple[float, float, str]] = ()) -> str:
    """The SVG of ``lines``; ``bands`` shade stretches of x and name them. Empty where there is nothing to draw."""
    xs = [px for line in lines for px, py in line.points if py is not None and (not x.log or px > 0)]
    ys = [py for line in lines for px, py in line.points if py is not None and (not y.log or py > 0)]
    if not xs or not ys:
        return ""
    across = _Scale(*_range(xs, x.log, from_zero=False), x.log, _LEFT, WIDTH - _RIGHT)
    up = _Scale(*_range(ys, y.log, from_zero=True), y.log, HEIGHT - _BOTTOM, _TOP)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y.label)}">']
    for number, (begin, end, name) in enumerate(bands):
        left, right = across(max(begin, across.low)), across(min(end, across.high))
        shade = ' class="band"' if number % 2 else ' fill="none"'
        parts.append(f'<rect x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" height="{up.begin - _TOP}"{shade}/>')
        parts.append(f'<text class="note" x="{left + 4:.1f}" y="{_TOP + 11}">{escape(name)}</text>')
    for tick in up.ticks():
        at = up(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in across.ticks():
        at = across(tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{up.begin}"/>')
        parts.append(f'<text x="{at:.1f}" y="{up.begin + 16}" text-anchor="middle">{_number(tick)}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text transform="translate(12 {(_TOP + up.begin) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.label)}</text>"
    )
    parts += [_polylines(line, across, up) for line in lines]
    legend = "".join(
        f'<span><i class="c{line.colour}{" dashed" if line.dashed else ""}"></i>{escape(line.name)}</span>'
        for line in lines
    )
    return "".join([*parts, "</svg>", f'<p class="legend">{legend}</p>'])


def _polylines(line: Line, across: _Scale, up: _Scale) -> str:
    runs: list[list[str]] = [[]]
    for px, py in _thinned(line.points):
        if py is None or (up.log and py <= 0) or (across.log and px <= 0):
            runs.append([])
        else:
            runs[-1].append(f"{across(px):.1f},{up(py):.1f}")
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    drawn = []
    for run in runs:
        if len(run) == 1:
            at_x, at_y = run[0].split(",")
            drawn.append(f'<circle class="c{line.colour}" cx="{at_x}" cy="{at_y}" r="1.5"/>')
        elif run:
            drawn.append(f'<polyline class="c{line.colour}" points="{" ".join(run)}"{dash}/>')
    return "".join(drawn)


def _thinned(points: Sequence[tuple[float, float | None]]) -> Sequence[tuple[float, float | None]]:
    """At most _MAX_POINTS. Each stretch keeps its highest, so that a long run keeps its peaks."""
    if len(points) <= _MAX_POINTS:
        return points
    width = math.ceil(len(points) / _MAX_POINTS)
    stretches = (points[at : at + width] for at in range(0, len(points), width))
    return [max(stretch, key=lambda point: -math.inf if point[1] is None else point[1]) for stretch in stretches]


def _range(values: Sequence[float], log: bool, *, from_zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        return (low, high) if high > low * 1.01 else (low / 2, high * 2)
    if from_zero:
        return 0.0, high * 1.05 or 1.0
    return (low, high) if high > low else (low - 1, high + 1)


def _nice(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next((factor * power for factor in (1, 2, 5) if step <= factor * power), 10 * power)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
