"""Reports as HTML pages that need nothing else: of one report, and of two side by side."""

from __future__ import annotations

import itertools
import json
import math
from html import escape
from pathlib import Path
from typing import Any

from loadtests.linechart import Axis, Line, chart

COLUMNS = {
    "offered": "offered/s",
    "achieved": "achieved/s",
    "goodput": "goodput/s",
    "answered": "right",
    "refused": "refused",
    "rejected": "rejected",
    "failed": "failed",
    "dropped": "dropped",
    "p50_ms": "p50 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
    "p99_9_ms": "p99.9 ms",
    "max_ms": "max ms",
    "lag_p99_ms": "lag p99 ms",
}


def page(report: dict[str, Any]) -> str:
    """The HTML of one report."""
    title = f"Load test: {report.get('profile', 'the capacity')}"
    parts = [_head(title, report), _facts(report)]
    if report["kind"] == "limit":
        parts += [_table(report["trials"], "rate", "passed", "misses", "allowed_misses"), _trials_chart(report)]
    else:
        rows = (rows for rows in (report["phases"], report["kinds"]) if len(rows) > 1)
        named = [{**report["total"], "name": "all"}, *itertools.chain.from_iterable(rows)]
        parts += [_table(named, "name"), _thresholds(report["thresholds"]), _charts(report)]
    if report.get("failures"):
        items = "".join(f"<li><code>{escape(text)}</code></li>" for text in report["failures"])
        parts.append(f"<h2>Failures, the first of them</h2><ul>{items}</ul>")
    if report["generator"]["warning"]:
        parts.append(f'<p class="warn">Generator: {escape(report["generator"]["warning"])}</p>')
    parts.append(f"<h2>The model</h2><pre>{escape(json.dumps(report['model'], ensure_ascii=False, indent=1))}</pre>")
    return _document(title, "".join(parts))


def comparison(first: dict[str, Any], second: dict[str, Any], names: tuple[str, str]) -> str:
    """The HTML of two reports side by side."""
    rows = []
    for key, title in COLUMNS.items():
        a, b = first["total"].get(key), second["total"].get(key)
        ratio = f"{b / a:.2f}" if a and b is not None else ""
        rows.append(f"<tr><th>{title}</th><td>{text(a)}</td><td>{text(b)}</td><td>{ratio}</td></tr>")
    for key, title in (("limit", "capacity, requests/s"), ("recovery_s", "recovery s")):
        a, b = first.get(key), second.get(key)
        if a is not None or b is not None:
            ratio = f"{b / a:.2f}" if a and b is not None else ""
            rows.append(f"<tr><th>{title}</th><td>{text(a)}</td><td>{text(b)}</td><td>{ratio}</td></tr>")
    heads = "".join(f"<th>{escape(name)}</th>" for name in names)
    sides = "".join(
        f"<div><h2>{escape(name)}</h2>{_badge(report)}{_facts(report)}</div>"
        for name, report in zip(names, (first, second), strict=True)
    )
    drawn = [
        _figure("Latency over time, p99", chart(_both(first, second, names, "p99_ms"), _SECONDS, Axis("ms", log=True))),
        _figure("Goodput over time", chart(_both(first, second, names, "goodput"), _SECONDS, Axis("a second"))),
        _figure(
            "Share of right answers that took longer",
            chart(
                [
                    Line(name, report.get("tail", []), colour)
                    for name, report, colour in zip(names, (first, second), (1, 3), strict=True)
                ],
                Axis("latency, ms", log=True),
                Axis("share", log=True),
            ),
        ),
    ]
    body = (
        f'<h1>Two load tests</h1><div class="two">{sides}</div>'
        f"<table><tr><th></th>{heads}<th>second / first</th></tr>{''.join(rows)}</table>"
        f'<div class="charts">{"".join(drawn)}</div>'
    )
    return _document(f"{names[0]} and {names[1]}", body)


_SECONDS = Axis("seconds")


def _both(first: dict[str, Any], second: dict[str, Any], names: tuple[str, str], key: str) -> list[Line]:
    return [
        Line(name, _points(report.get("timeline", []), key), colour)
        for name, report, colour in zip(names, (first, second), (1, 3), strict=True)
    ]


def _points(timeline: list[dict[str, Any]], key: str) -> list[tuple[float, float | None]]:
    return [(row["at_s"], row[key]) for row in timeline]


