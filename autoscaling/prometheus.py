"""A service's own traffic: the history of its offered rate, from the Prometheus that scrapes it."""

from __future__ import annotations

import math
import time
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autoscaling.fields import is_address, parsed, quoted
from autoscaling.traces import DAY_S, MAX_SECONDS
from harness.http import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

METRIC = "resnet18_images_total"
# Prometheus answers no query_range of more points a series (web/api/v1, "exceeded maximum resolution").
MAX_POINTS = 11_000
# A rate needs two samples; fewer than this many seconds hold none where it is scraped every 15 to 30 s.
MIN_WINDOW_S = 60
# For a query, and for all of a history, until the answer is whole.
TIMEOUT_S = 60.0
HISTORY_S = 600.0
_MAX_BYTES = 64 * 2**20


class PrometheusError(Exception):
    """No history could be read; the message is one sentence that quotes the query or the answer."""


@dataclass(frozen=True)
class History:
    """Images offered in each of ``counts``' steps of ``step_s`` seconds, the first of which begins at epoch ``start``.

    ``counts``: float64[n], NaN where Prometheus has no sample. First and last are never NaN.
    """

    start: int
    step_s: int
    counts: NDArray[np.float64]

    def gaps(self) -> list[tuple[int, int]]:
        """Runs of steps without a sample: (first step, steps)."""
        edges = np.flatnonzero(np.diff(np.concatenate(([False], np.isnan(self.counts), [False]))))
        return [(int(first), int(end - first)) for first, end in edges.reshape(-1, 2)]


def query(step_s: int, labels: str = "") -> str:
    """PromQL of the images offered a second, refused ones included; ``labels`` as within the braces of a selector."""
    return f"sum(rate({METRIC}{{{labels}}}[{max(step_s, MIN_WINDOW_S)}s]))"


def history(url: str, days: float, *, step_s: int = 60, labels: str = "", end: float | None = None) -> History:
    """The offered rate of the last ``days`` until ``end`` (epoch seconds, default now), from the Prometheus at ``url``.

    It asks for pieces of at most MAX_POINTS, and gives up after HISTORY_S. The time before the first sample and after
    the last is left out. Raises PrometheusError.
    """
    most = MAX_SECONDS // DAY_S
    if not 0 < days <= most:
        raise PrometheusError(
            f"{days:g} days of history can't be asked for: it must be more than 0, and at most {most}"
        )
    if step_s < 1:
        raise PrometheusError(f"a step of {step_s} s can't be asked for: it must be 1 or more")
    base, until = _base(url), time.monotonic() + HISTORY_S
    # A sample at t is the mean of the step before t.
    last = int(time.time() if end is None else end) // step_s * step_s
    steps = max(1, round(days * DAY_S / step_s))
    rates = np.full(steps, np.nan)
    for first in range(0, steps, MAX_POINTS):
        stop = min(first + MAX_POINTS, steps)
        times = last - (steps - 1 - first) * step_s, last - (steps - stop) * step_s
        for at, value in _range(base, query(step_s, labels), *times, step_s, until):
            rates[round((at - times[0]) / step_s) + first] = value
    found = np.flatnonzero(~np.isnan(rates))
    if not len(found):
        raise PrometheusError(_why_empty(base, labels, days, max(step_s, MIN_WINDOW_S), last))
    kept = rates[found[0] : found[-1] + 1] * step_s
    return History(last - (steps - int(found[0])) * step_s, step_s, kept)


def instant(url: str, expression: str) -> float | None:
    """The one value that ``expression`` has now; None where it has none. Raises PrometheusError."""
    result = _answer(_base(url), "query", {"query": expression})
    if not result:
        return None
    try:
        (series,) = result
        value = float(series["value"][1])
    except (ValueError, TypeError, KeyError, IndexError):
        raise PrometheusError(f"{url}: {expression} has {len(result)} values, one was asked for") from None
    return value if math.isfinite(value) else None


def _base(url: str) -> str:
    if not is_address(url):
        raise PrometheusError(
            f"{quoted(url)} is no address of a Prometheus; it is to be such as http://prometheus:9090"
        )
    parts = urllib.parse.urlsplit(url)
    if parts.username is not None or parts.query or parts.fragment:
        # The URL is in every message: a password must not be.
        host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise PrometheusError(f"{host!r} was given with a user, query or fragment; it is to be the address alone")
    return url.rstrip("/")


def _range(
    base: str, expression: str, start: int, end: int, step_s: int, until: float
) -> Iterator[tuple[float, float]]:
    """The samples (epoch seconds, value) of the one series that ``expression`` gives."""
    asked = {"query": expression, "start": str(start), "end": str(end), "step": str(step_s)}
    result = _answer(base, "query_range", asked, until)
    try:
        samples = [(float(at), float(value)) for series in result for at, value in series["values"]]
    except (ValueError, TypeError, KeyError, OverflowError):
        raise PrometheusError(f"{base} does not answer like a Prometheus: {str(result)[:80]!r}") from None
    for at, value in samples:
        if start <= at <= end and math.isfinite(value):
            yield at, value


def _answer(base: str, path: str, parameters: dict[str, str], until: float = math.inf) -> list[Any]:
    """``data.result`` of Prometheus' answer to an API query, before ``until`` (monotonic). Raises PrometheusError."""
    left = until - time.monotonic()
    if left <= 0:
        raise PrometheusError(
            f"{base} is too slow: its history is not whole after {HISTORY_S:g} s; ask for fewer --days"
        )
    try:
        status, headers, body = ask(
            f"{base}/api/v1/{path}?{urllib.parse.urlencode(parameters)}",
            timeout_s=TIMEOUT_S, within_s=min(TIMEOUT_S, left), most=_MAX_BYTES + 1,
        )  # fmt: skip
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise PrometheusError(f"no Prometheus answers at {base}: {why}") from None
    if len(body) > _MAX_BYTES:
        raise PrometheusError(f"{base} answers more than {_MAX_BYTES // 2**20} MiB to {parameters['query']}")
    if 300 <= status < 400:
        to = next((value for name, value in headers.items() if name.lower() == "location"), "").partition("?")[0]
        raise PrometheusError(f"{base} is not where Prometheus is: status {status}, which leads to {quoted(to)}")
    try:
        answer = parsed(body)
        if answer["status"] != "success":
            raise PrometheusError(f"{base} refuses {parameters['query']}: {str(answer['error'])[:300]}")
        result = answer["data"]["result"]
        if not isinstance(result, list):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        start = body[:60].decode(errors="replace")
        raise PrometheusError(
            f"{base} does not answer like a Prometheus: status {status}, a body that begins {start!r}"
        ) from None
    return result


def _why_empty(base: str, labels: str, days: float, window_s: int, last: int) -> str:
    """Why there was no rate at all in the last ``days``."""
    selector = f"{METRIC}{{{labels}}}"
    there = f"count(count_over_time({selector}[{max(1, round(days * 86400))}s]))"
    if _answer(base, "query", {"query": there, "time": str(last)}):
        return f"{base} never has two samples of {selector} within {window_s} s, which a rate needs: scrape more often"
    return f"{base} has no sample of {selector} in the last {days:g} days"
