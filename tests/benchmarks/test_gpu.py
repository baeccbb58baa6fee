"""The benchmark of a GPU: what it leaves out, and all of it on a CPU that stands in for a GPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from unittest.mock import MagicMock

import pytest
from click.testing import CliRunner

from benchmarks import artifact, gpu, tensorrt
from classifier.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from runners.artifacts import Artifact

FOUND = {"gpu": "stand-in", "driver": "1", "torch": "2"}


def test_alpha_and_beta() -> None:
    alpha, beta = gpu.fit({batch: 1e-3 * (0.5 * batch + 2) for batch in (1, 2, 4, 8)})
    assert [alpha, beta] == pytest.approx([0.5, 2])


def test_the_best_batch_fits_twice_into_the_slo() -> None:
    seconds = {1: 0.01, 8: 0.04, 16: 0.06}
    assert gpu.optimum(seconds, 100) == pytest.approx((8, 200))
    assert gpu.optimum(seconds, 1) == pytest.approx((1, 100))


@pytest.mark.usefixtures("cpu_only")
def test_a_runtime_without_cuda_is_left_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.devices.gpus", lambda: 1)
    pairs, left_out = gpu.measurable()
    assert pairs == []
    assert set(left_out) == set(RUNTIMES)
    assert "the installed onnx runtime has no CUDA" in left_out["onnx"]


@pytest.mark.usefixtures("cpu_only")
def test_without_a_gpu_it_says_so() -> None:
    done = CliRunner().invoke(gpu.main)
    assert done.exit_code == 1
    assert "no GPU" in done.output


def test_where_no_runtime_can_use_the_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "accelerator", lambda: FOUND)
    monkeypatch.setattr(artifact, "ready", lambda: None)
    monkeypatch.setattr(gpu, "measurable", lambda: ([], {"onnx": "it has no CUDA"}))
    done = CliRunner().invoke(gpu.main)
    assert done.exit_code == 1
    assert "left out: onnx: it has no CUDA" in done.output
    assert "no runtime here can use the stand-in" in done.output


def test_tensorrt_is_measured_beside_cuda_or_left_out_by_name(
    monkeypatch: pytest.MonkeyPatch, artifact_of: Callable[..., Artifact]
) -> None:
    here = artifact_of("onnx")
    monkeypatch.setattr(artifact, "stored", lambda *_: here.folder / here.manifest.file)
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "BATCHES", (1, 2))
    left_out: dict[str, str] = {}
    # The CPU's provider stands in for it.
    monkeypatch.setattr(tensorrt, "PROVIDER", "CPUExecutionProvider")
    rows = gpu.costs([("onnx", "fp32")], 1, left_out)
    assert [row["provider"] for row in rows] == ["CPUExecutionProvider"] * 2
    assert left_out == {}
    monkeypatch.setattr(tensorrt, "TensorRT", MagicMock(side_effect=RuntimeError("libnvinfer.so.10 is missing")))
    assert len(gpu.costs([("onnx", "fp32")], 1, left_out)) == 1
    assert left_out == {"onnx fp32 CPUExecutionProvider": "libnvinfer.so.10 is missing"}


@pytest.mark.slow
def test_all_of_it_on_a_cpu_that_stands_in(
    monkeypatch: pytest.MonkeyPatch, artifact_of: Callable[..., Artifact]
) -> None:
    here = artifact_of("onnx")
    file = here.folder / here.manifest.file
    monkeypatch.setattr(gpu, "accelerator", lambda: FOUND)
    monkeypatch.setattr(artifact, "ready", lambda: artifact.Artifact("demo", file, file))
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "BATCHES", (1, 2))
    monkeypatch.setattr(gpu, "SHARES", (0.02,))
    monkeypatch.setattr(gpu, "WARM_UP_SECONDS", 0.5)
    done = CliRunner().invoke(gpu.main, ["--quick"])
    assert done.exit_code == 0, done.output
    data = json.loads(done.output.splitlines()[-1])
    # The store has no fp16, as there was no GPU when it was built.
    assert [(row["runtime"], row["precision"]) for row in data["costs"]] == [(name, "fp32") for name in RUNTIMES]
    assert set(data["left_out"]) == {f"{name} fp16" for name in RUNTIMES}
    assert data["limited_by"] in ("decoding", "the GPU")
    (point,) = data["service"]
    assert point["statuses"]["200"] > 0
    assert data["goodput_to_offline"] > 0
