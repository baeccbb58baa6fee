"""The files in a directory or a zip: which are images by their content, and what is passed over.

A zip is read in place and never extracted. Of a file that is not called as images are, the first bytes tell what it
is; one that is called so counts as an image, so that a damaged one is told and not passed over.
"""

from __future__ import annotations

import lzma
import os
import stat
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from classifier.formats import FORMATS, KNOWN, sniff

SUFFIXES = frozenset(suffix for each in FORMATS.values() for suffix in each.suffixes)
# Cameras' own files begin as TIFF does, and what a reader of TIFF finds in them is a thumbnail.
RAW = frozenset(
    (".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".sr2", ".srw", ".pef", ".orf", ".rw2", ".raf", ".3fr")
)
# What file systems, network drives and archivers leave beside files, in small letters.
SYSTEM = {"__macosx", "@eadir", "@tmp", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "lost+found"}
SYSTEM |= {"system volume information", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
SYSTEM_ENDS = ("@synoeastream", "@synoresource", ":zone.identifier")
HEAD_BYTES = 512
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_KINDS = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "zip"),
    (b"\x1aE\xdf\xa3", "video"),
    (b"RIFF", "video"),
)


class FolderError(Exception):
    """The directory or zip is no set of images; the message says why and what is allowed."""


class TooLarge(OSError):
    """A file has more bytes than are to be read; the message says how many."""


@dataclass(frozen=True)
class Listing:
    """``names``: all files and, with a closing slash, folders, as paths with forward slashes, sorted.

    ``images``: the files among them that are images. ``skipped``: what each of the other files is. Hidden files and
    folders, and those in which systems keep what is theirs, are in none of them. ``archive``: the opened zip;
    ``utf8``: that its names are surely what they were where it was made.
    """

    path: Path
    names: list[str]
    images: list[str]
    skipped: dict[str, str]
    archive: zipfile.ZipFile | None = None
    utf8: bool = True

    @classmethod
    def open(cls, path: Path) -> Listing:
        """What the directory or zip at ``path`` holds. Raises FolderError."""
        archive, utf8 = None, True
        if path.is_dir():
            names = _walk(path)
        elif path.is_file():
            archive, utf8 = _zip(path)
            names = _members(archive, path)
        else:
            raise FolderError(f"{str(path)!r} does not exist; a directory or a .zip of images is expected")
        names = sorted(name for name in names if not any(map(_is_system, filter(None, name.split("/")))))
        kinds = {name: _kind(path, archive, name) for name in names if not name.endswith("/")}
        images = [name for name, kind in kinds.items() if kind is None]
        skipped = {name: kind for name, kind in kinds.items() if kind is not None}
        return cls(path, names, images, skipped, archive, utf8)

    def told(self, prefix: str = "") -> str:
        """What is skipped below ``prefix``, as "2 HEIC, 1 text"; empty where nothing is."""
        kinds = Counter(sorted(kind for name, kind in self.skipped.items() if name.startswith(prefix)))
        return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def read_file(path: Path, archive: zipfile.ZipFile | None, name: str, limit: int) -> bytes:
    """The file called ``name`` below ``path``, or in ``archive``.

    Raises TooLarge when it has more than ``limit`` bytes, and OSError when it can't be read.
    """
    size = archive.getinfo(name).file_size if archive else _plain_size(path / name)
    if size > limit:
        raise TooLarge(f"{size} bytes are more than the {limit} an image may have")
    if not archive:
        return (path / name).read_bytes()
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, EOFError) as error:
        raise OSError(f"damaged in the zip: {error}") from None


def _plain_size(path: Path) -> int:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # a named pipe would never end
        raise OSError("it is no plain file")
    return found.st_size


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM or name.lower().endswith(SYSTEM_ENDS)


def _walk(path: Path) -> list[str]:
    """Names of all files and, with a closing slash, folders below ``path``; links are followed."""

    def refuse(error: OSError) -> None:  # passing a folder over would be to train on part of a class
        raise FolderError(f"{str(error.filename)!r} can't be read: {error.strerror}")

    names = []
    for folder, folders, files in os.walk(path, followlinks=True, onerror=refuse):
        below = Path(folder).relative_to(path)
        if any(Path(folder).samefile(path / above) for above in below.parents):  # a link that would go round for ever
            folders.clear()
            continue
        folders[:] = [name for name in folders if not _is_system(name)]
        names += [(below / name).as_posix() + "/" for name in folders]
        names += [(below / name).as_posix() for name in files]
    return names


def _zip(path: Path) -> tuple[zipfile.ZipFile, bool]:
    """The opened zip, and whether its names are UTF-8, which the older half of archivers writes without a mark."""
    try:
        try:
            return zipfile.ZipFile(path, metadata_encoding="utf-8"), True
        except UnicodeDecodeError:
            return zipfile.ZipFile(path), False
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise FolderError(f"{str(path)!r} is neither a directory nor a readable .zip: {error}") from None


def _members(archive: zipfile.ZipFile, path: Path) -> list[str]:
    """Names of all members; FolderError on one that a careless reader could be harmed or misled by."""
    names: set[str] = set()
    for info in archive.infolist():
        name, problem = info.filename, None
        if "\\" in name or not {"", ".", ".."}.isdisjoint(name.removesuffix("/").split("/")):
            problem = "is no plain relative path with forward slashes"
        elif stat.S_ISLNK(info.external_attr >> 16):
            problem = "is a link"
        elif info.flag_bits & 1:
            problem = "is encrypted"
        elif name in names:
            problem = "occurs twice"
        if problem:
            raise FolderError(f"{str(path)!r}: member {name!r} {problem}; expected members such as 'cat/0001.jpg'")
        names.add(name)
    return sorted(names)


def _kind(path: Path, archive: zipfile.ZipFile | None, name: str) -> str | None:
    """What a file is in words, None for an image."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in SUFFIXES:
        return None
    if suffix in RAW:
        return "camera raw"
    try:
        return _kind_of(_member_head(archive, name) if archive else _file_head(path / name))
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return "unreadable"


def _file_head(path: Path) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):  # a named pipe would never end
        raise OSError("is no plain file")
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _member_head(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack far more than is read
        raise OSError("is compressed in a way that is not looked into")
    with archive.open(info) as file:
        return file.read(HEAD_BYTES)


def _kind_of(head: bytes) -> str | None:
    found = sniff(head)
    # Two letters, with which text may begin as well, are all that sniff() asks of a BMP.
    if found in FORMATS and (found != "BMP" or int.from_bytes(head[14:18], "little") in _BMP_HEADERS):
        return None
    if found and found not in FORMATS:
        return KNOWN[found].common or found
    if head[4:8] == b"ftyp":
        return "video"
    for start, kind in _KINDS:
        if head.startswith(start):
            return kind
    if not head:
        return "empty"
    if b"<svg" in head:
        return "SVG"
    text = head.decode("utf-8", "replace")
    # The last character may be cut.
    return "other" if "\0" in text or "\ufffd" in text[:-1] else "text"
