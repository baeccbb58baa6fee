"""The console: it shows names and values as they are, for none of them is markup."""

from __future__ import annotations

import sys

from rich.console import Console

# If the output is no terminal: a file or a pipe has no width.
WIDTH = 160


def console() -> Console:
    """The standard output."""
    return Console(width=None if sys.stdout.isatty() else WIDTH, markup=False, emoji=False, highlight=False)
