"""Groups of classes from a YAML file: coarse names such as "cat", each of which stands for several classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from classifier.labels import Groups, Labels
from classifier.languages import DEFAULT, LANGUAGES, TRANSLATIONS
from model_build.label_forms import whole_yaml
from model_build.label_text import FORBIDDEN, MAX_NAME, LabelsError, read_text
from model_build.labels import read_labels
from model_build.weights import IMAGENET_LABELS

IMAGENET_GROUPS = Path(__file__).parent / "assets" / "groups-imagenet.yaml"
_CLASSES = "classes"
_FORM = f"expected 'group: {{{', '.join((*LANGUAGES, _CLASSES))}: [names or indexes]}}'"
_RANGE = re.compile(r"(\d{1,9})-(\d{1,9})")
_MAX_NAMED = 100


def grouped(labels: Labels, path: Path, notice: Callable[[str], None] = lambda text: None) -> Labels:
    """``labels`` with the groups of the YAML file at ``path``; those of ``labels`` that no group has stay alone.

    A group is a mapping of ``classes``, and of its name in each language; without one in English it is called as its
    key is. A class is an English name, an index, or a range of indexes such as ``151-268``. ``notice`` is told how
    many there are. Raises LabelsError, which quotes the entry at fault.
    """
    try:
        found = whole_yaml(read_text(path))
        if not isinstance(found, Mapping) or not found:
            raise LabelsError(f"holds no groups; {_FORM}")
        groups = _groups(labels, found)
    except ValueError as error:
        raise LabelsError(f"groups file {str(path)!r}: {error}") from None
    has = sum(place >= 0 for place in groups.of)
    notice(f"{path.name}: {len(groups)} groups, which have {has} of the {len(labels)} classes")
    return replace(labels, groups=groups)


def default(labels: Labels) -> Path | None:
    """The packaged file of groups for ``labels``: there is one of ImageNet's."""
    return IMAGENET_GROUPS if labels.en == read_labels(IMAGENET_LABELS).en else None


def _groups(labels: Labels, found: Mapping[str, Any]) -> Groups:
    of = [-1] * len(labels)
    keys = list(found)
    names: dict[str, list[str | None]] = {code: [] for code in LANGUAGES}
    for place, (key, group) in enumerate(found.items()):
        if not isinstance(group, Mapping) or not isinstance(group.get(_CLASSES), list) or not group[_CLASSES]:
            raise LabelsError(f"group {key!r} is {_shown(group)}; {_FORM}")
        for name, value in group.items():
            if name not in (*LANGUAGES, _CLASSES):
                raise LabelsError(f"group {key!r} has {name!r}, which is none of {', '.join((*LANGUAGES, _CLASSES))}")
            if name != _CLASSES and (not isinstance(value, str) or not value.strip()):
                raise LabelsError(f"group {key!r} has {name}: {_shown(value)}; a name is expected")
        called = {code: group.get(code, key if code == DEFAULT else None) for code in LANGUAGES}
        for code, name in called.items():
            if name is not None and (not name.strip() or len(name) > MAX_NAME or FORBIDDEN.search(name)):
                raise LabelsError(
                    f"group {_shown(key)}: {_shown(name)} is no name: it is blank, too long or holds a control"
                )
            names[code].append(name)
        for entry in group[_CLASSES]:
            for index in _indexes(labels, key, entry):
                if of[index] not in (-1, place):
                    raise LabelsError(
                        f"group {key!r}: the class {entry!r} ({index}, {labels.en[index]!r}) is in the group "
                        f"{keys[of[index]]!r} already; a class is in one group at most"
                    )
                of[index] = place
    twice = [name for name in names[DEFAULT] if names[DEFAULT].count(name) > 1]
    if twice:
        raise LabelsError(f"two groups are called {twice[0]!r}")
    for language in TRANSLATIONS:
        missing = [key for key, name in zip(keys, names[language.code], strict=True) if name is None]
        if missing and len(missing) < len(keys):
            raise LabelsError(f"group {missing[0]!r} has no name in {language.code}, and others have one")
    listed = {code: None if None in each else tuple(str(name) for name in each) for code, each in names.items()}
    return Groups(Labels(**listed), tuple(of))  # type: ignore[arg-type]


def _indexes(labels: Labels, key: str, entry: Any) -> range:
    """The classes that ``entry`` of the group ``key`` means. Raises LabelsError."""
    last = len(labels) - 1
    if not isinstance(entry, str):
        raise LabelsError(
            f"group {key!r}: {_shown(entry)} is no class; a name or an index from 0 to {last} is expected"
        )
    named = [index for index, name in enumerate(labels.en) if name == entry]
    if len(named) > 1:
        raise LabelsError(f"group {key!r}: {entry!r} is the name of the classes {named}; give the index of one")
    if named:
        return range(named[0], named[0] + 1)
    text = entry if _RANGE.fullmatch(entry) else f"{entry}-{entry}"
    match = _RANGE.fullmatch(text)
    if match is None:
        raise LabelsError(f"group {key!r}: {_shown(entry)} is none of the {len(labels)} labels")
    first, end = int(match[1]), int(match[2])
    if not first <= end <= last:
        raise LabelsError(f"group {key!r}: {entry!r} is no index from 0 to {last}, nor a range of them")
    return range(first, end + 1)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_NAMED else f"{text[:_MAX_NAMED]}…"
