"""Where weights come from: ImageNet's, the packaged demo, or the user's own file; each becomes a ``Checkpoint``."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from classifier.labels import Labels
from model_build import hub, statedict
from model_build.errors import FileError
from model_build.network import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_build.statedict import StateDict

ASSETS = Path(__file__).parent / "assets"
DEMO_FILE = ASSETS / "resnet18-cifar10.safetensors"
IMAGENET_LABELS = ASSETS / "labels-imagenet.json"
DEMO_LABELS = ASSETS / "labels-cifar10.json"
# What files of weights are called as a rule; none is needed.
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")


class WeightsError(Exception):
    """The weights asked for can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A ResNet18's weights and what is needed to serve them.

    ``state``: torchvision's ResNet18 state dict, float32. ``size``: side S of the square input in pixels; ``resize``:
    the shorter side a photo is scaled to before the centre crop of S; ``upsample``: the side the graph enlarges S to,
    or None. ``digest``: sha256 over names, shapes and values, so that one set of weights in two files is the same.
    """

    state: dict[str, torch.Tensor]
    origin: str
    labels: Labels
    size: int
    resize: int
    upsample: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    digest: str

    @property
    def classes(self) -> int:
        """C, the number of outputs."""
        return int(self.state["fc.weight"].shape[0])


def find(
    weights: str,
    *,
    labels: Path | None = None,
    size: int | None = None,
    resize: int | None = None,
    key: str | None = None,
    notice: Callable[[str], None] = print,
    fallback: Callable[[str], None] = print,
) -> Checkpoint:
    """The checkpoint that ``weights`` names: ``auto``, ``imagenet``, ``demo`` or a path.

    ``auto`` is ImageNet's where they can be had, else the demo, told through ``fallback``. Of the several sets of
    weights in a file the average is taken, or the one that ``key`` names; which, and what was left, is told through
    ``notice``. Raises WeightsError.
    """
    if key is not None and weights in ("auto", "imagenet", "demo"):
        raise WeightsError(f"--key {key!r} chooses in a file of weights, and --weights {weights} is none")
    if weights == "auto":
        try:
            checkpoint = _imagenet()
        except WeightsError as error:
            fallback(f"{error}\n\nThe packaged demo checkpoint (CIFAR-10: 10 classes, 32 px) is used instead.")
            checkpoint = _demo()
    elif weights == "imagenet":
        checkpoint = _imagenet()
    elif weights == "demo":
        checkpoint = _demo()
    else:
        checkpoint = _from_file(Path(weights), key, notice)
    if labels is not None:
        checkpoint = replace(checkpoint, labels=read_labels(labels))
    if len(checkpoint.labels.en) != checkpoint.classes:
        raise WeightsError(
            f"{labels or checkpoint.origin} holds {len(checkpoint.labels.en)} labels, but the checkpoint has "
            f"{checkpoint.classes} classes; they must be equal"
        )
    if size is not None and size != checkpoint.size:
        # A new input size means a new crop; the checkpoint's own enlargement belongs to its own size.
        checkpoint = replace(checkpoint, size=size, resize=resize or default_resize(size), upsample=None)
    if resize is not None:
        checkpoint = replace(checkpoint, resize=resize)
    if checkpoint.resize < checkpoint.size:
        raise WeightsError(f"--resize {checkpoint.resize} is smaller than the crop of {checkpoint.size} pixels")
    return checkpoint


def default_resize(size: int) -> int:
    """The shorter side before the crop: ImageNet's 256/224 for photographs, the whole image for tiny inputs."""
    return round(size * 256 / 224) if size >= 64 else size


