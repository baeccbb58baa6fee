"""`python benchmarks/plots.py docs/results`: a chart of most benchmarks' JSON that lies there, as SVG beside it.

Runs in the peers' environment, which has matplotlib, and so imports nothing of this repository.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib  # type: ignore[import-not-found, unused-ignore]

matplotlib.use("svg")
import matplotlib.pyplot as plt  # type: ignore[import-not-found, unused-ignore]

OURS, OTHER, THIRD, FOURTH = "#0b6e4f", "#9aa5b1", "#d98324", "#5b7db1"


def compare(data: dict[str, Any]) -> Any:
    """Throughput to bare, and the latencies, of each server at each number of connections."""
    counts = sorted({load["connections"] for server in data["servers"] for load in server["load"]})
    figure, axes = plt.subplots(2, len(counts), figsize=(4 * len(counts), 6), squeeze=False)
    for column, count in enumerate(counts):
        rows = [(s["name"], load) for s in data["servers"] for load in s["load"] if load["connections"] == count]
        rows.sort(key=lambda row: row[1]["ratio"])
        names = [name for name, _ in rows]
        colours = [OURS if name == "resnet18" else OTHER for name in names]
        top, bottom = axes[0][column], axes[1][column]
        ratios = [load["ratio"] for _, load in rows]
        spread = [
            [max(0.0, load["ratio"] - load["ratio_min"]) for _, load in rows],
            [max(0.0, load["ratio_max"] - load["ratio"]) for _, load in rows],
        ]
        top.barh(names, ratios, xerr=spread, color=colours, ecolor="#555")
        top.axvline(1, color="black", linewidth=0.8)
        top.set_title(f"{count} connection{'s' if count > 1 else ''}")
        top.set_xlabel("throughput, bare loop = 1")
        bottom.barh(names, [load["p99_ms"] or 0 for _, load in rows], color=colours, alpha=0.45, label="p99")
        bottom.barh(names, [load["p50_ms"] or 0 for _, load in rows], color=colours, label="p50")
        bottom.set_xlabel("p50 (solid) and p99 (pale), ms")
    return figure


def openloop(data: dict[str, Any]) -> Any:
    """Goodput over offered load, and the overload second by second."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    points = sorted([*data["sweep"], data["overload"]], key=lambda point: point["offered"] / point["bare"])
    offered = [point["offered"] / point["bare"] for point in points]
    left.plot(offered, offered, ":", color=OTHER, label="all offered")
    left.plot(offered, [point["to_bare"] for point in points], "o-", color=OURS, label=f"within {data['slo_ms']} ms")
    left.set(xlabel="offered load, bare loop = 1", ylabel="goodput, bare loop = 1", ylim=(0, 1.1))
    left.legend()
    timeline = data["overload"]["timeline"]
    seconds = [one["second"] for one in timeline]
    right.plot(seconds, [one["sent"] for one in timeline], ":", color=OTHER, label="sent")
    right.plot(seconds, [one["good"] for one in timeline], color=OURS, label=f"200 within {data['slo_ms']} ms")
    right.plot(seconds, [one["refused"] for one in timeline], color=THIRD, label="429")
    right.axvline(data["overload"]["seconds"], color="black", linewidth=0.8)
    right.set(xlabel="second", ylabel="requests a second", title="overload at 3 × the bare rate, and its end")
    right.legend()
    return figure


def footprint(data: dict[str, Any]) -> Any:
    """PSS over requests."""
    figure, axis = plt.subplots(figsize=(6, 3.5))
    readings = data["memory"]
    axis.plot([one["requests"] for one in readings], [one["pss_mb"] for one in readings], color=OURS)
    axis.axhline(300, color=THIRD, linestyle=":")
    axis.set(xlabel="requests answered", ylabel="PSS of all processes, MB", ylim=(0, None))
    return figure


