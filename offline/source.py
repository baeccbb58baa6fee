"""The images to label: those in a folder or a zip, or those that a list names."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from classifier.errors import ClassifierError
from model_build.listing import FolderError, Listing, TooLarge, read_file


@dataclass(frozen=True)
class Source:
    """``names``: of all images, sorted. ``skipped``: what the other files are, as "2 HEIC, 1 text".

    A name is a path below the folder or in the zip, or what the list has. Safe to read from several threads.
    """

    path: Path
    names: list[str]
    skipped: str = ""
    archive: zipfile.ZipFile | None = None

    @classmethod
    def open(cls, path: Path, outputs: tuple[Path, ...] = ()) -> Source:
        """The images of ``path``: a folder, a zip, or a text file with a path a line.

        ``outputs``: files that may lie in the folder and count as nothing. Raises FolderError.
        """
        if path.is_dir() or (path.is_file() and (path.suffix.lower() == ".zip" or zipfile.is_zipfile(path))):
            found = Listing.open(path)
            own = {output.resolve() for output in outputs}
            others = {name: kind for name, kind in found.skipped.items() if (path / name).resolve() not in own}
            skipped = dataclasses.replace(found, skipped=others).told()
            source = cls(path, found.images, skipped, found.archive)
        else:
            source = cls(Path(), _listed(path))
        if not source.names:
            beside = f"; it holds {source.skipped}" if source.skipped else ""
            raise FolderError(f"{str(path)!r} holds no images{beside}")
        return source

    def read(self, name: str, limit: int) -> bytes:
        """The encoded image called ``name``.

        Raises ClassifierError: ``body_too_large`` for more than ``limit`` bytes, ``unreadable_image`` where the file
        can't be read.
        """
        try:
            return read_file(self.path, self.archive, name, limit)
        except TooLarge as error:
            raise ClassifierError("body_too_large", f"the file is too large: {error}", limit=limit) from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise ClassifierError("unreadable_image", f"the file can't be read: {reason}") from None


def shown(name: str) -> str:
    """``name`` as text that UTF-8 can hold: a byte of a file's name that is no UTF-8 becomes ``\\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _listed(path: Path) -> list[str]:
    """The paths that the lines of a text file name, sorted, each once. Raises FolderError."""
    names = set()
    try:
        with path.open("rb") as file:
            for line in file:
                if b"\0" in line:
                    allowed = "a folder, a .zip, or a text file with a path a line is expected"
                    raise FolderError(f"{str(path)!r} is no list of paths; {allowed}")
                names.add(os.fsdecode(line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")))
    except OSError as error:
        raise FolderError(f"{str(path)!r} can't be read: {error.strerror}") from None
    return sorted(names - {""})
