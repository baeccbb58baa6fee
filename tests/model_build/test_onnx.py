"""The ONNX files: their signature, folded layers, and which numbers int8 is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from model_build import export, gate
from runners import backends

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_build.samples import Samples
    from model_build.weights import Checkpoint
    from runners.artifacts import Artifact


@pytest.fixture(scope="module")
def graphs(artifact_of: Callable[..., Artifact]) -> dict[str, Any]:
    """The demo model's ONNX files by precision."""
    graphs = {}
    for precision in ("fp32", "int8"):
        artifact = artifact_of("onnx", precision)
        graphs[precision] = onnx.load(artifact.folder / artifact.manifest.file)
    return graphs


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_signature(graphs: dict[str, Any], demo: Checkpoint, precision: str) -> None:
    model = graphs[precision]
    onnx.checker.check_model(model, full_check=True)
    assert {item.domain: item.version for item in model.opset_import}[""] == 17
    (image,), (probabilities,) = model.graph.input, model.graph.output
    assert (image.name, probabilities.name) == ("image", "probabilities")
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert probabilities.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    sides = [side.dim_param or side.dim_value for side in image.type.tensor_type.shape.dim]
    assert sides == ["N", *2 * (demo.preprocessing.size,), 3]
    assert probabilities.type.tensor_type.shape.dim[0].dim_param == "N"


def test_batch_normalisation_is_folded(graphs: dict[str, Any]) -> None:
    operators = [node.op_type for node in graphs["fp32"].graph.node]
    assert "BatchNormalization" not in operators
    assert operators.count("Conv") == 20


def test_int8_is_unsigned_activations_and_signed_weights_per_channel(graphs: dict[str, Any]) -> None:
    graph = graphs["int8"].graph
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    maker = {output: node for node in graph.node for output in node.output}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 21
    for layer in layers:
        activation, weight = (maker[name] for name in layer.input[:2])
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert constants[activation.input[2]].dtype == np.uint8
        values, scales = constants[weight.input[0]], constants[weight.input[1]]
        assert values.dtype == constants[weight.input[2]].dtype == np.int8
        # Two products of a uint8 and a weight fit 16 bits: x86 CPUs without VNNI add them there.
        assert 2 * 255 * np.abs(values.astype(int)).max() < 2**15
        assert (constants[weight.input[2]] == 0).all()
        (axis,) = (attribute.i for attribute in weight.attribute if attribute.name == "axis")
        assert scales.shape == (values.shape[axis],)
        assert scales.size > 1 or layer.op_type == "Gemm"
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            assert constants[node.input[2]].dtype == np.uint8


def test_int8_leaves_both_ends_in_float32(graphs: dict[str, Any]) -> None:
    graph = graphs["int8"].graph
    body = {"Conv", "Gemm", "Add", "Relu", "MaxPool", "GlobalAveragePool", "ReduceMean", "Flatten"}
    quantisers = {"QuantizeLinear", "DequantizeLinear"}
    nodes = list(graph.node)
    first = next(at for at, node in enumerate(nodes) if node.op_type == "Conv")
    ancestors: set[str] = {nodes[first].input[0]}
    before = []
    for node in reversed(nodes[:first]):
        if set(node.output) & ancestors:
            before.append(node.op_type)
            ancestors |= set(node.input)
    # From the image to the first convolution: the pixels are prepared in float32, then quantised once.
    assert before[:2] == ["DequantizeLinear", "QuantizeLinear"]
    assert quantisers.isdisjoint(before[2:])
    assert {"Cast", "Mul", "Add", "Transpose"} <= set(before)
    (softmax,) = (node for node in nodes if node.op_type == "Softmax")
    assert list(softmax.output) == ["probabilities"]
    prepared = {name for name in ancestors if name not in nodes[first].input}
    for node in nodes:
        if node.op_type not in body | quantisers and not set(node.output) <= prepared | {"probabilities"}:
            assert node.op_type in ("Identity", "Constant", "Reshape", "Shape"), node.op_type


def test_int8_is_a_quarter_of_fp32(artifact_of: Callable[..., Artifact]) -> None:
    sizes = [
        (artifact.folder / artifact.manifest.file).stat().st_size
        for artifact in (artifact_of("onnx", "fp32"), artifact_of("onnx", "int8"))
    ]
    assert 3.5 < sizes[0] / sizes[1] < 4.2


def test_int8_agrees(artifact_of: Callable[..., Artifact], demo: Checkpoint, crops: Samples) -> None:
    expected = gate.reference(export.contract(demo), crops)
    artifact = artifact_of("onnx", "int8")
    actual = backends.load(artifact.folder, artifact.manifest).infer(crops.pixels)
    assert np.mean(actual.argmax(1) == expected.argmax(1)) >= 0.95
    assert np.abs(actual - expected).mean() < 0.01
    assert np.abs(actual - expected).max() > 1e-4  # it is another graph than fp32's
