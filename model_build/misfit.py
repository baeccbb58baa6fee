"""The reason why a file's tensors are not what is built: another network, or keys missing, odd or elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from classifier.architectures import ARCHITECTURES, DEFAULT
from model_build import layout
from model_build.heads import NAMES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import torch

    Tensors = dict[str, torch.Tensor]

QUOTED, SHOWN = 60, 4

# The number of blocks in each of the four stages, and whether they are bottlenecks of three convolutions.
RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    ((1, 1, 1, 1), False): "ResNet10",
    ((2, 2, 2, 2), False): "ResNet18",
    ((3, 4, 6, 3), False): "ResNet34",
    ((2, 2, 2, 2), True): "ResNet26",
    ((3, 4, 6, 3), True): "ResNet50",
    ((3, 4, 23, 3), True): "ResNet101",
    ((3, 8, 36, 3), True): "ResNet152",
}

# Keys that identify networks of other libraries and kinds, the more particular first.
FAMILIES: tuple[tuple[str, str], ...] = (
    (r"^(0\.)?0\.4\.0\.conv1\.weight$|^1\.8\.weight$", "a learner of fastai, body 0 and head 1"),
    (r"^head\.fc\.weight$", "a classifier of OpenMMLab (mmpretrain), or a ConvNeXt or RegNet of timm"),
    (r"lora_[AB]\.", "an adapter of LoRA, without the network"),
    (r"_packed_params|\.zero_point$|weight_fake_quant", "a network quantised by torch"),
    (r"\.weight_orig$", "a pruned network: torch.nn.utils.prune.remove makes its weights plain"),
    (r"parametrizations\.|\.weight_g$", "a network with parametrisations: remove these before saving"),
    (r"(^|\.)conv1\.0\.weight$", "a ResNet with a deep stem, as timm's resnet18d"),
    (r"(^|\.)blocks\.\d+\.attn\.|cls_token$|class_token$|(^|\.)vision_model\.", "a vision transformer"),
    (r"\.(se|ca|sa|cbam|attn)\.\w+", "a network with attention of some kind"),
    (r"(^|\.)conv_stem\.weight$", "an EfficientNet or MobileNet of timm"),
    (r"^model\.\d+\.(conv|cv1|m)\.", "a YOLO of ultralytics"),
    (r"^features\.", "a network of torchvision with features: VGG, AlexNet, MobileNet, EfficientNet, DenseNet, …"),
    (r"(^|\.)stages\.\d+\.", "a ConvNeXt, RegNet or the like"),
    (r"^pytorch-lightning_version$", "a checkpoint of PyTorch Lightning"),
)


def quoted(name: str) -> str:
    """``name`` in quotes, escaped, and cut if it is long."""
    return repr(name if len(name) <= QUOTED else f"{name[:QUOTED]}…")


def listed(keys: Collection[str], tensors: Tensors) -> str:
    """The first of ``keys`` with their shapes in ``tensors``, and the number of the rest."""
    shown = [quoted(key) + (f" {tuple(tensors[key].shape)}" if key in tensors else "") for key in list(keys)[:SHOWN]]
    more = len(keys) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def family(keys: Iterable[str]) -> str | None:
    """The library or network to which ``keys`` belong, if it is known."""
    names = list(keys)
    return next((said for pattern, said in FAMILIES if any(re.search(pattern, key) for key in names)), None)


def resnet(tensors: Tensors, title: str) -> str | None:
    """The ResNet of ``tensors`` if it is not the ResNet ``title``: its name and blocks, whatever else differs."""
    wanted = next((kind for kind, name in RESNETS.items() if name == title), None)
    if wanted is None:
        return None
    stages = [
        {int(found[1]) for key in tensors if (found := re.match(rf"layer{stage}\.(\d{{1,4}})\.", key))}
        for stage in (1, 2, 3, 4)
    ]
    blocks, bottleneck = tuple(map(len, stages)), "layer1.0.conv3.weight" in tensors
    if (blocks, bottleneck) == wanted:
        return None
    name = RESNETS.get((blocks, bottleneck), "ResNet of another depth")
    if tensors["layer1.0.conv1.weight"].shape[:1] != (64,):
        name = f"wide or grouped {name}"
    return (
        f"a {name}: its stages have {', '.join(map(str, blocks))} blocks of {3 if bottleneck else 2} convolutions, "
        f"a {title}'s {', '.join(map(str, wanted[0]))} of {3 if wanted[1] else 2}"
    )


def of_network(
    name: str,
    tensors: Tensors,
    beside: Tensors,
    top: Collection[str],
    expected: Collection[str],
    architecture: str = DEFAULT,
) -> str:
    """The reason why ``tensors``, which have the anchor of ``architecture``, are not its network.

    ``name``: their place in the file; ``beside``: the other keys there; ``top``: the keys of the file's own dict;
    ``expected``: those of the architecture.
    """
    title, head = ARCHITECTURES[architecture], layout.head(architecture)
    where = f" (under {quoted(name)})" if name != "." else ""
    if other := resnet(tensors, title):
        return f"is no {title}{where}, but {other}"
    missing = [key for key in expected if key not in tensors]
    odd = {key: value for key, value in tensors.items() if key not in expected} | beside
    said = [f"it lacks {listed(missing, {})}"] if missing else []
    if f"{head}.weight" in missing and len(missing) <= 2:
        heads = [key for key, value in odd.items() if value.ndim == 2]
        read = f"what is read are linear layers in a row, called {', '.join(NAMES)} or numbered in such a module"
        if architecture != DEFAULT:
            read = f"what is read is one layer {head}"
        said.append(f"its head is {listed(heads, odd)}; {read}" if heads else "it has no head")
    elif odd:
        said.append(f"it has {listed(odd, odd)} besides")
    if missing and not any(key.endswith("running_mean") for key in tensors):
        said.append("it has no running statistics, without which its normalisation can't be served")
    if kind := family([*tensors, *beside, *top]):
        said.append(f"these are the keys of {kind}")
    return f"is no {title}{where}: {'; '.join(said)}"


def of_tables(top: Collection[str], tables: list[tuple[str, Tensors]], architecture: str) -> str:
    """The reason for a file without the architecture's anchor; ``tables``: the tensors of each dict in it, by name."""
    title = ARCHITECTURES[architecture]
    if not tables:
        return f"is no {title}: it holds no tensors by names; its keys are {listed(top, {}) or 'none'}"
    kind = next((found for keys in [*(held for _, held in tables), top] if (found := family(keys))), None)
    name, tensors = max(tables, key=lambda table: len(table[1]))
    found = f"its keys are {listed(top, tensors if name == '.' else {})}"
    if name != ".":
        found += f"; under {quoted(name)} are {listed(tensors, tensors)}"
    said = f", but {kind}" if kind else f": it has no {layout.anchor(architecture)!r}, under any prefix"
    return f"is no {title} with torchvision's keys{said}; {found}"
