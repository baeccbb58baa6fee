"""What can't be honoured refuses to start: one sentence that quotes it, no traceback, no endless restarts."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Server

if TYPE_CHECKING:
    from pathlib import Path


def refusal(home: Path, **settings: str) -> tuple[int, str]:
    """The exit status and output of a service that should end by itself."""
    status, output = Server(home, settings=settings).ended()
    assert "Traceback" not in output
    return status, output


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"device": "cuda"}, "device 'cuda': this machine shows 0 CUDA device(s)"),
        ({"device": "gpu"}, "RESNET18_DEVICE='gpu' can't be honoured"),
        ({"workers": "0"}, "RESNET18_WORKERS='0' can't be honoured"),
        ({"engine": "abacus"}, "RESNET18_ENGINE='abacus' can't be honoured: input should be 'auto', 'onnxruntime'"),
        (
            {"engine": "torch"},
            "refused to start: RESNET18_ENGINE='torch' can't be honoured: onnx in int8 is run by onnxruntime or ",
        ),
        ({"precison": "fp32"}, "RESNET18_PRECISON is not a setting"),
        ({"precision": "fp16"}, "RESNET18_PRECISION='fp16': the store's newest onnx build has only"),
        ({"model": "resnet18-onnx-int8:none"}, "RESNET18_MODEL='resnet18-onnx-int8:none'"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_setting_that_cannot_be_honoured(store: Path, settings: dict[str, str], told: str) -> None:
    from runners import devices

    if settings.get("device") == "cuda" and devices.gpus():
        pytest.skip("there is a GPU here")
    status, output = refusal(store, **settings)
    assert status == 1
    assert told in output


@pytest.mark.parametrize("placement", ["inline", "dedicated"])
def test_an_slo_shorter_than_one_image(store: Path, placement: str) -> None:
    status, output = refusal(store, slo_ms="1", runtime="torchscript", precision="fp32", placement=placement)
    assert status == 1
    assert "refused to start: RESNET18_SLO_MS=1 can't be honoured: one image takes" in output


@pytest.mark.parametrize(
    "harm", ["damaged", "missing", "half-written", "no manifest", "newer manifest", "half-written manifest"]
)
def test_an_artifact_that_is_not_whole(store: Path, tmp_path: Path, harm: str) -> None:
    home = tmp_path / "home"
    shutil.copytree(store, home)
    (folder,) = (home / "models" / "resnet18-onnx-fp32").glob("*-*")
    path = folder / ("manifest.json" if "manifest" in harm else "model.onnx")
    if harm == "damaged":
        path.write_bytes(path.read_bytes() + b"x")
    elif harm.startswith("half-written"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif harm == "newer manifest":
        path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    else:
        path.unlink()
    status, output = refusal(home, precision="fp32")
    assert status == 1
    assert str(path) in output
    assert "make model" in output


@pytest.mark.slow
def test_an_empty_store(tmp_path: Path) -> None:
    status, output = refusal(tmp_path / "empty")
    assert status == 1
    assert "the model store has no onnx artifact of ResNet18; build it with: make model" in output
