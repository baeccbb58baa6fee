"""``compare``: two reports side by side."""

from __future__ import annotations

from pathlib import Path

import click

from loadtests.commands.console import console
from loadtests.commands.options import OUT


@click.command()
@click.argument("first", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("second", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=OUT / "compare.html")
def compare(first: Path, second: Path, out: Path) -> None:
    """Lay two report.json side by side in one HTML file."""
    from loadtests import markup, report

    names = (first.parent.name, second.parent.name)
    if not all(names) or names[0] == names[1]:
        names = (str(first), str(second))
    try:
        page = markup.comparison(report.read(first), report.read(second), names)
    except report.ReportError as error:
        raise click.UsageError(str(error)) from None
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    console.print(f"Compared: {out}", markup=False)
