"""`python -m benchmarks.batching`: goodput of our batching policy beside others', and beside the best there can be.

A simulation, so it needs no GPU and gives the same figures anywhere: open-loop requests at 0.2 to 3 times what a device
can sustain, evenly random and bursty, over devices of known α and β. Each other policy has its knobs tuned for each
device and SLO, on other requests; ours has none. What counts is goodput: requests answered within the SLO, a second.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks import results
from benchmarks.batching.contest import (
    A100,
    CPU,
    DEVICES,
    LOADS,
    REQUESTS,
    SEED,
    SETTINGS,
    SEVERAL_LOADS,
    SEVERAL_SETTINGS,
    T4,
    Point,
    compare,
    decisions_us,
)
from benchmarks.batching.plot import draw
from benchmarks.batching.simulation import NOISE
from benchmarks.batching.tables import Table, about, goals_of, sheets_of, wrong_starts
from benchmarks.results import Sheet


@click.command()
@click.option("--quick", is_flag=True, help="A smoke test: few requests and loads.")
@click.option(
    "--chart", "chart_path", type=click.Path(path_type=Path), help="Draw goodput over load; needs matplotlib."
)
@click.option("--markdown", "markdown_path", type=click.Path(path_type=Path), help="Write the tables as markdown.")
def main(quick: bool, chart_path: Path | None, markdown_path: Path | None) -> None:
    """Compare batching policies in a simulation; the last line of stdout is one JSON object."""
    begin = time.monotonic()
    loads, count = ((0.6, 1.0, 3.0), 2_000) if quick else (LOADS, REQUESTS)
    points, knobs = compare(SETTINGS, 1, loads, count, quick)
    more: list[Point] = []
    for devices in DEVICES:
        found, chosen = compare(SEVERAL_SETTINGS, devices, loads if quick else SEVERAL_LOADS, count // 2, quick)
        more, knobs = more + found, knobs + chosen
    decisions = [decisions_us(backend, 256) for backend in (CPU, T4, A100)]
    one, several = Table(points), Table(more)
    sheets = [
        *sheets_of(one, several),
        wrong_starts(count),
        Sheet("What each was tuned to", ("device", "SLO ms", "devices", "policy", "setting"), knobs),
        Sheet(
            "The devices: ℓ(b) = α·b + β",
            ("device", "α ms", "β ms", "max batch", "from"),
            [(b.name, 1e3 * b.alpha, 1e3 * b.beta, b.max_batch, b.source) for b in (CPU, T4, A100)],
        ),
    ]
    data = {
        "requests": count,
        "noise": NOISE,
        "seed": SEED,
        "points": [
            {key: None if value != value else value for key, value in asdict(point).items()} for point in points + more
        ],
        "decisions_us": {"admit": [a for a, _ in decisions], "done_and_next": [n for _, n in decisions]},
        "seconds": round(time.monotonic() - begin, 1),
    }
    goals = goals_of(one, several, decisions)
    if markdown_path:
        goal_sheet = results.goal_sheet([{"benchmark": "batching", **goal.body()} for goal in goals])
        parts = [about(count), *(results.markdown(sheet) for sheet in (goal_sheet, *sheets))]
        markdown_path.write_text("\n".join(parts), encoding="utf-8")
    if chart_path:
        draw(data, chart_path)
    results.finish("batching", data, sheets, goals, 0.0)


if __name__ == "__main__":
    main()
