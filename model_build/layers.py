"""The layers of a whole module that was pickled, against those of the network that is built from its tensors.

A module tells more than a state dict: the class and the settings of each layer, and what stands between the layers.
What is known to be another network is refused. What only a module's own code tells, which isn't run, is not known.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from model_build.errors import FileError
from model_build.heads import ACTIVATION
from model_build.likeness import ALIKE, check_softmax, compare, kind_of, on_all_sides
from model_build.misfit import quoted
from model_build.modules import Standing, attributes, part, tensors, walk
from model_build.network import adapted, resnet18
from model_build.structure import ACTIVATIONS, STRIDES

if TYPE_CHECKING:
    from model_build.heads import Layer
    from model_build.structure import Structure
    from model_build.weightset import WeightSet

    Parts = dict[str, Standing]

# What does nothing in inference.
NEUTRAL = frozenset({"Identity", "Dropout", "Dropout1d", "Dropout2d"})
SOFTMAX = frozenset({"Softmax", "LogSoftmax"})
LOSS = re.compile(r"Loss$|^torchmetrics\.")
# The usual names of the places where a ResNet has its ReLUs. In a layer of transformers' the second one has none.
PLACE = re.compile(r"(^|\.)(relu|act|activation|non_?linearity)\d*$")
WITHOUT = re.compile(r"\.layer\.1\.activation$")
# What a Sequential of a ResNet18 is, by letters for its layers, S for one of several: a shortcut, the network's
# children, a stage.
ROWS = re.compile(r"CB|CBRM?S{4}A?|S*R*A?|M")
LETTERS = {"Conv2d": "C", "BatchNorm2d": "B", "ReLU": "R", "MaxPool2d": "M", "AdaptiveAvgPool2d": "A"}
# Other activations that code may name, without underscores.
NAMED = frozenset(name.lower() for name in torch.nn.modules.activation.__all__) - {"relu", "softmax", "logsoftmax"}


def told(whole: Standing, chosen: WeightSet, structure: Structure) -> dict[str, Any]:
    """What ``whole``, which has the tensors ``chosen``, tells of its network by the names of a file's metadata.

    ``structure``: what the tensors' shapes tell. Raises FileError if a layer is not as the one that is built.
    """
    network = _Network(whole, chosen, structure)
    network.check_layers()
    network.check_code()
    found = {"stem_stride": network.structure.stride, "max_pool": network.pool(), "head_activation": network.head()}
    return {name: value for name, value in found.items() if value is not None}


class _Network:
    """A whole module's parts by path, beside the network that is built.

    ``places``: the path of each layer that has tensors, by torchvision's name; ``around``: that of the module that is
    the head or holds it; ``stages``: those of the modules that hold the four stages.
    """

    def __init__(self, whole: Standing, chosen: WeightSet, structure: Structure) -> None:
        assert chosen.head, "a set that fits has a head"
        self.parts: Parts = dict(walk(whole))
        paths = {id(value): path for path, one in self.parts.items() for value in tensors(one).values()}
        classes = int(chosen.tensors[f"{structure.output}.weight"].shape[0])
        stride = on_all_sides(attributes(self.parts[paths[id(chosen.tensors["conv1.weight"])]]).get("stride"))
        self.structure = (
            replace(structure, stride=stride) if isinstance(stride, int) and stride in STRIDES else structure
        )
        with torch.device("meta"):
            self.built = adapted(resnet18(classes), self.structure, classes)
        owned = [name for name, one in self.built.named_modules() if any(True for _ in one.parameters(recurse=False))]
        self.places = {name: paths[id(chosen.tensors[f"{name}.weight"])] for name in owned}
        body = [path for name, path in self.places.items() if not name.startswith("fc")]
        self.stages = [
            _shared([path for name, path in self.places.items() if name.startswith(f"layer{n}.")]) for n in range(1, 5)
        ]
        last = self.places[structure.output]
        beside = _shared([last, *body])
        self.around = ".".join(last.split(".")[: beside.count(".") + 2 if beside else 1])
        self.expected: list[Layer] = [*chosen.head.before, ("linear", classes)]
        self.one_output = classes == 1

    def check_layers(self) -> None:
        """Raise FileError for the first layer that is not as it is built."""
        for name, path in self.places.items():
            compare(path, self.parts[path], self.built.get_submodule(name))
        for path, one in self.parts.items():
            if not _within(path, self.around) and not tensors(one):
                self._check_plain(path, one)

    def _check_plain(self, path: str, one: Standing) -> None:
        """Raise FileError if a module without tensors of its own does other than what a ResNet18 has there."""
        kind, inner, staged = kind_of(one), part(one, "_modules"), any(_within(path, stage) for stage in self.stages)
        if kind == "Sequential":
            row = "".join(_letter(layer) for layer in inner.values() if isinstance(layer, Standing))
            # A ReLU behind logits, unlike one behind features, changes the answer.
            behind = _within(self.places[self.structure.output], path) and row.endswith("R")
            if any(_within(place, path) for place in self.places.values()) and (
                behind or (path and not ROWS.fullmatch(row))
            ):
                names = ", ".join(kind_of(layer) for layer in inner.values() if isinstance(layer, Standing))
                raise FileError(
                    f"holds a module with {names:.200} in a row in {quoted(path or '.')}, unlike a ResNet18's"
                )
        elif inner or (kind == "ReLU" and not WITHOUT.search(path)):
            return
        elif kind in NEUTRAL or (kind == "Flatten" and not staged):
            if PLACE.search(path) and not WITHOUT.search(path):
                raise FileError(f"holds a module with {kind} in {quoted(path)}, where a ResNet18 has ReLU")
        elif kind == "MaxPool2d" and not staged:
            compare(path, one, torch.nn.MaxPool2d(3, 2, 1))
        elif kind == "AdaptiveAvgPool2d" and not staged:
            compare(path, one, torch.nn.AdaptiveAvgPool2d(1))
        elif kind in SOFTMAX and not staged and not self.one_output:
            check_softmax(path, one)
        elif (kind == "Sigmoid" and not staged and self.one_output) or LOSS.search(one.kind):
            return
        else:
            raise FileError(f"holds a module with {quoted(kind)} in {quoted(path)}, which a ResNet18 doesn't have")

    def check_code(self) -> None:
        """Raise FileError where the network's modules hold code that changes their answers, or may."""
        on = {""} | {path[: match.start()] for path in self.places.values() for match in re.finditer(r"\.|$", path)}
        for path, one in self.parts.items():
            # A layer without tensors may change an answer as well as one that has some.
            if path not in on and (tensors(one) or part(one, "_modules") or LOSS.search(one.kind)):
                continue
            where = quoted(path or ".")
            for name in ("_forward_hooks", "_forward_pre_hooks"):
                if part(one, name):
                    raise FileError(f"holds a module with a hook in {where}, whose code isn't run: remove it")
            for name, value in attributes(one).items():
                code = value.kind if isinstance(value, Standing) or _is_stand_in(value) else value
                if name == "forward":
                    raise FileError(f"holds a module with a forward of its own in {where}, whose code isn't run")
                if not isinstance(code, str):
                    continue
                short = code.rpartition(".")[2].replace("_", "").lower()
                if short in NAMED and _may_act(str(name), code):
                    raise FileError(
                        f"holds a module whose {quoted(str(name))} in {where} is {quoted(code)}, where a ResNet18 "
                        "has ReLU"
                    )

    def pool(self) -> bool | None:
        """Whether there is the stem's max-pool; None if only code tells. Raises FileError if there are several."""
        found = [path for path, one in self.parts.items() if kind_of(one) == "MaxPool2d"]
        if len(found) > 1:
            raise FileError(f"holds a module with several max-pools, {', '.join(map(quoted, found[:3]))}, expected one")
        above = self.parts[self.places["conv1"].rpartition(".")[0]]
        emptied = any(path.rpartition(".")[2] == "maxpool" for path in self.parts) or kind_of(above) == "Sequential"
        return True if found else False if emptied else None

    def head(self) -> str | None:
        """The activation between the head's layers; None if it has no place, or only code tells. Raises FileError."""
        within = {path: one for path, one in self.parts.items() if _within(path, self.around)}
        names = {path: name for name, path in self.places.items()}
        found: list[tuple[str, Layer]] = []  # each layer in words too, an activation's by its option's name
        for path, one in within.items():
            kind = kind_of(one)
            if path in names:
                size = self.expected[int(names[path].rpartition(".")[2]) if "." in names[path] else 0][1]
                word = "linear" if kind == "Linear" else "batchnorm"
                found.append((f"{word} {size}", (word, size)))
            elif part(one, "_modules") or kind in ("Sequential", "Flatten", *NEUTRAL):
                continue
            elif kind == "AdaptiveAvgPool2d" and not found:
                compare(path, one, torch.nn.AdaptiveAvgPool2d(1))
            elif kind in SOFTMAX:
                check_softmax(path, one)
                found.append(("softmax", ACTIVATION))
            elif kind in ACTIVATIONS.values():
                compare(path, one, getattr(torch.nn, kind)())
                found.append((next(name for name, its in ACTIVATIONS.items() if its == kind), ACTIVATION))
            else:
                raise FileError(f"holds a module with {quoted(kind)} in its head, {quoted(path)}, which isn't read")
        by_code = [one for one in within.values() if part(one, "_modules") and kind_of(one) != "Sequential"]
        if not by_code:
            return self._in_a_row(found)
        self._check_by_code(found, by_code[0])
        return None

    def _in_a_row(self, found: list[tuple[str, Layer]]) -> str | None:
        """The activation of a head whose layers follow each other as they were found."""
        row, said = list(found), " → ".join(word for word, _ in found)
        while row[0][0] == "relu":  # of averages of what ReLU gives
            row.pop(0)
        if row[-1][0] == ("sigmoid" if self.one_output else "softmax"):
            row.pop()
        words = {word for word, layer in row if layer == ACTIVATION}
        layers = [layer for _, layer in row]
        if not words and layers == [layer for layer in self.expected if layer != ACTIVATION]:
            return "none" if ACTIVATION in self.expected else None
        if layers == self.expected and len(words) == 1 and words <= ACTIVATIONS.keys():
            return words.pop()
        raise FileError(
            f"holds a module whose head is {said}; expected linear layers, one kind of activation between them, and at "
            f"the end {'a sigmoid' if self.one_output else 'a softmax'} or none"
        )

    def _check_by_code(self, found: list[tuple[str, Layer]], owner: Standing) -> None:
        """Raise FileError if a head whose order only its code tells may be other than what is assumed of it."""
        words = {word for word, layer in found if layer == ACTIVATION}
        place = ACTIVATION in self.expected
        if odd := words - {"relu" if place else "", "sigmoid" if self.one_output and not place else "softmax"}:
            raise FileError(
                f"holds a module whose head, {quoted(owner.kind)}, has {', '.join(sorted(odd))}, and only its code, "
                "which isn't run, says where: save its state_dict(); --head-activation says what stands between layers"
            )


def _letter(layer: Standing) -> str:
    kind = kind_of(layer)
    if kind in ALIKE:
        return "B"
    neutral = kind in NEUTRAL or kind in SOFTMAX or kind in ("Flatten", "Sigmoid")
    return "" if neutral else LETTERS.get(kind, "S")


def _is_stand_in(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Standing)


def _may_act(name: str, code: str) -> bool:
    """Whether an attribute may be what a module calls: a class or function, or a text in a place of that name."""
    return "." in code or bool(re.search(r"act|nonlin", name))


def _shared(paths: list[str]) -> str:
    """The path of the innermost module around all ``paths``."""
    return posixpath.commonpath([path.replace(".", "/") for path in paths]).replace("/", ".")


def _within(path: str, around: str) -> bool:
    """Whether a module is ``around`` or in it."""
    return not around or path == around or path.startswith(f"{around}.")
