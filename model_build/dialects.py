"""The names that other libraries give to a ResNet's layers, as torchvision's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_KINDS = {"convolution": "conv", "normalization": "bn"}
_HF = r"(?:^|(?<=\.))(?:resnet\.)?"
_HF_BLOCK = _HF + r"encoder\.stages\.([0-3])\.layers\.(\d+)\."


def _block(match: re.Match[str]) -> str:
    stage, block, layer, kind = match.groups()
    return f"layer{int(stage) + 1}.{block}.{_KINDS[kind]}{int(layer) + 1}."


def _shortcut(match: re.Match[str]) -> str:
    stage, block, kind = match.groups()
    return f"layer{int(stage) + 1}.{block}.downsample.{'0' if kind == 'convolution' else '1'}."


def _stem(match: re.Match[str]) -> str:
    return f"{_KINDS[match[1]]}1."


# Whose names they are, and each pattern with what takes its place.
_DIALECTS: tuple[tuple[str, tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]], ...] = (
    (
        "Hugging Face's transformers",
        (
            (_HF + r"embedder\.embedder\.(convolution|normalization)\.", _stem),
            (_HF_BLOCK + r"layer\.([0-2])\.(convolution|normalization)\.", _block),
            (_HF_BLOCK + r"shortcut\.(convolution|normalization)\.", _shortcut),
        ),
    ),
    ("pytorch-cifar", ((r"(?<=\.)shortcut\.(?=[01]\.)", "downsample."),)),
)
# The children of a torchvision ResNet in a Sequential: 2 is the ReLU and 3 the max-pool.
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_FIRST_BLOCK = "4.0.conv1.weight"


def torchvision_names(keys: Iterable[str]) -> tuple[dict[str, str], str | None]:
    """Each of ``keys`` by torchvision's name for it, and whose names they were; None if they are torchvision's.

    Keys are left as they are where two of them would become one.
    """
    names = list(keys)
    candidates = [(whose, _renamed(names, patterns)) for whose, patterns in _DIALECTS]
    candidates.append(("a Sequential of a ResNet's children", _numbered(names)))
    for whose, found in candidates:
        if len(set(found.values())) == len(names) and any(name != key for key, name in found.items()):
            return found, whose
    return {name: name for name in names}, None


def _renamed(
    names: list[str], patterns: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
) -> dict[str, str]:
    found = {}
    for name in names:
        renamed = name
        for pattern, new in patterns:
            renamed = re.sub(pattern, new, renamed)
        found[name] = renamed
    return found


def _numbered(names: list[str]) -> dict[str, str]:
    prefixes = [name.removesuffix(_FIRST_BLOCK) for name in names if f".{name}".endswith(f".{_FIRST_BLOCK}")]
    found = {name: name for name in names}
    for prefix in prefixes:
        for name in names:
            number, _, rest = name.removeprefix(prefix).partition(".")
            if name.startswith(prefix) and number in _CHILDREN:
                found[name] = f"{prefix}{_CHILDREN[number]}.{rest}"
    return found