def _charts(report: dict[str, Any]) -> str:
    timeline, bands = report["timeline"], report["bands"] if len(report["bands"]) > 1 else ()
    slo = [(row["at_s"], report["slo_ms"]) for row in timeline]
    latency = [
        # Below 100 requests a second, a second's p99 is its slowest: the line that is drawn later is seen.
        Line("slowest", _points(timeline, "max_ms"), 4),
        Line("p50", _points(timeline, "p50_ms"), 1),
        Line("p99", _points(timeline, "p99_ms"), 2),
        Line("SLO", slo, 5, dashed=True),
    ]
    rates = [
        Line("offered", _points(timeline, "offered"), 4, dashed=True),
        Line("right within the SLO", _points(timeline, "goodput"), 1),
        Line("refused (429)", _points(timeline, "refused"), 3),
        Line("failed", _points(timeline, "failed"), 5),
    ]
    drawn = [
        _figure("Latency over time", chart(latency, _SECONDS, Axis("ms", log=True), bands)),
        _figure("Offered and answered", chart(rates, _SECONDS, Axis("requests a second"), bands)),
        _figure(
            "Share of right answers that took longer",
            chart([Line("all", report["tail"], 1)], Axis("latency, ms", log=True), Axis("share", log=True)),
        ),
    ]
    memory = report["memory"]
    if memory.get("points"):
        line = Line("memory", memory["points"], 1)
        drawn.append(_figure("The server's memory", chart([line], _SECONDS, Axis("MB"))))
    for title, series in report["server"].items():
        lines = [Line(name, points, colour) for colour, (name, points) in enumerate(series.items(), start=1)]
        drawn.append(_figure(f"Server: {title}", chart(lines, _SECONDS, Axis(title.rpartition(", ")[2]))))
    note = "" if memory.get("points") else f"<p>Memory was not judged: {escape(memory.get('why_not', ''))}.</p>"
    if not report["server"]:
        note += "<p>The server exports none of the metrics that this report draws.</p>"
    return f'<div class="charts">{"".join(drawn)}</div>{note}'


def _trials_chart(report: dict[str, Any]) -> str:
    trials = sorted(report["trials"], key=lambda trial: float(trial["rate"]))
    lines = [
        Line("p99 of right answers", [(trial["rate"], trial["p99_ms"]) for trial in trials], 2),
        Line("SLO", [(trial["rate"], report["slo_ms"]) for trial in trials], 5, dashed=True),
    ]
    rates = [
        Line("offered", [(trial["rate"], trial["offered"]) for trial in trials], 4, dashed=True),
        Line("goodput", [(trial["rate"], trial["goodput"]) for trial in trials], 1),
    ]
    x = Axis("requests a second that were tried")
    drawn = [
        _figure("Latency by rate", chart(lines, x, Axis("ms", log=True))),
        _figure("Goodput by rate", chart(rates, x, Axis("requests a second"))),
    ]
    return f'<div class="charts">{"".join(drawn)}</div>'


def _figure(title: str, drawn: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}</figure>" if drawn else ""


def _head(title: str, report: dict[str, Any]) -> str:
    about = f'<p class="about">{escape(report["about"])}</p>' if "about" in report else ""
    return f"<h1>{escape(title)}</h1>{about}{_badge(report)}"


def _badge(report: dict[str, Any]) -> str:
    return f'<p class="verdict {"good" if report["passed"] else "bad"}">{escape(report["verdict"])}</p>'


def _facts(report: dict[str, Any]) -> str:
    host, model = report["machine"], report["model"]
    facts = {
        "server": report["url"],
        "model": f"{model.get('tag', 'unknown')}, {model.get('precision', '?')} on {model.get('runtime', '?')}",
        "placement": f"{model.get('placement', '?')}, {model.get('workers', '?')} worker(s)",
        "generator": f"{host['cpu']}, {host['cores']} cores, Python {host['python']}, {host['date']}; "
        f"CPU of each process: {', '.join(f'{share:.0%} of a core' for share in report['generator']['cpu_shares'])}",
        "SLO": f"{report['slo_ms']:g} ms",
        "capacity": f"{report['limit']:.1f} requests a second" if report.get("limit") else "not needed",
        "arrivals": f"{report['arrivals']}, seed {report['seed']}",
    }
    rows = "".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
    return f"<dl>{rows}</dl>"


def _table(rows: list[dict[str, Any]], *first: str) -> str:
    heads = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in (*first, *COLUMNS.values()))
    lines = "".join(
        "<tr>" + "".join(f"<td>{text(row.get(key))}</td>" for key in (*first, *COLUMNS)) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><tr>{heads}</tr>{lines}</table></div>'


def _thresholds(findings: list[dict[str, Any]]) -> str:
    marks = {True: "✓", False: "✗"}
    items = "".join(
        f'<li class="{"good" if one["holds"] else "bad"}">{marks[one["holds"]]} {escape(one["line"])}</li>'
        for one in findings
    )
    return f'<ul class="thresholds">{items}</ul>'


def text(value: Any) -> str:
    """A figure for people; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}" if math.isfinite(value) else "–"
    return f"{value:,}" if isinstance(value, int) else escape(str(value))


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{Path(__file__).with_name('report.css').read_text(encoding='utf-8')}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )
