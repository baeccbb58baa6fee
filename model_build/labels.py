"""Class names from the user's files and from inside checkpoints, in whatever form; each becomes ``Labels``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from classifier.labels import Labels
from classifier.languages import DEFAULT
from model_build.label_forms import KEYS, load_json, read, structured
from model_build.label_text import FORBIDDEN, MAX_NAME, LabelsError, code_point, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from model_build.label_table import Reading

# What else a checkpoint may hold under these names: a count, the classes of its training images.
_VAGUE = ("labels", "names", "categories")
_NAMED = 5


def read_labels(
    path: Path,
    classes: int | None = None,
    known: Sequence[str] = (),
    notice: Callable[[str], None] = lambda text: None,
) -> Labels:
    """Class names from a text, CSV, TSV, YAML or JSON file, told apart by content.

    ``classes``: how many are expected; another count is returned all the same, but where a line may be a heading or a
    name the count decides. ``known``: the names that the classes have already, in class order. ``notice`` is told how
    the file was read, and which names occur twice. Raises LabelsError, whose message names the file.
    """
    try:
        reading = read(read_text(path), path.suffix.lower(), classes)
        labels = _labels(reading)
        _check_order(labels.en, known)
    except ValueError as error:
        raise LabelsError(f"labels file {str(path)!r}: {error}") from None
    notice(f"{path.name}: {len(labels)} names, {reading.how}")
    twice = [name for name, times in Counter(labels.en).items() if times > 1]
    for name in twice[:_NAMED]:
        indexes = [str(index) for index, other in enumerate(labels.en) if other == name]
        notice(f"{path.name}: {name!r} is the name of the classes {', '.join(indexes)}")
    if len(twice) > _NAMED:
        notice(f"{path.name}: {len(twice) - _NAMED} more names occur twice")
    return labels


def parse_labels(text: str) -> Labels:
    """Labels from JSON text in any of the forms that ``read_labels`` takes. Raises LabelsError."""
    try:
        return _labels(structured(load_json(text)))
    except ValueError as error:
        raise LabelsError(str(error)) from None


def from_extras(extras: Mapping[str, Any], classes: int) -> Labels | None:
    """The names in what a checkpoint holds beside its tensors, or in the metadata of a .safetensors; None without any.

    Looked for at the top under ``class_to_idx``, ``id2label``, ``classes`` and the like, then one level down. Raises
    LabelsError where what is found has not ``classes`` names, or two places tell different ones.
    """
    found = _named(extras, classes, sure=True)
    for inner in extras.values() if not found else ():
        if isinstance(inner, Mapping):
            found |= _named(inner, classes, sure=False)
    if not found:
        return None
    (first, labels), *others = found.items()
    for key, other in others:
        if other.en != labels.en:
            raise LabelsError(f"its {first!r} and {key!r} hold different names; say which with --labels")
    return labels


def _named(extras: Mapping[str, Any], classes: int, sure: bool) -> dict[str, Labels]:
    """The labels under each key that holds any; ``sure``: that what has another count is an error."""
    found = {}
    for key, value in extras.items():
        name = str(key).lower()
        if name not in KEYS or value is None:
            continue
        written = isinstance(value, str) and value.lstrip()[:1] in ("{", "[")
        if not written and not _holds_names(value):
            continue
        strict = sure and (written or name not in _VAGUE)
        try:
            labels = parse_labels(value) if written else _labels(structured(value))
            if len(labels) != classes:
                raise LabelsError(f"{len(labels)} names, but the checkpoint has {classes} classes")
        except ValueError as error:
            if strict:
                raise LabelsError(f"its {key!r} can't be used: {error}; --labels takes its place") from None
            continue
        found[str(key)] = labels
    return found


def _holds_names(value: Any) -> bool:
    """Whether it is a collection with text in it, which a list of class numbers, say, is not."""
    texts = [*value, *value.values()] if isinstance(value, Mapping) else value
    return isinstance(value, Mapping | list | tuple) and any(isinstance(text, str) for text in texts)


def _labels(reading: Reading) -> Labels:
    known = {
        code: tuple(name.strip() for name in names)
        for code, names in ({DEFAULT: reading.names} | reading.translations).items()
    }
    for names in known.values():
        for index, name in enumerate(names):
            if not name:
                raise LabelsError(f"the name of class {index} is blank")
            if len(name) > MAX_NAME:
                raise LabelsError(f"the name of class {index} has {len(name)} characters, of {MAX_NAME} allowed")
            if found := FORBIDDEN.search(name):
                raise LabelsError(f"the name of class {index}, {name!r}, holds the character {code_point(found[0])}")
    return Labels(**known)  # type: ignore[arg-type]  # of names in languages alone


def _check_order(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that are those the classes have already, in another order: every answer would be wrong."""
    before, now = (_places(each) for each in (known, names))
    shared = before.keys() & now.keys()
    moved = [name for name in before if name in shared and before[name].isdisjoint(now[name])]
    if moved and (before.keys() == now.keys() or len(moved) > len(shared) / 2):
        (old, *_), (new, *_) = sorted(before[moved[0]]), sorted(now[moved[0]])
        raise LabelsError(
            f"holds the names in another order: {moved[0]!r} is class {old}, but stands in the place of class {new}"
        )


def _places(names: Sequence[str]) -> dict[str, set[int]]:
    places: dict[str, set[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(name.strip().casefold().replace("_", " "), set()).add(index)
    return places