def sizes(data: dict[str, Any]) -> Any:
    """Decode, inference and rest of each photo size, beside the tutorial's total."""
    figure, axis = plt.subplots(figsize=(8, 4))
    rows = data["sizes"]
    places = range(len(rows))
    left = [0.0] * len(rows)
    for key, colour in (("decode", FOURTH), ("inference", OURS), ("rest", THIRD)):
        widths = [row[key] for row in rows]
        axis.barh([at + 0.2 for at in places], widths, 0.38, left=left, color=colour, label=key)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    axis.barh([at - 0.2 for at in places], [row["tutorial"] for row in rows], 0.38, color=OTHER, label="Flask tutorial")
    axis.set_yticks(list(places), [row["name"] for row in rows])
    axis.set_xlabel("ms a request, one at a time")
    axis.legend()
    return figure


def where(data: dict[str, Any]) -> Any:
    """Throughput, tail and memory of each placement."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.5), sharey=True)
    last = max(row["connections"] for row in data["places"])
    rows = [row for row in data["places"] if row["connections"] == last][::-1]
    columns = (("ratio", "throughput, bare loop = 1"), ("p99_to_p50", "p99 / p50"), ("pss_mb", "PSS, MB"))
    for axis, (key, title) in zip(axes, columns, strict=True):
        colours = [OURS if "default" in row["place"] else OTHER for row in rows]
        axis.barh([row["place"] for row in rows], [row[key] for row in rows], color=colours)
        axis.set_xlabel(f"{title} ({last} connections)")
    return figure


def graph(data: dict[str, Any]) -> Any:
    """TorchScript's forms."""
    figure, axis = plt.subplots(figsize=(8, 4))
    rows = sorted(data["torchscript_ms"].items(), key=lambda item: -item[1])
    colours = [OURS if name.startswith("ours") else OTHER for name, _ in rows]
    axis.barh([name for name, _ in rows], [took for _, took in rows], color=colours)
    axis.set_xlabel("ms, one image, one thread")
    return figure


def cache(data: dict[str, Any]) -> Any:
    """Throughput without and with the cache, by load."""
    figure, axis = plt.subplots(figsize=(8, 3.5))
    rows = data["loads"]
    places = range(len(rows))
    axis.bar([at - 0.2 for at in places], [row["off"] for row in rows], 0.38, color=OTHER, label="cache off")
    axis.bar([at + 0.2 for at in places], [row["on"] for row in rows], 0.38, color=OURS, label="cache on")
    axis.set_xticks(list(places), [f"{row['load']}\n{row['hit_rate']:.0%} known" for row in rows])
    axis.set_ylabel("requests a second")
    axis.legend()
    return figure


def gpu(data: dict[str, Any]) -> Any:
    """Images a second by batch, and goodput by offered load."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for row, colour in zip(data["costs"], (OTHER, OURS, FOURTH, THIRD), strict=True):
        batches = [int(batch) for batch in row["images_s"]]
        label = f"{row['runtime']} {row['precision']}"
        left.plot(batches, list(row["images_s"].values()), "o-", color=colour, label=label)
    left.set(xscale="log", yscale="log", xlabel="batch", ylabel="images a second", title=data["gpu"])
    left.legend()
    offered = [point["offered"] for point in data["service"]]
    right.plot(offered, offered, ":", color=OTHER, label="all offered")
    right.plot(offered, [point["goodput"] for point in data["service"]], "o-", color=OURS, label="goodput")
    right.set(xlabel="offered requests a second", ylabel="goodput")
    right.legend()
    return figure


CHARTS = (compare, openloop, footprint, sizes, where, graph, cache, gpu)


def main(folder: Path) -> None:
    """Draw what ``folder`` has data for."""
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "resnet18"})
    for chart in CHARTS:
        path = folder / f"{chart.__name__}.json"
        if not path.is_file():
            continue
        figure = chart(json.loads(path.read_text(encoding="utf-8")))
        figure.tight_layout()
        # Without a date, so that the same data gives the same file.
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        plt.close(figure)
        print(path.with_suffix(".svg"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
