"""The console shows what it is given, in full."""

from __future__ import annotations

import pytest
from rich.table import Table

from autoscaling.console import console


def test_a_name_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name")
    table.add_row("[red]x[/nope] :smile:")
    console().print(table)
    console().print("[bold]y[/] " + "z" * 140)
    shown = capsys.readouterr().out
    assert "[red]x[/nope] :smile:" in shown and "[bold]y[/] " + "z" * 140 in shown
