"""A set of images in a directory or a .zip, one subfolder a class or flat and unlabelled, and their pixels.

A zip is read in place and never extracted. What an image's bytes mean is for ``classifier.pixels`` alone to say.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from classifier.errors import ClassifierError
from classifier.pixels import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future, ThreadPoolExecutor

    from numpy.typing import NDArray

    from classifier.preprocessing import Preprocessing

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"))
MAX_IMAGE_BYTES = 64 * 2**20
MAX_IMAGE_PIXELS = 178_000_000  # as many as Pillow reads at all, unless it is told otherwise
CACHE_BYTES = 2 * 2**30


class FolderError(Exception):
    """The directory or zip is no set of images; the message says why and what is allowed."""


@dataclass(frozen=True)
class ImageFolder:
    """Images by name, in sorted order: the same for a directory and for a zip of it.

    ``classes``: the class folders' names, sorted; empty when the images lie flat. ``items``: each image's name (its
    path below ``path``, with forward slashes) and its index in ``classes``, None when flat. A single folder that
    wraps all class folders is looked through; hidden files, ``__MACOSX`` and files without an image's suffix are not
    seen. Safe to read from several threads.
    """

    path: Path
    classes: tuple[str, ...]
    items: list[tuple[str, int | None]]
    archive: zipfile.ZipFile | None = None

    @classmethod
    def open(cls, path: Path) -> ImageFolder:
        """The images in the directory or zip at ``path``. Raises FolderError."""
        if path.is_dir():
            archive, names = None, _walk(path)
        elif path.is_file():
            try:
                archive = zipfile.ZipFile(path)
            except (zipfile.BadZipFile, OSError) as error:
                raise FolderError(f"{str(path)!r} is neither a directory nor a readable .zip: {error}") from None
            names = _members(archive, path)
        else:
            raise FolderError(f"{str(path)!r} does not exist; a directory or a .zip of images is expected")
        classes, items = _label(names, path)
        return cls(path, classes, items, archive)

    def read(self, name: str) -> bytes:
        """The encoded image called ``name``. Raises OSError when it can't be read or is over MAX_IMAGE_BYTES."""
        size = self.archive.getinfo(name).file_size if self.archive else (self.path / name).stat().st_size
        if size > MAX_IMAGE_BYTES:
            raise OSError(f"{size} bytes are more than the {MAX_IMAGE_BYTES} an image may have")
        if not self.archive:
            return (self.path / name).read_bytes()
        try:
            return self.archive.read(name)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, EOFError) as error:
            raise OSError(f"damaged in the zip: {error}") from None


