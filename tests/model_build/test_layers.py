"""Whole modules against what is built of them: each layer's class and settings, and the row of the head's layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from model_build import chosen, layers, modules
from model_build.errors import FileError
from model_build.network import resnet18
from model_build.pickles import load
from model_build.structure import Structure, of_shapes
from model_build.weights import WeightsError, find
from tests.model_build import originals
from tests.model_build.checkpoints import saved
from tests.model_build.originals import answers_alike

if TYPE_CHECKING:
    from collections.abc import Callable

ACT = ("activation", 0)


class Conv2dSame(nn.Conv2d):
    """As timm has it: another class, other padding."""


class MLP(nn.Module):
    """A head whose order only its code tells."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.layer1, self.act, self.layer2 = nn.Linear(512, 8), act, nn.Linear(8, 3)

    def forward(self, features: torch.Tensor) -> Any:
        return self.layer2(self.act(self.layer1(features)))


def hook(*_: object) -> None:
    """What could change an answer."""


def bare(**parts: nn.Module) -> Any:
    """Torchvision's network without values, with ``parts`` in the place of its own."""
    with torch.device("meta"):
        network = resnet18(3)
    for name, part in parts.items():
        setattr(network, name, part)
    return network


def layer(path: str, made: Callable[[], nn.Module]) -> Callable[[Any], None]:
    return lambda network: network.set_submodule(path, made())


def setting(path: str, name: str, value: Any) -> Callable[[Any], None]:
    return lambda network: setattr(network.get_submodule(path), name, value)


def refused(folder: Path, network: Any) -> str:
    """Why ``network`` is refused; it is saved without its values, which spares their time."""
    data = load(Path(saved(folder / "w.pth", network.to("meta"))))
    taken = chosen.find(data, None, lambda _: None)
    whole = modules.around(data, taken.path)
    assert whole
    assert taken.head
    with pytest.raises(FileError, match=r"^holds a module ") as raised:
        layers.told(whole, taken, of_shapes(taken.tensors["conv1.weight"], taken.head))
    return str(raised.value).removeprefix("holds a module ")


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    network = originals.torchvision(act=nn.SiLU())
    with pytest.raises(
        WeightsError, match=r"^w\.pth holds a module with 'SiLU' in 'act', which a ResNet18 doesn't have"
    ):
        find(saved(tmp_path / "w.pth", network), tell=lambda _: None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (setting("layer4.0.conv1", "stride", (1, 1)), "whose stride in 'layer4.0.conv1' is (1, 1), expected (2, 2)"),
        (setting("layer3.1.conv2", "dilation", (2, 2)), "whose dilation in 'layer3.1.conv2' is (2, 2)"),
        (setting("layer3.1.conv2", "padding", (0, 0)), "whose padding in 'layer3.1.conv2' is (0, 0), expected (1, 1)"),
        (setting("conv1", "padding_mode", "reflect"), "whose padding_mode in 'conv1' is 'reflect', expected 'zeros'"),
        (setting("bn1", "eps", 1e-3), "whose eps in 'bn1' is 0.001, expected 1e-05"),
        (layer("bn1", lambda: nn.SyncBatchNorm(64, eps=1e-3)), "whose eps in 'bn1' is 0.001, expected 1e-05"),
        (layer("maxpool", lambda: nn.MaxPool2d(2)), "whose kernel_size in 'maxpool' is 2, expected 3"),
        (layer("maxpool", lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True)), "whose ceil_mode in 'maxpool' is True"),
        (layer("conv1", lambda: Conv2dSame(3, 64, 7, 2, 3, bias=False)), "where a ResNet18 has Conv2d"),
        (layer("layer2.0.relu", nn.LeakyReLU), "with 'LeakyReLU' in 'layer2.0.relu', which a ResNet18 doesn't have"),
        (layer("layer2.0.relu", nn.Identity), "with Identity in 'layer2.0.relu', where a ResNet18 has ReLU"),
        (layer("layer2.0.relu", lambda: nn.Softmax(1)), "with 'Softmax' in 'layer2.0.relu', which a ResNet18 does"),
        (layer("avgpool", lambda: nn.AdaptiveMaxPool2d(1)), "with 'AdaptiveMaxPool2d' in 'avgpool', which a ResNet18"),
        (lambda network: network.add_module("act", nn.SiLU()), "with 'SiLU' in 'act', which a ResNet18 doesn't have"),
        (lambda network: network.add_module("end", nn.Sigmoid()), "with 'Sigmoid' in 'end', which a ResNet18 doesn't"),
        (lambda network: network.add_module("end", nn.Softmax(0)), "whose dim in 'end' is 0, expected 1"),
        (lambda network: network.layer2[0].downsample.append(nn.ReLU()), "in a row in 'layer2.0.downsample', unlike"),
        (setting("layer1.0", "act", nn.functional.silu), "whose 'act' in 'layer1.0' is 'torch.nn.functional.silu'"),
        (setting("layer1.0", "activation", "silu"), "whose 'activation' in 'layer1.0' is 'silu', where a ResNet18 has"),
        (
            lambda network: network.fc.register_forward_hook(hook),
            "with a hook in 'fc', whose code isn't run",
        ),
        (
            lambda network: network.avgpool.register_forward_pre_hook(hook),
            "with a hook in 'avgpool', whose code isn't run",
        ),
        (setting("layer2.1.relu", "forward", hook), "with a forward of its own in 'layer2.1.relu', whose code isn't"),
        (setting("avgpool", "output_size", 1 << 2000), "whose output_size in 'avgpool' is of type int, expected 1"),
    ],
)
def test_another_network_of_the_same_tensors(tmp_path: Path, change: Callable[[Any], Any], said: str) -> None:
    network = bare()
    change(network)
    assert said in refused(tmp_path, network)


