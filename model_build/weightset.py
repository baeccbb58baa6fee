"""The sets of weights in a file, under dicts and prefixes: found, chosen and reported.

A file may nest its weights, put prefixes before their keys, and hold several sets of them (a network and its average,
a student and a teacher) and much else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from model_build import dialects, heads, misfit
from model_build.errors import FileError
from model_build.misfit import listed, quoted
from model_build.network import shapes
from model_build.structure import TORCHVISION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_build.heads import Head

Tensors = dict[str, torch.Tensor]
TOP, DEPTH = ".", 4
ANCHOR = "layer1.0.conv1.weight"
# What wrappers put into keys: DataParallel and AveragedModel, torch.compile, FSDP, checkpointing, Lightning.
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
# Counters of batches, of averaging, and of profiling (thop): no inference reads them.
COUNTERS = frozenset({"num_batches_tracked", "n_averaged", "total_ops", "total_params"})
AVERAGE = re.compile(r"(?<![a-z])(ema|swa|avg|averaged?|shadow|polyak)(?![a-z])")
LOSS = re.compile(r"(^|_)(loss|criterion)", re.IGNORECASE)
# Entries whose tensors belong to training and to no network.
TRAINING = re.compile(r"optim|sched|scaler|rng|random|callback|loop|metric|hist|loss|criterion", re.IGNORECASE)


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
    tensors are among ``tensors``; None if it has none that is read. ``whose``: whose names its tensors had.
    """

    name: str
    path: tuple[str, ...]
    tensors: Tensors
    beside: Tensors
    averaged: bool
    head: Head | None
    whose: str | None

    def expected(self) -> dict[str, None]:
        """The keys of a ResNet18 with its head, in order; with torchvision's if it has none."""
        own = [key for key in shapes(TORCHVISION, 1) if key not in heads.PLAIN or not self.head]
        return dict.fromkeys([*own, *(self.head.tensors if self.head else ())])

    def is_resnet18(self) -> bool:
        """Whether its keys are those of a ResNet18 with a head, whatever their shapes."""
        return {key for key, value in self.tensors.items() if not _of_a_loss(key, value)} == self.expected().keys()


@cache
def body() -> frozenset[str]:
    """A ResNet18's keys without its head's."""
    return frozenset(shapes(TORCHVISION, 1)) - heads.PLAIN


def find(data: dict[Any, Any], key: str | None, notice: Callable[[str], None]) -> WeightSet:
    """A ResNet18's weights in a file's content; of several sets the average, or the one that ``key`` names.

    ``notice`` is told the set that was taken and those left. Its texts and FileError's follow the file's name.
    """
    tables = list(_tables(data, (), ()))
    sets = [one for table in tables for one in _sets(table)]
    wanted = [one for one in sets if key is None or one.name == key or (key and one.name.startswith(f"{key}."))]
    if sets and not wanted:
        names = ", ".join(quoted(one.name) + " (its own keys)" * (one.name == TOP) for one in sets)
        raise FileError(f"has no set of weights --key {quoted(str(key))}; it has {names}")
    fitting = [one for one in wanted if one.is_resnet18()]
    if not fitting:
        raise FileError(_why_none(data, tables, wanted))
    chosen = _choose(fitting)
    _tell(chosen, sets, key, notice)
    _tell_rest(data, tables, chosen, {one.path for one in sets}, key, notice)
    return chosen


def _tables(data: Any, path: tuple[str, ...], above: tuple[Any, ...]) -> Iterator[Table]:
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
        yield from _tables(value, (*path, str(key)), (*above, data))


def _sets(table: Table) -> list[WeightSet]:
    """The networks in a dict: the keys that share the prefix before a ResNet's first block."""
    prefixes = [key.removesuffix(ANCHOR) for key in table.tensors if f".{key}".endswith(f".{ANCHOR}")]
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
        averaged = _is_average(name) or f"{prefix}n_averaged" in table.counters
        bare = {key: value for key, value in tensors.items() if key in body() or _of_a_loss(key, value)}
        rest = {key: value for key, value in tensors.items() if key not in bare}
        head, left = heads.find(rest), beside
        # Beside a body without one, of which there is just one, it is that one's.
        if not rest and len(prefixes) == 1:
            head, taken = heads.near(prefix, beside)
            left = {key: value for key, value in beside.items() if key not in taken}
        found.append(
            WeightSet(name, table.path, bare | (head.tensors if head else rest), left, averaged, head, table.whose)
        )
    return found


