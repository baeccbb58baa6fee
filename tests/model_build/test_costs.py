"""The costs of an artifact come from a process of their own, and are those of the artifact."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from model_build import costs
from model_build.costs import Cost

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runners.artifacts import Artifact


def test_they_are_measured(artifact_of: Callable[..., Artifact]) -> None:
    cost = costs.measure(artifact_of("onnx").folder, 0.02)
    assert 0 < cost.latency_ms < 10_000
    assert cost.throughput > 0
    # Python with NumPy and ONNX Runtime is not less, and the demo's network not more.
    assert 30 < cost.memory_mb < 2000


def test_what_is_no_artifact_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        costs.measure(tmp_path, 0.02)


def test_the_median_is_of_each_figure() -> None:
    assert costs.median([Cost(1, 30, 5), Cost(3, 10, 6), Cost(2, 20, 9)]) == Cost(2, 20, 6)
