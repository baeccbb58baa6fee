"""The output of a plan: a table on the console; plan.json, charts and manifests in a folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from autoscaling import charts, rendering
from autoscaling.fields import ManifestError
from autoscaling.fleet import Fleet, course

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from autoscaling.gaps import Prepared
    from autoscaling.planner import Plan

SCALED_OBJECT, HPA = "scaledobject.yaml", "hpa.yaml"
_COLOURS = (charts.GREEN, charts.BLUE, charts.ORANGE, charts.RED)
DAY_S = 86400


def gaps(prepared: Prepared, console: Console) -> None:
    """Print the gaps of the trace, and how they were filled."""
    if not prepared.gaps:
        return
    total = sum(length for _, length, _ in prepared.gaps)
    first, length, how = max(prepared.gaps, key=lambda gap: gap[1])
    console.print(
        f"The trace has {len(prepared.gaps)} gaps, {total} s in all, the longest of {length} s from second {first} on. "
        f"They were filled (that one with {how}) and are neither judged nor paid for.",
        highlight=False,
    )


def table(body: dict[str, Any], console: Console) -> None:
    """The policies as a table."""
    machines = body["terms"]["paid"] == "machines"
    caption = (
        "saved: against the smallest fixed fleet that keeps the promise, one for the highest 5 minutes, one for the "
        "highest second"
    )
    shown = Table(caption=caption)
    shown.add_column("policy")
    for name in ("late", "pod-hours", *(["machine-hours"] if machines else []), "USD", "saved", "5 min", "second"):
        shown.add_column(name, justify="right", no_wrap=True)
    bound = body["bound"]
    for row in [*body["policies"], bound]:
        holds = row.get("holds", True)
        late = f"{row['late_share']:.3%}"
        cells = [
            escape(row["name"]),
            late if holds else f"[red]{late}[/]",
            f"{row['replica_seconds'] / 3600:,.0f}",
            *([f"{row['machine_seconds'] / 3600:,.0f}"] if machines else []),
            f"{row['usd']:,.2f}",
            *(f"{row['saved'][key]:.1%}" for key in ("fixed_fleet", "five_minute_peak", "highest_second")),
        ]
        style = "bold" if row["name"] == body["chosen"] else ("dim" if row is bound else "")
        shown.add_row(*cells, style=style)
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


def write(folder: Path, made: Plan, prepared: Prepared, fleet: Fleet) -> None:
    """Fill ``folder``: plan.json, course.svg, trade.svg, scaledobject.yaml and, if an HPA can express it, hpa.yaml."""
    body = made.body | {"believe": believe(made.body)}
    (folder / "plan.json").write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "course.svg").write_text(_course(made, prepared, fleet), encoding="utf-8")
    (folder / "trade.svg").write_text(_trade(made), encoding="utf-8")
    source = _source(body)
    (folder / SCALED_OBJECT).write_text(rendering.scaled_object(made.chosen, source), encoding="utf-8")
    try:
        text = rendering.horizontal(made.chosen, source)
    except ManifestError:  # cron triggers, the rate of another day, and no pods at all are KEDA's alone
        return
    (folder / HPA).write_text(text, encoding="utf-8")


def _source(body: dict[str, Any]) -> list[str]:
    """The comment of the manifests: the command that finds them again."""
    row = next(row for row in body["policies"] if row["name"] == body["chosen"])
    request = body["request"]
    asked = " ".join(
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
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
    day = datetime.fromtimestamp(load.start + begin, UTC).date()
    return charts.over_time(panels, hours, f"{made.body['chosen']} on {day}")


def _trade(made: Plan) -> str:
    rows = made.body["policies"]
    fixed = rows[0]["usd"]
    points = [charts.Point(late, cost) for late, cost in made.tried[:: max(1, len(made.tried) // 600)]]
    for number, row in enumerate(rows):
        points.append(charts.Point(row["late_share"], row["usd"] / fixed, row["name"], _COLOURS[number % 4]))
    points.append(charts.Point(0.0, made.body["bound"]["usd"] / fixed, "foresight", charts.GREY))
    return charts.trade(points, made.body["terms"]["late"], "cost against lateness")
