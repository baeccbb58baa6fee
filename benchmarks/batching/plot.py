"""The chart of the contest: goodput over offered load."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from benchmarks.batching.contest import AIMD, CORK, FIXED, ONE, OTHERS, OURS

if TYPE_CHECKING:
    from pathlib import Path


def chart(data: dict[str, Any]) -> Any:
    """Goodput over offered load of each device, SLO and kind of requests, as matplotlib's figure."""
    import matplotlib.pyplot as plt  # type: ignore[import-not-found, unused-ignore]

    colours = {OURS: "#0b6e4f", FIXED: "#5b7db1", CORK: "#d98324", AIMD: "#b0488e", ONE: "#9aa5b1"}
    points = [point for point in data["points"] if point["devices"] == 1]
    places = list(dict.fromkeys((point["backend"], point["slo_ms"]) for point in points))
    kinds = list(dict.fromkeys(point["arrivals"] for point in points))
    figure, axes = plt.subplots(
        len(places), len(kinds), figsize=(4.2 * len(kinds), 2.7 * len(places)), sharex=True, squeeze=False
    )
    for (row, (backend, slo_ms)), (column, kind) in itertools.product(enumerate(places), enumerate(kinds)):
        axis = axes[row][column]
        here = [p for p in points if (p["backend"], p["slo_ms"], p["arrivals"]) == (backend, slo_ms, kind)]
        for policy in ("optimum", *OTHERS, OURS):
            line = sorted((p["load"], p["goodput"] / p["capacity"]) for p in here if p["policy"] == policy)
            style = {"color": "black", "linestyle": ":"} if policy == "optimum" else {"color": colours[policy]}
            label = "best schedule, knowing the future" if policy == "optimum" else policy
            axis.plot(*zip(*line, strict=True), label=label, linewidth=2.2 if policy == OURS else 1.2, **style)
        axis.set(ylim=(0, 1.25), title=f"{backend}, SLO {slo_ms:.0f} ms, {kind}")
        if column == 0:
            axis.set_ylabel("goodput, capacity = 1")
        if row == len(places) - 1:
            axis.set_xlabel("offered load, capacity = 1")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.965))
    return figure


def draw(data: dict[str, Any], path: Path) -> None:
    """Write the chart; the same data give the same file."""
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    matplotlib.use("agg")
    with matplotlib.rc_context({"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "resnet18"}):
        chart(data).savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