def read_labels(path: Path) -> Labels:
    """Labels from a file: one a line, a JSON list, or a JSON object with ``en`` and, optionally, ``zh``."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"labels file {str(path)!r} can't be read as UTF-8 text: {error}") from None
    try:
        if path.suffix.lower() != ".json":
            return Labels(tuple(line.strip() for line in text.splitlines() if line.strip()))
        return parse_labels(text)
    except ValueError as error:
        raise WeightsError(f"labels file {str(path)!r}: {error}") from None


def parse_labels(text: str) -> Labels:
    """Labels from JSON text: a list of names, or an object with ``en`` and optionally ``zh``. Raises ValueError."""
    data = json.loads(text)
    if isinstance(data, list):
        data = {"en": data}
    if not isinstance(data, dict) or "en" not in data:
        raise ValueError("expected a list of names, or an object with 'en' and optionally 'zh'")
    lists = {}
    for language in ("en", "zh"):
        names = data.get(language)
        if names is not None and not (isinstance(names, list) and all(isinstance(n, str) and n for n in names)):
            raise ValueError(f"{language!r} must be a list of non-empty strings")
        lists[language] = tuple(names) if names is not None else None
    return Labels(lists["en"] or (), lists["zh"])


def numbered(classes: int) -> Labels:
    """The labels of ``classes`` classes whose names nothing tells."""
    return Labels(tuple(f"class {index}" for index in range(classes)))


def _imagenet() -> Checkpoint:
    try:
        path = hub.imagenet()
    except hub.HubError as error:
        raise WeightsError(str(error)) from None
    stored = _read(path)
    return _checkpoint(stored.state, "imagenet", read_labels(IMAGENET_LABELS), {"input_size": "224", "resize": "256"})


def _demo() -> Checkpoint:
    stored = _read(DEMO_FILE)
    return _checkpoint(stored.state, "demo", read_labels(DEMO_LABELS), stored.metadata)


def _from_file(path: Path, key: str | None, notice: Callable[[str], None]) -> Checkpoint:
    try:
        if path.is_dir():
            inside = sorted(file.name for file in path.iterdir() if file.suffix in SUFFIXES)
            found = f"; name the file in it: {', '.join(inside[:3])}" if inside else ""
            raise WeightsError(f"--weights {str(path)!r} is a directory, not a file{found}")
        if not path.is_file():
            raise WeightsError(f"--weights {str(path)!r} is not a file, nor one of auto, imagenet, demo")
    except OSError as error:
        raise WeightsError(f"--weights {str(path)!r} can't be read: {error.strerror}") from None
    name, stored = _name(path), _read(path, key, notice)
    state = stored.state
    if len(state["fc.weight"]) == 1:
        state = _two_classes(state)
        notice(
            f"{name} has one output (fc.weight [1, 512]), taken for a sigmoid's: it is served as two classes, the "
            "negative and then the positive, whose probability is that sigmoid"
        )
    classes = len(state["fc.weight"])
    if "labels" in stored.metadata:
        try:
            labels = parse_labels(stored.metadata["labels"])
        except ValueError as error:
            raise WeightsError(f"{name}: the labels in its metadata can't be used: {error}") from None
    elif classes == 1000 and hub.is_imagenet(path):
        labels = read_labels(IMAGENET_LABELS)
    else:
        labels = numbered(classes)
    return _checkpoint(state, name, labels, stored.metadata)


def _name(path: Path) -> str:
    """The file's name as text that can be written; a file system allows more."""
    return os.fsencode(path.name).decode("utf-8", errors="replace")


def _read(path: Path, key: str | None = None, notice: Callable[[str], None] = print) -> StateDict:
    try:
        return statedict.read(path, key, lambda text: notice(f"{_name(path)} {text}"))
    except FileError as error:
        raise WeightsError(f"{_name(path)} {error}") from None
    except OSError as error:
        raise WeightsError(f"--weights {str(path)!r} can't be read: {error.strerror}") from None


def _two_classes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A head of one logit z as two of 0 and z, so that softmax gives 1 - sigmoid(z) and sigmoid(z)."""
    head = {key: torch.cat([torch.zeros_like(state[key]), state[key]]) for key in ("fc.weight", "fc.bias")}
    return state | head


def _checkpoint(state: dict[str, torch.Tensor], origin: str, labels: Labels, metadata: dict[str, str]) -> Checkpoint:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(f"{key}{tuple(state[key].shape)}".encode())
        digest.update(state[key].numpy().tobytes())
    try:
        size = int(metadata.get("input_size", 224))
        resize = int(metadata.get("resize", default_resize(size)))
        upsample = int(metadata["upsample"]) if "upsample" in metadata else None
        mean = _triple(metadata.get("mean"), IMAGENET_MEAN)
        std = _triple(metadata.get("std"), IMAGENET_STD)
        sides = (size, resize, upsample or size)
        if not all(8 <= side <= limit for side, limit in zip(sides, (1024, 2048, 2048), strict=True)):
            raise ValueError("input_size must be from 8 to 1024 pixels, resize and upsample from 8 to 2048")
        if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise ValueError("mean and std must be finite, and std more than 0")
    except ValueError as error:
        raise WeightsError(f"{origin}: the metadata {metadata} can't be used: {error}") from None
    return Checkpoint(
        state=state,
        origin=origin,
        labels=labels,
        size=size,
        resize=resize,
        upsample=upsample if upsample != size else None,
        mean=mean,
        std=std,
        digest=digest.hexdigest(),
    )


def _triple(text: str | None, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if text is None:
        return default
    red, green, blue = (float(value) for value in text.split(","))
    return red, green, blue
