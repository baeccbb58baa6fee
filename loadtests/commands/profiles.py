"""``profiles``: their names, lengths and purposes."""

from __future__ import annotations

import click
from rich.table import Table

from loadtests import profiles
from loadtests.commands.console import console


@click.command("profiles")
def list_profiles() -> None:
    """List the profiles."""
    table = Table("profile", "seconds", "what it does", box=None)
    for profile in profiles.read().values():
        table.add_row(profile.name, f"{profile.warm_up_s + profile.seconds:.0f}", profile.about)
    console.print(table)
