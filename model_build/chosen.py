"""The set of weights that is taken from a file, and what the file holds besides: told, or refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from classifier.architectures import ARCHITECTURES, DEFAULT
from model_build import misfit
from model_build.errors import FileError
from model_build.misfit import listed, quoted
from model_build.weightset import DEPTH, TOP, equal, is_average, named, of_a_loss, sets_of, tables_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_build.weightset import Table, WeightSet

# Entries whose tensors belong to training and to no network.
TRAINING = re.compile(r"optim|sched|scaler|rng|random|callback|loop|metric|hist|loss|criterion", re.IGNORECASE)


def find(
    data: dict[Any, Any], key: str | None, notice: Callable[[str], None], architecture: str = DEFAULT
) -> WeightSet:
    """An architecture's weights in a file's content; of several sets the average, or the one that ``key`` names.

    ``notice`` is told the set that was taken and those left. Its texts and FileError's follow the file's name.
    """
    tables = list(tables_of(data, (), ()))
    sets = [one for table in tables for one in sets_of(table, architecture)]
    wanted = named(sets, key)
    if sets and not wanted:
        names = ", ".join(quoted(one.name) + " (its own keys)" * (one.name == TOP) for one in sets)
        raise FileError(f"has no set of weights --key {quoted(str(key))}; it has {names}")
    fitting = [one for one in wanted if one.is_whole()]
    if not fitting:
        raise FileError(_why_none(data, tables, wanted, architecture))
    chosen = _choose(fitting)
    _tell(chosen, sets, key, notice)
    _tell_rest(data, tables, chosen, {one.path for one in sets}, key, notice)
    return chosen


def _why_none(data: dict[Any, Any], tables: list[Table], sets: list[WeightSet], architecture: str) -> str:
    top = [str(key) for key in data]
    if sets:
        nearest = max(sets, key=lambda one: len(one.tensors.keys() & one.expected().keys()))
        return misfit.of_network(nearest.name, nearest.tensors, nearest.beside, top, nearest.expected(), architecture)
    return misfit.of_tables(top, [(table.name, table.tensors) for table in tables], architecture)


def _choose(sets: list[WeightSet]) -> WeightSet:
    """The average, or else the only one. Raises FileError if several are left."""
    pool = [one for one in sets if one.averaged] or sets
    if not all(equal(pool[0], other) for other in pool[1:]):
        names = ", ".join(quoted(one.name) for one in pool)
        raise FileError(f"holds several sets of weights, {names}, and nothing says which to serve: add --key NAME")
    return pool[0]


def _tell(chosen: WeightSet, sets: list[WeightSet], key: str | None, notice: Callable[[str], None]) -> None:
    """Report the other sets, and the keys beside the chosen one. Raises FileError if they may be of its network."""
    if chosen.whose:
        notice(f"has the names of {chosen.whose}; they are read as torchvision's")
    if chosen.head and chosen.head.name != "fc":
        notice(f"has its head in {quoted(chosen.head.name)}")
    others = [one.name for one in sets if not equal(one, chosen)]
    if others:
        what = f"{quoted(chosen.name)}{', an average,' if chosen.averaged else ''}"
        notice(f"holds several sets of weights: {what} is taken, {listed(others, {})} left; --key NAME takes another")
    for one in sets:
        if one.averaged and not chosen.averaged and not one.is_whole():
            title = ARCHITECTURES[chosen.architecture]
            notice(f"has what looks like an average, {quoted(one.name)}, but not with all keys of a {title}")
    losses = {key: value for key, value in (chosen.beside | chosen.tensors).items() if of_a_loss(key, value)}
    odd = {key: value for key, value in chosen.beside.items() if key not in losses}
    if odd and key is None:
        raise FileError(_may_belong(chosen, listed(odd, odd)))
    if left := odd | losses:
        notice(f"holds, beside the weights, {listed(left, left)}, which is left")


def _may_belong(chosen: WeightSet, what: str) -> str:
    title = ARCHITECTURES[chosen.architecture]
    return (
        f"holds, beside a {title} in {quoted(chosen.name)}, {what}, which may be part of the network; "
        f"--key {chosen.name} takes the {title} without it"
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
    title = ARCHITECTURES[chosen.architecture]
    for path in _bare(data):
        if any(map(is_average, path)):
            notice(f"has what looks like an average, {quoted('.'.join(path))}, but as tensors without keys; it is left")
    for table in tables:
        what = f"{quoted(table.name)} ({len(table.tensors)} tensors)"
        if table.path in told or any(TRAINING.search(part) for part in table.path):
            continue
        if is_average(table.name):
            notice(f"has what looks like an average, {what}, but not with the keys of a {title}; it is left")
        elif key is None and any(f".{name}".endswith(".weight") and v.ndim > 1 for name, v in table.tensors.items()):
            raise FileError(_may_belong(chosen, what))
        elif any(value.ndim > 1 for value in table.tensors.values()):
            notice(f"holds, beside the weights, {what}, which is left")
