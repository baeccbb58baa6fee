"""Printing: results on stdout, progress on stderr, and the verdict in the last line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from loadtests.samples import Summary

console = Console()
progress = Console(stderr=True)


def finish(body: dict[str, Any], out: Path, summaries: list[Summary]) -> NoReturn:
    """Write the report, print what it comes to, and end with the verdict."""
    from loadtests import report
    from loadtests.markup import COLUMNS, text

    as_json, as_html = report.write(body, out)
    table = Table(*("", *COLUMNS.values()), box=None)
    for summary in summaries:
        row = summary.body()
        table.add_row(summary.name, *(text(row[key]) for key in COLUMNS))
    Console(width=max(console.width, 150)).print(table)
    for example in body.get("failures", ()):
        console.print(f"  {example}", markup=False, highlight=False, soft_wrap=True)
    if warning := body["generator"]["warning"]:
        console.print(f"Warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report: {as_html} and {as_json}", markup=False, highlight=False, soft_wrap=True)
    console.print(body["verdict"], markup=False, highlight=False, soft_wrap=True)
    sys.exit(0 if body["passed"] else 1)


def give_up(error: Exception) -> NoReturn:
    """Say why there is nothing to judge, and end with 2."""
    progress.print(f"loadtests: {error}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)