def _is_average(name: str) -> bool:
    return bool(AVERAGE.search(re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()))


def _of_a_loss(key: str, value: torch.Tensor) -> bool:
    """Whether it is the class weights of a loss, which a module keeps beside its network and no inference reads."""
    return value.ndim < 2 and any(LOSS.search(part) for part in key.split(".")[:-1])


def _why_none(data: dict[Any, Any], tables: list[Table], sets: list[WeightSet]) -> str:
    top = [str(key) for key in data]
    if sets:
        nearest = max(sets, key=lambda one: len(one.tensors.keys() & one.expected().keys()))
        return misfit.of_network(nearest.name, nearest.tensors, nearest.beside, top, nearest.expected())
    return misfit.of_tables(top, [(table.name, table.tensors) for table in tables])


def _choose(sets: list[WeightSet]) -> WeightSet:
    """The average, or else the only one. Raises FileError if several are left."""
    pool = [one for one in sets if one.averaged] or sets
    if not all(_equal(pool[0], other) for other in pool[1:]):
        names = ", ".join(quoted(one.name) for one in pool)
        raise FileError(f"holds several sets of weights, {names}, and nothing says which to serve: add --key NAME")
    return pool[0]


def _equal(one: WeightSet, other: WeightSet) -> bool:
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


def _tell(chosen: WeightSet, sets: list[WeightSet], key: str | None, notice: Callable[[str], None]) -> None:
    """Report the other sets, and the keys beside the chosen one. Raises FileError if they may be of its network."""
    if chosen.whose:
        notice(f"has the names of {chosen.whose}; they are read as torchvision's")
    if chosen.head and chosen.head.name != "fc":
        notice(f"has its head in {quoted(chosen.head.name)}")
    others = [one.name for one in sets if not _equal(one, chosen)]
    if others:
        what = f"{quoted(chosen.name)}{', an average,' if chosen.averaged else ''}"
        notice(f"holds several sets of weights: {what} is taken, {listed(others, {})} left; --key NAME takes another")
    for one in sets:
        if one.averaged and not chosen.averaged and not one.is_resnet18():
            notice(f"has what looks like an average, {quoted(one.name)}, but not with all keys of a ResNet18")
    losses = {key: value for key, value in (chosen.beside | chosen.tensors).items() if _of_a_loss(key, value)}
    odd = {key: value for key, value in chosen.beside.items() if key not in losses}
    if odd and key is None:
        raise FileError(_may_belong(chosen, listed(odd, odd)))
    if left := odd | losses:
        notice(f"holds, beside the weights, {listed(left, left)}, which is left")


def _may_belong(chosen: WeightSet, what: str) -> str:
    return (
        f"holds, beside a ResNet18 in {quoted(chosen.name)}, {what}, which may be part of the network; "
        f"--key {chosen.name} takes the ResNet18 without it"
    )


def _bare(data: dict[Any, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The places of lists of tensors in ``data``, as callbacks keep averages: the names of the dicts on the way."""
    for name, value in data.items():
        path = (*above, str(name))
        if isinstance(value, dict) and len(path) <= DEPTH:
            yield from _bare(value, path)
        elif isinstance(value, list | tuple) and any(map(torch.is_tensor, value)):
            yield path


def _tell_rest(
    data: dict[Any, Any],
    tables: list[Table],
    chosen: WeightSet,
    told: set[tuple[str, ...]],
    key: str | None,
    notice: Callable[[str], None],
) -> None:
    """Report tensors elsewhere in the file, but not of training. Raises FileError if they may be of the network."""
    for path in _bare(data):
        if any(map(_is_average, path)):
            notice(f"has what looks like an average, {quoted('.'.join(path))}, but as tensors without keys; it is left")
    for table in tables:
        what = f"{quoted(table.name)} ({len(table.tensors)} tensors)"
        if table.path in told or any(TRAINING.search(part) for part in table.path):
            continue
        if _is_average(table.name):
            notice(f"has what looks like an average, {what}, but not with the keys of a ResNet18; it is left")
        elif key is None and any(f".{name}".endswith(".weight") and v.ndim > 1 for name, v in table.tensors.items()):
            raise FileError(_may_belong(chosen, what))
        elif any(value.ndim > 1 for value in table.tensors.values()):
            notice(f"holds, beside the weights, {what}, which is left")
