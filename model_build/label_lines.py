"""Class names in lines of text: a table with a delimiter, an index and a name a line, or just names."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

from model_build.label_table import DEFAULTS, EITHER, EXAMPLE, NAMES, WORDNET, Reading, from_rows, ordered
from model_build.label_text import MAX_NAME, LabelsError

# "0 ant", "0: ant", "0. ant", "0) ant", "0 - ant"; not "3d printer", "001.Ostrich" or "0-9 years".
_INDEX_FIRST = re.compile(r"(?P<index>\d{1,9})(?:\s*(?P<sign>[:=,;|])|[.)]\s|\s+[-–]\s|\s)\s*(?P<name>\S.*)")
_INDEX_LAST = re.compile(r"(?P<name>\S.*?)\s*(?P<sign>[:=])\s*(?P<index>\d{1,9})")
_SYNSET = re.compile(rf"{WORDNET.pattern}\s+(\S.*)")
_AS_JSON = "to have the lines as they are, give a JSON list"
_DELIMITERS = "\t;,|"


def from_lines(lines: list[str], suffix: str, classes: int | None) -> Reading:
    """The names in ``lines``, of which some may be empty, but not all; for the rest as ``label_forms.read``."""
    if re.fullmatch(r"sep=.", lines[0].strip(), re.IGNORECASE):  # Excel's own
        lines = lines[1:]
    # A table's empty first cell is no blank to be trimmed: pandas writes one above its row numbers.
    filled = [line for line in lines if line.strip()]
    table = _table(filled, suffix in (".csv", ".tsv") or all("\t" in line.strip() for line in filled))
    return table or _names([line.strip() for line in lines], suffix, classes)


def _table(lines: list[str], is_table: bool) -> Reading | None:
    """The names of a table with one of the usual delimiters; None where it is none."""
    found: list[Reading] = []
    widths: dict[str, list[int]] = {}
    for delimiter in _DELIMITERS:
        try:
            rows = list(
                csv.reader([line + "\n" for line in lines], delimiter=delimiter, skipinitialspace=True, strict=True)
            )
        except csv.Error as error:
            if is_table and delimiter == ",":
                raise LabelsError(f"is no CSV: {error}") from None
            continue
        rows = [row for row in rows if any(map(str.strip, row))]  # Excel writes empty ones below the others
        widths[delimiter] = [len(row) for row in rows]
        if len(set(widths[delimiter])) == 1 and len(rows[0]) > 1 and (reading := from_rows(rows)):
            found.append(reading)
    if any(replace(reading, how=found[0].how) != found[0] for reading in found):
        raise LabelsError("can be split at more than one character; use one delimiter, and quotes around the names")
    if found or not is_table:
        return found[0] if found else None
    for delimiter, counts in widths.items():
        if max(counts) == 1:
            continue
        if len(set(counts)) > 1:
            other = next(number for number, count in enumerate(counts) if count != counts[0])
            raise LabelsError(
                f"has {counts[0]} columns in line 1 and {counts[other]} in line {other + 1} ({lines[other]!r}); "
                f"put quotes around a name that holds {delimiter!r}"
            )
        raise LabelsError(f"has {counts[0]} columns ({lines[0]!r}), and none is called as names are; {EXAMPLE}")
    return None


def _names(lines: list[str], suffix: str, classes: int | None) -> Reading:
    """One name a line, or an index and a name."""
    filled = [line for line in lines if line]
    empty = len("\n".join(lines).strip("\n").split("\n")) - len(filled)
    if empty and classes == len(filled) + empty:
        where = next(number for number, line in enumerate(lines, 1) if not line and any(lines[:number]))
        raise LabelsError(f"line {where} is empty, so that one of the {classes} classes has no name")
    aside = f" ({empty} empty ones left out)" if empty else ""
    if all(line.endswith(",") for line in filled[:-1]) and len(filled) > 1:
        filled = [line.removesuffix(",") for line in filled]
    if all(map(_SYNSET.fullmatch, filled)):
        filled = [line.split(maxsplit=1)[1] for line in filled]
        aside += " (WordNet's ids left out)"
    if (indexed := _indexed(filled)) is not None:
        return Reading(indexed, "by the index in each line" + aside)
    names = [_unquoted(line) for line in filled]
    headed = len(names) > 1 and names[0].lower() in DEFAULTS | NAMES | EITHER
    if headed and (suffix in (".csv", ".tsv") or classes == len(names) - 1):
        return Reading(names[1:], f"one a line below the heading {names[0]!r}{aside}")
    if classes not in (None, len(names)):
        if len(filled) == 1 and len(row := next(csv.reader(filled, skipinitialspace=True))) == classes:
            return Reading(row, "in one line, between commas")
        bare = [name for name, line in zip(names, filled, strict=True) if not line.startswith("#")]
        if len(bare) == classes:
            return Reading(bare, f"one a line without the comments{aside}")
    return Reading(names, f"one a line{aside}")


def _indexed(lines: list[str]) -> list[str] | None:
    """The names of lines that hold an index each; None where they don't. Raises LabelsError where some do."""
    if max(map(len, lines)) > MAX_NAME:
        return None
    for form in (_INDEX_FIRST, _INDEX_LAST):
        found = [match for match in map(form.fullmatch, lines) if match]
        if len(found) == len(lines):
            return _by_index(found)
        if form is _INDEX_FIRST and len(found) >= len(lines) / 2 and len({match["index"] for match in found}) > 1:
            bare = next(line for line in lines if not form.fullmatch(line))
            raise LabelsError(f"{len(found)} lines begin with a number, but {bare!r} does not; {_AS_JSON}")
    return None


def _by_index(found: list[re.Match[str]]) -> list[str]:
    for delimiter in ",;|":
        if all(match["sign"] == delimiter for match in found):
            rows = csv.reader([match.string for match in found], delimiter=delimiter)
            if long := next((row for row in rows if len(row) > 2), None):
                shown = delimiter.join(long)
                raise LabelsError(
                    f"{shown!r} has {len(long)} columns; put quotes around a name that holds {delimiter!r}"
                )
    try:
        names = [_unquoted(name) for name in ordered([(match["index"], match["name"]) for match in found])]
    except LabelsError as error:
        raise LabelsError(f"every line holds a number, but {error}; {_AS_JSON}") from None
    if len(set(names)) < 0.9 * len(names):  # "0 stars", "1 star", "2 stars": the numbers make the names
        raise LabelsError(f"the numbers in the lines may be indexes or parts of the names; {_AS_JSON}")
    return names


def _unquoted(line: str) -> str:
    """A name without the quotes around it."""
    line = line.strip()
    if len(line) > 1 and line[0] == line[-1] == '"':
        try:
            return str(json.loads(line))
        except ValueError:
            return line[1:-1].replace('""', '"')
    if len(line) > 1 and line[0] == line[-1] == "'":
        return line[1:-1].replace("''", "'")
    return line
