"""The architectures that can be built and served: torchvision's networks, by the names of its functions.

A row is all that another one needs: ``model_build.layout`` reads the rest from torchvision.
"""

from __future__ import annotations

DEFAULT = "resnet18"
# What each is called in sentences.
ARCHITECTURES = {
    DEFAULT: "ResNet18",
    "resnet34": "ResNet34",
    "resnet50": "ResNet50",
    "mobilenet_v2": "MobileNetV2",
    "efficientnet_b0": "EfficientNet-B0",
    "shufflenet_v2_x1_0": "ShuffleNetV2 x1.0",
}
