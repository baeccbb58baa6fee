"""Our own Prometheus metrics, beside those that BentoML exports on ``/metrics``.

prometheus_client reads the folder for its values when it is first imported, and the folder is known only when the
service starts. So the constructors import it, which run then.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context

from serving.replies import STAGES

if TYPE_CHECKING:
    from prometheus_client import Counter

    from classifier.errors import ClassifierError
    from runners.executors import ExecutorPool
    from runners.jobs import Batch
    from serving.replies import Timing

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PUBLISH_EVERY_S = 0.25
_RATIOS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 4.0)
# The outcomes that load causes, whatever the clients send.
_OF_LOAD = ("overloaded", "timeout", "unavailable", "disconnected")
# The environment variable that names the folder of all processes' values.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# The files in which prometheus_client keeps a process's values, with enough bytes for every label that can occur.
_FILES = dict.fromkeys(("counter", "gauge_all", "gauge_livesum", "gauge_livemax", "gauge_livemostrecent"), 1 << 16)
_FILES |= {"histogram": 1 << 19}
# The files in which a container reads the memory limit of its control group, in versions 2 and 1.
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

logger = logging.getLogger("bentoml.resnet18")


def reserve() -> None:
    """Allocate the disk space that this process's metrics will need, before the first metric is made.

    prometheus_client maps sparse files. When the disk is full, the first write to a new page of them kills the process
    with SIGBUS. If there is no space now, the metrics of this process stay in its memory.
    """
    folder = Path(os.environ.get(FOLDER, ""))
    if FOLDER not in os.environ or not hasattr(os, "posix_fallocate"):
        return
    for path in folder.glob("gauge_live*_*.db"):
        # A killed process has left this file, and its last queue would be counted for ever.
        if not psutil.pid_exists(int(path.stem.rpartition("_")[2])):
            path.unlink(missing_ok=True)
    paths = {folder / f"{name}_{os.getpid()}.db": size for name, size in _FILES.items()}
    try:
        for path, size in paths.items():
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        for path in paths:
            path.unlink(missing_ok=True)
        logger.warning("/metrics will tell of this process alone: %s: %s", folder, error.strerror)
        del os.environ[FOLDER]
        BentoMLContainer.metrics_client.get().multiproc = False


class ProcessMetrics:
    """CPU and memory of the whole service with its supervisor, measured at each request to ``/metrics``."""

    def __init__(self) -> None:
        from prometheus_client import Gauge

        self._cpu = Gauge(
            "resnet18_cpu_seconds", "CPU seconds of all processes so far", multiprocess_mode="livemostrecent"
        )
        self._memory = Gauge(
            "resnet18_memory_bytes", "Memory of all processes, shared pages once", multiprocess_mode="livemostrecent"
        )
        limit = Gauge(
            "resnet18_memory_limit_bytes", "The container's limit of memory", multiprocess_mode="livemostrecent"
        )
        limit.set(_memory_limit())

    def measure(self) -> None:
        """Read both from the operating system, in a few milliseconds."""
        # Workers are children of the supervisor. A process's CPU time includes that of its dead children.
        root = psutil.Process(os.getppid() if server_context.worker_index is not None else None)
        seconds, memory = 0.0, 0
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                seconds += sum(process.cpu_times()[:4])
                used = process.memory_full_info()
                memory += getattr(used, "pss", used.rss)
        self._cpu.set(seconds)
        self._memory.set(memory)


def _memory_limit() -> int:
    """Bytes of memory that the container allows; the machine's where there is no container, or no limit."""
    limits = [psutil.virtual_memory().total]
    for path in _MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int(path.read_text()))
    return min(limits)


class RequestMetrics:
    """Images by outcome and the stages of requests, of one API process. ``slo_s``: the bound of one more bucket."""

    def __init__(self, slo_s: float) -> None:
        from prometheus_client import Counter, Histogram

        self._images = Counter("resnet18_images_total", "Images by outcome: ok or an error code", ["outcome"])
        self._refused = Counter("resnet18_refused_total", "Refusals with the code overloaded, by reason", ["reason"])
        self._ok = self._images.labels("ok")
        # These series exist from the start, at 0. Prometheus can't see the first value of a series that appears later,
        # so an autoscaler would miss the first burst of refusals.
        self._by_code = {code: self._images.labels(code) for code in _OF_LOAD}
        self._by_reason: dict[str, Counter] = {}
        # Without this bound no query could tell the requests within the SLO from the others.
        bounds = sorted({*_SECONDS, slo_s})
        stages = Histogram("resnet18_stage_seconds", "Seconds a request spent in a stage", ["stage"], buckets=bounds)
        self._stages = {stage: stages.labels(stage) for stage in STAGES}

    def answered(self, images: int, timing: Timing) -> None:
        """Count ``images`` with predictions, and the stages of their request."""
        if images:
            self._ok.inc(images)
        for stage, histogram in self._stages.items():
            histogram.observe(getattr(timing, stage) / 1e3)

    def failed(self, error: ClassifierError | str, images: int = 1) -> None:
        """Count ``images`` answered with ``error``, an error or its code."""
        code = error if isinstance(error, str) else error.code
        _child(self._images, code, self._by_code).inc(images)
        if not isinstance(error, str) and "reason" in error.facts:
            _child(self._refused, error.facts["reason"], self._by_reason).inc()


