"""The rows of classifier.architectures: each is torchvision's, is recognised by its keys, and says what it is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from classifier.architectures import ARCHITECTURES, DEFAULT
from model_build import chosen, layout, weightset
from model_build.errors import FileError
from model_build.network import build, from_state
from model_build.statedict import read
from model_build.weights import WeightsError, find
from tests.model_build.checkpoints import State, made, saved, under

# Parameters of 1,000 classes as torchvision's documentation has them.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "mobilenet_v2": 3_504_872,
    "efficientnet_b0": 5_288_548,
    "shufflenet_v2_x1_0": 2_278_604,
}


def keys_of(architecture: str) -> State:
    """The state dict of a network without values."""
    with torch.device("meta"):
        return dict(build(architecture, 3).state_dict())


def notices() -> tuple[list[str], Any]:
    said: list[str] = []
    return said, said.append


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_row_is_torchvision_s(architecture: str) -> None:
    assert layout.parameters(architecture, 1000) == PARAMETERS[architecture]
    shapes = layout.shapes(architecture, 3)
    assert shapes[f"{layout.head(architecture)}.weight"][0] == 3
    assert shapes[f"{layout.head(architecture)}.bias"] == (3,)
    assert shapes[layout.stem(architecture)][1] == 3
    # All else is the same, whatever the number of classes.
    other = layout.shapes(architecture, 5)
    assert {key for key, shape in shapes.items() if other[key] != shape} == {
        f"{layout.head(architecture)}.weight",
        f"{layout.head(architecture)}.bias",
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_file_is_recognised_by_its_keys(architecture: str) -> None:
    state = keys_of(architecture)
    for data in (state, {"state_dict": under("module.", state)}, {"model": under("backbone.", state), "epoch": 3}):
        assert weightset.architectures(data, None, DEFAULT) == [architecture]
    stem = layout.stem(architecture)
    assert weightset.architectures({key: value for key, value in state.items() if key != stem}, None, DEFAULT) == []
    assert weightset.architectures(state | {"extra.weight": state[stem]}, None, DEFAULT) == []


def test_a_mobilenet_is_taken_for_one(tmp_path: Any) -> None:
    state = made(3, architecture="mobilenet_v2")
    path = saved(tmp_path / "m.pth", {"state_dict": under("module.", state), "classes": ["a", "b", "c"]})
    said, tell = notices()
    checkpoint = find(path, tell=tell)
    assert (checkpoint.architecture, checkpoint.classes, checkpoint.labels.en) == ("mobilenet_v2", 3, ("a", "b", "c"))
    assert said == ["m.pth has the keys of MobileNetV2, and is taken for that"]
    reference = build("mobilenet_v2", 3)
    reference.load_state_dict(state)
    image = torch.rand(2, 3, 32, 32)
    network = from_state(checkpoint.state, 3, architecture=checkpoint.architecture)
    assert torch.equal(network(image), reference.eval()(image))
    assert find(path, architecture="mobilenet_v2", tell=tell).digest == checkpoint.digest
    assert len(said) == 1, "who says --arch need not be told"
    with pytest.raises(WeightsError) as raised:
        find(path, architecture="resnet18", tell=tell)
    assert str(raised.value) == (
        "m.pth is no ResNet18, as --arch resnet18 says, but a MobileNetV2: --arch mobilenet_v2"
    )


def test_one_output_and_bgr_are_of_every_architecture(tmp_path: Any) -> None:
    state = made(1, architecture="shufflenet_v2_x1_0")
    path = saved(tmp_path / "s.safetensors", state)
    said, tell = notices()
    checkpoint = find(path, tell=tell)
    assert checkpoint.classes == 2
    assert "s.safetensors has one output (fc.weight [1, 1024]), taken for a sigmoid's" in said[0]
    from model_build.preprocessing import Given

    turned = find(path, given=Given(bgr=True), tell=tell)
    assert torch.equal(turned.state["conv1.0.weight"], state["conv1.0.weight"].flip(1))


def test_another_width_is_refused(tmp_path: Any) -> None:
    from torchvision.models import mobilenet_v2

    path = saved(tmp_path / "narrow.pth", mobilenet_v2(width_mult=0.25, num_classes=2).state_dict())
    with pytest.raises(
        WeightsError, match=r"is no MobileNetV2: 'features.0.0.weight' has shape \(8, 3, 3, 3\), expected"
    ):
        find(path)


def test_a_set_of_another_architecture_is_taken_by_its_key(tmp_path: Any) -> None:
    teacher, student = made(3), made(3, architecture="shufflenet_v2_x1_0")
    path = tmp_path / "both.pth"
    saved(path, {"teacher": teacher, "student": student})
    assert read(path, "student", print).architecture == "shufflenet_v2_x1_0"
    assert read(path, "teacher", print).architecture == DEFAULT
    with pytest.raises(FileError, match="holds, beside a ResNet18 in 'teacher', 'student'"):
        read(path, None, print)
    with pytest.raises(FileError, match="has no set of weights --key 'nobody'"):
        read(path, "nobody", print)


def test_the_demo_is_a_resnet18() -> None:
    with pytest.raises(WeightsError, match="--arch mobilenet_v2: the packaged demo is a ResNet18"):
        find("demo", architecture="mobilenet_v2")
    assert find("demo").architecture == find("demo", architecture=DEFAULT).architecture == DEFAULT


@pytest.mark.parametrize(
    ("built", "of", "message"),
    [
        ("resnet50", "resnet101", "is no ResNet50, but a ResNet101: its stages have 3, 4, 23, 3 blocks of 3 "),
        ("mobilenet_v2", "mobilenet_v3_small", "is no MobileNetV2: it lacks "),
        (
            "shufflenet_v2_x1_0",
            "vgg11",
            "is no ShuffleNetV2 x1.0 with torchvision's keys, but a network of torchvision",
        ),
    ],
)
def test_what_is_none_is_refused(built: str, of: str, message: str) -> None:
    with pytest.raises(FileError) as raised:
        chosen.find(keys_of(of), None, print, built)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        ("mobilenet_v2", {"input_size": 224, "resize": 232, "interpolation": "bilinear"}),
        ("efficientnet_b0", {"input_size": 224, "resize": 256, "interpolation": "bicubic"}),
        ("shufflenet_v2_x1_0", {}),
    ],
)
def test_torchvision_s_own_files_bring_their_preprocessing(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, architecture: str, told: dict[str, Any]
) -> None:
    from pathlib import Path

    from model_build import hub

    entry = hub.published(architecture)[0]
    (tmp_path / "any.pth").write_bytes(b"weights")
    assert hub.preprocessing(tmp_path / "any.pth", architecture) is None
    digest = Path(entry.url).stem.rsplit("-", 1)[1]
    monkeypatch.setattr(hub, "sha256", lambda path: digest + "0" * (64 - len(digest)))
    assert hub.preprocessing(tmp_path / "any.pth", architecture) == told
