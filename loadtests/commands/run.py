"""``run``: a load profile and its verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness import arrivals
from loadtests import traces, verdict
from loadtests.commands.console import finish, progress
from loadtests.commands.find_limit import find
from loadtests.commands.options import shared, take
from loadtests.commands.target import ready

if TYPE_CHECKING:
    from loadtests.commands.options import Options
    from loadtests.profiles import Profile
    from loadtests.session import Result, Session

_FIGURES = "\b\nFigures for thresholds:\n" + "\n".join(f"{name:<20} {what}" for name, what in verdict.FIGURES.items())


@click.command(epilog=_FIGURES)
@shared
@click.option("--profile", "name", default="steady", help="A profile of profiles.toml; see the command profiles.")
@click.option("--duration", type=click.FloatRange(min=1), help="Seconds in all, in place of the profile's own.")
@click.option("--warm-up", type=click.FloatRange(min=0), help="Seconds of warm-up, in place of the profile's own.")
@click.option(
    "--limit", "capacity", type=click.FloatRange(min=0.1), help="The server's capacity; without it, it is found first."
)
@click.option("--rate", type=click.FloatRange(min=0.1), help="The profile's highest rate, in requests a second.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Replay a file of requests counted per second, scaled to --rate if that is given, whole or for --duration "
    "seconds.",
)
@click.option("--trace-start", type=click.IntRange(min=0), default=0, help="The trace's second to begin with.")
@click.option(
    "--thresholds",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A TOML file of thresholds.  [default: loadtests/thresholds.toml]",
)
def run(
    name: str,
    duration: float | None,
    warm_up: float | None,
    capacity: float | None,
    rate: float | None,
    trace: Path | None,
    trace_start: int,
    thresholds: Path | None,
    **rest: Any,
) -> None:
    """Run a load profile; the report is OUT/report.html and OUT/report.json."""
    options = take(rest)
    try:
        profile = options.profile(name)
        bounds = verdict.read(name, thresholds or verdict.FILE)
        if duration:
            profile = profile.lasting(duration)
        if warm_up is not None:
            profile = replace(profile, warm_up_s=warm_up)
        at = None
        if trace:
            counts = traces.read(trace, trace_start, int(duration) if duration else None)
            profile = profile.lasting(float(len(counts))).at_rate(rate or max(1e-9, sum(counts) / len(counts)))
            profile = replace(profile, about=f"replays {len(counts)} seconds of {trace.name}")
            if rate:
                segments = [arrivals.Segment(1.0, one) for one in traces.scale(counts, rate)]
                at = arrivals.times(options.law, segments, options.seed)
            else:
                at = arrivals.replay(counts, options.seed)
        elif rate:
            profile = profile.at_rate(rate)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
    if profile.cold and not options.serve:
        raise click.UsageError(f"profile {name!r} needs --serve COMMAND: it measures a server from its start")

    with ready(options, profile) as target:
        if profile.needs_capacity and capacity is None:
            capacity = find(target.session, options).rate
        ready_s = target.restart() if profile.cold else None
        result = _run(target.session, profile, capacity or 0.0, options, at)
        findings = verdict.judge(
            bounds,
            verdict.figures(
                result.judged,
                total=result.total,
                recovery_s=result.recovery_s,
                capacity=capacity,
                memory=result.memory,
                ready_s=ready_s,
            ),
        )
        from loadtests import report

        law = f"the trace {trace.name}" if trace else options.law
        body = report.of_run(
            result, findings, url=target.url, model=target.model, capacity=capacity, seed=options.seed, law=law
        )
    finish(body, options.out, [result.total, *(result.phases if len(result.phases) > 1 else [])])


def _run(session: Session, profile: Profile, capacity: float, options: Options, at: Any) -> Result:
    from loadtests.progress import Meter

    progress.print(f"Running {profile.name}: {profile.about}", markup=False, highlight=False, soft_wrap=True)
    with Meter(progress, profile.name) as meter:
        return session.run(profile, capacity, options.slo_ms, options.seed, law=options.law, at=at, show=meter.show)
