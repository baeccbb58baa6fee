"""The server from outside: its answer to one request, ``/model``, ``/metrics``, and its memory where it is local."""

from __future__ import annotations

import ipaddress
import itertools
import json
import math
import re
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from harness import http, processes
from loadtests import payloads

if TYPE_CHECKING:
    import psutil

    from harness.http import Answer
    from loadtests.payloads import Request

# Whose memory it is, best first: of all processes with shared pages once, or of the one that answers.
_MEMORY = {
    "resnet18_memory_bytes": "all processes of one instance, as /metrics tells (resnet18_memory_bytes)",
    "process_resident_memory_bytes": "one process of the server, as /metrics tells (process_resident_memory_bytes)",
}
_LINE = re.compile(r"^(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>[^}]*)\})?\s+(?P<value>\S+)")
# What the report shows of /metrics, by panel. A rate is a counter's growth a second; a mean is a histogram's sum over
# its count within an interval; the rest are gauges. What a server does not export is left out.
PANELS: dict[str, dict[str, tuple[str, str]]] = {
    "Images in a batch": {
        "mean": ("mean", "resnet18_batch_images"),
        "usual size": ("gauge", "resnet18_batch_limit_images"),
    },
    "Waiting images": {"queue": ("gauge", "resnet18_queue_images")},
    "Stages, ms": {
        "decode": ("mean_ms", 'resnet18_stage_seconds{stage="decode"}'),
        "queue": ("mean_ms", 'resnet18_stage_seconds{stage="queue"}'),
        "inference": ("mean_ms", 'resnet18_stage_seconds{stage="inference"}'),
    },
    "Cost model, ms": {
        "α, an image": ("gauge_ms", "resnet18_cost_alpha_seconds"),
        "β, a batch": ("gauge_ms", "resnet18_cost_beta_seconds"),
    },
    "Refused by the server, a second": {
        "queue_full": ("rate", 'resnet18_refused_total{reason="queue_full"}'),
        "deadline": ("rate", 'resnet18_refused_total{reason="deadline"}'),
        "expired": ("rate", 'resnet18_refused_total{reason="expired"}'),
        "memory": ("rate", 'resnet18_refused_total{reason="memory"}'),
        "rate limit": ("rate", 'resnet18_door_refused_total{code="rate_limited"}'),
        "no API key": ("rate", 'resnet18_door_refused_total{code="unauthorized"}'),
    },
}


def send(url: str, request: Request) -> Answer:
    """The answer of the server at ``url`` to ``request``. Raises OSError."""
    headers = {"Content-Type": request.content_type} | payloads.authorization()
    return http.ask(url.rstrip("/") + request.path, "POST", request.body, headers)


def wait_ready(url: str, seconds: float) -> float:
    """Seconds until ``url`` answers ``/readyz`` with 200. Raises OSError after ``seconds``."""
    headers = payloads.authorization()
    return http.wait_ready(f"{url}/readyz", seconds, headers=headers, timeout_s=http.TIMEOUT_S)


def model(url: str) -> dict[str, Any]:
    """The JSON of ``GET /model``; empty where the server has no such page. Raises OSError."""
    status, _, content = http.ask(f"{url}/model", headers=payloads.authorization())
    if status != 200:
        return {}
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


