"""``python -m loadtests``: how much traffic a server holds within its SLO, and whether it stays honest beyond it.

Exit codes: 0 all thresholds hold, 1 one broke, 2 there is nothing to judge: wrong options, or a server that does not
answer.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.console import Console
from rich.table import Table

from loadtests import profiles
from loadtests.payloads import KINDS
from loadtests.verdict import FIGURES

# Locust replaces the standard library's sockets, which must happen before they are used; so what needs them is
# imported by the commands, Locust first. It also keeps --help quick.
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtests.limit import Limit, Trial
    from loadtests.profiles import Profile
    from loadtests.samples import Summary
    from loadtests.session import Result, Session

console = Console()
progress = Console(stderr=True)
READY_S = 120.0
_ENDINGS = (signal.SIGINT, signal.SIGTERM)
OUT = Path("build/loadtest")
_FIGURES = "\b\nFigures for thresholds:\n" + "\n".join(f"{name:<20} {what}" for name, what in FIGURES.items())
_CONTEXT = {"max_content_width": 110, "show_default": True, "help_option_names": ["-h", "--help"]}


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
    click.option("--quantile", type=float, default=0.99, help="The limit's share of requests within the SLO."),
    click.option("--confidence", type=float, default=0.99, help="With which the limit must be shown to hold it."),
    click.option("--resolution", type=click.FloatRange(0.005, 0.5), default=0.03, help="How closely to find it."),
    click.option("--trial-s", type=click.FloatRange(min=0.5), default=10.0, help="Seconds of one trial, at least."),
    click.option("--start-rate", type=click.FloatRange(min=0.1), default=50.0, help="The first rate to try."),
)


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_SHARED):
        command = option(command)
    return command


def _take(options: dict[str, Any]) -> Options:
    """The shared options, taken out of all."""
    taken = Options(**{name: options.pop(name) for name in Options.__dataclass_fields__})
    if (taken.host is None) == (taken.serve is None):
        raise click.UsageError("give either --host URL or --serve COMMAND")
    if taken.host is not None and not taken.host.startswith(("http://", "https://")):
        raise click.UsageError(f"--host {taken.host!r} must begin with http:// or https://")
    try:
        _rule(taken)
        _command(taken.serve or "", 0)
        taken.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, KeyError, IndexError) as error:
        raise click.UsageError(f"{error}") from None
    except OSError as error:
        raise click.UsageError(f"--out {str(taken.out)!r}: {error.strerror}") from None
    if taken.mix is not None and set(taken.mix) == {"hostile"}:
        raise click.UsageError("--mix of hostile requests alone: nothing would be left to be answered")
    return taken


@click.group(context_settings=_CONTEXT)
def main() -> None:
    """Load a classification server open loop, and judge it.

    Requests leave at planned times whether or not replies come, latency counts from the planned time, and every reply
    is checked for status, schema and the label that the idle server gave. The exit code is the verdict.
    """


@main.command(epilog=_FIGURES)
@_shared
@click.option("--profile", "name", default="steady", help="A profile of profiles.toml; see the command profiles.")
@click.option("--duration", type=click.FloatRange(min=1), help="Seconds in all, in place of the profile's own.")
@click.option("--warm-up", type=click.FloatRange(min=0), help="Seconds of warm-up, in place of the profile's own.")
@click.option("--limit", type=click.FloatRange(min=0.1), help="The server's limit; without it, it is found first.")
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
    limit: float | None,
    rate: float | None,
    trace: Path | None,
    trace_start: int,
    thresholds: Path | None,
    **rest: Any,
) -> None:
    """Run a load profile; the report is OUT/report.html and OUT/report.json."""
    from loadtests import arrivals, traces, verdict

    options = _take(rest)
    try:
        profile = _profile(name, options)
        bounds = verdict.load(name, thresholds or verdict.FILE)
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

    with _ready(options, profile) as (session, url, model, restart):
        if profile.needs_limit and limit is None:
            limit = _find(session, options).rate
        ready_s = restart() if profile.cold else None
        result = _run(session, profile, limit or 0.0, options, at)
        findings = verdict.judge(
            bounds,
            verdict.figures(
                result.judged,
                total=result.total,
                recovery_s=result.recovery_s,
                limit=limit,
                memory=result.memory,
                ready_s=ready_s,
            ),
        )
        from loadtests import report

        law = f"the trace {trace.name}" if trace else options.law
        body = report.of_run(result, findings, url=url, model=model, limit=limit, seed=options.seed, law=law)
    _finish(body, options.out, [result.total, *(result.phases if len(result.phases) > 1 else [])])


@main.command("find-limit")
@_shared
@click.option("--profile", "name", default="steady", help="The profile whose mix of requests is sent.")
def find_limit(name: str, **rest: Any) -> None:
    """Find the highest rate that holds the SLO.

    A rate is doubled until it misses and bisected then. It holds if a trial shows with --confidence that the share
    --quantile of requests is answered rightly within --slo-ms: MLPerf LoadGen's early-stopping rule, for p99 at 99 %
    at least 459 requests without a miss, 662 with one.
    """
    options = _take(rest)
    try:
        profile = _profile(name, options)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with _ready(options, profile) as (session, url, model, _):
        found = _find(session, options)
        from loadtests import report

        rule = _rule(options)
        body = report.of_limit(found, url=url, model=model, rule=rule, seed=options.seed, law=options.law)
    _finish(body, options.out, [found.best.summary])


@main.command("profiles")
def list_profiles() -> None:
    """List the profiles."""
    table = Table("profile", "seconds", "what it does", box=None)
    for profile in profiles.load().values():
        table.add_row(profile.name, f"{profile.warm_up_s + profile.seconds:.0f}", profile.about)
    console.print(table)


@main.command()
@click.argument("first", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("second", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=OUT / "compare.html")
def compare(first: Path, second: Path, out: Path) -> None:
    """Lay two report.json side by side in one HTML file."""
    from loadtests import report

    names = (first.parent.name, second.parent.name)
    if not all(names) or names[0] == names[1]:
        names = (str(first), str(second))
    try:
        page = report.comparison(report.read(first), report.read(second), names)
    except report.ReportError as error:
        raise click.UsageError(str(error)) from None
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    console.print(f"Compared: {out}", markup=False)


@contextlib.contextmanager
def _ready(options: Options, profile: Profile) -> Iterator[tuple[Session, str, dict[str, Any], Callable[[], float]]]:
    """A session with a server that answers, its URL, its model, and what starts a server of our own afresh."""
    # First of all: it replaces the sockets that the others use.
    from loadtests.generator import Generator, GeneratorError  # isort: skip
    from loadtests import limit, watch
    from loadtests.answers import IdleError
    from loadtests.processes import StartError, free_port
    from loadtests.progress import Meter
    from loadtests.session import Session, payload, reference

    # What was started here must end with this process, also where that is told to end.
    for number in _ENDINGS:
        signal.signal(number, _terminate)
    try:
        with contextlib.ExitStack() as stack:
            url, server = (options.host or "").rstrip("/"), contextlib.ExitStack()
            stack.enter_context(server)
            port = 0
            if options.serve:
                port = free_port()
                url = f"http://127.0.0.1:{port}"
                _start(server, options.serve, port)

            def restart() -> float:
                server.close()
                return _start(server, options.serve or "", port)

            watch.wait_ready(url, READY_S)
            model = watch.model(url)
            try:
                requests = payload(profile.mix, profile.photos, options.photos, options.hostile_dir)
            except ValueError as error:
                raise click.UsageError(str(error)) from None
            with Meter(progress, "Asking the idle server for its labels") as meter:
                requests = reference(url, requests, strict=options.hostile_dir is None, show=meter.asked)
            generator = stack.enter_context(
                Generator(
                    url,
                    requests,
                    processes=options.processes,
                    expect_workers=options.expect_workers,
                    bind_host=options.master_bind_host,
                    bind_port=options.master_bind_port,
                )
            )
            yield Session(generator, url, requests, profile.mix), url, model, restart
    except limit.LimitError as error:
        console.print(f"FAILED: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except (StartError, IdleError, GeneratorError, OSError) as error:
        _give_up(error)


def _command(template: str, port: int) -> list[str]:
    """The words of --serve. Raises ValueError, KeyError or IndexError where they can't be told."""
    return [word.format(port=port) for word in shlex.split(template)]


