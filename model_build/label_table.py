"""Class names in tables: which column holds them, and which one the index that they are ordered by."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from classifier.languages import DEFAULT, LANGUAGES, TRANSLATIONS
from model_build.label_text import LabelsError

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

UNNAMED = frozenset(("", "unnamed:_0"))  # what pandas calls the column of its row numbers
INDEX = {"index", "idx", "id", "number", "nr", "no", "target", "class_id", "class_index", "class_idx", "classid"}
INDEX |= {"label_id", "label_index", "label_idx", "labelid", "category_id", "索引", "编号", "序号", "类别编号"}
DEFAULTS = LANGUAGES[DEFAULT].headings
NAMES = {"name", "names", "class_name", "classname", "class_names", "label_name", "label_names", "category_name"}
NAMES |= {"display_name", "名称", "类别名称", "标签名称"}
# Words for either: "label" heads numbers in some tables and names in others.
EITHER = {"label", "labels", "class", "classes", "category", "categories", "title", "species", "类别", "标签"}
HEADINGS = INDEX | NAMES | EITHER | {heading for language in LANGUAGES.values() for heading in language.headings}
WORDNET = re.compile(r"n\d{8}")
EXAMPLE = "a first line such as 'index,name' says which is which"


@dataclass(frozen=True)
class Reading:
    """Names in class order.

    ``how`` they were found, to be told. ``translations``: those in other languages than the default one, by code.
    """

    names: list[str]
    how: str
    translations: dict[str, list[str]] = field(default_factory=dict)


def number(text: str) -> int | None:
    """The index that ``text`` writes in digits, or None."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def ordered(pairs: Sequence[tuple[str, T]]) -> list[T]:
    """The values of (index, value) pairs by their index. Raises LabelsError unless the indexes are 0 to C-1."""
    count, values = len(pairs), dict[int, T]()
    rule = f"{count} names have the indexes 0 to {count - 1}, each once"
    for written, value in pairs:
        index = number(written)
        if index is None:
            raise LabelsError(f"{written!r} is no index; {rule}")
        if index in values:
            raise LabelsError(f"index {index} occurs twice; {rule}")
        values[index] = value
    missing = next((index for index in range(count) if index not in values), None)
    if missing is not None:
        from_one = " (they begin at 1)" if sorted(values) == list(range(1, count + 1)) else ""
        raise LabelsError(f"index {missing} is missing, {max(values)} is out of range{from_one}; {rule}")
    return [values[index] for index in range(count)]


def from_rows(rows: list[list[str]]) -> Reading | None:
    """The names in a table of equally long rows, with or without a line of headings; None where nothing says which.

    A column is the index if its heading says so, or, without headings, if it holds each of 0 to C-1 once and a single
    column is left for the names. Raises LabelsError where more than one reading is possible, or an index is wrong.
    """
    rows = [[cell.strip() for cell in row] for row in rows]
    head, body = [_key(cell) for cell in rows[0]], rows[1:]
    if body and not any(_is_index(column) for column in zip(*rows, strict=True)):
        if not HEADINGS.isdisjoint(head):
            return _headed(rows[0], head, body)
        if any(map(_is_index, zip(*body, strict=True))):  # headings in words not known here
            return _headless(body)
    return _headless(rows)


