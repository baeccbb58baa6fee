"""``python -m loadtests``: how much traffic a server holds within its SLO, and whether it stays honest beyond it.

Exit codes: 0 all thresholds hold, 1 one broke, 2 there is nothing to judge: wrong options, or a server that does not
answer.
"""

from __future__ import annotations

import click

from loadtests.commands.compare import compare
from loadtests.commands.find_limit import find_limit
from loadtests.commands.profiles import list_profiles
from loadtests.commands.run import run

_CONTEXT = {"max_content_width": 110, "show_default": True, "help_option_names": ["-h", "--help"]}


@click.group(context_settings=_CONTEXT, commands=[run, find_limit, list_profiles, compare])
def main() -> None:
    """Load a classification server open loop, and judge it.

    Requests leave at planned times whether or not replies come, latency counts from the planned time, and every reply
    is checked for status, schema and the label that the idle server gave. The exit code is the verdict.
    """


if __name__ == "__main__":
    main()
