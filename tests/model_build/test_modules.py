"""Whole modules that were pickled: they answer as the original does, tell their layers, and none of their code runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from model_build.errors import FileError
from model_build.pickles import load
from model_build.structure import TORCHVISION, Structure
from model_build.weights import find
from tests.model_build import originals
from tests.model_build.checkpoints import saved
from tests.model_build.originals import answers_alike

if TYPE_CHECKING:
    from collections.abc import Callable


class Attributes(dict[str, Any]):
    """As Lightning keeps hyperparameters."""


class Judged(nn.Module):
    """A network and what else a training module has."""

    def __init__(self) -> None:
        super().__init__()
        self.net = originals.torchvision()
        self.criterion = nn.CrossEntropyLoss()
        self.register_buffer("seen", torch.zeros(3), persistent=False)


def test_it_answers_as_the_original(tmp_path: Path) -> None:
    original = originals.torchvision()
    notices: list[str] = []
    checkpoint = find(saved(tmp_path / "w.pth", original), tell=notices.append)
    assert answers_alike(checkpoint, original)
    assert checkpoint.structure == TORCHVISION
    assert notices == [
        "w.pth holds a whole module, 'torchvision.models.resnet.ResNet'; its tensors are read, and none of its code"
    ]
    state = saved(tmp_path / "state.pth", original.state_dict())
    assert find(state).digest == checkpoint.digest


def test_what_it_tells_is_not_assumed(tmp_path: Path) -> None:
    original = originals.cifar()
    notices: list[str] = []
    original.maxpool = nn.MaxPool2d(3, 2, 1)
    original.fc = nn.Sequential(nn.Linear(512, 8), nn.Tanh(), nn.Linear(8, 3))
    data = {"model": nn.DataParallel(original), "hyper_parameters": Attributes(lr=0.1), "input_size": 64}
    checkpoint = find(saved(tmp_path / "w.ckpt", data), tell=notices.append)
    assert answers_alike(checkpoint, original.eval())
    head = (("linear", 8), ("activation", 0))
    assert checkpoint.structure == Structure(kernel=3, stride=1, pool=True, head=head, activation="tanh")
    assert not any("assumed" in notice for notice in notices)


def test_within_a_module_of_training(tmp_path: Path) -> None:
    module = Judged().eval()
    assert answers_alike(find(saved(tmp_path / "w.pth", module)), module.net)


def without_stride(network: Any) -> None:
    network.layer4[0].conv1.stride = (1, 1)


def with_dilation(network: Any) -> None:
    network.layer3[1].conv2.dilation = (2, 2)


def with_slope(network: Any) -> None:
    network.layer2[0].relu = nn.LeakyReLU()


def with_epsilon(network: Any) -> None:
    network.bn1.eps = 1e-3


def with_noise(network: Any) -> None:
    network.avgpool = nn.AdaptiveMaxPool2d(1)


def with_a_small_pool(network: Any) -> None:
    network.maxpool = nn.MaxPool2d(2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_stride, "whose stride and dilation in 'layer4.0.conv1' are 1 and 1, expected 2 and 1"),
        (with_dilation, "whose stride and dilation in 'layer3.1.conv2' are 1 and 2, expected 1 and 1"),
        (with_slope, "with LeakyReLU in 'layer2.0.relu', where a ResNet18 has ReLU"),
        (with_epsilon, "whose eps in 'bn1' is 0.001, expected 1e-05"),
        (with_noise, "with 'torch.nn.modules.pooling.AdaptiveMaxPool2d' in 'avgpool', which a ResNet18 doesn't have"),
        (with_a_small_pool, "whose max-pool in 'maxpool' has kernel, stride and padding (2, 2, 0), expected (3, 2, 1)"),
    ],
)
def test_another_network_of_the_same_tensors(tmp_path: Path, change: Callable[[Any], None], said: str) -> None:
    network = originals.torchvision()
    change(network)
    with pytest.raises(FileError) as raised:
        load(Path(saved(tmp_path / "w.pth", network)))
    assert str(raised.value) == f"holds a module {said}"
