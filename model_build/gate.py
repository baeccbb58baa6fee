"""The accuracy gate: an artifact, loaded as it will be served, against the eager fp32 network it came from."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model_build.network import Contract
    from model_build.samples import Samples
    from runners.backends import Backend

BATCH = 32


@dataclass(frozen=True)
class Thresholds:
    """What an artifact must hold. Reduced precisions: ``agreement``, the share of images with the same top-1, and
    ``accuracy_loss``, percentage points of top-1; fp32: ``difference``, the largest between two probabilities."""

    agreement: float = 0.98
    accuracy_loss: float = 1.0
    difference: float = 1e-4


@dataclass(frozen=True)
class Report:
    """The gate's figures. Accuracies are shares of 1, and None where the images' classes are not known."""

    images: int
    source: str
    agreement: float
    largest_difference: float
    top1: float | None
    top5: float | None
    top1_change_points: float | None
    latency_batch1_ms: float
    thresholds: dict[str, float]
    failure: str | None

    def body(self) -> dict[str, Any]:
        """The manifest's ``gate``, without the latency, which is the machine's and not the artifact's."""
        figures = asdict(self)
        del figures["latency_batch1_ms"], figures["failure"]
        return figures


@dataclass(frozen=True)
class EngineReport:
    """The gate's figures of an artifact with an engine that is not its runtime's default, on a ``cpu`` of a family."""

    cpu: str
    report: Report

    def told(self) -> dict[str, Any]:
        """Its part of the manifest's ``gate``; the latency is that of one image on one core of the building machine."""
        report = self.report
        figures = ("agreement", "largest_difference", "top1", "top5", "latency_batch1_ms", "failure")
        return {"cpu": self.cpu} | {name: getattr(report, name) for name in figures}

    def sentence(self, artifact: str, engine: str) -> str:
        """The result in words."""
        if self.report.failure is not None:
            return f"{artifact} has not passed the gate with {engine}: {self.report.failure}"
        figures = f"agreement {self.report.agreement:.2%}, one image {self.report.latency_batch1_ms:.1f} ms"
        return f"{artifact} has passed the gate with {engine} too, on {self.cpu}: {figures}"


def reference(module: Contract, samples: Samples) -> NDArray[np.float32]:
    """Probabilities float32[N, C] of the eager fp32 network."""
    import torch

    with torch.inference_mode():
        rows = [
            module(torch.from_numpy(samples.pixels[start : start + BATCH])).numpy()
            for start in range(0, len(samples), BATCH)
        ]
    return np.concatenate(rows)


def infer(backend: Backend, samples: Samples) -> NDArray[np.float32]:
    """Probabilities float32[N, C] of an artifact that is loaded."""
    starts = range(0, len(samples), BATCH)
    return np.concatenate([backend.infer(samples.pixels[start : start + BATCH]) for start in starts])


def likeness(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """The share of images with the same top-1, and the largest difference of a probability; both float32[N, C]."""
    return float(np.mean(actual.argmax(1) == expected.argmax(1))), float(np.abs(actual - expected).max())


def judge(
    backend: Backend,
    samples: Samples,
    expected: NDArray[np.float32],
    precision: str,
    thresholds: Thresholds,
    actual: NDArray[np.float32] | None = None,
) -> Report:
    """Compare ``backend`` with ``expected`` on ``samples``; ``failure`` says which threshold it misses, or None.

    ``actual``: what ``infer`` gave, where that is known already.
    """
    if actual is None:
        actual = infer(backend, samples)
    agreement, difference = likeness(actual, expected)
    top1 = top5 = change = None
    if samples.classes is not None:
        top1, top5 = accuracy(actual, samples.classes, 1), accuracy(actual, samples.classes, 5)
        change = 100 * (top1 - accuracy(expected, samples.classes, 1))
    failure = None
    if not np.isfinite(actual).all():
        failure = "it gives probabilities that are not finite"
    elif precision == "fp32" and (difference > thresholds.difference or agreement < 1):
        failure = (
            f"agreement {agreement:.2%} and difference {difference:.1e}; needed: 100% and {thresholds.difference:g}"
        )
    elif precision != "fp32" and agreement < thresholds.agreement:
        failure = f"top-1 agreement with fp32 is {agreement:.2%}; needed: {thresholds.agreement:.2%}"
    elif precision != "fp32" and change is not None and -change >= thresholds.accuracy_loss:
        failure = f"top-1 accuracy falls by {-change:.2f} points; allowed: less than {thresholds.accuracy_loss:g}"
    return Report(
        images=len(samples),
        source=samples.source,
        agreement=agreement,
        largest_difference=difference,
        top1=top1,
        top5=top5,
        top1_change_points=change,
        latency_batch1_ms=_latency(backend, samples.pixels[:1]),
        thresholds=asdict(thresholds),
        failure=failure,
    )


def accuracy(probabilities: NDArray[np.float32], classes: NDArray[np.int64], k: int) -> float:
    """The share of rows whose true class is among the ``k`` most probable."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float(np.mean((best == classes[:, None]).any(axis=1)))


def _latency(backend: Backend, pixels: NDArray[np.uint8]) -> float:
    """Milliseconds of one image, the median of twenty."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        backend.infer(pixels)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)
