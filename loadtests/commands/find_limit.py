"""``find-limit``: the search for a server's capacity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from loadtests.commands.console import finish, progress
from loadtests.commands.options import shared, take
from loadtests.commands.target import ready

if TYPE_CHECKING:
    from loadtests.capacity import Capacity, Trial
    from loadtests.commands.options import Options
    from loadtests.session import Session


@click.command("find-limit")
@shared
@click.option("--profile", "name", default="steady", help="The profile whose mix of requests is sent.")
def find_limit(name: str, **rest: Any) -> None:
    """Find the highest rate that holds the SLO.

    A rate is doubled until it misses and bisected then. It holds if a trial shows with --confidence that the share
    --quantile of requests is answered rightly within --slo-ms: MLPerf LoadGen's early-stopping rule, for p99 at 99 %
    at least 459 requests without a miss, 662 with one.
    """
    options = take(rest)
    try:
        profile = options.profile(name)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with ready(options, profile) as target:
        found = find(target.session, options)
        from loadtests import report

        rule, law = options.rule(), options.law
        body = report.of_capacity(found, url=target.url, model=target.model, rule=rule, seed=options.seed, law=law)
    finish(body, options.out, [found.best.summary])


def find(session: Session, options: Options) -> Capacity:
    """The server's capacity; each rate is printed as it is tried. Raises CapacityError."""
    from loadtests.progress import Meter

    def tried(trial: Trial) -> None:
        s = trial.summary
        word = "holds" if trial.passed else "misses"
        p99 = f"p99 {s.p99_ms:.0f} ms" if s.answered else "nothing answered"
        progress.print(
            f"  {trial.rate:7.1f}/s {word}: {s.misses} of {s.planned} missed, {max(0, trial.allowed)} allowed; {p99}, "
            f"goodput {s.goodput:.1f}/s, {s.refused} refused, {s.failed} failed"
            + (f" ({trial.examples[0]})" if s.failed and trial.examples else "")
            + (f"; {trial.generator}" if trial.generator else ""),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    progress.print(f"Finding the capacity: {options.quantile:.1%} within {options.slo_ms:g} ms", highlight=False)
    with Meter(progress, "") as meter:
        return session.capacity(
            options.rule(),
            law=options.law,
            start=options.start_rate,
            resolution=options.resolution,
            seconds=options.trial_s,
            seed=options.seed,
            show=meter.show,
            tried=tried,
        )
