"""Our own few Prometheus metrics, beside those that BentoML exports on ``/metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.replies import Timing

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters and histograms of one API process; made once, when the service starts.

    Prometheus reads where to keep its values when it is first imported, which only then is known, so not before.
    """

    def __init__(self) -> None:
        from prometheus_client import Counter, Histogram

        self._images = Counter("resnet18_images_total", "Images by outcome: ok or an error code", ["outcome"])
        self._ok = self._images.labels("ok")
        stages = Histogram("resnet18_stage_seconds", "Seconds a request spent in a stage", ["stage"], buckets=_SECONDS)
        self._stages = {stage: stages.labels(stage) for stage in ("decode", "queue", "inference", "total")}

    def answered(self, images: int, timing: Timing) -> None:
        """Count ``images`` answered well, and the request's stages."""
        if images:
            self._ok.inc(images)
        for stage, histogram in self._stages.items():
            histogram.observe(getattr(timing, stage) / 1e3)

    def failed(self, code: str, images: int = 1) -> None:
        """Count ``images`` answered with the error ``code``."""
        self._images.labels(code).inc(images)
