"""The table of runtimes: its precisions, and which of them a device is served with."""

from __future__ import annotations

import pytest

from classifier.runtimes import DEFAULT, RUNTIMES, find

NONE: frozenset[str] = frozenset()


def test_the_default_is_onnx() -> None:
    assert DEFAULT == "onnx"


@pytest.mark.parametrize(
    ("name", "precisions"), [("onnx", ("fp32", "int8", "bf16", "fp16")), ("torchscript", ("fp32", "bf16", "fp16"))]
)
def test_what_is_exported_for_each(name: str, precisions: tuple[str, ...]) -> None:
    assert find(name).precisions == precisions


@pytest.mark.parametrize(
    ("name", "device", "features", "preferred"),
    [
        ("onnx", "cpu", {"int8"}, ("int8", "fp32")),
        ("onnx", "cpu", NONE, ("fp32", "int8")),
        ("onnx", "cpu", {"bf16"}, ("bf16", "fp32", "int8")),
        ("onnx", "cpu", {"int8", "bf16"}, ("int8", "bf16", "fp32")),
        ("onnx", "cuda:1", {"int8"}, ("fp16", "fp32")),
        ("torchscript", "cpu", {"int8", "bf16"}, ("bf16", "fp32")),
        ("torchscript", "cpu", {"int8"}, ("fp32",)),
        ("torchscript", "cuda:0", NONE, ("fp16", "fp32")),
    ],
)
def test_the_best_precision_of_a_device_comes_first(
    name: str, device: str, features: frozenset[str], preferred: tuple[str, ...]
) -> None:
    assert find(name).preferred(device, frozenset(features)) == preferred


@pytest.mark.parametrize(
    ("name", "precision", "engines"),
    [
        ("onnx", "int8", ("onnxruntime", "openvino")),
        ("onnx", "bf16", ("openvino",)),
        ("torchscript", "bf16", ("torch",)),
    ],
)
def test_a_precision_may_be_one_engine_s_alone(name: str, precision: str, engines: tuple[str, ...]) -> None:
    assert find(name).engines_for(precision) == engines


@pytest.mark.parametrize("name", ["tensorrt", "", "ONNX", "onnx "])
def test_an_unknown_one_is_an_error_that_names_the_others(name: str) -> None:
    with pytest.raises(ValueError, match=f"there is no runtime '{name}'; there are {', '.join(RUNTIMES)}"):
        find(name)
