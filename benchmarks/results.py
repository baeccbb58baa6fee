"""How every benchmark ends: tables, its goals marked met or missed, and one line of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.machine import machine
from harness.photographs import Photographs

Cell = str | int | float | None
# Where anything else takes this share of a core, the figures are not this benchmark's own.
DISTURBED_CORES = 0.1


@dataclass(frozen=True)
class Sheet:
    """A table: cells of text are left-aligned, numbers rounded to what a reader can use."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Goal:
    """A promise and its measurement. ``value`` must reach ``limit`` where ``at_least``, else must not exceed it."""

    name: str
    value: float | None
    limit: float
    at_least: bool
    unit: str = ""

    @property
    def known(self) -> bool:
        """Whether it was measured."""
        return self.value is not None and math.isfinite(self.value)

    @property
    def met(self) -> bool:
        """Whether it was measured and holds."""
        if self.value is None or not self.known:
            return False
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def verdict(self) -> str:
        """ "met" or "missed", and by how much of the limit."""
        if self.value is None or not self.known:
            return "not measured"
        word = "met" if self.met else "missed"
        if not self.limit:
            return word if self.met else f"missed by {_text(self.value)}{self.unit}"
        return f"{word} by {abs(self.value / self.limit - 1):.0%}"

    def body(self) -> dict[str, Any]:
        """For JSON."""
        value = round(self.value, 4) if self.value is not None and self.known else None
        return {**asdict(self), "value": value, "met": self.met, "verdict": self.verdict()}


def at_least(name: str, value: float | None, limit: float, unit: str = "") -> Goal:
    """A goal that ``value`` must reach."""
    return Goal(name, value, limit, True, unit)


def at_most(name: str, value: float | None, limit: float, unit: str = "") -> Goal:
    """A goal that ``value`` must stay below."""
    return Goal(name, value, limit, False, unit)


def finish(
    name: str,
    data: dict[str, Any],
    sheets: Sequence[Sheet],
    goals: Sequence[Goal],
    others: float,
    photographs: Photographs | None = None,
) -> None:
    """Print a benchmark's tables, then the line of JSON that `python -m benchmarks` collects.

    ``others``: the cores that anything else on the machine took, at the worst measurement. ``photographs``: those that
    were sent, if any.
    """
    console = Console(width=120)
    for sheet in sheets:
        console.print(table(sheet))
    if goals:
        console.print(table(goal_sheet([{"benchmark": name, **goal.body()} for goal in goals])))
    if photographs:
        console.print(f"Photographs: {photographs}", markup=False, highlight=False)
    if others > DISTURBED_CORES:
        console.print(
            f"Caution: something else used up to {others:.1f} cores meanwhile; run this on a machine at rest."
        )
    print(
        json.dumps(
            {
                "benchmark": name,
                **machine(),
                **({"photographs": str(photographs)} if photographs else {}),
                **data,
                "others_cores_max": round(others, 2),
                "sheets": [asdict(sheet) for sheet in sheets],
                "goals": [goal.body() for goal in goals],
            }
        )
    )


def goal_sheet(goals: Sequence[dict[str, Any]]) -> Sheet:
    """The table of ``goals``, each a Goal's body and the ``benchmark`` it is of."""
    rows = [
        (
            goal["benchmark"],
            goal["name"],
            f"{'≥' if goal['at_least'] else '≤'} {_text(goal['limit'])}{goal['unit']}",
            "-" if goal["value"] is None else f"{_text(goal['value'])}{goal['unit']}",
            goal["verdict"],
        )
        for goal in goals
    ]
    return Sheet("Goals", ("benchmark", "goal", "limit", "measured", "verdict"), rows)


def markdown(sheet: Sheet) -> str:
    """``sheet`` as a markdown table under a heading."""
    right = _numeric(sheet)
    lines = [f"### {sheet.title}", "", "| " + " | ".join(sheet.columns) + " |"]
    lines.append("|" + "|".join(" ---: " if is_right else " --- " for is_right in right) + "|")
    lines += ["| " + " | ".join(_text(cell).replace("|", "\\|") for cell in row) + " |" for row in sheet.rows]
    return "\n".join(lines) + "\n"


def table(sheet: Sheet) -> Table:
    """``sheet`` for a terminal."""
    made = Table(title=sheet.title, title_justify="left")
    for column, is_right in zip(sheet.columns, _numeric(sheet), strict=True):
        made.add_column(column, justify="right" if is_right else "left")
    for row in sheet.rows:
        made.add_row(*(_text(cell) for cell in row))
    return made


def _numeric(sheet: Sheet) -> list[bool]:
    return [not any(isinstance(row[at], str) for row in sheet.rows) for at in range(len(sheet.columns))]


def _text(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 1000 else f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.3g}"
    return str(cell)
