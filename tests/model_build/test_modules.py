"""Whole modules that were pickled: they answer as the original does, tell their layers, and none of their code runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from model_build.structure import TORCHVISION, Structure
from model_build.weights import find
from tests.model_build import originals
from tests.model_build.checkpoints import saved
from tests.model_build.originals import answers_alike

if TYPE_CHECKING:
    from pathlib import Path


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
