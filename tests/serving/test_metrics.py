"""Our metrics: what is counted, under which labels, and that a full disk or a dead process does no harm."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from classifier.errors import ClassifierError
from runners.batching import Batcher
from runners.cost_model import CostModel
from runners.jobs import Job
from serving import metrics
from serving.replies import STAGES, Timing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _own_metrics() -> Iterator[None]:
    """prometheus_client registers a metric for the whole process, and each name once."""
    from prometheus_client import REGISTRY

    before = set(REGISTRY._collector_to_names)
    yield
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)


def value(name: str, **labels: str) -> float | None:
    from prometheus_client import REGISTRY

    found: float | None = REGISTRY.get_sample_value(name, labels)
    return found


def test_outcomes_of_load_are_there_from_the_start_and_others_when_they_come() -> None:
    counted = metrics.RequestMetrics(0.3)
    for outcome in ("ok", "overloaded", "timeout", "unavailable", "disconnected"):
        assert value("resnet18_images_total", outcome=outcome) == 0
    assert value("resnet18_images_total", outcome="unreadable_image") is None
    counted.failed(ClassifierError("unreadable_image", "broken"))
    counted.failed("disconnected", 4)
    counted.failed(ClassifierError("overloaded", "full", reason="queue_full"), 8)
    assert value("resnet18_images_total", outcome="unreadable_image") == 1
    assert value("resnet18_images_total", outcome="disconnected") == 4
    assert value("resnet18_images_total", outcome="overloaded") == 8
    assert value("resnet18_refused_total", reason="queue_full") == 1, "a request, whatever it held"


def test_stages_are_seconds_and_the_slo_is_a_bound() -> None:
    counted = metrics.RequestMetrics(0.3)
    counted.answered(2, Timing(decode=4.0, queue=1.0, inference=20.0, total=299.0))
    counted.answered(0, Timing(total=301.0))
    assert value("resnet18_images_total", outcome="ok") == 2
    for stage in STAGES:
        assert value("resnet18_stage_seconds_count", stage=stage) == 2
    assert value("resnet18_stage_seconds_sum", stage="inference") == pytest.approx(0.02)
    assert value("resnet18_stage_seconds_bucket", stage="total", le="0.3") == 1
    assert value("resnet18_stage_seconds_bucket", stage="total", le="0.5") == 2


def test_refusals_of_the_access_middleware_are_counted_by_code() -> None:
    counted = metrics.AccessMetrics()
    for code in ("unauthorized", "rate_limited", "unauthorized"):
        counted.refused(code)
    assert value("resnet18_door_refused_total", code="unauthorized") == 2
    assert value("resnet18_door_refused_total", code="rate_limited") == 1


def test_the_batcher_s_state_is_published() -> None:
    batcher = Batcher(CostModel({1: 0.012, 100: 1.002}), budget=0.85, max_batch=8, max_queue=3, executors=2)
    pool: Any = SimpleNamespace(batcher=batcher, observers=[])
    metrics.BatchMetrics(pool, 1.0)
    (observe,) = pool.observers
    # Known before the first image.
    assert value("resnet18_slo_seconds") == 1.0
    assert value("resnet18_cost_alpha_seconds") == pytest.approx(0.01)
    assert value("resnet18_cost_beta_seconds") == pytest.approx(0.002)
    assert value("resnet18_batch_limit_images") == batcher.batch
    assert value("resnet18_capacity_images_per_second") == pytest.approx(batcher.capacity())
    for number in range(4):
        assert batcher.admit([Job(10.0 + number, 99.0)], 10.0 + number) is None
        batcher.next(10.0 + number)
    batcher.cancel(batcher._queue[0])
    observe(None, 20.0)
    assert value("resnet18_queue_images") == 1
    assert value("resnet18_queue_age_seconds") == 7.0
    assert value("resnet18_admitted_images_total") == 4
    assert value("resnet18_dropped_images_total", reason="cancelled") == 1
    # The queue is published often enough, and always when it is empty.
    batcher.cancel(batcher._queue[0])
    observe(None, 20.0 + metrics.PUBLISH_EVERY_S / 2)
    assert value("resnet18_queue_images") == 0


def test_a_batch_is_counted_with_its_size_and_its_prediction() -> None:
    batcher = Batcher(CostModel({1: 0.01, 8: 0.0101}), budget=1.0, max_batch=8, max_queue=64)
    pool: Any = SimpleNamespace(batcher=batcher, observers=[])
    metrics.BatchMetrics(pool, 1.0)
    batcher.admit([Job(5.0, 6.0) for _ in range(4)], 5.0)
    batch, _ = batcher.next(5.0)
    assert batch is not None
    end = 5.0 + 2 * (batch.predicted_end - 5.0)
    batcher.done(batch, end)
    pool.observers[0](batch, end)
    assert value("resnet18_batch_images_sum") == 4
    assert value("resnet18_batch_width_cores_sum") == 1
    assert value("resnet18_batch_actual_to_predicted_sum") == pytest.approx(2.0)


def test_the_memory_limit_is_the_container_s_or_the_machine_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = psutil.virtual_memory().total
    file = tmp_path / "memory.max"
    monkeypatch.setattr(metrics, "_MEMORY_LIMITS", (file, tmp_path / "missing"))
    for text, limit in (("1000000\n", 1_000_000), ("max\n", machine), (f"{2 * machine}\n", machine)):
        file.write_text(text)
        assert metrics._memory_limit() == limit
    file.unlink()
    assert metrics._memory_limit() == machine


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system can't allocate a file's space")
def test_space_is_taken_beforehand_and_the_dead_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    dead = max(psutil.pids()) + 1
    while psutil.pid_exists(dead):
        dead += 1
    for name in (f"gauge_livesum_{dead}.db", f"gauge_livesum_{os.getppid()}.db", f"counter_{dead}.db"):
        (tmp_path / name).write_bytes(b"")
    metrics.reserve()
    assert not (tmp_path / f"gauge_livesum_{dead}.db").exists()
    assert (tmp_path / f"gauge_livesum_{os.getppid()}.db").exists(), "it lives"
    assert (tmp_path / f"counter_{dead}.db").exists(), "a counter counts for ever"
    own = sorted(tmp_path.glob(f"*_{os.getpid()}.db"))
    assert len(own) == len(metrics._FILES)
    for path in own:
        assert path.stat().st_blocks * 512 >= path.stat().st_size > 0
