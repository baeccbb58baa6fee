"""A model's folder as Hugging Face and timm publish it: which file the weights are in, and what its JSON files tell."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from model_build.errors import FileError
from model_build.misfit import listed, quoted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# In the order in which transformers and timm look for them.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# The usual suffixes of files of weights; none is needed.
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
FILES = (CONFIG, PROCESSOR)
# timm's names of networks that are torchvision's ResNet18 in all that their tensors don't tell, and the arguments with
# which they still are. resnetblur18, say, has the same tensors and is another network.
ARCHITECTURES = ("resnet18", "tv_resnet18", "gluon_resnet18_v1b", "ssl_resnet18", "swsl_resnet18")
ARGUMENTS = frozenset({"num_classes", "in_chans", "drop_rate", "drop_path_rate", "drop_block_rate"})
# What of timm's configuration tells how images are prepared.
TIMM = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
# transformers' image processors that are known here, and their interpolation where the file tells none.
PROCESSORS = {"ConvNext": 2, "ViT": 2, "Bit": 3, "CLIP": 3, "DeiT": 3, "MobileNetV1": 2, "MobileNetV2": 2}
# Pillow's numbers.
RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
# Those that read a size of one number as both sides; the others read it as the shorter one.
SQUARE = ("ViT", "DeiT")
WHOLE = 384
LEAST_CROP = 0.05
CONVNEXT_CROP = 224 / 256
# The types of JSON's values, in words.
TYPES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


def weights(folder: Path, notice: Callable[[str], None]) -> Path:
    """The file of weights in ``folder``, or its index; ``notice`` is told what is left. Raises FileError, OSError.

    ``folder`` may be a model's folder in Hugging Face's cache, which has its snapshots inside.
    """
    folder = snapshot(folder)
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    known = [name for name in WEIGHTS if name in names]
    indexes = [name for name in names if name.endswith(".index.json")]
    others = [name for name in names if name.endswith(SUFFIXES)]
    for found in (known, indexes, others):
        if len(found) == 1 or (found and found is known):
            if len(found) > 1:
                notice(f"is a folder: {quoted(found[0])} is taken, {listed(found[1:], {})} left")
            return folder / found[0]
        if found:
            raise FileError(f"is a folder of several files of weights; name one: {listed(found, {})}")
    raise FileError(
        f"is a folder without weights; expected {WEIGHTS[0]}, or one file that ends in {', '.join(SUFFIXES)}"
    )


def snapshot(folder: Path) -> Path:
    """``folder``, or the snapshot in it that its refs call main, or its only one."""
    inside = folder / "snapshots"
    if not inside.is_dir():
        return folder
    try:
        main = (folder / "refs" / "main").read_bytes().decode("utf-8", errors="replace").strip()
        return next(one for one in inside.iterdir() if one.name == main)
    except (OSError, StopIteration):
        found = [one for one in inside.iterdir() if one.is_dir()]
        return found[0] if len(found) == 1 else folder


def told(folder: Path) -> dict[str, Any]:
    """What the JSON files in ``folder`` tell of classes and preprocessing, by the names of a file's own metadata.

    Raises FileError where they tell of another network than a ResNet18, or of a preprocessing that can't be served.
    """
    folder = snapshot(folder)
    config, processor = _json(folder / CONFIG), _json(folder / PROCESSOR)
    if "architecture" in config or "pretrained_cfg" in config:
        return _timm(config)
    return _transformers(config) | (_processor(processor) if processor else {})


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise FileError(f"has a {path.name} that is no JSON object")
    return data


def _entry(config: dict[str, Any], file: str, name: str, kind: type, default: Any = None) -> Any:
    """An entry of a JSON object of ``file``, ``default`` where it is missing or null.

    Raises FileError if it is not of the type ``kind``; float takes whole numbers, too.
    """
    value = config.get(name)
    if value is None:
        return default
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise FileError(f"has a {file} with {name} {value!r:.60}, expected {TYPES[kind]}")
    return value


def _timm(config: dict[str, Any]) -> dict[str, Any]:
    architecture = str(config.get("architecture", ARCHITECTURES[0]))
    if architecture.split(".")[0] not in ARCHITECTURES:
        raise FileError(f"is no ResNet18: its {CONFIG} says architecture {quoted(architecture)}, expected 'resnet18'")
    arguments = _entry(config, CONFIG, "model_args", dict, {})
    odd = {name: value for name, value in arguments.items() if name not in ARGUMENTS}
    if odd:
        raise FileError(f"is no plain ResNet18: its {CONFIG} says model_args {quoted(json.dumps(odd))}")
    if config.get("global_pool") not in (None, "avg", "fast"):
        raise FileError(
            f"is no plain ResNet18: its {CONFIG} says global_pool {config['global_pool']!r}, expected 'avg'"
        )
    inner = _entry(config, CONFIG, "pretrained_cfg", dict) or config  # older ones have all at the top
    found = {name: inner[name] for name in TIMM if inner.get(name) is not None}
    names, descriptions = (
        _entry(config, CONFIG, entry, kind) or _entry(inner, CONFIG, entry, kind, kind())
        for entry, kind in (("label_names", list), ("label_descriptions", dict))
    )
    if odd_names := [name for name in names if not isinstance(name, str)]:
        raise FileError(f"has a {CONFIG} with {odd_names[0]!r:.60} among label_names, expected texts")
    if names:
        return found | {"label_names": [descriptions.get(name, name) for name in names]}
    return found | _labels(config)


def _transformers(config: dict[str, Any]) -> dict[str, Any]:
    kind = config.get("model_type", "resnet")
    if kind != "resnet":
        raise FileError(f"is a {quoted(str(kind))} of Hugging Face's transformers ({CONFIG}), expected 'resnet'")
    if config.get("hidden_act", "relu") != "relu":
        raise FileError(f"is no plain ResNet18: its {CONFIG} says hidden_act {config['hidden_act']!r}, expected 'relu'")
    if config.get("problem_type") not in (None, "single_label_classification"):
        raise FileError(
            f"answers no one class of several: its {CONFIG} says problem_type {config['problem_type']!r}, expected "
            "'single_label_classification'"
        )
    return _labels(config)


def _labels(config: dict[str, Any]) -> dict[str, Any]:
    """The names of classes in a configuration of transformers; LABEL_0, LABEL_1, … are none."""
    names = _entry(config, CONFIG, "id2label", dict, {})
    if all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names.values()):
        return {}
    return {"id2label": names}


def _processor(config: dict[str, Any]) -> dict[str, Any]:
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    name = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", kind)
    if name not in PROCESSORS:
        raise FileError(
            f"has a {PROCESSOR} of {quoted(kind)}, which is not known here ({', '.join(PROCESSORS)} are); "
            "name the file of weights in the folder, and say how images are prepared: --size, --resize, "
            "--interpolation, --mean, --std"
        )
    for step in ("do_resize", "do_rescale"):
        if config.get(step, True) is not True:
            raise FileError(f"has a {PROCESSOR} with {step} {config[step]!r}, expected true")
    factor = _entry(config, PROCESSOR, "rescale_factor", float, 1 / 255)
    if not abs(factor * 255 - 1) <= 1e-3:  # a whole number may be more than a float holds
        raise FileError(f"has a {PROCESSOR} with rescale_factor {factor!r:.60}, expected 1/255")
    found = _sides(name, config)
    resample = _entry(config, PROCESSOR, "resample", int, PROCESSORS[name])
    if resample not in range(len(RESAMPLING)):
        raise FileError(f"has a {PROCESSOR} with resample {resample!r:.60}, expected one of Pillow's, 0 to 5")
    found["interpolation"] = RESAMPLING[resample]
    if not _entry(config, PROCESSOR, "do_normalize", bool, True):
        return found | {"mean": [0, 0, 0], "std": [1, 1, 1]}
    for entry in ("mean", "std"):
        if config.get(f"image_{entry}") is None:
            raise FileError(
                f"has a {PROCESSOR} without image_{entry}; say it with --{entry}, naming the file of weights"
            )
        found[entry] = config[f"image_{entry}"]
    return found


def _sides(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The size, resize and squash of transformers' image processor called ``name``."""
    short, both = _size(config, "size", name in SQUARE)
    if name == "ConvNext":
        side = short or both
        # From 384 pixels on, it scales both sides and crops nothing.
        if side >= WHOLE:
            return {"input_size": side, "resize": side, "squash": True}
        crop = _entry(config, PROCESSOR, "crop_pct", float, CONVNEXT_CROP)
        if not LEAST_CROP <= crop <= 1:
            raise FileError(f"has a {PROCESSOR} with crop_pct {crop!r:.60}, expected a number from {LEAST_CROP} to 1")
        return {"input_size": side, "resize": int(side / crop), "squash": False}
    if _entry(config, PROCESSOR, "do_center_crop", bool, "crop_size" in config):
        crop = sum(_size(config, "crop_size", True))
        return {"input_size": crop, "resize": short or both, "squash": not short}
    if short:
        raise FileError(f"has a {PROCESSOR} that keeps each image's shape and crops nothing; squares are served")
    return {"input_size": both, "resize": both, "squash": True}


def _size(config: dict[str, Any], entry: str, square: bool) -> tuple[int, int]:
    """A size's shorter side, or both sides, in pixels, the other of them 0; ``square``: a number is both sides."""
    match config.get(entry):
        case {"shortest_edge": int(side)}:
            return side, 0
        case {"height": int(side), "width": int(other)} if side == other:
            return 0, side
        case int(side):
            return (0, side) if square else (side, 0)
        case found:
            raise FileError(f"has a {PROCESSOR} with {entry} {found!r:.60}, expected the sides of a square")
