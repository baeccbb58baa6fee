"""A network inside the serving contract: ``uint8[N, S, S, 3]`` RGB in, ``float32[N, C]`` probabilities out.

Everything between pixels and probabilities is in the graph: normalisation, optional upsampling, softmax. So mean and
std exist once, and an exported file serves anywhere without a recipe.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from classifier.architectures import ARCHITECTURES, DEFAULT
from model_build.heads import FEATURES, widths
from model_build.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from model_build.structure import ACTIVATIONS, TORCHVISION, WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from model_build.structure import Structure

# Pillow's weights of R, G and B in convert("L"), of 65,536, and what rounds their sum: all below 2**24, so that
# float32 holds every step exactly.
LUMA, HALF, WHOLE = (19595.0, 38470.0, 7471.0), 32768.0, 65536.0


def import_torchvision() -> ModuleType:
    """Import torchvision, even if its wheel was built for CUDA and torch was not.

    Such a wheel dies at import, because only its CUDA library declares two operators. Declaring their schemas is
    enough: the model definitions and transforms never call them.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        import sys

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision

        # A library's declarations live as long as the object does.
        torchvision._declared_operators = library
    module: ModuleType = torchvision
    return module


def build(architecture: str, classes: int) -> nn.Module:
    """An untrained network of torchvision: float32[N, 3, H, W] to float32[N, classes] logits."""
    import_torchvision()
    from torchvision.models import get_model

    network: nn.Module = get_model(architecture, num_classes=classes)
    return network


def resnet18(classes: int) -> nn.Module:
    """An untrained ResNet18 of ``classes`` outputs."""
    return build(DEFAULT, classes)


def adapted(network: Any, structure: Structure, classes: int) -> nn.Module:
    """``network``, torchvision's ResNet18, with the stem and head of ``structure``."""
    if (structure.channels, structure.kernel, structure.stride) != (3, 7, 2):
        network.conv1 = nn.Conv2d(
            structure.channels,
            WIDTH,
            structure.kernel,
            stride=structure.stride,
            padding=structure.kernel // 2,
            bias=False,
        )
    if not structure.pool:
        network.maxpool = nn.Identity()
    if structure.head:
        layers: list[nn.Module] = []
        last = FEATURES
        for kind, inputs, last in widths(structure.head):
            if kind == "linear":
                layers.append(nn.Linear(inputs, last))
            elif kind == "batchnorm":
                layers.append(nn.BatchNorm1d(inputs))
            else:
                layers.append(getattr(nn, ACTIVATIONS[structure.activation])())
        network.fc = nn.Sequential(*layers, nn.Linear(last, classes))
    module: nn.Module = network
    return module


def untrained(structure: Structure, classes: int, architecture: str = DEFAULT) -> nn.Module:
    """An untrained network; only a ResNet18 has another ``structure`` than torchvision's."""
    network = build(architecture, classes)
    return network if structure == TORCHVISION else adapted(network, structure, classes)


@cache
def shapes(structure: Structure, classes: int, architecture: str = DEFAULT) -> dict[str, tuple[int, ...]]:
    """The keys and shapes of a network of ``structure`` with ``classes`` outputs, without counters of batches."""
    with torch.device("meta"):
        state = untrained(structure, classes, architecture).state_dict()
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}


class Contract(nn.Module):
    """A network of normalised images, wrapped so that it takes ``uint8[N, S, S, 3]`` and returns probabilities.

    ``upsample`` is the side in pixels the image is enlarged to inside the graph (bilinear, corners not aligned), for
    networks trained on small images. ``grey``: the network sees one channel, which the graph makes of R, G, B as
    Pillow's ``convert("L")`` does: 0.299 R + 0.587 G + 0.114 B, rounded to 8 bits; of ``mean`` and ``std`` the first
    counts. ``dtype`` is the precision of the network between normalisation and softmax; the two ends stay float32.
    ``temperature`` is what the logits are divided by before the softmax.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        size: int,
        upsample: int | None = None,
        grey: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network.to(dtype)
        self.size, self.dtype, self.temperature = size, dtype, temperature
        self.channels = 1 if grey else 3
        self.upsample = upsample if upsample and upsample != size else None
        # Broadcasting over a last dimension of 3 is slow in ONNX Runtime; tiled to a row of S*3 values it is not.
        mean, std = mean[: self.channels], std[: self.channels]
        scale = torch.tensor([1 / (255 * s) for s in std]).repeat(size)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).repeat(size)
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.luma: torch.Tensor
        self.register_buffer("luma", torch.tensor(LUMA), persistent=False)

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """Logits float32[N, C] of ``image`` uint8[N, S, S, 3]."""
        if self.channels == 1:
            weighed = (image.to(torch.float32) * self.luma).sum(3)
            rows = torch.floor((weighed + HALF) / WHOLE)
        else:
            rows = image.reshape(-1, self.size, self.size * 3).to(torch.float32)
        rows = rows * self.scale + self.shift
        pixels = rows.reshape(-1, self.size, self.size, self.channels).permute(0, 3, 1, 2).to(self.dtype)
        if self.upsample:
            side = (self.upsample, self.upsample)
            pixels = nn.functional.interpolate(pixels, size=side, mode="bilinear", align_corners=False)
        logits: torch.Tensor = self.network(pixels).to(torch.float32)
        return logits

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Probabilities float32[N, C] of ``image`` uint8[N, S, S, 3]."""
        logits = self.logits(image)
        return torch.softmax(logits if self.temperature == 1 else logits / self.temperature, dim=1)


def from_state(
    state: dict[str, Any], classes: int, structure: Structure = TORCHVISION, architecture: str = DEFAULT
) -> nn.Module:
    """A network in evaluation mode with ``state`` loaded; the counters that inference ignores may be missing."""
    network = untrained(structure, classes, architecture)
    missing, unexpected = network.load_state_dict(state, strict=False)
    wrong = [key for key in missing if not key.endswith("num_batches_tracked")] + list(unexpected)
    if wrong:
        raise ValueError(f"not a {ARCHITECTURES[architecture]} state dict: {wrong[0]!r} does not fit")
    return network.eval()
