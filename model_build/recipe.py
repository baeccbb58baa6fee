"""The recipe of a training: its options, its schedule, and what the trained file tells of both."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from classifier.architectures import ARCHITECTURES, DEFAULT

if TYPE_CHECKING:
    from model_build.distillation import Teacher
    from model_build.weights import Checkpoint

MOMENTUM, WEIGHT_DECAY, LABEL_SMOOTHING, WARM_UP = 0.9, 5e-4, 0.1, 0.2
# Peak learning rates for a batch of 256; other batches scale them linearly.
SCRATCH_LR, TUNING_LR, HEAD_LR = 0.2, 0.04, 0.4


@dataclass(frozen=True)
class Recipe:
    """How to train, as the options of the same names say."""

    frozen: bool
    epochs: int
    batch_size: int
    lr: float | None
    flip: bool
    validation: str
    seed: int

    def peak(self, origin: str) -> float:
        """The peak learning rate, of weights that come from ``origin``; "none" is from scratch."""
        base = HEAD_LR if self.frozen else SCRATCH_LR if origin == "none" else TUNING_LR
        return self.lr or base * self.batch_size / 256


def one_cycle(done: float) -> float:
    """The learning rate as a share of its peak, ``done`` 0 to 1 into training: a linear warm-up, then a cosine to 0."""
    return done / WARM_UP if done < WARM_UP else (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def metadata(start: Checkpoint, recipe: Recipe, images: int, teacher: Teacher | None) -> dict[str, str]:
    """What a file tells of its weights, which began as ``start`` and were trained on so many ``images``."""
    part = "head" if recipe.frozen else "whole network"
    if start.architecture != DEFAULT:
        part += f" ({ARCHITECTURES[start.architecture]})"
    names = {code: listed for code, listed in start.labels.told().items() if listed}
    told = {
        "labels": json.dumps(names, ensure_ascii=False),
        "input_size": str(start.preprocessing.size),
        "resize": str(start.preprocessing.resize),
        "squash": str(start.preprocessing.squash).lower(),
        "interpolation": start.preprocessing.interpolation,
        "antialias": str(start.preprocessing.antialias).lower(),
        "mean": ",".join(map(str, start.mean)),
        "std": ",".join(map(str, start.std)),
        "recipe": (
            f"{part} trained from {'scratch' if start.origin == 'none' else start.origin} on {images} images: "
            f"{recipe.epochs} epochs of SGD, Nesterov {MOMENTUM}, one cycle to {recipe.peak(start.origin):g}, batch "
            f"{recipe.batch_size}, weight decay {WEIGHT_DECAY}, label smoothing {LABEL_SMOOTHING}, seed {recipe.seed}"
            + (f", distilled from {teacher.told()}" if teacher else "")
        ),
    }
    told |= start.structure.metadata()
    return told | ({"upsample": str(start.upsample)} if start.upsample else {})
