"""What a comparison measured: as data for its line of JSON, and as tables."""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmarks.bare import Bare, cores

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.measure import Row, Setting

PACKAGES = ("bentoml", "fastapi", "uvicorn", "litserve", "mosec", "flask", "gunicorn", "torch", "onnxruntime", "pillow")
# Where anything else takes this share of a core, the figures are not this benchmark's own.
DISTURBED_CORES = 0.1


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
        "benchmark": "compare",
        **machine(),
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


def show(console: Console, data: dict[str, Any]) -> None:
    """Print a summary as tables."""
    one = data["bare"]
    console.print(
        f"Bare loop: {one['images_s']:.1f} images/s ({one['images_s_min']:.1f} to {one['images_s_max']:.1f}); "
        f"one image: decode {one['decode_ms']:.2f} ms, inference {one['inference_ms']:.2f} ms"
    )
    figures = ("throughput", "ratio", "ratio_min", "ratio_max", "p50_ms", "p95_ms", "p99_ms", "cpu_ms_per_request")
    titles = ("req/s", "ratio", "min", "max", "p50 ms", "p95 ms", "p99 ms", "CPU ms")
    table = Table("c", "server", title="c connections; ratio to the bare loop run just before; medians of the rounds")
    for title in (*titles, "not 200"):
        table.add_column(title, justify="right", no_wrap=True)
    loads = [(load, server["name"]) for server in data["servers"] for load in server["load"]]
    loads.sort(key=lambda pair: (pair[0]["connections"], -pair[0]["ratio"]))
    for index, (load, name) in enumerate(loads):
        values = ["-" if load[key] is None else f"{load[key]:.{2 if 'ratio' in key else 1}f}" for key in figures]
        failures = sum(count for status, count in load["statuses"].items() if status != "200")
        last = index + 1 == len(loads) or loads[index + 1][0]["connections"] != load["connections"]
        table.add_row(str(load["connections"]), name, *values, str(failures), end_section=last)
    console.print(table)
    table = Table(title="Memory after the load, and agreement with the artifact's top-1")
    for title in ("server", "processes", "RSS MB", "PSS MB", "top-1", "remark"):
        table.add_column(title, justify="left" if title in ("server", "remark") else "right")
    for server in data["servers"]:
        values = [str(server.get(key, "")) for key in ("processes", "rss_mb", "pss_mb")]
        agreement = server["top1_agreement"]
        top1 = "" if agreement is None else f"{agreement:.0%}"
        table.add_row(server["name"], *values, top1, server["failure"] or "")
    console.print(table)
    disturbed = sum(load["others_cores"] > DISTURBED_CORES for load, _ in loads)
    if disturbed or one["cpu_share_min"] < 1 - DISTURBED_CORES:
        console.print(
            f"Caution: something else used more than {DISTURBED_CORES} cores during {disturbed} of {len(loads)} "
            f"measurements, and left the bare loop {one['cpu_share_min']:.0%} of its cores at worst; "
            "run this again on a machine at rest."
        )


def machine() -> dict[str, Any]:
    """Date, processor, cores and Python, as every benchmark's JSON gives them."""
    name = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": name,
        "cores": cores(),
        "python": platform.python_version(),
    }


def versions(python: Path) -> dict[str, str]:
    """The versions of PACKAGES in the environment of an interpreter."""
    code = (
        "import json, sys\nfrom importlib.metadata import distributions\n"
        "print(json.dumps({d.name.lower(): d.version for d in distributions() if d.name.lower() in sys.argv[1:]}))"
    )
    done = subprocess.run([python, "-c", code, *PACKAGES], capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return dict(sorted(found.items()))
