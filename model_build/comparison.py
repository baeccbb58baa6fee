"""Architectures side by side: each exported in several precisions, judged on the same images, and its cost measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from classifier import manifest as manifests
from classifier.architectures import ARCHITECTURES
from classifier.manifest import Manifest
from classifier.runtimes import RUNTIMES
from model_build import costs, export, gate, layout, page, store
from runners import backends

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from model_build.costs import Cost
    from model_build.samples import Samples
    from model_build.weights import Checkpoint

RUNTIME = next(iter(RUNTIMES))
WIDTH, HEIGHT, LEFT, BOTTOM = 760, 380, 60, 45
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#65a30d")


@dataclass(frozen=True)
class Row:
    """An artifact of the comparison.

    ``parameters``: learned values; ``size``: bytes of the file; ``top1``: share of the images; ``failure``: why it
    would not be registered, by the accuracy gate; ``cost`` is None until it is measured.
    """

    architecture: str
    precision: str
    parameters: int
    folder: Path
    size: int
    top1: float
    failure: str | None
    cost: Cost | None = None

    @property
    def name(self) -> str:
        """As store names begin and end: ``mobilenet_v2 int8``."""
        return f"{self.architecture} {self.precision}"


def judged(
    checkpoint: Checkpoint, precisions: Sequence[str], calibration: Samples, evaluation: Samples, aside: Path
) -> list[Row]:
    """The artifacts of ``checkpoint`` in each precision, in folders below ``aside``; ``evaluation`` has classes."""
    expected = gate.reference(export.contract(checkpoint), evaluation)
    rows = []
    for precision in precisions:
        folder = aside / f"{checkpoint.architecture}-{precision}"
        folder.mkdir()
        path = export.export(checkpoint, RUNTIME, precision, folder, calibration)
        manifest = Manifest(
            runtime=RUNTIME,
            precision=precision,
            file=path.name,
            digest=manifests.sha256(path),
            preprocessing=checkpoint.preprocessing,
            labels=checkpoint.labels,
            weights={"origin": checkpoint.origin, "digest": checkpoint.digest},
            export={"libraries": store.libraries(RUNTIME)},
            gate={},
        )
        manifest.save(folder)
        report = gate.judge(backends.load(folder, manifest), evaluation, expected, precision, gate.Thresholds())
        parameters = layout.parameters(checkpoint.architecture, checkpoint.classes)
        size, top1 = path.stat().st_size, report.top1 or 0.0
        rows.append(Row(checkpoint.architecture, precision, parameters, folder, size, top1, report.failure))
    return rows


def measured(rows: Sequence[Row], rounds: int, seconds: float) -> list[Row]:
    """``rows`` with their costs: medians of ``rounds``, in which they take turns, so that a busy machine hits all."""
    found: list[list[Cost]] = [[] for _ in rows]
    for _ in range(rounds):
        for row, costs_of_row in zip(rows, found, strict=True):
            costs_of_row.append(costs.measure(row.folder, seconds))
    return [replace(row, cost=costs.median(each)) for row, each in zip(rows, found, strict=True)]


def figures(row: Row) -> dict[str, tuple[float, str]]:
    """What decides, by its heading: as a number and as text."""
    assert row.cost is not None, "measured comes first"
    return {
        "parameters": (row.parameters, f"{row.parameters / 1e6:.2f} M"),
        "file": (row.size, f"{row.size / 1e6:.1f} MB"),
        "top-1": (row.top1, f"{row.top1:.2%}"),
        "latency": (row.cost.latency_ms, f"{row.cost.latency_ms:.2f} ms"),
        "throughput": (row.cost.throughput, f"{row.cost.throughput:.0f}/s"),
        "memory": (row.cost.memory_mb, f"{row.cost.memory_mb:.0f} MB"),
    }


def table(rows: Sequence[Row], about: str) -> Table:
    """The comparison for a terminal."""
    made = Table(title=about, title_justify="left")
    made.add_column("network")
    for heading in figures(rows[0]):
        made.add_column(heading, justify="right")
    made.add_column("gate")
    for row in rows:
        made.add_row(row.name, *(text for _, text in figures(row).values()), "missed" if row.failure else "passed")
    return made


def document(title: str, rows: Sequence[Row], about: Sequence[str]) -> str:
    """The comparison as a self-contained page: a table with bars, and accuracy over latency."""
    largest = {name: max(figures(row)[name][0] for row in rows) for name in figures(rows[0])}
    heads = "".join(f"<th>{name}</th>" for name in largest)
    lines = []
    for row in rows:
        cells = "".join(
            f'<td style="background:linear-gradient(90deg,#2563eb33 {100 * number / (largest[name] or 1):.0f}%,'
            f'transparent 0)">{text}</td>'
            for name, (number, text) in figures(row).items()
        )
        verdict = f'<span title="{escape(row.failure)}">missed</span>' if row.failure else "passed"
        lines.append(f"<tr><th>{ARCHITECTURES[row.architecture]} {row.precision}</th>{cells}<td>{verdict}</td></tr>")
    failures = [f"{row.name} misses its gate: {row.failure}." for row in rows if row.failure]
    notes = "".join(f"<p>{escape(text)}</p>" for text in (*failures, *about))
    return page.document(
        title,
        f'<div class="wide"><table><tr><th></th>{heads}<th>gate</th></tr>{"".join(lines)}</table></div>'
        f"<h2>Accuracy and latency</h2>{_scatter(rows)}{notes}",
    )


def _scatter(rows: Sequence[Row]) -> str:
    """Top-1 over latency as SVG: up and to the left is better. The area of a point is the file's size."""
    latencies = [figures(row)["latency"][0] for row in rows]
    low, high = min(row.top1 for row in rows), max(row.top1 for row in rows)
    low, high = max(0.0, low - 0.1 * (high - low) - 0.005), min(1.0, high + 0.1 * (high - low) + 0.005)
    right, largest = 1.25 * max(latencies), max(row.size for row in rows)

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - 20) * value / right

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 20) * (value - low) / (high - low)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="top-1 over latency">']
    for value in np.linspace(low, high, 5):
        at = up(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{at:.1f}" y2="{at:.1f}" stroke="#8884"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:.1%}</text>')
    for value in np.linspace(0, right, 6):
        at = across(value)
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:.3g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">ms of one image on one core</text>')
    names = list(dict.fromkeys(row.architecture for row in rows))
    for row, latency in zip(rows, latencies, strict=True):
        place = sorted(latencies).index(latency)
        colour = COLOURS[names.index(row.architecture) % len(COLOURS)]
        x, y, radius = across(latency), up(row.top1), 4 + 12 * (row.size / largest) ** 0.5
        fill = "none" if row.failure else f"{colour}66"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{fill}" stroke="{colour}"/>')
        # Above and below in turns, from left to right: networks of one accuracy would write over one another.
        beside = y - radius - 5 if place % 2 else y + radius + 14
        parts.append(f'<text x="{x:.1f}" y="{beside:.1f}" text-anchor="middle">{row.name}</text>')
    return "".join([*parts, "</svg>"])
