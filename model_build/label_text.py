"""The text of a label file: decoded, or refused with the name of its real kind."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

# Characters that no name can want: controls, halves of surrogate pairs, separators of lines, marks that turn the
# direction of writing or can't be seen, and the one that stands where another was lost.
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffd]")
MAX_BYTES = 16 * 2**20
MAX_NAME = 1000  # characters

_BOMS = {
    b"\xef\xbb\xbf": "utf-8",
    b"\xff\xfe\0\0": "utf-32-le",  # before that of UTF-16, which it begins with
    b"\xff\xfe": "utf-16-le",
    b"\0\0\xfe\xff": "utf-32-be",
    b"\xfe\xff": "utf-16-be",
}
# Files given by mistake: their first bytes, and the words for them.
_STRANGERS = (
    (rb"PK\x03\x04", "is a zip or an Excel workbook; save the names as CSV in UTF-8"),
    (rb"\xd0\xcf\x11\xe0", "is an Excel workbook; save the names as CSV in UTF-8"),
    (rb"\x80[\x02-\x05]", "is a pickle, which is never loaded because that could run any code; save the names as JSON"),
    (rb"\x93NUMPY", "is an array of NumPy; save the names as JSON"),
    (rb"\x1f\x8b", "is compressed with gzip; unpack it first"),
    (rb"%PDF", "is a PDF; save the names as text"),
    (rb"\s*<(!doctype|html|\?xml)", "is a page of HTML or XML; download the file itself"),
    (rb"version https://git-lfs", "is a pointer of git-lfs, not the file; fetch it with: git lfs pull"),
    (rb"\s*item\s*\{", "is a label map in protobuf's text form; save the names as a JSON list in class order"),
)


class LabelsError(ValueError):
    """Class names can't be used; the message says why and what is allowed."""


def read_text(path: Path) -> str:
    """The text of the file at ``path``, without its byte order mark: UTF-8, or UTF-16 or UTF-32 by that mark.

    Raises LabelsError, which names another encoding, if it is likely, and the command that converts it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise LabelsError(f"can't be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise LabelsError(f"is larger than {MAX_BYTES // 2**20} MiB; a list of names is expected")
    for start, words in _STRANGERS:
        if re.match(start, data, re.IGNORECASE):
            raise LabelsError(words)
    for mark, encoding in _BOMS.items():
        if data.startswith(mark):
            try:
                return _checked(data.removeprefix(mark).decode(encoding))
            except UnicodeDecodeError as error:
                raise LabelsError(f"begins as {encoding.upper()} does, but is damaged: {error.reason}") from None
    if data[1:200:2].count(0) > 40 or data[:200:2].count(0) > 40 or (len(data) < 100 and data.count(0) > len(data) / 3):
        little = data[1::2].count(0) >= data[::2].count(0)
        raise LabelsError(_convert(path, "looks like UTF-16 without a byte order mark", f"UTF-16{'LB'[not little]}E"))
    try:
        return _checked(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        wrong = f"is not UTF-8 (byte 0x{data[error.start]:02x} in line {_line(data, error.start)})"
    for encoding, plausible in (("GBK", _is_chinese), ("CP1252", _is_western)):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if plausible(text):
            sample = next(line for line in text.splitlines() if not line.isascii()).strip()
            raise LabelsError(_convert(path, f"{wrong}; it looks like {encoding}, as in {sample[:40]!r}", encoding))
    raise LabelsError(f"{wrong}, nor likely GBK or CP1252; save it as UTF-8")


def _checked(text: str) -> str:
    """``text``. Raises LabelsError for a character that neither a name nor a form of names can have."""
    for found in FORBIDDEN.finditer(text):
        if found[0] not in "\t\n\r":
            raise LabelsError(f"holds the character {code_point(found[0])} in line {_line(text, found.start())}")
    return text


def code_point(character: str) -> str:
    """The notation of a character that can't be shown: U+0007."""
    return f"U+{ord(character):04X}"


def _line(text: str | bytes, position: int) -> int:
    before = text[:position]
    newline = before.count("\n") if isinstance(before, str) else before.count(b"\n")
    return newline + 1


def _convert(path: Path, finding: str, encoding: str) -> str:
    target = path.with_name(f"{path.stem}-utf8{path.suffix}")
    command = f"iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > {shlex.quote(str(target))}"
    return f"{finding}; convert it with: {command}"


def _is_chinese(text: str) -> bool:
    """Whether nearly all non-ASCII characters are of GB 2312, the characters in common use."""
    foreign = [character for character in text if not character.isascii()]
    common = len("".join(foreign).encode("gb2312", "ignore")) // 2
    return common >= 0.9 * len(foreign)


def _is_western(text: str) -> bool:
    """Whether all non-ASCII characters are letters and typographic marks, scattered among ASCII."""
    foreign = [character for character in text if not character.isascii()]
    fine = sum(character.isalpha() or character in "‘’“”–—…°®™" for character in foreign)
    return fine == len(foreign) and len(foreign) <= 0.3 * len(text)
