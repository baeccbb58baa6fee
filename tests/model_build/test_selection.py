"""Which artifacts a build makes.  What it refuses: tests/model_build/test_build.py."""

from __future__ import annotations

import pytest

from model_build import selection

ONNX, TORCHSCRIPT = "onnx", "torchscript"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine whose CPU has the features, and which has a GPU or not, as the test's parameter says."""
    features, device = request.param
    monkeypatch.setattr(selection, "cpu_features", lambda: frozenset(features))
    monkeypatch.setattr(selection, "pick_device", lambda asked, runtime: device)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (((), "cpu"), "onnx-fp32 onnx-int8 torchscript-fp32"),
        ((("int8",), "cpu"), "onnx-fp32 onnx-int8 torchscript-fp32"),
        ((("int8", "bf16"), "cpu"), "onnx-fp32 onnx-int8 torchscript-fp32 torchscript-bf16"),
        (((), "cuda:0"), "onnx-fp32 onnx-int8 onnx-fp16 torchscript-fp32 torchscript-fp16"),
    ],
    indirect=["machine"],
)
@pytest.mark.usefixtures("machine")
def test_auto_is_what_this_machine_can_judge(expected: str) -> None:
    pairs = selection.pairs((ONNX, TORCHSCRIPT), "auto")
    assert " ".join(f"{runtime}-{precision}" for runtime, precision in pairs) == expected


@pytest.mark.parametrize("machine", [((), "cpu")], indirect=True)
@pytest.mark.usefixtures("machine")
def test_a_list_is_taken_in_the_order_of_the_table_for_the_runtimes_that_have_it() -> None:
    assert selection.pairs((TORCHSCRIPT, ONNX), "int8, bf16,fp32") == [
        (TORCHSCRIPT, "fp32"),
        (TORCHSCRIPT, "bf16"),
        (ONNX, "fp32"),
        (ONNX, "int8"),
    ]


def test_the_help_says_which_runtime_has_what() -> None:
    assert selection.LISTED == "fp32, int8 (onnx), bf16 (torchscript), fp16 (needs CUDA)"
