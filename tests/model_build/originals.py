"""Networks as others build them: ResNet18s under other names, with other stems and heads."""

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from model_build.network import adapted, resnet18

if TYPE_CHECKING:
    from model_build.weights import Checkpoint


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """``network`` in evaluation mode, its normalisations random too, so that no two layers could be swapped unseen."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for value in (module.weight, module.running_var):
                    assert isinstance(value, torch.Tensor)
                    value.copy_(0.5 + torch.rand(value.shape, generator=random))
                for value in (module.bias, module.running_mean):
                    assert isinstance(value, torch.Tensor)
                    value.copy_(0.2 * torch.randn(value.shape, generator=random))
    return network.eval()


@cache
def _made(classes: int) -> Any:
    torch.manual_seed(classes)
    return shaken(resnet18(classes))


def torchvision(classes: int = 3, **parts: nn.Module) -> Any:
    """Torchvision's, random, with ``parts`` in the place of its own."""
    network = copy.deepcopy(_made(classes))
    for name, part in parts.items():
        setattr(network, name, shaken(part))
    return network


def cifar(classes: int = 3, channels: int = 3) -> Any:
    """As it is written for CIFAR: a 3x3 stem of stride 1, no max-pool."""
    torch.manual_seed(0)
    return torchvision(classes, conv1=nn.Conv2d(channels, 64, 3, 1, 1, bias=False), maxpool=nn.Identity())


class Around(nn.Module):
    """A body without its own head, and another ``head`` beside it, under a name of choice."""

    def __init__(self, body: str, name: str, head: nn.Module) -> None:
        super().__init__()
        network = torchvision(3, fc=nn.Identity())
        self.add_module(body, network)
        self.add_module(name, head)
        self.both = (body, name)

    def forward(self, pixels: torch.Tensor) -> Any:
        """Logits."""
        body, head = (getattr(self, name) for name in self.both)
        return head(body(pixels))


class Children(nn.Module):
    """The children of a body in a Sequential, as ``nn.Sequential(*list(net.children())[:-1])`` has them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*list(torchvision(3).children())[:-1])
        self.fc = nn.Linear(512, 3)

    def forward(self, pixels: torch.Tensor) -> Any:
        """Logits."""
        return self.fc(self.features(pixels).flatten(1))


class _Layer(nn.Module):
    """transformers' ResNetConvLayer and ResNetShortCut."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, active: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.normalization = nn.BatchNorm2d(outputs)
        self.active = active

    def forward(self, pixels: torch.Tensor) -> Any:
        hidden = self.normalization(self.convolution(pixels))
        return hidden.relu() if self.active else hidden


class _Basic(nn.Module):
    """transformers' ResNetBasicLayer."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        plain = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if plain else _Layer(inputs, outputs, 1, stride, False)
        self.layer = nn.Sequential(_Layer(inputs, outputs, 3, stride, True), _Layer(outputs, outputs, 3, 1, False))

    def forward(self, hidden: torch.Tensor) -> Any:
        return (self.layer(hidden) + self.shortcut(hidden)).relu()


class _Named(nn.Module):
    """A module of ``parts`` by name, one after the other."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, hidden: torch.Tensor) -> Any:
        for part in self.children():
            hidden = part(hidden)
        return hidden


def hugging_face(classes: int = 3, channels: int = 3) -> nn.Module:
    """transformers' ResNetForImageClassification of depths 2, 2, 2, 2 and basic layers."""
    torch.manual_seed(1)
    widths = (64, 64, 128, 256, 512)
    stages = [
        _Named(
            layers=nn.Sequential(_Basic(widths[n], widths[n + 1], 1 + (n > 0)), _Basic(widths[n + 1], widths[n + 1], 1))
        )
        for n in range(4)
    ]
    body = _Named(
        embedder=_Named(embedder=_Layer(channels, 64, 7, 2, True), pooler=nn.MaxPool2d(3, 2, 1)),
        encoder=_Named(stages=nn.Sequential(*stages)),
        pooler=nn.AdaptiveAvgPool2d(1),
    )
    return shaken(_Named(resnet=body, classifier=nn.Sequential(nn.Flatten(), nn.Linear(512, classes))))


class _Block(nn.Module):
    """pytorch-cifar's BasicBlock."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, hidden: torch.Tensor) -> Any:
        inner = self.bn2(self.conv2(self.bn1(self.conv1(hidden)).relu()))
        return (inner + self.shortcut(hidden)).relu()


class _Cifar(nn.Module):
    """pytorch-cifar's ResNet."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = (64, 64, 128, 256, 512)
        for n in range(4):
            stage = nn.Sequential(
                _Block(widths[n], widths[n + 1], 1 + (n > 0)), _Block(widths[n + 1], widths[n + 1], 1)
            )
            self.add_module(f"layer{n + 1}", stage)
        self.linear = nn.Linear(512, classes)

    def forward(self, pixels: torch.Tensor) -> Any:
        hidden = self.bn1(self.conv1(pixels)).relu()
        for n in range(4):
            hidden = getattr(self, f"layer{n + 1}")(hidden)
        return self.linear(nn.functional.avg_pool2d(hidden, 4).flatten(1))


def pytorch_cifar(classes: int = 3) -> nn.Module:
    """kuangliu's ResNet18, for 32 pixels."""
    torch.manual_seed(2)
    return shaken(_Cifar(classes))


def answers_alike(checkpoint: Checkpoint, original: nn.Module, side: int = 48) -> bool:
    """Whether the network of ``checkpoint`` gives the logits of ``original``, which differ among images."""
    images = torch.randn((4, checkpoint.structure.channels, side, side), generator=torch.Generator().manual_seed(3))
    with torch.device("meta"):  # which spares its random weights
        network = adapted(resnet18(checkpoint.classes), checkpoint.structure, checkpoint.classes).eval()
    network.load_state_dict(checkpoint.state, strict=False, assign=True)
    with torch.inference_mode():
        expected, actual = original(images), network(images)
    assert expected.std(0).min() > 1e-3
    return torch.allclose(expected, actual, atol=1e-4, rtol=1e-4)
