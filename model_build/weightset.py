"""The sets of weights in a file, under dicts and prefixes.

A file may nest its weights, put prefixes before their keys, and hold several sets of them (a network and its average,
a student and a teacher) and much else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from classifier.architectures import ARCHITECTURES, DEFAULT
from model_build import dialects, heads, layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_build.heads import Head

Tensors = dict[str, torch.Tensor]
TOP, DEPTH = ".", 4
# What wrappers put into keys: DataParallel and AveragedModel, torch.compile, FSDP, checkpointing, Lightning.
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
# Counters of batches, of averaging, and of profiling (thop): no inference reads them.
COUNTERS = frozenset({"num_batches_tracked", "n_averaged", "total_ops", "total_params"})
AVERAGE = re.compile(r"(?<![a-z])(ema|swa|avg|averaged?|shadow|polyak)(?![a-z])")
LOSS = re.compile(r"(^|_)(loss|criterion)", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """The tensors of one dict in a file, by torchvision's names.

    ``path``: its place. ``counters``: those that ``tensors`` leaves out. ``whose``: whose names they had in the file;
    None for torchvision's.
    """

    path: tuple[str, ...]
    tensors: Tensors
    counters: frozenset[str]
    whose: str | None

    @property
    def name(self) -> str:
        """The path joined by dots, ``.`` for the file's own dict."""
        return ".".join(self.path) or TOP


@dataclass(frozen=True)
class WeightSet:
    """The tensors of one network in a file, by their keys without the prefix that they share.

    ``name``: the dicts' names and the prefix joined by dots. ``beside``: keys of the same dict that are of no network.
    ``averaged``: whether its name or a counter says that it is an average over training. ``head``: its head, whose
    tensors are among ``tensors``; None if it has none that is read, and where ``architecture``, whose network it is to
    be, has but torchvision's. ``whose``: whose names its tensors had.
    """

    name: str
    path: tuple[str, ...]
    tensors: Tensors
    beside: Tensors
    averaged: bool
    head: Head | None
    whose: str | None
    architecture: str

    def expected(self) -> dict[str, None]:
        """The keys of the architecture with its head, in order; with torchvision's if it has none."""
        own = [key for key in layout.shapes(self.architecture, 1) if key not in heads.PLAIN or not self.head]
        return dict.fromkeys([*own, *(self.head.tensors if self.head else ())])

    def is_whole(self) -> bool:
        """Whether its keys are those of the architecture with a head, whatever their shapes."""
        return {key for key, value in self.tensors.items() if not of_a_loss(key, value)} == self.expected().keys()


@cache
def body() -> frozenset[str]:
    """A ResNet18's keys without its head's."""
    return frozenset(layout.shapes(DEFAULT, 1)) - heads.PLAIN


def architectures(data: dict[Any, Any], key: str | None, first: str) -> list[str]:
    """The architectures of which a file's content holds all keys and no others, in the set ``key`` or in any.

    ``first``: the one that is enough if it is among them; to know all others takes a second. With an unknown ``key``,
    those of all sets: ``chosen.find`` says which there are.
    """
    tables = list(tables_of(data, (), ()))
    if named([one for table in tables for one in sets_of(table, first) if one.is_whole()], key):
        return [first]
    found = {name: [one for table in tables for one in sets_of(table, name)] for name in ARCHITECTURES}
    fitting = {name: [one for one in sets if one.is_whole()] for name, sets in found.items()}
    held = [name for name, sets in fitting.items() if named(sets, key)]
    return held or [name for name, sets in fitting.items() if sets]


def named(sets: list[WeightSet], key: str | None) -> list[WeightSet]:
    """Those of ``sets`` that ``key`` names, itself or as what they lie under; all without one."""
    return [one for one in sets if key is None or one.name == key or (key and one.name.startswith(f"{key}."))]


def tables_of(data: Any, path: tuple[str, ...], above: tuple[Any, ...]) -> Iterator[Table]:
    """The dicts in ``data`` that hold tensors, outermost first, down to a depth that no training script exceeds."""
    if not isinstance(data, dict) or len(path) > DEPTH or any(data is one for one in above):
        return
    tensors = {str(key): value for key, value in data.items() if isinstance(value, torch.Tensor)}
    if tensors:
        unwrapped = {".".join(part for part in key.split(".") if part not in WRAPPERS): key for key in tensors}
        if len(unwrapped) < len(tensors):  # a network both with and without its wrapper
            unwrapped = {key: key for key in tensors}
        names, whose = dialects.torchvision_names(unwrapped)
        unwrapped = {names[key]: old for key, old in unwrapped.items()}
        counters = frozenset(key for key in unwrapped if key.rpartition(".")[2] in COUNTERS)
        yield Table(path, {key: tensors[old] for key, old in unwrapped.items() if key not in counters}, counters, whose)
    for key, value in data.items():
        yield from tables_of(value, (*path, str(key)), (*above, data))


def sets_of(table: Table, architecture: str) -> list[WeightSet]:
    """The networks in a dict: the keys that share the prefix before the architecture's anchor."""
    anchor = layout.anchor(architecture)
    prefixes = [key.removesuffix(anchor) for key in table.tensors if f".{key}".endswith(f".{anchor}")]
    # A key belongs to the longest prefix that it begins with.
    owner = {
        key: max((prefix for prefix in prefixes if key.startswith(prefix)), key=len, default=None)
        for key in table.tensors
    }
    beside = {key: table.tensors[key] for key, prefix in owner.items() if prefix is None}
    found = []
    for prefix in prefixes:
        name = ".".join([*table.path, *prefix.split(".")[:-1]]) or TOP
        tensors = {key[len(prefix) :]: table.tensors[key] for key, its in owner.items() if its == prefix}
        averaged = is_average(name) or f"{prefix}n_averaged" in table.counters
        if architecture != DEFAULT:
            found.append(WeightSet(name, table.path, tensors, beside, averaged, None, table.whose, architecture))
            continue
        bare = {key: value for key, value in tensors.items() if key in body() or of_a_loss(key, value)}
        rest = {key: value for key, value in tensors.items() if key not in bare}
        head, left = heads.find(rest), beside
        # Beside a body without one, of which there is just one, it is that one's.
        if not rest and len(prefixes) == 1:
            head, taken = heads.near(prefix, beside)
            left = {key: value for key, value in beside.items() if key not in taken}
        both = bare | (head.tensors if head else rest)
        found.append(WeightSet(name, table.path, both, left, averaged, head, table.whose, architecture))
    return found


def is_average(name: str) -> bool:
    """Whether a set is called as averages over training are."""
    return bool(AVERAGE.search(re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()))


def of_a_loss(key: str, value: torch.Tensor) -> bool:
    """Whether it is the class weights of a loss, which a module keeps beside its network and no inference reads."""
    return value.ndim < 2 and any(LOSS.search(part) for part in key.split(".")[:-1])


def equal(one: WeightSet, other: WeightSet) -> bool:
    """Whether two sets have the same values, so that either may be taken."""
    if one is other or one.tensors.keys() != other.tensors.keys():
        return one is other
    return all(_same(value, other.tensors[key]) for key, value in one.tensors.items())


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if not (dense(one) and dense(other) and one.dtype == other.dtype):
        return False
    # Not all operators take the small types.
    return torch.equal(*(value.float() if value.is_floating_point() else value for value in (one, other)))


def dense(value: torch.Tensor) -> bool:
    """Whether ``value`` is an ordinary array of numbers on the CPU: not sparse, quantised or without values.

    Nor is it one of which few stored values stand for many, as ``expand`` makes: these may be more than any memory.
    """
    if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
