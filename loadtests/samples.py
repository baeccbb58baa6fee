"""Samples: one for each request, and the figures of all of them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.figures import plain, quantile
from loadtests.answers import FAILURES, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Seconds: ``at`` is when it was meant to be sent, from the start; ``latency`` counts from then; ``lag`` is how late
# it was sent. ``kind`` is the position in payloads.KINDS.
DTYPE = np.dtype([("at", "f8"), ("latency", "f8"), ("lag", "f4"), ("status", "u2"), ("outcome", "u1"), ("kind", "u1")])
QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "p99_9_ms": 0.999}


@dataclass
class Run:
    """The result of one plan: samples DTYPE[n], the share of a core that each process used, and failures in words."""

    samples: NDArray[Any]
    cpu_shares: list[float]
    examples: list[str] = field(default_factory=list)
    abandoned: bool = False


def merged(parts: Sequence[bytes]) -> NDArray[Any]:
    """Samples of all workers, DTYPE[n], in the order of intended sending."""
    samples = np.concatenate([np.frombuffer(part, DTYPE) for part in parts] or [np.zeros(0, DTYPE)])
    return samples[np.argsort(samples["at"], kind="stable")]


def with_unanswered(samples: NDArray[Any], at: NDArray[np.float64], kinds: NDArray[np.uint8]) -> NDArray[Any]:
    """``samples``, and one with NO_ANSWER for each planned send (``at``, ``kinds``) that is not among them."""
    left = ~np.isin(at, samples["at"])
    unanswered = np.zeros(np.count_nonzero(left), DTYPE)
    unanswered["at"], unanswered["kind"] = at[left], kinds[left]
    unanswered["latency"], unanswered["outcome"] = np.nan, Outcome.NO_ANSWER
    return merged([samples.tobytes(), unanswered.tobytes()])


def ok(samples: NDArray[Any]) -> NDArray[np.bool_]:
    """Which samples are images answered rightly."""
    mask: NDArray[np.bool_] = samples["outcome"] == Outcome.OK
    return mask


def misses(samples: NDArray[Any], slo_ms: float) -> int:
    """How many were not answered rightly within the SLO: late, refused, failed and unsent alike.

    A broken image that was rejected in time is an answer as good as any.
    """
    right = ok(samples) | (samples["outcome"] == Outcome.REJECTED)
    return int(len(samples) - np.count_nonzero(right & (samples["latency"] * 1e3 <= slo_ms)))


@dataclass(frozen=True)
class Summary:
    """A stretch of a run. Rates a second; latencies in ms, of images answered rightly, from intended sending.

    ``planned``: sends meant to be made; ``dropped``: those that the generator made too late or not at all.
    ``refused``: 429. ``rejected``: broken images answered with a 4xx, as they must be. ``failed``: wrong in any way.
    ``goodput``: images answered rightly within the SLO. ``misses``: everything but goodput and rejections in time.
    ``lag_p99_ms``: how late the generator sent; latencies include it.
    """

    name: str
    seconds: float
    slo_ms: float
    planned: int
    dropped: int
    answered: int
    refused: int
    rejected: int
    failed: int
    misses: int
    offered: float
    achieved: float
    goodput: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p99_9_ms: float
    max_ms: float
    lag_p99_ms: float
    statuses: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """For JSON: what was not measured is null."""
        return {name: plain(value) for name, value in asdict(self).items()}


def summarise(name: str, samples: NDArray[Any], seconds: float, slo_ms: float) -> Summary:
    """The summary of samples that were meant to be sent within ``seconds``."""
    good = ok(samples)
    latencies = samples["latency"][good] * 1e3
    sent = samples[samples["outcome"] != Outcome.DROPPED]
    counts = Counter(Outcome(value) for value in samples["outcome"].tolist())
    failed = {outcome.name.lower(): counts[outcome] for outcome in FAILURES if counts[outcome]}
    return Summary(
        name=name,
        seconds=seconds,
        slo_ms=slo_ms,
        planned=len(samples),
        dropped=counts[Outcome.DROPPED],
        answered=counts[Outcome.OK],
        refused=counts[Outcome.REFUSED],
        rejected=counts[Outcome.REJECTED],
        failed=sum(failed.values()),
        misses=misses(samples, slo_ms),
        offered=len(samples) / seconds,
        achieved=len(sent) / seconds,
        goodput=float(np.count_nonzero(latencies <= slo_ms)) / seconds,
        **{key: quantile(latencies, q) for key, q in QUANTILES.items()},
        max_ms=quantile(latencies, 1.0),
        lag_p99_ms=quantile(sent["lag"].astype(np.float64) * 1e3, 0.99),
        statuses={str(status): count for status, count in sorted(Counter(sent["status"].tolist()).items())},
        failures=failed,
    )


def recovery_s(samples: NDArray[Any], since: float, slo_ms: float) -> float:
    """Seconds from ``since`` until the last bad outcome of later requests: late, refused, failed or unsent.

    0 where every one was answered rightly within the SLO.
    """
    after = samples[samples["at"] >= since]
    right = (ok(after) | (after["outcome"] == Outcome.REJECTED)) & (after["latency"] * 1e3 <= slo_ms)
    bad = after[~right]
    return float(np.max(bad["at"] + np.nan_to_num(bad["latency"])) - since) if len(bad) else 0.0


def timeline(samples: NDArray[Any], seconds: float, slo_ms: float, step: float = 1.0) -> list[dict[str, Any]]:
    """Per ``step`` seconds of intended sending: rates, and p50, p99 and the slowest of right answers in ms."""
    edges = np.arange(0.0, seconds, step)
    cuts = np.searchsorted(samples["at"], [*edges, math.inf])
    rows = []
    for number, begin in enumerate(edges):
        part = samples[cuts[number] : cuts[number + 1]]
        width = min(step, seconds - begin)
        latencies = part["latency"][ok(part)] * 1e3
        outcomes = part["outcome"]
        rows.append(
            {
                "at_s": float(begin),
                "offered": len(part) / width,
                "goodput": float(np.count_nonzero(latencies <= slo_ms)) / width,
                "refused": float(np.count_nonzero(outcomes == Outcome.REFUSED)) / width,
                "failed": float(np.count_nonzero(np.isin(outcomes, FAILURES))) / width,
                "p50_ms": plain(quantile(latencies, 0.5)),
                "p99_ms": plain(quantile(latencies, 0.99)),
                "max_ms": plain(quantile(latencies, 1.0)),
            }
        )
    return rows


def tail(samples: NDArray[Any]) -> list[tuple[float, float]]:
    """The latency distribution for a log axis: pairs of ms and the share of right answers that took longer."""
    latencies = np.sort(samples["latency"][ok(samples)] * 1e3)
    if not len(latencies):
        return []
    ranks = np.unique(len(latencies) - np.geomspace(1, len(latencies), 160).astype(int))
    return [(round(float(latencies[rank]), 3), float((len(latencies) - rank) / len(latencies))) for rank in ranks]
