"""The exported files: their contract, their structure, and that they say what the eager network says."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch

from classifier.labels import Labels
from classifier.preprocessing import Preprocessing
from classifier.runtimes import RUNTIMES
from model_build import export, gate
from model_build.network import Contract, resnet18
from model_build.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from model_build.samples import Samples
from runners import artifacts, backends, devices, torchscript

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from model_build.weights import Checkpoint
    from runners.artifacts import Artifact
    from runners.backends import Backend

BUILT = [("onnx", "fp32"), ("onnx", "int8"), ("torchscript", "fp32")]


@pytest.fixture(scope="module")
def artifact_of(store: Path) -> Callable[[str, str], Artifact]:
    """A function that gives the demo model's artifact of a runtime and precision."""
    return lambda runtime, precision: artifacts.open_artifact(f"{artifacts.store_name(runtime, precision)}:latest")


@pytest.fixture(scope="module")
def crops(demo: Checkpoint) -> Samples:
    from model_build import samples

    part = samples.defaults(demo)[1]
    return Samples(part.pixels[:96], None, part.source)


def opened(artifact: Artifact) -> Backend:
    return backends.load(artifact.folder, artifact.manifest)


class TestContract:
    """``image: uint8[N, S, S, 3]`` in, ``probabilities: float32[N, C]`` out, in every format and precision."""

    @pytest.mark.parametrize(("runtime", "precision"), BUILT)
    def test_any_number_of_images(
        self, artifact_of: Callable[..., Artifact], crops: Samples, runtime: str, precision: str
    ) -> None:
        backend = opened(artifact_of(runtime, precision))
        together = backend.infer(crops.pixels[:7])
        for count in (1, 3, 7):
            rows = backend.infer(crops.pixels[:count])
            assert rows.shape == (count, 10)
            assert rows.dtype == np.float32
            np.testing.assert_allclose(rows.sum(1), 1, atol=1e-5)
            np.testing.assert_allclose(rows, together[:count], atol=1e-5)

    @pytest.mark.parametrize(
        ("runtime", "precision", "difference"), [("onnx", "fp32", 1e-4), ("torchscript", "fp32", 1e-4)]
    )
    def test_fp32_is_the_eager_network(
        self,
        artifact_of: Callable[..., Artifact],
        demo: Checkpoint,
        crops: Samples,
        runtime: str,
        precision: str,
        difference: float,
    ) -> None:
        expected = gate.reference(export.contract(demo), crops)
        actual = opened(artifact_of(runtime, precision)).infer(crops.pixels)
        assert np.abs(actual - expected).max() <= difference
        assert (actual.argmax(1) == expected.argmax(1)).all()
        assert len(np.unique(expected.argmax(1))) >= 5

    def test_int8_agrees(self, artifact_of: Callable[..., Artifact], demo: Checkpoint, crops: Samples) -> None:
        expected = gate.reference(export.contract(demo), crops)
        actual = opened(artifact_of("onnx", "int8")).infer(crops.pixels)
        assert np.mean(actual.argmax(1) == expected.argmax(1)) >= 0.95
        assert np.abs(actual - expected).mean() < 0.01
        assert np.abs(actual - expected).max() > 1e-4  # it is another graph than fp32's

    def test_manifests_tell_the_demos_geometry(self, artifact_of: Callable[..., Artifact], demo: Checkpoint) -> None:
        for runtime, precision in BUILT:
            manifest = artifact_of(runtime, precision).manifest
            assert (manifest.runtime, manifest.precision) == (runtime, precision)
            assert (manifest.preprocessing, manifest.labels) == (demo.preprocessing, demo.labels)
            assert manifest.weights == {"origin": "demo", "digest": demo.digest}
            assert manifest.gate["images"] == 256
            assert manifest.gate["agreement"] >= (1 if precision == "fp32" else 0.98)


@pytest.fixture(scope="module")
def graphs(artifact_of: Callable[..., Artifact]) -> dict[str, Any]:
    """The demo model's ONNX files by precision."""
    graphs = {}
    for precision in ("fp32", "int8"):
        artifact = artifact_of("onnx", precision)
        graphs[precision] = onnx.load(artifact.folder / artifact.manifest.file)
    return graphs


