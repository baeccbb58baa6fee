"""Which artifacts a build makes.  What it refuses: tests/model_build/test_build.py."""

from __future__ import annotations

import click
import pytest

from model_build import selection
from runners import engines

ONNX, TORCHSCRIPT = "onnx", "torchscript"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine whose CPU has the features, and which has a GPU or not, and OpenVINO or not, as the parameter says."""
    features, device, *openvino = request.param
    monkeypatch.setattr(engines, "installed", lambda name: name != "openvino" or bool(openvino))
    monkeypatch.setattr(selection, "cpu_features", lambda: frozenset(features))
    monkeypatch.setattr(selection, "pick_device", lambda asked, runtime: device)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (((), "cpu"), "onnx-fp32 onnx-int8 torchscript-fp32"),
        ((("int8",), "cpu"), "onnx-fp32 onnx-int8 torchscript-fp32"),
        ((("int8", "bf16"), "cpu"), "onnx-fp32 onnx-int8 torchscript-fp32 torchscript-bf16"),
        ((("int8", "bf16"), "cpu", True), "onnx-fp32 onnx-int8 onnx-bf16 torchscript-fp32 torchscript-bf16"),
        ((("int8",), "cpu", True), "onnx-fp32 onnx-int8 torchscript-fp32"),
        (((), "cuda:0"), "onnx-fp32 onnx-int8 onnx-fp16 torchscript-fp32 torchscript-fp16"),
    ],
    indirect=["machine"],
)
@pytest.mark.usefixtures("machine")
def test_auto_is_what_this_machine_can_judge(expected: str) -> None:
    pairs = selection.pairs((ONNX, TORCHSCRIPT), "auto")
    assert " ".join(f"{runtime}-{precision}" for runtime, precision in pairs) == expected


@pytest.mark.parametrize("machine", [(("bf16",), "cpu", True)], indirect=True)
@pytest.mark.usefixtures("machine")
def test_a_list_is_taken_in_the_order_of_the_table_for_the_runtimes_that_have_it() -> None:
    assert selection.pairs((TORCHSCRIPT, ONNX), "int8, bf16,fp32") == [
        (TORCHSCRIPT, "fp32"),
        (TORCHSCRIPT, "bf16"),
        (ONNX, "fp32"),
        (ONNX, "int8"),
        (ONNX, "bf16"),
    ]


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ((("bf16",), "cpu"), r"needs openvino for onnx: pip install -r requirements/openvino\.txt"),
        ((("int8",), "cpu", True), "needs a CPU that has it for onnx: openvino would compute in fp32"),
    ],
    indirect=["machine"],
)
@pytest.mark.usefixtures("machine")
def test_bf16_of_onnx_needs_an_engine_and_a_cpu_that_compute_in_it(reason: str) -> None:
    with pytest.raises(click.UsageError, match=f"^--precisions 'bf16' {reason}$"):
        selection.pairs((TORCHSCRIPT, ONNX), "bf16")


def test_the_help_says_which_runtime_has_what() -> None:
    assert selection.LISTED == "fp32, int8 (onnx), bf16, fp16 (needs CUDA)"
