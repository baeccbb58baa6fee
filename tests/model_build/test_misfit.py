"""Why a file is no ResNet18: one sentence that says what it is, or which keys are missing, odd or elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model_build.chosen import find
from model_build.errors import FileError
from model_build.network import import_torchvision
from tests.model_build.checkpoints import State, made, under

STATE = made(3)


def said(data: dict[Any, Any]) -> str:
    with pytest.raises(FileError) as raised:
        find(data, None, print)
    return str(raised.value)


def empty(architecture: str, **options: Any) -> State:
    """The keys and shapes of one of torchvision's networks."""
    import_torchvision()
    from torchvision import models

    with torch.device("meta"):
        return dict(getattr(models, architecture)(**options).state_dict())


def without(*keys: str) -> State:
    return {key: value for key, value in STATE.items() if key not in keys}


def renamed(old: str, new: str) -> State:
    return {key.replace(old, new): value for key, value in STATE.items()}


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("resnet34", "a ResNet34: its stages have 3, 4, 6, 3 blocks of 2 convolutions, a ResNet18's 2, 2, 2, 2 of 2"),
        ("resnet50", "a ResNet50: its stages have 3, 4, 6, 3 blocks of 3 convolutions, a ResNet18's 2, 2, 2, 2 of 2"),
        ("resnet101", "a ResNet101: its stages have 3, 4, 23, 3 blocks of 3"),
        ("resnet152", "a ResNet152: its stages have 3, 8, 36, 3 blocks of 3"),
        ("wide_resnet50_2", "a wide or grouped ResNet50: "),
        ("resnext50_32x4d", "a wide or grouped ResNet50: "),
    ],
)
def test_other_resnets(architecture: str, name: str) -> None:
    state = empty(architecture)
    assert said(state).startswith(f"is no ResNet18, but {name}")
    assert said({"state_dict": under("module.", state)}).startswith(f"is no ResNet18 (under 'state_dict'), but {name}")


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("squeezenet1_0", "a network of torchvision with features"),
        ("vgg11", "a network of torchvision with features"),
        ("mobilenet_v2", "a network of torchvision with features"),
        ("densenet121", "a network of torchvision with features"),
        ("vit_b_16", "a vision transformer"),
    ],
)
def test_other_networks(architecture: str, name: str) -> None:
    state = empty(architecture)
    first = next(iter(state))
    message = said({"net": state, "epoch": 3})
    assert message.startswith(f"is no ResNet18 with torchvision's keys, but {name}")
    assert f"its keys are 'net', 'epoch'; under 'net' are {first!r} {tuple(state[first].shape)}, " in message


NUMBERS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
BODY = {
    f"0.{NUMBERS[key.split('.')[0]]}.{key.partition('.')[2]}": value
    for key, value in STATE.items()
    if not key.startswith("fc.")
}
EMBEDDER = {"resnet.encoder.stages.0.layers.0.layer.0.convolution.weight": torch.zeros(64, 64, 1, 1)}
EMBEDDER |= {"resnet.encoder.stages.0.layers.0.layer.2.convolution.weight": torch.zeros(256, 64, 1, 1)}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (EMBEDDER, "ResNet of another depth: its stages have 1, 0, 0, 0 blocks of 3 convolutions"),
        ({"model": BODY | {"1.8.weight": torch.zeros(3, 512)}, "opt": {}}, "a learner of fastai, body 0 and head 1"),
        ({"meta": {}, "state_dict": {"head.fc.weight": torch.zeros(3, 512)}}, "a classifier of OpenMMLab (mmpretrain)"),
        (renamed("conv1.", "conv1.0."), "a ResNet with a deep stem, as timm's resnet18d"),
        (without("fc.weight") | {"fc.weight_orig": STATE["fc.weight"]}, "a pruned network"),
        (
            {"pytorch-lightning_version": "2.5", "state_dict": under("model.", without("fc.weight", "fc.bias"))},
            "a checkpoint of PyTorch Lightning",
        ),
        ({"pytorch-lightning_version": "2.5", "state_dict": {"a.weight": torch.zeros(1)}}, "a checkpoint of PyTorch L"),
        ({"blocks.0.attn.qkv.weight": torch.zeros(3, 3)}, "a vision transformer"),
        ({"conv_stem.weight": torch.zeros(32, 3, 3, 3)}, "an EfficientNet or MobileNet of timm"),
        ({"stem.0.weight": torch.zeros(9), "stages.0.blocks.0.gamma": torch.zeros(9)}, "a ConvNeXt, RegNet"),
    ],
)
def test_families(data: dict[str, Any], name: str) -> None:
    assert name in said(data)
    assert said(data).startswith("is no ResNet18")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "is no ResNet18: it holds no tensors by names; its keys are none"),
        ({"epoch": 3, "args": None}, "is no ResNet18: it holds no tensors by names; its keys are 'epoch', 'args'"),
        (
            {"a.weight": torch.zeros(2, 3)},
            "is no ResNet18 with torchvision's keys: it has no 'layer1.0.conv1.weight', under any prefix; "
            "its keys are 'a.weight' (2, 3)",
        ),
        (without("conv1.weight"), "is no ResNet18: it lacks 'conv1.weight'"),
        (without("fc.bias"), "is no ResNet18: it lacks 'fc.bias'"),
        (without("fc.weight", "fc.bias"), "is no ResNet18: it lacks 'fc.weight', 'fc.bias'; it has no head"),
        (
            renamed("fc.", "projection."),
            "is no ResNet18: it lacks 'fc.weight', 'fc.bias'; its head is 'projection.weight' (3, 512); what is read "
            "are linear layers in a row, called fc, classifier, head, last_linear, linear or numbered in such a module",
        ),
        (
            {"net": {key: value for key, value in STATE.items() if "running" not in key}},
            "is no ResNet18 (under 'net'): it lacks 'bn1.running_mean', 'bn1.running_var', "
            "'layer1.0.bn1.running_mean', 'layer1.0.bn1.running_var' and 36 more; it has no running statistics, "
            "without which its normalisation can't be served",
        ),
        (STATE | {"head.weight": torch.zeros(1)}, "is no ResNet18: it has 'head.weight' (1,) besides"),
        (STATE | {"conv1.weight": "text"}, "is no ResNet18: it lacks 'conv1.weight'"),
        (STATE | {0: torch.zeros(1)}, "is no ResNet18: it has '0' (1,) besides"),
        (
            STATE | {"\x1b[31m" + "x" * 100: torch.zeros(1)},
            f"is no ResNet18: it has '\\x1b[31m{'x' * 55}…' (1,) besides",
        ),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else "",
)
def test_keys(data: dict[Any, Any], message: str) -> None:
    assert said(data) == message