@pytest.mark.parametrize("depth", [2, 64])
def test_nested_settings_are_not_written_out(tmp_path: Path, depth: int) -> None:
    """A tuple that holds another one twice, and so on, is small in a file and longer than any memory as text."""
    nested: Any = ()
    for _ in range(depth):
        nested = (nested, nested)
    network = bare(idle=nn.Dropout())
    network.idle.anything = nested
    network.conv1.padding = nested
    assert refused(tmp_path, network) == ("whose padding in 'conv1' is (of type tuple, of type tuple), expected (3, 3)")
    network.conv1.padding = (3, 3)
    network.add_module("end", nn.Softmax(nested))
    assert refused(tmp_path, network) == "whose dim in 'end' is (of type tuple, of type tuple), expected 1"
    network.end, network.act = nn.Identity(), "torch.nn.SiLU"
    assert "whose 'act' in '.' is 'torch.nn.SiLU'" in refused(tmp_path, network)


@pytest.mark.parametrize(
    "row",
    [
        (nn.Linear(512, 8), nn.ReLU(), nn.Linear(8, 3), nn.Sigmoid()),
        (nn.Linear(512, 3), nn.Sigmoid()),
        (nn.Linear(512, 3), nn.ReLU()),
        (nn.Linear(512, 8), nn.Softmax(1), nn.Linear(8, 3)),
        (nn.Linear(512, 8), nn.Tanh(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)),
        (nn.Linear(512, 8), nn.ReLU(), nn.Linear(8, 8), nn.Dropout(), nn.Linear(8, 3)),
        (nn.Linear(512, 8), nn.Dropout(), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
        (nn.SiLU(), nn.Linear(512, 3)),
    ],
    ids=lambda row: " ".join(type(one).__name__ for one in row),
)
def test_a_head_that_is_not_built_is_refused(tmp_path: Path, row: tuple[nn.Module, ...]) -> None:
    network = bare(fc=nn.Sequential(*row))
    said = refused(tmp_path, network)
    assert said.startswith("whose head is ")
    assert "; expected linear layers, one kind of activation between them, and at the end a softmax or none" in said


def test_settings_and_kinds_of_a_head_s_layers(tmp_path: Path) -> None:
    network = bare(fc=nn.Sequential(nn.Linear(512, 8), nn.LeakyReLU(0.2), nn.Linear(8, 3)))
    assert refused(tmp_path, network) == "whose negative_slope in 'fc.1' is 0.2, expected 0.01"
    network = bare(fc=nn.Sequential(nn.Linear(512, 8), nn.Mish(), nn.Linear(8, 3)))
    assert refused(tmp_path, network) == "with 'Mish' in its head, 'fc.1', which isn't read"


@pytest.mark.parametrize(
    ("row", "activation"),
    [
        ((nn.Linear(512, 8), nn.Dropout(), nn.Linear(8, 3)), "none"),
        ((nn.Linear(512, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Dropout(), nn.Linear(8, 3), nn.LogSoftmax(1)), "silu"),
        ((nn.ReLU(), nn.Linear(512, 8), nn.Sigmoid(), nn.Linear(8, 3)), "sigmoid"),
    ],
)
def test_a_head_answers_as_the_original(tmp_path: Path, row: tuple[nn.Module, ...], activation: str) -> None:
    network = originals.torchvision(fc=nn.Sequential(*row))
    checkpoint = find(saved(tmp_path / "w.pth", network), tell=lambda _: None)
    assert checkpoint.structure.activation == activation
    kept = [one for one in network.fc if not isinstance(one, nn.LogSoftmax)]
    network.fc = nn.Sequential(*kept)
    assert answers_alike(checkpoint, network.eval())


def test_a_sigmoid_of_one_output_is_what_is_served(tmp_path: Path) -> None:
    network = originals.torchvision(fc=nn.Sequential(nn.Linear(512, 1), nn.Sigmoid()))
    checkpoint = find(saved(tmp_path / "w.pth", network), tell=lambda _: None)
    assert (checkpoint.classes, checkpoint.structure) == (2, Structure())


def test_a_head_whose_order_only_its_code_tells(tmp_path: Path) -> None:
    said = refused(tmp_path, bare(fc=MLP(nn.Tanh())))
    assert said.startswith("whose head, 'tests.model_build.test_layers.MLP', has tanh, and only its code, which isn't")
    notices: list[str] = []
    network = originals.torchvision(fc=MLP(nn.ReLU()))
    assert answers_alike(find(saved(tmp_path / "w.pth", network), tell=notices.append), network)
    assert any("relu is assumed between them" in notice for notice in notices)


def test_layers_of_other_libraries(tmp_path: Path) -> None:
    network = originals.hugging_face()
    block: Any = network.get_submodule("resnet.encoder.stages.0.layers.0.layer")
    block[0].activation, block[1].activation = nn.ReLU(), nn.Identity()
    assert answers_alike(find(saved(tmp_path / "w.pth", network), tell=lambda _: None), network)
    block[1].activation = nn.ReLU()
    assert "with 'ReLU' in 'resnet.encoder.stages.0.layers.0.layer.1.activation'" in refused(tmp_path, network)
    block[0].activation, block[1].activation = nn.SiLU(), nn.Identity()
    assert "with 'SiLU' in 'resnet.encoder.stages.0.layers.0.layer.0.activation'" in refused(tmp_path, network)


def test_the_children_of_a_network_in_a_row(tmp_path: Path) -> None:
    network = originals.shaken(originals.Children())
    assert answers_alike(find(saved(tmp_path / "w.pth", network), tell=lambda _: None), network)
    network.set_submodule("features.2", nn.Identity())
    assert "in a row in 'features', unlike a ResNet18's" in refused(tmp_path, network)


def test_a_relu_behind_the_network(tmp_path: Path) -> None:
    said = refused(tmp_path, nn.Sequential(originals.torchvision(), nn.ReLU()))
    assert said.endswith("ResNet, ReLU in a row in '.', unlike a ResNet18's")


def test_synchronised_normalisation_infers_alike(tmp_path: Path) -> None:
    network = originals.torchvision()
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(originals.torchvision())
    found = find(saved(tmp_path / "w.pth", nn.DataParallel(synchronised)), tell=lambda _: None)
    assert answers_alike(found, network)
