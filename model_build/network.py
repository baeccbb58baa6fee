"""ResNet18 inside the serving contract: ``uint8[N, S, S, 3]`` RGB in, ``float32[N, C]`` probabilities out.

Everything between pixels and probabilities is in the graph: normalisation, optional upsampling, softmax. So mean and
std exist once, and an exported file serves anywhere without a recipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from model_build.preprocessing import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


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


def resnet18(classes: int) -> nn.Module:
    """An untrained torchvision ResNet18 with ``classes`` outputs: float32[N, 3, H, W] to float32[N, classes] logits."""
    import_torchvision()
    from torchvision.models import resnet18 as build

    network: nn.Module = build(num_classes=classes)
    return network


class Contract(nn.Module):
    """A network of normalised images, wrapped so that it takes ``uint8[N, S, S, 3]`` and returns probabilities.

    ``upsample`` is the side in pixels the image is enlarged to inside the graph (bilinear, corners not aligned), for
    networks trained on small images. ``dtype`` is the precision of the network between normalisation and softmax;
    the two ends stay float32. ``temperature`` is what the logits are divided by before the softmax.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        size: int,
        upsample: int | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network.to(dtype)
        self.size, self.dtype, self.temperature = size, dtype, temperature
        self.upsample = upsample if upsample and upsample != size else None
        # Broadcasting over a last dimension of 3 is slow in ONNX Runtime; tiled to a row of S*3 values it is not.
        scale = torch.tensor([1 / (255 * s) for s in std]).repeat(size)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).repeat(size)
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """Logits float32[N, C] of ``image`` uint8[N, S, S, 3]."""
        rows = image.reshape(-1, self.size, self.size * 3).to(torch.float32)
        rows = rows * self.scale + self.shift
        pixels = rows.reshape(-1, self.size, self.size, 3).permute(0, 3, 1, 2).to(self.dtype)
        if self.upsample:
            side = (self.upsample, self.upsample)
            pixels = nn.functional.interpolate(pixels, size=side, mode="bilinear", align_corners=False)
        logits: torch.Tensor = self.network(pixels).to(torch.float32)
        return logits

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Probabilities float32[N, C] of ``image`` uint8[N, S, S, 3]."""
        logits = self.logits(image)
        return torch.softmax(logits if self.temperature == 1 else logits / self.temperature, dim=1)


def from_state(state: dict[str, Any], classes: int) -> nn.Module:
    """A ResNet18 in evaluation mode with ``state`` loaded; the counters that inference ignores may be missing."""
    network = resnet18(classes)
    missing, unexpected = network.load_state_dict(state, strict=False)
    wrong = [key for key in missing if not key.endswith("num_batches_tracked")] + list(unexpected)
    if wrong:
        raise ValueError(f"not a ResNet18 state dict: {wrong[0]!r} does not fit")
    return network.eval()
