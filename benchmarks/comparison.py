"""The results of `benchmarks.compare`: data for its line of JSON, tables and goals."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from benchmarks.results import Goal, Sheet, at_least, at_most

if TYPE_CHECKING:
    from benchmarks.bare import Bare
    from benchmarks.measure import Row, Setting

OURS = "resnet18"
TUTORIAL = "flask-torch"


def summary(rows: list[Row], yardsticks: list[Bare], setting: Setting, rounds: int) -> dict[str, Any]:
    """Everything measured: medians over the rounds, ratios with their spread."""
    images = [one.images_s for one in yardsticks]
    servers = []
    for row in rows:
        entry: dict[str, Any] = {"name": row.peer.name, "top1_agreement": row.agreement, "failure": row.failure}
        if row.memory:
            entry["rss_mb"] = _median([memory.rss_mb for memory in row.memory], 1)
            entry["pss_mb"] = _median([memory.pss_mb for memory in row.memory], 1)
            entry["processes"] = row.memory[-1].processes
        entry["load"] = [_figures(row, connections) for connections in row.points]
        servers.append(entry)
    return {
        "artifact": setting.artifact.name,
        "photos": len(setting.photos),
        "mean_photo_kb": round(statistics.mean(len(photo) for photo in setting.photos.values()) / 1000, 1),
        "workers": setting.workers,
        "seconds": setting.seconds,
        "rounds": rounds,
        "bare": {
            "runs": len(yardsticks),
            "images_s": _median(images, 2),
            "images_s_min": round(min(images), 2),
            "images_s_max": round(max(images), 2),
            "decode_ms": _median([one.decode_ms for one in yardsticks], 2),
            "inference_ms": _median([one.inference_ms for one in yardsticks], 2),
            "cpu_share_min": round(min(one.cpu_share for one in yardsticks), 3),
        },
        "servers": servers,
    }


def _figures(row: Row, connections: int) -> dict[str, Any]:
    points = row.points[connections]
    ratios = [point.ratio for point in points]
    statuses: Counter[int] = Counter()
    for point in points:
        statuses.update(point.result.statuses)
    return {
        "connections": connections,
        "throughput": _median([point.result.throughput for point in points], 2),
        "ratio": _median(ratios, 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "p50_ms": _median([point.result.p50_ms for point in points], 2),
        "p95_ms": _median([point.result.p95_ms for point in points], 2),
        "p99_ms": _median([point.result.p99_ms for point in points], 2),
        "cpu_ms_per_request": _median([point.cpu_ms for point in points], 2),
        "generator_cpu_share": round(max(point.result.cpu_share for point in points), 3),
        "others_cores": _median([point.others_cores for point in points], 2),
        "rounds": len(points),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
    }


def _median(values: list[float], digits: int) -> float | None:
    known = [value for value in values if value == value]  # a run without a 200 has NaN for its latencies
    return round(statistics.median(known), digits) if known else None


def sheets(data: dict[str, Any]) -> list[Sheet]:
    """A summary as tables."""
    one = data["bare"]
    loads = [(load, server["name"]) for server in data["servers"] for load in server["load"]]
    loads.sort(key=lambda pair: (pair[0]["connections"], -pair[0]["ratio"]))
    figures = ("throughput", "ratio", "ratio_min", "ratio_max", "p50_ms", "p95_ms", "p99_ms", "cpu_ms_per_request")
    return [
        Sheet(
            "Bare loop: decode and inference in one process a core, nothing else",
            ("images/s", "min", "max", "decode ms", "inference ms"),
            [[one[key] for key in ("images_s", "images_s_min", "images_s_max", "decode_ms", "inference_ms")]],
        ),
        Sheet(
            "Closed loop of c connections; ratio to the bare loops just before and after; medians of the rounds",
            ("c", "server", "req/s", "ratio", "min", "max", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "not 200"),
            [
                [load["connections"], name, *(load[key] for key in figures), _failures(load["statuses"])]
                for load, name in loads
            ],
        ),
        Sheet(
            "Memory after the load, and agreement with the artifact's top-1",
            ("server", "processes", "RSS MB", "PSS MB", "top-1", "remark"),
            [
                [
                    *(server.get(key) for key in ("name", "processes", "rss_mb", "pss_mb", "top1_agreement")),
                    server["failure"] or "",
                ]
                for server in data["servers"]
            ],
        ),
    ]


def goals(data: dict[str, Any]) -> list[Goal]:
    """The goals: medians of ratios, each to the bare loops just before and after."""
    by_name = {server["name"]: {load["connections"]: load for load in server["load"]} for server in data["servers"]}
    ours, tutorial = by_name.get(OURS, {}), by_name.get(TUTORIAL, {})
    found = [at_least(f"throughput to bare at c={c}", _get(ours, c, "ratio"), 0.95) for c in (8, 32)]
    for connections in sorted({c for loads in by_name.values() for c in loads}):
        peers = {name: _get(loads, connections, "ratio") for name, loads in by_name.items() if name != OURS}
        known = {name: ratio for name, ratio in peers.items() if ratio}
        own = _get(ours, connections, "ratio")
        if known and own:
            best = max(known, key=lambda name: known[name])
            found.append(at_least(f"throughput to the best peer ({best}) at c={connections}", own / known[best], 1.0))
    p50, p99 = _get(ours, 32, "p50_ms"), _get(ours, 32, "p99_ms")
    found.append(at_most("p99 to p50 at c=32", p99 / p50 if p50 and p99 else None, 2.0))
    for connections in (8, 32):
        own, theirs = _get(ours, connections, "ratio"), _get(tutorial, connections, "ratio")
        times = own / theirs if own and theirs else None
        found.append(at_least(f"throughput to the Flask tutorial at c={connections}", times, 6.0))
    return found


def others(data: dict[str, Any]) -> float:
    """How many cores anything else took, at the worst measurement."""
    taken = [load["others_cores"] for server in data["servers"] for load in server["load"]]
    return float(max([*taken, data["cores"] * (1 - data["bare"]["cpu_share_min"])]))


def _get(loads: dict[int, dict[str, Any]], connections: int, key: str) -> float | None:
    value: float | None = loads.get(connections, {}).get(key)
    return value


def _failures(statuses: dict[str, int]) -> int:
    return sum(count for status, count in statuses.items() if status != "200")
