"""``python -m autoscaling``: the cost of a fleet on real traffic, and the autoscaler that achieves it."""

from __future__ import annotations

import importlib
import shutil

import click

# For each command its module and its help in a line, so that --help imports nothing.
COMMANDS = {
    "plan": ("autoscaling.commands:plan", "Find the cheapest autoscaler that keeps a promise on a trace."),
    "check": ("autoscaling.commands:check", "Simulate given manifests on a trace."),
    "machines": ("autoscaling.choice:machines", "Find the cheapest machine at a rate, and why."),
    "replay": ("autoscaling.replay:replay", "Compare the prediction with real replicas on this machine."),
    "vectors": ("autoscaling.vectors:command", "Compare the controller's model with a file of decisions."),
}


class _Group(click.Group):
    """A group that imports a subcommand when it runs: ``--help`` need not wait a second for numba."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the subcommands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand called ``cmd_name``."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        found = getattr(importlib.import_module(module), name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands in the words above, without importing them."""
        shown = {name: click.Command(name, help=text) for name, (_, text) in COMMANDS.items()}
        click.Group(commands=shown).format_commands(ctx, formatter)


@click.group(cls=_Group, context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]})
def main() -> None:
    """The cost of a fleet on real traffic, and the autoscaler that achieves it.

    \b
    Examples:
      python -m autoscaling plan                             a packaged trace: table, charts, manifests
      python -m autoscaling plan --trace my.csv --rate 150   your own traffic, pods of 150 images a second
      python -m autoscaling check deploy/kubernetes/overlays/seed --trace my.csv
    """


if __name__ == "__main__":
    main(prog_name="python -m autoscaling", terminal_width=min(shutil.get_terminal_size().columns, 110))
