"""The forms that class names are written in: JSON, YAML, or lines; what they hold as lists and objects."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import yaml

from classifier.languages import DEFAULT, LANGUAGES, TRANSLATIONS
from model_build.label_lines import from_lines
from model_build.label_table import Reading, from_rows, number, ordered
from model_build.label_text import LabelsError

# Under which names a JSON object, a YAML mapping or a checkpoint holds its class names.
KEYS = (
    *("class_to_idx", "idx_to_class", "id2label", "label2id", "class_names", "classes"),
    *("names", "labels", "label_names", "categories"),
)
FORMS = (
    f"expected a list of names, an object of indexes and names, an object with {DEFAULT!r} and optionally "
    f"{', '.join(repr(language.code) for language in TRANSLATIONS)}, or one of {', '.join(KEYS)}"
)
_YAML_START = re.compile(rf"---$|({'|'.join(KEYS)})\s*:(\s|$)")


def read(text: str, suffix: str, classes: int | None) -> Reading:
    """The names in ``text``, whose content decides how it is read; ``suffix`` and the number of classes help.

    Raises LabelsError where it can't be read, or could be read in more than one way.
    """
    lines = re.split(r"\r\n|\r|\n", text)
    filled = [line.strip() for line in lines if line.strip()]
    if not filled:
        raise LabelsError("is empty; a name for each class is expected")
    if filled[0][0] in "[{" or suffix in (".json", ".jsonl"):
        return _json(text, filled)
    if suffix in (".yaml", ".yml") or _YAML_START.match(filled[0]) or all(line[:2] == "- " for line in filled):
        return structured(whole_yaml(text))
    return from_lines(lines, suffix, classes)


def structured(data: Any) -> Reading:
    """The names in what JSON or YAML holds, or a checkpoint. Raises LabelsError."""
    if isinstance(data, Mapping):
        return _mapping(data)
    if not isinstance(data, Sequence) or isinstance(data, str | bytes) or not data:
        raise LabelsError(FORMS)
    if all(isinstance(item, str) for item in data):
        return Reading(list(data), "in the order of a list")
    reading = None
    if all(isinstance(item, Mapping) for item in data):
        keys = list(dict.fromkeys(str(key) for item in data for key in item))
        records = [{str(key): value for key, value in item.items()} for item in data]
        reading = from_rows([keys] + [[_cell(record.get(key)) for key in keys] for record in records])
    elif all(isinstance(item, Sequence) and not isinstance(item, str) for item in data):
        if len({len(item) for item in data}) == 1 and data[0]:
            reading = from_rows([[_cell(cell) for cell in item] for item in data])
    else:
        strange = next(item for item in data if not isinstance(item, str))
        raise LabelsError(f"holds {strange!r} among the names; {FORMS}")
    if reading is None:
        raise LabelsError(f"its lists or objects don't say which is the name; {FORMS}")
    return reading


def _mapping(data: Mapping[Any, Any]) -> Reading:
    if isinstance(data.get(DEFAULT), list | tuple):
        return _by_language(data)
    held = {key: data[key] for key in KEYS if _is_collection(data.get(key))}
    if held:
        readings = {key: structured(value) for key, value in held.items()}
        (first, reading), *others = readings.items()
        for key, other in others:
            if other.names != reading.names:
                raise LabelsError(f"{first!r} and {key!r} hold different names; leave one")
        return replace(reading, how=f"{reading.how} under {first!r}")
    if not data:
        raise LabelsError(FORMS)
    keys, values = list(data), list(data.values())
    by_key = all(number(str(key)) is not None for key in keys)
    by_value = all(_is_number(value) for value in values)
    if by_key and by_value and all(isinstance(value, str) for value in values):
        # {"0": "7", "1": "3"} says nothing of which is the name.
        if any(int(key) != int(value) for key, value in data.items()):
            raise LabelsError("holds numbers for names and for indexes; give a list of names in class order")
        by_value = False
    if by_value:
        names = ordered([(str(value), str(key)) for key, value in data.items()])
        return Reading(names, "by an object of names and their indexes")
    if by_key:
        how = "by an object of indexes and their names"
        if all(isinstance(value, str) for value in values):
            return Reading(ordered([(str(key), value) for key, value in data.items()]), how)
        if all(isinstance(value, list | tuple) for value in values) and len({len(value) for value in values}) == 1:
            table = from_rows([[str(key), *map(_cell, value)] for key, value in data.items()])
            if table is not None:
                return replace(table, how=how)
    raise LabelsError(FORMS)


def _by_language(data: Mapping[Any, Any]) -> Reading:
    known = {code: data[code] for code in LANGUAGES if data.get(code) is not None}
    for code, names in known.items():
        if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
            raise LabelsError(f"{code!r} must be a list of strings")
    translations = {code: list(names) for code, names in known.items() if code != DEFAULT}
    return Reading(list(known[DEFAULT]), f"in the order of the list {DEFAULT!r}", translations)


def _is_collection(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple) and bool(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Integral | str) and not isinstance(value, bool) and number(str(value)) is not None


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, Integral | str) or isinstance(value, bool):
        raise LabelsError(f"holds {value!r} where a name or an index is expected")
    return str(value)


def load_json(text: str) -> Any:
    """What JSON text holds; a key given twice is refused, not lost. Raises ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise LabelsError("is nested too deeply") from None


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise LabelsError(f"the key {twice!r} occurs twice")
    return found


def _json(text: str, lines: list[str]) -> Reading:
    try:
        return structured(load_json(text))
    except json.JSONDecodeError as error:
        problem = error
    if len(lines) > 1:
        with contextlib.suppress(json.JSONDecodeError):
            return structured([load_json(line) for line in lines])
    if lines[0][0] in "[{":  # what Python prints of a list or dict is YAML as well
        with contextlib.suppress(yaml.YAMLError):
            return structured(_yaml(text))
    raise LabelsError(f"is no JSON: {problem}")


def whole_yaml(text: str) -> Any:
    """What a file of YAML holds, all scalars as text. Raises LabelsError."""
    try:
        return _yaml(text)
    except yaml.YAMLError as error:
        raise LabelsError(f"is no YAML: {' '.join(str(error).split())}") from None


def _yaml(text: str) -> Any:
    """What YAML text holds, all scalars as text. Raises yaml.YAMLError or LabelsError."""
    try:
        return _plain(yaml.compose(text, yaml.BaseLoader), set())
    except RecursionError:
        raise LabelsError("is nested too deeply") from None


def _plain(node: yaml.Node | None, seen: set[int]) -> Any:
    """A node's content; every scalar is text, so that the class "no" is not read as false."""
    if node is None:
        return None
    if id(node) in seen:
        raise LabelsError("uses an alias (*) of YAML, which is not read in a list of names")
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, seen) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        pairs = [(_plain(key, seen), _plain(value, seen)) for key, value in node.value]
        if not all(isinstance(key, str) for key, _ in pairs):
            raise LabelsError(FORMS)
        return _unique(pairs)
    return node.value