class TestOnnx:
    """The ONNX files."""

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_signature(self, graphs: dict[str, Any], demo: Checkpoint, precision: str) -> None:
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

    def test_batch_normalisation_is_folded(self, graphs: dict[str, Any]) -> None:
        operators = [node.op_type for node in graphs["fp32"].graph.node]
        assert "BatchNormalization" not in operators
        assert operators.count("Conv") == 20

    def test_int8_is_unsigned_activations_and_signed_weights_per_channel(self, graphs: dict[str, Any]) -> None:
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

    def test_int8_leaves_both_ends_in_float32(self, graphs: dict[str, Any]) -> None:
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

    def test_int8_is_a_quarter_of_fp32(self, artifact_of: Callable[..., Artifact]) -> None:
        sizes = [
            (artifact.folder / artifact.manifest.file).stat().st_size
            for artifact in (artifact_of("onnx", "fp32"), artifact_of("onnx", "int8"))
        ]
        assert 3.5 < sizes[0] / sizes[1] < 4.2


class TestTorchScript:
    """The TorchScript files."""

    def test_frozen(self, artifact_of: Callable[..., Artifact]) -> None:
        artifact = artifact_of("torchscript", "fp32")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", torchscript.DEPRECATION, DeprecationWarning)
            module: Any = torch.jit.load(str(artifact.folder / artifact.manifest.file))
        assert list(module.parameters()) == []
        assert list(module.buffers()) == []
        assert "batch_norm" not in str(module.graph)
        assert not hasattr(module, "training") or not module.training

    @pytest.mark.skipif("bf16" not in devices.cpu_features(), reason="this CPU has no bf16")
    def test_bf16(self, artifact_of: Callable[..., Artifact], demo: Checkpoint, crops: Samples) -> None:
        expected = gate.reference(export.contract(demo), crops)
        actual = opened(artifact_of("torchscript", "bf16")).infer(crops.pixels[:32])
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual.sum(1), 1, atol=1e-5)
        assert np.abs(actual - expected[:32]).max() < 0.05


@pytest.fixture(scope="module")
def squares(photograph: Any) -> NDArray[np.uint8]:
    """Six different 224 px squares: crops and turns of a photograph, and noise."""
    picture = np.asarray(photograph(500, 500))
    rows = [picture[at : at + 224, at : at + 224] for at in (0, 130, 270)] + [picture[200:424, :224][::-1]]
    random = np.random.default_rng(0)
    rows += [random.integers(0, 256, (224, 224, 3), np.uint8), np.zeros((224, 224, 3), np.uint8)]
    return np.stack(rows)


@pytest.fixture(scope="module")
def thousand(squares: NDArray[np.uint8]) -> Checkpoint:
    """A seeded random ResNet18 with 1000 classes at 224 px, whose answers differ from image to image."""
    from model_build.weights import Checkpoint

    torch.manual_seed(0)
    network = resnet18(1000)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    contract = Contract(network, size=224)
    with torch.no_grad():
        # Statistics of its own, so that activations keep their scale, and no class that always wins.
        contract.train()(torch.from_numpy(squares))
        network.fc.bias -= contract.eval().logits(torch.from_numpy(squares)).mean(0)  # type: ignore[operator,union-attr]
    return Checkpoint(
        state={key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")},
        origin="random.pth",
        labels=Labels(tuple(f"class {number}" for number in range(1000))),
        preprocessing=Preprocessing(224, 256),
        upsample=None,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        digest="0" * 64,
    )


@pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning")  # torch's of its own exporter
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_random_thousand_class_network_agrees_with_eager(
    thousand: Checkpoint, squares: NDArray[np.uint8], tmp_path: Path, runtime: str, manifest_of: Callable[..., Any]
) -> None:
    given = Samples(squares, None, "squares")
    expected = gate.reference(export.contract(thousand), given)
    assert len(np.unique(expected.argmax(1))) >= 3  # else agreement would prove nothing
    path = export.export(thousand, runtime, "fp32", tmp_path, given)
    assert path.name == f"model{RUNTIMES[runtime].suffix}"
    assert list(tmp_path.iterdir()) == [path]
    backend = backends.load(tmp_path, manifest_of(path, runtime=runtime))
    report = gate.judge(backend, given, expected, "fp32", gate.Thresholds())
    assert report.failure is None
    assert report.agreement == 1
    assert report.largest_difference <= 1e-4


def test_an_unknown_runtime_is_an_error(demo: Checkpoint, tmp_path: Path) -> None:
    given = Samples(np.zeros((1, 32, 32, 3), np.uint8), None, "nothing")
    with pytest.raises(ValueError, match=f"there is no runtime 'tensorrt'; there are {', '.join(RUNTIMES)}"):
        export.export(demo, "tensorrt", "fp32", tmp_path, given)
    assert list(tmp_path.iterdir()) == []


def test_the_network_is_copied_not_shared(demo: Checkpoint) -> None:
    module = export.contract(replace(demo, upsample=None), torch.bfloat16)
    assert next(module.network.parameters()).dtype == torch.bfloat16
    assert demo.state["conv1.weight"].dtype == torch.float32