def _child(metric: Counter, label: str, known: dict[str, Counter]) -> Counter:
    """``metric`` of ``label``, looked up once: in overload there are more refusals than answers."""
    if label not in known:
        known[label] = metric.labels(label)
    return known[label]


class CacheMetrics:
    """Images by what the cache made of them, and its size, of one API process."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge

        images = Counter("resnet18_cache_images_total", "Images asked for: hit, shared or miss", ["outcome"])
        self._images = [images.labels(outcome) for outcome in ("hit", "shared", "miss")]
        self._bytes = Gauge("resnet18_cache_bytes", "Memory that cached results take", multiprocess_mode="livesum")

    def answered(self, hits: int, shared: int, misses: int, held: int) -> None:
        """Count images whose result was known, was another's in flight, or was inferred; ``held``: bytes taken."""
        for counter, images in zip(self._images, (hits, shared, misses), strict=True):
            if images:
                counter.inc(images)
        self._bytes.set(held)


class AccessMetrics:
    """Requests that the access middleware refused, of one API process."""

    def __init__(self) -> None:
        from prometheus_client import Counter

        self._refused = Counter(
            "resnet18_door_refused_total", "Requests refused by the access middleware, by error code", ["code"]
        )

    def refused(self, code: str) -> None:
        """Count a request refused with the error ``code``."""
        self._refused.labels(code).inc()


class BatchMetrics:
    """The queue, the batches and the cost model of ``executors``, in a process that infers. ``slo_s``: the SLO."""

    def __init__(self, executors: ExecutorPool, slo_s: float) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self._executors = executors
        sizes = [2**power for power in range(11)]
        self._images = Histogram("resnet18_batch_images", "Images in a batch", buckets=sizes)
        self._width = Histogram("resnet18_batch_width_cores", "Cores that a batch ran on", buckets=sizes[:8])
        self._accuracy = Histogram(
            "resnet18_batch_actual_to_predicted", "Seconds of a batch over its predicted upper bound", buckets=_RATIOS
        )
        self._admitted = Counter("resnet18_admitted_images_total", "Images admitted to the queue")
        self._dropped = Counter("resnet18_dropped_images_total", "Images dropped from the queue, by reason", ["reason"])
        self._alpha = Gauge(
            "resnet18_cost_alpha_seconds", "Seconds that each image adds to a batch", multiprocess_mode="livemostrecent"
        )
        self._beta = Gauge(
            "resnet18_cost_beta_seconds",
            "Seconds that a batch takes besides its images",
            multiprocess_mode="livemostrecent",
        )
        self._limit = Gauge(
            "resnet18_batch_limit_images", "Images in a batch of the usual size", multiprocess_mode="livemostrecent"
        )
        self._capacity = Gauge(
            "resnet18_capacity_images_per_second",
            "Images a second that the executors can answer, by the cost model",
            multiprocess_mode="livesum",
        )
        slo = Gauge("resnet18_slo_seconds", "The SLO, RESNET18_SLO_MS, in seconds", multiprocess_mode="livemostrecent")
        slo.set(slo_s)
        self._queue = Gauge("resnet18_queue_images", "Images that wait for an executor", multiprocess_mode="livesum")
        self._age = Gauge(
            "resnet18_queue_age_seconds",
            "Seconds that the oldest waiting image has waited",
            multiprocess_mode="livemax",
        )
        self._published = 0.0
        self._counted = {"admitted": 0, "expired": 0, "cancelled": 0}
        # The warm-up has taught the cost model, so a new replica has a capacity before its first image.
        self._publish(0.0)
        executors.observers.append(self.observe)

    def observe(self, batch: Batch | None, now: float) -> None:
        """Note a finished batch, or None where images left the queue without one. Called under the pool's lock."""
        if batch is not None:
            self._images.observe(len(batch.jobs))
            self._width.observe(len(batch.executors))
            self._accuracy.observe((now - batch.start) / max(1e-9, batch.predicted_end - batch.start))
        # Not after every batch, but always after the last: an idle service must not show an old queue.
        if now - self._published >= PUBLISH_EVERY_S or not self._executors.batcher.waiting():
            self._published = now
            self._publish(now)

    def _publish(self, now: float) -> None:
        batcher = self._executors.batcher
        counts = batcher.counts
        for name, counter in (
            ("admitted", self._admitted),
            ("expired", self._dropped.labels("expired")),
            ("cancelled", self._dropped.labels("cancelled")),
        ):
            counter.inc(getattr(counts, name) - self._counted[name])
            self._counted[name] = getattr(counts, name)
        self._alpha.set(batcher.cost.alpha)
        self._beta.set(batcher.cost.beta)
        self._limit.set(batcher.batch)
        self._capacity.set(batcher.capacity())
        self._queue.set(batcher.waiting())
        self._age.set(batcher.oldest(now))
