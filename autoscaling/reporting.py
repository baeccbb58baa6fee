"""The output of a plan: a table on the console; plan.json, charts and manifests in a folder."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from autoscaling import charts, rendering
from autoscaling.fields import ManifestError
from autoscaling.fleet import Fleet, course

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from autoscaling.gaps import Prepared
    from autoscaling.planner import Plan, Terms
    from autoscaling.request import Request

SCALED_OBJECT, HPA = "scaledobject.yaml", "hpa.yaml"
_COLOURS = (charts.GREEN, charts.BLUE, charts.ORANGE, charts.RED)
DAY_S = 86400
# Seconds that the search takes for a day to tune on: without a schedule, and with one and its control.
TAKES_S = (1.5, 5)


def gaps(prepared: Prepared, console: Console) -> None:
    """Print the gaps of the trace, and how they were filled."""
    if not prepared.gaps:
        return
    total = sum(length for _, length, _ in prepared.gaps)
    first, length, how = max(prepared.gaps, key=lambda gap: gap[1])
    longest = f"of {length:,} s from {prepared.at(first)} on"
    if len(prepared.gaps) == 1:
        text = f"The trace has a gap {longest}. It was filled with {how} and is neither judged nor paid for."
    else:
        text = (
            f"The trace has {len(prepared.gaps)} gaps, {total:,} s in all, the longest {longest}. They were filled "
            f"(that one with {how}) and are neither judged nor paid for."
        )
    console.print(text, soft_wrap=True)


def ahead(split: int, seconds: int) -> str:
    """A sentence before the search, which may take long."""
    tuned, judged = split / DAY_S, (seconds - split) / DAY_S
    least, most = (max(1, round(tuned * each / 60)) for each in TAKES_S)
    long = "a minute" if most == 1 else f"{least} to {most} minutes"
    return f"Tuning on {tuned:.3g} days, then judging on {judged:.3g}: about {long} on two cores."


def heading(request: Request, prepared: Prepared, terms: Terms, split: int) -> str:
    """A line above the table: the trace, the judged part and the promise."""
    source = request.prometheus or request.trace or "the packaged trace"
    return (
        f"{source}, judged from {prepared.at(split)} to {prepared.at(len(prepared.load))}; the promise: at most "
        f"{terms.late:.3%} of the images late or refused, each within {request.slo_ms:g} ms."
    )


def verdict(row: dict[str, Any], terms: Terms) -> str:
    """Whether the policy of ``row`` keeps the promise."""
    late = f"{row['late_share']:.3%} of the images are late in the worst phase of the loop"
    return f"The promise is {'kept' if row['holds'] else 'broken'}: {late}, {terms.late:.3%} may be."


def table(body: dict[str, Any], console: Console, marked: str = "chosen") -> None:
    """The policies as a table; ``marked`` says what the row of ``chosen`` is."""
    machines = body["terms"]["paid"] == "machines"
    caption = (
        f"*: {marked}. saved: against the smallest fixed fleet that keeps the promise, one for the highest 5 minutes, "
        "one for the highest second"
    )
    shown = Table(caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("policy")
    shown.add_column("promise", no_wrap=True)
    for name in ("late", "pod-hours", *(["machine-hours"] if machines else []), "USD", "saved", "5 min", "second"):
        shown.add_column(name, justify="right", no_wrap=True)
    bound = body["bound"]
    for row in [*body["policies"], bound]:
        red = "" if row.get("holds", True) else "red"
        mark = "* " if row["name"] == body["chosen"] else ""
        cells = [
            mark + row["name"],
            Text("broken" if red else "kept", red),
            Text(f"{row['late_share']:.3%}", red),
            f"{row['replica_seconds'] / 3600:,.0f}",
            *([f"{row['machine_seconds'] / 3600:,.0f}"] if machines else []),
            f"{row['usd']:,.2f}",
            *(f"{row['saved'][key]:.1%}" for key in ("fixed_fleet", "five_minute_peak", "highest_second")),
        ]
        shown.add_row(*cells, style="bold" if mark else ("dim" if row is bound else ""))
    console.print(shown)


def believe(body: dict[str, Any]) -> str:
    """Two sentences: the source of the gain, and its conditions; a third if a fixed fleet is as cheap."""
    rows = {row["name"]: row for row in body["policies"]}
    row = rows[body["chosen"]]
    best = row["saved"]["fixed_fleet"]
    first = rows["HPA's defaults, CPU 70 %"]
    bare, lateness = f"{first['saved']['fixed_fleet']:.1%}", f"{first['late_share']:.2%}"
    parts = [
        f"{bare} are an HPA's as it comes"
        if first["holds"]
        else f"an HPA as it comes has no part: it breaks the promise ({bare} saved, {lateness} late)"
    ]
    plain = rows.get("offered rate, tuned")
    if plain:
        down = plain["settings"]["down"]
        parts.append(
            f"a target of {plain['settings']['triggers'][0]['per_pod']:g} images/s offered a pod, a window down of "
            f"{down['window_s']} s and tolerances of {plain['settings']['up']['tolerance']:g} and "
            f"{down['tolerance']:g} make it {plain['saved']['fixed_fleet']:.1%}"
        )
    if plain and row["name"] != plain["name"]:
        parts.append(f"{row['name'].partition('+ ')[2] or row['name']} makes it {best:.1%}")
    fixed = f"A fixed fleet of {body['baselines']['fixed_fleet']} pods costs the same or less. " if best <= 0 else ""
    text = fixed + (
        f"Of the {best:.1%} saved against the smallest fixed fleet that keeps the promise, " + "; ".join(parts) + ". "
    )
    if not row["holds"]:
        return text + (
            f"It does not hold on the judged part: {row['late_share']:.3%} are late in the worst phase of the loop, "
            f"{body['terms']['late']:.3%} may be; tune on more history, or to fewer late ones."
        )
    return text + (
        f"It hangs on pods that answer {body['fleet']['rate']:g} images/s from {body['fleet']['start_s']} s after they "
        "are asked for, and on traffic that goes on as it was where the rules were tuned."
    )


def write(folder: Path, made: Plan, prepared: Prepared, fleet: Fleet, typed: Request) -> None:
    """Fill ``folder``: plan.json, course.svg, trade.svg, scaledobject.yaml and, if an HPA can express it, hpa.yaml.

    The manifests quote the request as it was ``typed``, so that they hold no path of this machine that was not given.
    """
    body = made.body | {"believe": believe(made.body)}
    (folder / "plan.json").write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "course.svg").write_text(_course(made, prepared, fleet), encoding="utf-8")
    (folder / "trade.svg").write_text(_trade(made), encoding="utf-8")
    source = _source(body, typed)
    (folder / SCALED_OBJECT).write_text(rendering.scaled_object(made.chosen, source), encoding="utf-8")
    try:
        text = rendering.horizontal(made.chosen, source)
    except ManifestError:  # cron triggers, the rate of another day, and no pods at all are KEDA's alone
        return
    (folder / HPA).write_text(text, encoding="utf-8")


def _source(body: dict[str, Any], typed: Request) -> list[str]:
    """The comment of the manifests: the command that finds them again."""
    row = next(row for row in body["policies"] if row["name"] == body["chosen"])
    # Of a history, the end as well: tomorrow's is another.
    request = asdict(typed) | {name: body["request"][name] for name in ("days", "end")}
    asked = " ".join(
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(str(value))}")
        for name, value in request.items()
        if value not in (None, False)
    )
    return [
        f"Written by: python -m autoscaling plan {asked}",
        f"{row['name']}: late {row['late_share']:.4%}, saved {row['saved']['fixed_fleet']:.2%} of the smallest fixed",
        "fleet that keeps the promise, over the part of the trace that it was not tuned on.",
    ]


def _course(made: Plan, prepared: Prepared, fleet: Fleet) -> str:
    """The judged day with the most images under the chosen autoscaler."""
    load, split = prepared.load, made.body["split_s"]
    days = list(range(split, max(len(load) - DAY_S, split) + 1, DAY_S))
    begin = max(days, key=lambda day: load.cumulated[min(day + DAY_S, len(load))] - load.cumulated[day])
    end = min(begin + DAY_S, len(load)) - 60
    begin += int(-(load.start + begin) % 60)
    run = course(load, made.chosen, fleet, begin, end)
    hours = (np.arange((end - begin) // 60) + (load.start + begin) // 60 % 1440) / 60
    panels = [
        charts.Panel("images/s", [
            charts.Line("ready capacity", charts.GREY, charts.thinned(run.ready, 60) * fleet.rate, stepped=True),
            charts.Line("offered", charts.BLUE, charts.thinned(load.offered[begin:end], 60)),
        ]),
        charts.Panel("pods", [
            charts.Line("wanted", charts.ORANGE, charts.thinned(run.wanted, 60, "max"), stepped=True),
            charts.Line("ready", charts.GREEN, charts.thinned(run.ready, 60), stepped=True),
        ]),
        charts.Panel("refused images/s", [charts.Line("refused or late", charts.RED, charts.thinned(run.late, 60))]),
    ]  # fmt: skip
    day = f"{datetime.fromtimestamp(load.start + begin, UTC):%Y-%m-%d} (UTC)"
    if not prepared.dated:
        day = f"day {begin // DAY_S + 1} of the trace, taken to begin at midnight UTC"
    return charts.over_time(panels, hours, f"{made.body['chosen']}: the judged day with the most images, {day}")


def _trade(made: Plan) -> str:
    rows = made.body["policies"]
    fixed = rows[0]["usd"]
    points = [charts.Point(late, cost) for late, cost in made.tried[:: max(1, len(made.tried) // 600)]]
    for number, row in enumerate(rows):
        points.append(charts.Point(row["late_share"], row["usd"] / fixed, row["name"], _COLOURS[number % 4]))
    points.append(charts.Point(0.0, made.body["bound"]["usd"] / fixed, "foresight", charts.GREY))
    caption = "With a name: on the judged part. Small and grey: each setting that was tried, on the tuned part."
    return charts.trade(points, made.body["terms"]["late"], caption)