def _start(server: contextlib.ExitStack, command: str, port: int) -> float:
    """Start a server that ends with ``server``; seconds until it was ready. Raises StartError."""
    from loadtests.processes import serving

    words = _command(command, port)
    begin = time.perf_counter()
    progress.print(f"Starting {shlex.join(words)}", markup=False, highlight=False, soft_wrap=True)
    server.enter_context(serving(words, ready=f"http://127.0.0.1:{port}/readyz", environment={}, folder=Path.cwd()))
    return time.perf_counter() - begin


def _rule(options: Options) -> Any:
    from loadtests.limit import Rule

    return Rule(options.slo_ms, options.quantile, options.confidence)


def _profile(name: str, options: Options) -> Profile:
    """A profile with the mix that was asked for. Raises ValueError."""
    known = profiles.load()
    if name not in known:
        raise ValueError(f"there is no profile {name!r}; there are {', '.join(known)}")
    return replace(known[name], mix=options.mix) if options.mix else known[name]


def _find(session: Session, options: Options) -> Limit:
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

    progress.print(f"Finding the limit: {options.quantile:.1%} within {options.slo_ms:g} ms", highlight=False)
    with Meter(progress, "") as meter:
        return session.limit(
            _rule(options),
            law=options.law,
            start=options.start_rate,
            resolution=options.resolution,
            seconds=options.trial_s,
            seed=options.seed,
            show=meter.show,
            tried=tried,
        )


def _run(session: Session, profile: Profile, limit: float, options: Options, at: Any) -> Result:
    from loadtests.progress import Meter

    progress.print(f"Running {profile.name}: {profile.about}", markup=False, highlight=False, soft_wrap=True)
    with Meter(progress, profile.name) as meter:
        return session.run(profile, limit, options.slo_ms, options.seed, law=options.law, at=at, show=meter.show)


def _finish(body: dict[str, Any], out: Path, summaries: list[Summary]) -> NoReturn:
    """Write the report, print what it comes to, and end with the verdict."""
    from loadtests import report

    as_json, as_html = report.write(body, out)
    table = Table(*("", *report.COLUMNS.values()), box=None)
    for summary in summaries:
        row = summary.body()
        table.add_row(summary.name, *(report.text(row[key]) for key in report.COLUMNS))
    Console(width=max(console.width, 150)).print(table)
    for example in body.get("failures", ()):
        console.print(f"  {example}", markup=False, highlight=False, soft_wrap=True)
    if warning := body["generator"]["warning"]:
        console.print(f"Warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report: {as_html} and {as_json}", markup=False, highlight=False, soft_wrap=True)
    console.print(body["verdict"], markup=False, highlight=False, soft_wrap=True)
    sys.exit(0 if body["passed"] else 1)


def _terminate(number: int, _: object) -> NoReturn:
    for ending in _ENDINGS:
        signal.signal(ending, signal.SIG_IGN)  # another one must not cut the cleaning up short
    sys.exit(128 + number)


def _give_up(error: Exception) -> NoReturn:
    progress.print(f"loadtests: {error}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
