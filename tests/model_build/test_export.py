"""The exported files: their contract, their structure, and that they say what the eager network says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from classifier.labels import Labels
from classifier.preprocessing import Preprocessing
from classifier.runtimes import RUNTIMES
from model_build import export, gate
from model_build.network import Contract, resnet18
from model_build.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from model_build.samples import Samples
from runners import backends, onnx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from model_build.weights import Checkpoint
    from runners.artifacts import Artifact
    from runners.backends import Backend

pytestmark = pytest.mark.slow

BUILT = [("onnx", "fp32"), ("onnx", "int8"), ("torchscript", "fp32")]


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

    def test_manifests_tell_the_demos_geometry(self, artifact_of: Callable[..., Artifact], demo: Checkpoint) -> None:
        for runtime, precision in BUILT:
            manifest = artifact_of(runtime, precision).manifest
            assert (manifest.runtime, manifest.precision) == (runtime, precision)
            assert (manifest.preprocessing, manifest.labels) == (demo.preprocessing, demo.labels)
            assert manifest.weights == {"origin": "demo", "digest": demo.digest}
            assert manifest.gate["images"] == 256
            assert manifest.gate["agreement"] >= (1 if precision == "fp32" else 0.98)


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


@pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning")  # torch's of its own exporter
def test_a_precision_that_an_engine_computes_in_is_the_fp32_file(
    artifact_of: Callable[..., Artifact], demo: Checkpoint, crops: Samples, tmp_path: Path
) -> None:
    path = export.export(demo, "onnx", "bf16", tmp_path, crops)
    expected = opened(artifact_of("onnx")).infer(crops.pixels)
    np.testing.assert_array_equal(onnx.Backend(path).infer(crops.pixels), expected)


def test_an_unknown_runtime_is_an_error(demo: Checkpoint, tmp_path: Path) -> None:
    given = Samples(np.zeros((1, 32, 32, 3), np.uint8), None, "nothing")
    with pytest.raises(ValueError, match=f"there is no runtime 'tensorrt'; there are {', '.join(RUNTIMES)}"):
        export.export(demo, "tensorrt", "fp32", tmp_path, given)
    assert list(tmp_path.iterdir()) == []


def test_the_network_is_copied_not_shared(demo: Checkpoint) -> None:
    module = export.contract(replace(demo, upsample=None), torch.bfloat16)
    assert next(module.network.parameters()).dtype == torch.bfloat16
    assert demo.state["conv1.weight"].dtype == torch.float32