@dataclass
class Memory:
    """Memory over time, in MB (10^6 bytes). ``source`` says of which processes; None where it can't be known."""

    source: str | None
    points: list[tuple[float, float]] = field(default_factory=list)

    def body(self) -> dict[str, Any]:
        """Start, end, growth and slope from second 0, the end of the warm-up; medians of a tenth at either end."""
        kept = [(at, value) for at, value in self.points if at >= 0]
        if self.source is None or len(kept) < 5:
            why = f"the server's processes are not on this machine, and /metrics has none of {', '.join(_MEMORY)}"
            return {"source": self.source, "why_not": why if self.source is None else "too short to tell"}
        tenth = max(1, len(kept) // 10)
        start = statistics.median(value for _, value in kept[:tenth])
        end = statistics.median(value for _, value in kept[-tenth:])
        slope = statistics.linear_regression(*zip(*kept, strict=True)).slope * 3600
        return {
            "source": self.source,
            "start_mb": round(start, 1),
            "end_mb": round(end, 1),
            "max_mb": round(max(value for _, value in kept), 1),
            "growth_mb": round(end - start, 1),
            "slope_mb_per_hour": round(slope, 1),
            "points": [(round(at, 1), round(value, 1)) for at, value in self.points],
        }


class Watch:
    """Scrapes a server every ``every_s`` seconds. The run calls ``look`` with the seconds since its warm-up's end."""

    def __init__(self, url: str, every_s: float) -> None:
        self._url, self._every_s = url, every_s
        self._next = -math.inf
        self._scrapes: list[tuple[float, dict[str, float]]] = []
        exported = self._scrape()
        self._has_metrics = bool(exported)
        self._metric = next((name for name in _MEMORY if name in exported), "")
        # What the whole service tells of itself follows workers that come and go; any other page tells of one process.
        self._roots = [] if self._metric == "resnet18_memory_bytes" else _listening(url)
        source = "the processes behind the port and their children" if self._roots else _MEMORY.get(self._metric)
        self.memory = Memory(source)

    def look(self, at: float) -> None:
        """Take a reading if it is time for one."""
        if at < self._next:
            return
        self._next = at + self._every_s
        values = self._scrape() if self._has_metrics else {}
        if values:
            self._scrapes.append((at, values))
        used = processes.resident_bytes(self._roots) if self._roots else values.get(self._metric)
        if used:
            self.memory.points.append((at, used / 1e6))

    def panels(self) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """PANELS as series of (second, value), without those that the server does not export."""
        out: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for title, lines in PANELS.items():
            drawn = {name: _series(self._scrapes, how, metric) for name, (how, metric) in lines.items()}
            if kept := {name: points for name, points in drawn.items() if points}:
                out[title] = kept
        return out

    def _scrape(self) -> dict[str, float]:
        try:
            status, _, content = http.ask(f"{self._url}/metrics", headers=payloads.authorization())
        except OSError:
            return {}
        return parse(content.decode(errors="replace")) if status == 200 else {}


def parse(text: str) -> dict[str, float]:
    """The samples of a Prometheus text page that the panels need, by name and labels; those of workers are summed.

    A parser for the whole format takes 10 ms a page, in which nothing would be sent; the panels need a few lines.
    """
    values: dict[str, float] = {}
    for line in text.splitlines():
        wanted = line.startswith(("resnet18_", "process_resident_memory_bytes")) and "_bucket" not in line
        if wanted and (found := _LINE.match(line)):
            labels = ",".join(part for part in (found["labels"] or "").split(",") if not part.startswith("pid="))
            key = found["name"] + (f"{{{labels}}}" if labels else "")
            values[key] = values.get(key, 0.0) + float(found["value"])
    return values


def _series(scrapes: list[tuple[float, dict[str, float]]], how: str, metric: str) -> list[tuple[float, float]]:
    factor = 1e3 if how.endswith("_ms") else 1.0
    if how.startswith("gauge"):
        return [(round(at, 1), factor * values[metric]) for at, values in scrapes if metric in values]
    name, brace, labels = metric.partition("{")
    points = []
    for (before_at, before), (at, after) in itertools.pairwise(scrapes):
        if how == "rate":
            if metric in after:
                points.append((round(at, 1), (after[metric] - before.get(metric, 0.0)) / (at - before_at)))
            continue
        total, count = f"{name}_sum{brace}{labels}", f"{name}_count{brace}{labels}"
        grown = after.get(count, 0.0) - before.get(count, 0.0)
        if grown > 0:
            points.append((round(at, 1), factor * (after[total] - before.get(total, 0.0)) / grown))
    return points


def is_local(url: str) -> bool:
    """Whether ``url`` names this machine by a loopback address."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(url: str) -> list[psutil.Process]:
    """The processes that listen on the port of a local ``url``; none of another machine's."""
    return processes.listeners(urlsplit(url).port or 80) if is_local(url) else []