class Pixels:
    """A folder's readable images as squares of R pixels a side, as ``preprocessing`` has them: uint8[N, R, R, 3], RGB.

    ``labels``: int64[N], -1 where flat. ``checksums``: int64[N], equal for equal files. ``skipped``: the unreadable
    images, each with the reason. ``digest``: sha256 over the readable ones' names, classes and bytes. Every image is
    decoded once here, so that a bad one is known before the work starts; the squares stay in memory where all fit
    CACHE_BYTES, and are decoded again, a batch ahead on ``pool``, where not. ``watch`` wraps the iteration over all
    images, for a progress bar.
    """

    def __init__(
        self,
        folder: ImageFolder,
        preprocessing: Preprocessing,
        pool: ThreadPoolExecutor,
        watch: Callable[[Iterable[int | str]], Iterable[int | str]] = iter,
    ) -> None:
        self._folder, self._preprocessing, self._pool = folder, preprocessing, pool
        shape = (len(folder.items), preprocessing.size, preprocessing.size, 3)
        self._store = np.empty(shape, np.uint8) if np.prod(shape) <= CACHE_BYTES else None
        self.skipped: list[str] = []
        rows, labels, checksums, digest = [], [], [], hashlib.sha256()
        looks = watch(pool.map(self._look, range(len(folder.items))))
        for row, ((name, label), found) in enumerate(zip(folder.items, looks, strict=True)):
            if isinstance(found, str):
                self.skipped.append(f"{name!r}: {found}")
                continue
            rows.append(row)
            labels.append(-1 if label is None else label)
            checksums.append(found)
            digest.update(f"{name!r} {label} {found}\n".encode())
        self._rows, self.labels = np.array(rows, np.int64), np.array(labels, np.int64)
        self.checksums = np.array(checksums, np.int64)
        self.digest = digest.hexdigest()

    def batches(self, which: NDArray[np.int64], size: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Pixels uint8[B, R, R, 3] and labels int64[B] of the images at ``which`` int64[n], ``size`` at a time.

        Raises FolderError when an image has become unreadable.
        """
        chunks = [which[start : start + size] for start in range(0, len(which), size)]
        if self._store is not None:
            yield from ((self._store[self._rows[chunk]], self.labels[chunk]) for chunk in chunks)
            return
        ahead = self._start(chunks[:1])
        for number, chunk in enumerate(chunks):
            ahead += self._start(chunks[number + 1 : number + 2])
            try:
                squares = np.stack([square.result() for square in ahead.pop(0)])
            except (OSError, ClassifierError) as error:
                raise FolderError(f"{str(self._folder.path)!r} has changed since it was first read: {error}") from None
            yield squares, self.labels[chunk]

    def split(self, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Images to keep and to hold back, int64: ``share`` of each class, but at least one, and never its last.

        Copies of one file stay together: what is learned by heart would look like accuracy.
        """
        rng, held = np.random.default_rng(seed), np.zeros(len(self.labels), bool)
        for label in np.unique(self.labels):
            files = rng.permutation(np.unique(self.checksums[self.labels == label]))
            count = min(max(round(len(files) * share), 1), len(files) - 1) if share else 0
            held |= (self.labels == label) & np.isin(self.checksums, files[:count])
        return np.flatnonzero(~held), np.flatnonzero(held)

    def _start(self, chunks: list[NDArray[np.int64]]) -> list[list[Future[NDArray[np.uint8]]]]:
        return [[self._pool.submit(self._square, int(row)) for row in self._rows[chunk]] for chunk in chunks]

    def _square(self, row: int) -> NDArray[np.uint8]:
        return decode(self._folder.read(self._folder.items[row][0]), self._preprocessing, MAX_IMAGE_PIXELS)

    def _look(self, row: int) -> int | str:
        """A number that stands for one image's bytes, its square stored; or why it can't be read."""
        try:
            data = self._folder.read(self._folder.items[row][0])
            square = decode(data, self._preprocessing, MAX_IMAGE_PIXELS)
        except (OSError, ClassifierError) as error:
            return str(error)
        if self._store is not None:
            self._store[row] = square
        return len(data) << 32 | zlib.crc32(data)


def _walk(path: Path) -> list[str]:
    """Names of all files and, with a closing slash, folders below ``path``; links are followed."""
    names = []
    for folder, folders, files in os.walk(path, followlinks=True):
        below = Path(folder).relative_to(path)
        if any(Path(folder).samefile(path / above) for above in below.parents):  # a link that would go round for ever
            folders.clear()
            continue
        names += [(below / name).as_posix() + "/" for name in folders]
        names += [(below / name).as_posix() for name in files]
    return names


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


def _label(names: list[str], path: Path) -> tuple[tuple[str, ...], list[tuple[str, int | None]]]:
    """The classes and items among ``names``."""
    seen = sorted(name for name in names if not any(p.startswith((".", "__MACOSX")) for p in name.split("/") if p))
    images = [name for name in seen if not name.endswith("/") and PurePosixPath(name).suffix.lower() in SUFFIXES]
    if not images:
        raise FolderError(f"{str(path)!r} holds no images ({', '.join(sorted(SUFFIXES))})")
    prefix = ""
    while (inner := _wrapper(seen, images, prefix)) is not None:
        prefix = inner
    of = {name: name.removeprefix(prefix).split("/")[0] for name in images if "/" in name.removeprefix(prefix)}
    if not of:
        return (), [(name, None) for name in images]
    for name in images:
        if name not in of:
            raise FolderError(f"{str(path)!r}: image {name!r} lies beside the class folders; move it into one")
    classes = tuple(sorted(set(of.values())))
    for folder in classes:
        if any("\ud800" <= character <= "\udfff" for character in folder):  # what Python makes of bytes it can't read
            raise FolderError(f"{str(path)!r}: the name of the class folder {folder!r} is not UTF-8; rename it")
    for name in seen:
        folder, slash, _ = name.removeprefix(prefix).partition("/")
        if slash and folder not in classes and name.startswith(prefix):
            raise FolderError(f"{str(path)!r}: class folder {folder!r} holds no images")
    index = {name: number for number, name in enumerate(classes)}
    return classes, [(name, index[of[name]]) for name in images]


def _wrapper(seen: list[str], images: list[str], prefix: str) -> str | None:
    """``prefix`` and the only folder below it, if that one holds images in folders of its own only; else None."""
    folders = {name[: name.find("/", len(prefix)) + 1] for name in seen} - {""}
    if len(folders) == 1 and all("/" in name[len(inner) :] for inner in folders for name in images):
        return folders.pop()
    return None
