"""Charts of a plan as SVG files that read on a light page and on a dark one: no background, middle tones.

matplotlib would be 60 MB more for a few polylines (loadtests/linechart.py draws for a page with colours of its own).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WIDTH, PANEL = 860, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 30, 40
_CAPTION = 24
GREEN, ORANGE, BLUE, RED, GREY = "#1a9e77", "#d98324", "#5b8dd6", "#d1495b", "#808890"
_TEXT = 'font-family="system-ui, sans-serif" font-size="12" fill="#808890"'


@dataclass(frozen=True)
class Line:
    """Values over the panel's x, drawn in steps where ``stepped``."""

    name: str
    colour: str
    values: NDArray[np.float64]
    stepped: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines over one axis ``label``."""

    label: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Point:
    """A policy: its late share, its cost, and the name beside it; nameless ones are small."""

    late: float
    cost: float
    name: str = ""
    colour: str = GREY


def over_time(panels: Sequence[Panel], hours: NDArray[np.float64], caption: str) -> str:
    """``panels`` one below the other, over ``hours`` of a day, with a ``caption`` below."""
    parts = _head(PANEL * len(panels), caption)
    for number, panel in enumerate(panels):
        top, bottom = number * PANEL + _TOP, (number + 1) * PANEL - _BOTTOM
        most = max((float(line.values.max()) for line in panel.lines), default=0.0) * 1.05 or 1.0
        parts += _vertical(panel.label, most, top, bottom)
        span = float(hours[-1] - hours[0]) or 1.0
        for hour in range(math.ceil(hours[0]), math.floor(hours[-1]) + 1, max(1, round(span / 12))):
            x = _LEFT + (hour - hours[0]) / span * (WIDTH - _LEFT - _RIGHT)
            parts.append(f'<text {_TEXT} x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{hour % 24:02d}:00</text>')
        left = _LEFT
        for line in panel.lines:
            xs = _LEFT + (hours - hours[0]) / span * (WIDTH - _LEFT - _RIGHT)
            ys = bottom - line.values / most * (bottom - top)
            parts.append(_polyline(xs, ys, line))
            parts.append(f'<rect x="{left}" y="{top - 20}" width="14" height="4" fill="{line.colour}"/>')
            parts.append(f'<text {_TEXT} x="{left + 19}" y="{top - 14}">{escape(line.name)}</text>')
            left += 34 + 7 * len(line.name)
    return "\n".join([*parts, "</svg>\n"])


def trade(points: Sequence[Point], promise: float, caption: str) -> str:
    """Cost, as a share of the fixed fleet's, over the late share, with the ``promise`` as a line."""
    height = 420
    top, bottom = _TOP, height - _BOTTOM
    floor = promise / 100
    most = min(max([1.05, *(point.cost * 1.05 for point in points if point.name)]), 2.0)
    ceiling = max([promise * 10, *(point.late * 1.5 for point in points if point.name)])
    low, high = math.log10(floor), math.log10(ceiling)

    def across(late: float) -> float:
        return _LEFT + (math.log10(min(max(late, floor), ceiling)) - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    parts = [*_head(height, caption), *_vertical("cost, smallest fixed fleet = 1", most, top, bottom)]
    for power in range(math.ceil(low), math.floor(high) + 1):
        x = across(10.0**power)
        parts.append(f'<text {_TEXT} x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{100 * 10.0**power:g} %</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text {_TEXT} x="{middle}" y="{height - 6}" text-anchor="middle">images late or refused</text>')
    x = across(promise)
    parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="{RED}" stroke-dasharray="5 4"/>')
    parts.append(f'<text {_TEXT} x="{x + 5:.1f}" y="{top - 8}">the promise</text>')
    taken: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda one: (bool(one.name), one.cost)):
        if point.cost > most:
            continue
        x, y = across(point.late), bottom - point.cost / most * (bottom - top)
        size = 5 if point.name else 1.5
        faint = "" if point.name else ' opacity="0.5"'
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{point.colour}"{faint}/>')
        if point.name:
            at = y + 4
            while any(abs(at - other) < 13 and abs(x - beside) < 220 for beside, other in taken):
                at -= 1
            taken.append((x, at))
            anchor, shift = ("end", -9) if x > WIDTH * 0.72 else ("start", 9)
            name = escape(point.name)
            parts.append(f'<text {_TEXT} x="{x + shift:.1f}" y="{at:.1f}" text-anchor="{anchor}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def thinned(values: NDArray[np.float64], width: int, how: str = "mean") -> NDArray[np.float64]:
    """``values`` in stretches of ``width``: the mean of each, or the highest, so that no peak vanishes."""
    whole = values[: len(values) // width * width].reshape(-1, width)
    found: NDArray[np.float64] = whole.mean(1) if how == "mean" else whole.max(1)
    return found


def _head(height: int, caption: str) -> list[str]:
    """The chart's beginning, and the ``caption`` under its ``height``."""
    size = f'viewBox="0 0 {WIDTH} {height + _CAPTION}" width="{WIDTH}" height="{height + _CAPTION}"'
    text = escape(caption)
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{text}</title>',
        f'<text {_TEXT} x="{_LEFT}" y="{height + 12}">{text}</text>',
    ]


def _vertical(label: str, most: float, top: int, bottom: int) -> list[str]:
    """Grid lines with their numbers, and the axis' label."""
    power = 10.0 ** math.floor(math.log10(most / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if most / 4 <= factor * power)
    parts = []
    for number in range(int(most / step) + 1):
        y = bottom - number * step / most * (bottom - top)
        stroke = f'stroke="{GREY}" stroke-opacity="{0.9 if number == 0 else 0.25}"'
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" {stroke}/>')
        value = number * step
        shown = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        parts.append(f'<text {_TEXT} x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>')
    turn = f"translate(14 {(top + bottom) / 2}) rotate(-90)"
    parts.append(f'<text {_TEXT} transform="{turn}" text-anchor="middle">{escape(label)}</text>')
    return parts


def _polyline(xs: NDArray[np.float64], ys: NDArray[np.float64], line: Line) -> str:
    if line.stepped:
        xs, ys = np.repeat(xs, 2)[1:], np.repeat(ys, 2)[:-1]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="1.4"/>'
