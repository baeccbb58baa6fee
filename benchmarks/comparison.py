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
OURS_OPENVINO = "resnet18+openvino"
# As many API workers as the peers have.
OURS_WORKERS = "resnet18+openvino+workers"
# The peer that runs with OpenVINO as well, so that nobody can say that the engine did it all.
WITH_OPENVINO = "mosec"
TUTORIAL = "flask-torch"


def summary(rows: list[Row], yardsticks: list[Bare], setting: Setting, rounds: int) -> dict[str, Any]:
    """Everything measured: medians over the rounds, ratios with their spread."""
    servers = []
    for row in rows:
        engine = row.peer.engine if row.peer.same_artifact else "torch"
        entry: dict[str, Any] = {
            "name": row.peer.name,
            "engine": engine,
            "top1_agreement": row.agreement,
            "failure": row.failure,
        }
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
        "bare": yardstick(yardsticks),
        "servers": servers,
    }


def yardstick(runs: list[Bare]) -> dict[str, Any]:
    """The bare loops of one engine."""
    images = [one.images_s for one in runs]
    return {
        "runs": len(runs),
        "images_s": _median(images, 2),
        "images_s_min": round(min(images), 2),
        "images_s_max": round(max(images), 2),
        "decode_ms": _median([one.decode_ms for one in runs], 2),
        "inference_ms": _median([one.inference_ms for one in runs], 2),
        "cpu_share_min": round(min(one.cpu_share for one in runs), 3),
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
    loads = [(load, server["name"], server["engine"]) for server in data["servers"] for load in server["load"]]
    loads.sort(key=lambda pair: (pair[0]["connections"], -pair[0]["ratio"]))
    figures = ("throughput", "ratio", "ratio_min", "ratio_max", "p50_ms", "p95_ms", "p99_ms", "cpu_ms_per_request")
    return [
        Sheet(
            "Bare loop: decode and inference in one process a core, nothing else",
            ("engine", "images/s", "min", "max", "decode ms", "inference ms", "ratio"),
            [
                [
                    engine,
                    *(one[key] for key in ("images_s", "images_s_min", "images_s_max")),
                    one["decode_ms"],
                    one["inference_ms"],
                    round(one.get("ratio", 1.0), 3),
                ]
                for engine, one in (("onnxruntime", data["bare"]), ("openvino", data.get("bare_openvino")))
                if one
            ],
        ),
        Sheet(
            "Closed loop of c connections; ratio to the bare loops just before and after; medians of the rounds",
            (
                "c",
                "server",
                "engine",
                "req/s",
                "ratio",
                "min",
                "max",
                "p50 ms",
                "p95 ms",
                "p99 ms",
                "CPU ms",
                "not 200",
            ),
            [
                [load["connections"], name, engine, *(load[key] for key in figures), _failures(load["statuses"])]
                for load, name, engine in loads
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
    peers = {server["name"] for server in data["servers"] if server["engine"] == "onnxruntime"} - {OURS}
    tutorial = by_name.get(TUTORIAL, {})
    openvino = data.get("bare_openvino", {}).get("ratio")
    bare_ratio = {OURS: 1.0, OURS_OPENVINO: openvino, OURS_WORKERS: openvino}
    found: list[Goal] = []
    for name in bare_ratio:
        own = by_name.get(name)
        if not own:
            continue
        for connections, least in ((1, 1.45), (8, 1.12), (32, 1.18)):
            known = {peer: _get(by_name[peer], connections, "ratio") for peer in peers}
            ratios = {peer: ratio for peer, ratio in known.items() if ratio}
            ratio = _get(own, connections, "ratio")
            if ratios and ratio:
                best = max(ratios, key=lambda peer: ratios[peer])
                found.append(
                    at_least(f"{name}: throughput to {best}'s at c={connections}", ratio / ratios[best], least)
                )
        p50, p99, theirs = _get(own, 32, "p50_ms"), _get(own, 32, "p99_ms"), _get(by_name.get("mosec", {}), 8, "p99_ms")
        eight, ratio, whole = _get(own, 8, "p99_ms"), _get(own, 32, "ratio"), bare_ratio[name]
        found.append(at_most(f"{name}: p99 to mosec's at c=8", eight / theirs if eight and theirs else None, 1.0))
        found.append(at_most(f"{name}: p99 to p50 at c=32", p99 / p50 if p50 and p99 else None, 1.3))
        found.append(
            at_least(
                f"{name}: throughput to its engine's bare loop at c=32",
                ratio / whole if ratio and whole else None,
                0.95,
            )
        )
        for connections in (8, 32):
            ratio, flask = _get(own, connections, "ratio"), _get(tutorial, connections, "ratio")
            times = ratio / flask if ratio and flask else None
            found.append(at_least(f"{name}: throughput to the Flask tutorial at c={connections}", times, 5.0))
    for server in data["servers"]:
        if server["name"] in bare_ratio:
            most = 290.0 if server["name"] == OURS else 380.0
            found.append(at_most(f"{server['name']}: PSS in MB", server.get("pss_mb"), most))
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
