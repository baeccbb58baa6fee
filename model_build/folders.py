"""A set of images in a directory or a .zip, one subfolder a class or flat and unlabelled, and their pixels.

What is in the directory or zip is ``listing``'s; what an image's bytes mean is for ``classifier.pixels`` alone to say.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from classifier.errors import ClassifierError
from classifier.formats import FORMATS
from classifier.pixels import decode
from model_build.label_text import FORBIDDEN, code_point
from model_build.listing import FolderError, Listing, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future, ThreadPoolExecutor

    from numpy.typing import NDArray

    from classifier.preprocessing import Preprocessing

MAX_IMAGE_BYTES = 64 * 2**20
MAX_IMAGE_PIXELS = 178_000_000  # as many as Pillow reads at all, unless it is told otherwise
CACHE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class ImageFolder:
    """Images by name, in sorted order: the same for a directory and for a zip of it.

    ``name``: the folder as messages call it. ``classes``: the class folders' names, sorted; empty when the images lie
    flat. ``items``: each image's name (its path below ``path``, with forward slashes) and its index in ``classes``,
    None when flat. ``prefix``: what all names begin with before the class. A single folder that wraps all class
    folders is looked through. ``skipped``: how many files are no images, and what they are, as "2 HEIC, 1 text".
    Safe to read from several threads.
    """

    path: Path
    name: str
    classes: tuple[str, ...]
    items: list[tuple[str, int | None]]
    prefix: str = ""
    skipped: str = ""
    archive: zipfile.ZipFile | None = None

    @classmethod
    def open(cls, path: Path) -> ImageFolder:
        """The images in the directory or zip at ``path``. Raises FolderError."""
        return cls.of(Listing.open(path))

    @classmethod
    def of(cls, listing: Listing, below: str = "") -> ImageFolder:
        """The images in the folder ``below``, a path with a closing slash, of what was listed. Raises FolderError."""
        name = str(listing.path / below)
        prefix, classes, items = _label(listing, below, name)
        return cls(listing.path, name, classes, items, prefix, listing.told(below), listing.archive)

    def read(self, name: str) -> bytes:
        """The encoded image called ``name``. Raises OSError when it can't be read or is over MAX_IMAGE_BYTES."""
        return read_file(self.path, self.archive, name, MAX_IMAGE_BYTES)


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
                raise FolderError(f"{self._folder.name!r} has changed since it was first read: {error}") from None
            yield squares, self.labels[chunk]

    def names(self, which: NDArray[np.int64]) -> list[str]:
        """The names of the images at ``which`` int64[n]."""
        return [self._folder.items[int(row)][0] for row in self._rows[which]]

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


def wrapped(listing: Listing, below: str = "") -> str:
    """``below`` and all folders below it that only wrap others: where class folders, or images, begin."""
    names = [name for name in listing.names if name.startswith(below) and name != below]
    images = [name for name in listing.images if name.startswith(below)]
    while images:
        folders = {name[: name.find("/", len(below)) + 1] for name in names} - {""}
        if len(folders) != 1 or not all("/" in name[len(inner) :] for inner in folders for name in images):
            break
        below = folders.pop()
    return below


def _label(listing: Listing, below: str, path: str) -> tuple[str, tuple[str, ...], list[tuple[str, int | None]]]:
    """The prefix, classes and items below ``below``."""
    images = [name for name in listing.images if name.startswith(below)]
    if not images:
        instead = f"; found {told}" if (told := listing.told(below)) else ""
        raise FolderError(f"{path!r} holds no images ({', '.join(FORMATS)}){instead}")
    prefix = wrapped(listing, below)
    of = {name: name.removeprefix(prefix).split("/")[0] for name in images if "/" in name.removeprefix(prefix)}
    if not of:
        return prefix, (), [(name, None) for name in images]
    for name in images:
        if name not in of:
            raise FolderError(f"{path!r}: image {name!r} lies beside the class folders; move it into one")
    classes = tuple(sorted(set(of.values())))
    for folder in classes:
        _check_name(folder, path, listing.utf8)
    for name in listing.names:
        folder, slash, _ = name.removeprefix(prefix).partition("/")
        if slash and folder not in classes and name.startswith(prefix):
            instead = f", but {told}" if (told := listing.told(f"{prefix}{folder}/")) else ""
            raise FolderError(f"{path!r}: class folder {folder!r} holds no images{instead}")
    index = {name: number for number, name in enumerate(classes)}
    return prefix, classes, [(name, index[of[name]]) for name in images]


def _check_name(folder: str, path: str, utf8: bool) -> None:
    """Refuse a class folder whose name can't be a label."""
    # What Python makes of bytes that it can't read; a zip's older half of names may be any code page's.
    if any("\ud800" <= character <= "\udfff" for character in folder) or not (utf8 or folder.isascii()):
        how = "rename it" if utf8 else "make the zip anew with UTF-8 names"
        raise FolderError(f"{path!r}: the name of the class folder {folder!r} is not UTF-8; {how}")
    if found := FORBIDDEN.search(folder):
        raise FolderError(f"{path!r}: the class folder {folder!r} has {code_point(found[0])} in its name; rename it")
    if folder != folder.strip():
        raise FolderError(f"{path!r}: the name of the class folder {folder!r} begins or ends with a blank; rename it")
