"""The options that ``run`` and ``find-limit`` share."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtests import profiles
from loadtests.capacity import Rule
from loadtests.payloads import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.profiles import Profile

OUT = Path("build/loadtest")


@dataclass(frozen=True)
class Options:
    """The options that ``run`` and ``find-limit`` share."""

    host: str | None
    serve: str | None
    out: Path
    slo_ms: float
    law: str
    seed: int
    photos: Path | None
    mix: dict[str, float] | None
    hostile_dir: Path | None
    processes: int
    expect_workers: int
    master_bind_host: str
    master_bind_port: int
    quantile: float
    confidence: float
    resolution: float
    trial_s: float
    start_rate: float

    def rule(self) -> Rule:
        """What a rate must show. Raises ValueError."""
        return Rule(self.slo_ms, self.quantile, self.confidence)

    def profile(self, name: str) -> Profile:
        """A profile with the mix that was asked for. Raises ValueError."""
        known = profiles.read()
        if name not in known:
            raise ValueError(f"there is no profile {name!r}; there are {', '.join(known)}")
        return replace(known[name], mix=self.mix) if self.mix else known[name]

    def server_command(self, port: int) -> list[str]:
        """The words of --serve with its port. Raises ValueError, KeyError or IndexError."""
        return [word.format(port=port) for word in shlex.split(self.serve or "")]


def _mix(context: click.Context, option: click.Parameter, value: str | None) -> dict[str, float] | None:
    if value is None:
        return None
    mix = {}
    for part in value.split(","):
        kind, _, weight = part.partition("=")
        if kind not in KINDS or not weight.replace(".", "", 1).isdecimal():
            raise click.BadParameter(f"{part!r} is no KIND=WEIGHT with a kind out of {', '.join(KINDS)}")
        mix[kind] = float(weight)
    if not sum(mix.values()):
        raise click.BadParameter(f"{value!r}: a weight must be more than 0")
    return mix


_SHARED = (
    click.option("--host", metavar="URL", help="The server to load. Load only what is yours."),
    click.option(
        "--serve",
        metavar="COMMAND",
        help="Start a server of its own with this command, in which {port} stands for a free port, and stop it after.",
    ),
    click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=OUT, help="Where the report goes."),
    click.option("--slo-ms", type=click.FloatRange(min=0, min_open=True), default=1000.0, help="The SLO to judge by."),
    click.option("--arrivals", "law", type=click.Choice(["poisson", "constant"]), default="poisson"),
    click.option("--seed", type=click.IntRange(min=0), default=1, help="Of arrivals and of the mix."),
    click.option(
        "--photos",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="A folder of JPEGs to send.  [default: ../shared/images/photos, else scikit-image's photographs]",
    ),
    click.option(
        "--mix",
        callback=_mix,
        metavar="KIND=WEIGHT,...",
        help="Weights of raw, multipart, batch and hostile requests, in place of the profile's.",
    ),
    click.option(
        "--hostile-dir",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="A folder of broken files to send as the mix's hostile share.  [default: eight made here]",
    ),
    click.option("--processes", type=click.IntRange(min=0), default=0, help="Worker processes to start here."),
    click.option(
        "--expect-workers",
        type=click.IntRange(min=0),
        default=0,
        help="Workers to wait for in all, those on other machines included: "
        "locust -f loadtests/generator.py --worker --master-host THIS_MACHINE",
    ),
    click.option("--master-bind-host", default="127.0.0.1", help="Where workers reach this process; * is anywhere."),
    click.option("--master-bind-port", type=click.IntRange(0, 65535), default=0, help="0 takes a free one."),
    click.option("--quantile", type=float, default=0.99, help="The share of requests within the SLO, at the capacity."),
    click.option("--confidence", type=float, default=0.99, help="The confidence in the capacity that is found."),
    click.option("--resolution", type=click.FloatRange(0.005, 0.5), default=0.03, help="How closely to find it."),
    click.option("--trial-s", type=click.FloatRange(min=0.5), default=10.0, help="Seconds of one trial, at least."),
    click.option("--start-rate", type=click.FloatRange(min=0.1), default=50.0, help="The first rate to try."),
)


def shared(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the shared options."""
    for option in reversed(_SHARED):
        command = option(command)
    return command


def take(options: dict[str, Any]) -> Options:
    """The shared options, taken out of all. Raises UsageError."""
    taken = Options(**{name: options.pop(name) for name in Options.__dataclass_fields__})
    if (taken.host is None) == (taken.serve is None):
        raise click.UsageError("give either --host URL or --serve COMMAND")
    if taken.host is not None and not taken.host.startswith(("http://", "https://")):
        raise click.UsageError(f"--host {taken.host!r} must begin with http:// or https://")
    try:
        taken.rule()
        taken.server_command(0)
        taken.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, KeyError, IndexError) as error:
        raise click.UsageError(f"{error}") from None
    except OSError as error:
        raise click.UsageError(f"--out {str(taken.out)!r}: {error.strerror}") from None
    if taken.mix is not None and set(taken.mix) == {"hostile"}:
        raise click.UsageError("--mix of hostile requests alone: nothing would be left to be answered")
    return taken