def _headed(shown: list[str], head: list[str], body: list[list[str]]) -> Reading:
    columns = dict(enumerate(zip(*body, strict=True)))
    named = [at for at in columns if head[at] in INDEX] or [at for at in columns if head[at] in UNNAMED]
    indexes = [at for at in named if len(columns) > 1]
    rest = _filled(columns, [at for at in columns if at not in indexes and head[at] not in UNNAMED])
    if not indexes:
        # "label" and the like may head the numbers, if something else holds the names.
        numbers = [at for at in rest if head[at] in EITHER and _is_index(columns[at])]
        indexes = numbers if len(numbers) < len(rest) else []
        rest = [at for at in rest if at not in indexes]
    if len({columns[at] for at in indexes}) > 1:
        raise LabelsError(f"{_list(shown, indexes)} are different indexes; leave one")
    translated = {each: [at for at in rest if head[at] in each.headings] for each in TRANSLATIONS}
    others = [at for at in rest if not any(at in columns for columns in translated.values())]
    tiers = ([at for at in others if head[at] in words] for words in (DEFAULTS, NAMES, EITHER))
    names = next(filter(None, tiers), others)
    if not names:
        names, translated = [at for columns in translated.values() for at in columns], {}
    if len(names) != 1 or any(len(columns) > 1 for columns in translated.values()):
        found = f"{_list(shown, names)} may each hold" if names else f"none of {_list(shown, list(columns))} holds"
        codes = " and ".join(map(repr, LANGUAGES))
        raise LabelsError(f"{found} the names; give the file one column 'name', or {codes}")
    strays = [at for at in others if at not in names and _is_index(columns[at])]
    if not indexes and any(columns[at] != tuple(map(str, range(len(body)))) for at in strays):
        raise LabelsError(f"column {shown[strays[0]]!r} may be the index; call it 'index' if it is, else leave it out")
    known = {language: columns[0] for language, columns in translated.items() if columns}
    told = ", ".join(f"{language.english}: {shown[at]!r}" for language, at in known.items())
    how = f"from column {shown[names[0]]!r}" + (f" ({told})" if told else "")
    if indexes:
        try:
            body = ordered([(row[indexes[0]], row) for row in body])
        except LabelsError as error:
            raise LabelsError(f"column {shown[indexes[0]]!r}: {error}") from None
        how += f", by the index column {shown[indexes[0]]!r}"
    else:
        how += ", in the order of the lines"
    translations = {language.code: [row[at] for row in body] for language, at in known.items()}
    return Reading([row[names[0]] for row in body], how, translations)


def _headless(rows: list[list[str]]) -> Reading | None:
    columns = dict(enumerate(zip(*rows, strict=True)))
    if len(columns) == 1:
        return None
    indexes = [at for at in columns if _is_index(columns[at])]
    rest = _filled(columns, [at for at in columns if at not in indexes])
    if not indexes:
        numeric = [at for at in rest if all(number(cell) is not None for cell in columns[at])]
        if len(numeric) == 1 and len(rest) == 2:
            try:
                ordered([(row[numeric[0]], row) for row in rows])
            except LabelsError as error:
                raise LabelsError(f"column {numeric[0] + 1} should be the index, but {error}") from None
        if len(rest) == 1:
            return Reading(list(columns[rest[0]]), f"from column {rest[0] + 1}, in the order of the lines")
        return None
    if len({columns[at] for at in indexes}) > 1:
        numbers = " and ".join(str(at + 1) for at in indexes)
        raise LabelsError(f"columns {numbers} hold the numbers 0 to {len(rows) - 1} in different orders; {EXAMPLE}")
    if not rest:  # the names are digits themselves
        rest = indexes[1:]
    if len(rest) != 1:
        texts = " and ".join(str(at + 1) for at in rest)
        raise LabelsError(f"columns {texts} may hold the names; {EXAMPLE}")
    rows = ordered([(row[indexes[0]], row) for row in rows])
    return Reading([row[rest[0]] for row in rows], f"from column {rest[0] + 1}, by the index in {indexes[0] + 1}")


def _key(cell: str) -> str:
    return re.sub(r"[\s-]+", "_", cell.strip().lstrip("#").strip().lower())


def _is_index(column: Sequence[str]) -> bool:
    return Counter(map(number, column)) == Counter(range(len(column)))


def _filled(columns: dict[int, tuple[str, ...]], which: list[int]) -> list[int]:
    """``which`` without empty columns, and without WordNet's ids where they only stand beside the names."""
    which = [at for at in which if any(columns[at])]
    return [at for at in which if not all(map(WORDNET.fullmatch, columns[at]))] or which


def _list(shown: list[str], columns: list[int]) -> str:
    return "columns " + ", ".join(repr(shown[at]) for at in columns)
