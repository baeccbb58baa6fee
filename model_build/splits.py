"""Sets of images in parts: folders ``train`` and ``val`` or ``test``, each with the class folders."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from model_build.folders import ImageFolder, wrapped
from model_build.listing import FolderError, Listing

if TYPE_CHECKING:
    from pathlib import Path

TRAIN, VALIDATION, TEST = "train", "validation", "test"
# What the folder of each part is called, in any case.
CALLED = {
    TRAIN: ("train", "training"),
    VALIDATION: ("val", "valid", "validation", "dev", "eval", "evaluation"),
    TEST: ("test", "testing"),
}
_PART = {name: part for part, names in CALLED.items() for name in names}
_NAMED = 5


@dataclass(frozen=True)
class Split:
    """A listing, and the folder of each of its parts; there are none for a set that is not in parts."""

    listing: Listing
    folders: dict[str, str]

    def __contains__(self, part: str) -> bool:
        return part in self.folders

    def first(self, *parts: str) -> str | None:
        """The first of ``parts`` that exists."""
        return next((part for part in parts if part in self), None)

    def names(self) -> list[str]:
        """The parts' folders, for messages."""
        return [str(self.listing.path / folder) for folder in self.folders.values()]

    def open(self, part: str | None = None) -> ImageFolder:
        """The images of a part, or of all. Raises FolderError."""
        return ImageFolder.of(self.listing, self.folders[part] if part else "")


def find(path: Path) -> Split:
    """The parts of the set in the directory or zip at ``path``.

    It is in parts if one folder has a name of training and another a name of validation or testing, or if all folders
    have such names. Raises FolderError if a part is there twice, or if other images lie beside the parts.
    """
    listing = Listing.open(path)
    prefix = wrapped(listing)
    images = [name.removeprefix(prefix) for name in listing.images]
    tops = sorted({name.removeprefix(prefix).split("/")[0] for name in listing.names if name.startswith(prefix)} - {""})
    tops = [top for top in tops if f"{prefix}{top}/" in listing.names or any(i.startswith(f"{top}/") for i in images)]
    folders: dict[str, str] = {}
    for top in tops:
        part = _PART.get(top.lower())
        if part is None:
            continue
        if part in folders:
            raise FolderError(f"{str(path)!r}: {folders[part]!r} and {top!r} are both folders of {part}; leave one")
        folders[part] = top
    if len(folders) < 2 or (TRAIN not in folders and len(folders) < len(tops)):
        return Split(listing, {})
    parts = " and ".join(repr(folders[part]) for part in folders)
    for name in images:
        if name.split("/")[0] not in folders.values():
            raise FolderError(f"{str(path)!r}: image {name!r} lies beside {parts}, which are parts of a split; move it")
    return Split(listing, {part: f"{prefix}{top}/" for part, top in folders.items()})


def check_whole(folder: ImageFolder) -> None:
    """Raise FolderError for class folders that hold folders of equal names: they are parts of a set, or hold parts.

    Learning the classes "fold1" and "fold2", or training on the images in ``cat/test``, would look like success.
    """
    inner: dict[int, set[str]] = {}
    for name, label in folder.items:
        path = name.removeprefix(folder.prefix).split("/")
        if label is not None and len(path) > 2:
            inner.setdefault(label, set()).add(path[1])
    for one, other in combinations(inner, 2):
        common = inner[one] & inner[other]
        if len(common) > 1 and 2 * len(common) >= len(inner[one] | inner[other]):
            tops, names = _some([folder.classes[one], folder.classes[other]]), _some(sorted(common))
            raise FolderError(
                f"{folder.name!r}: the folders {tops} hold folders of equal names ({names}), as the parts of one set "
                "do; call the parts 'train' and 'val', or put the images of a class directly into its folder"
            )


def check_classes(one: ImageFolder, other: ImageFolder) -> None:
    """Raise FolderError, which names the differences, unless both have the same class folders."""
    words = []
    for has, lacks, which in ((one, other, "the former"), (other, one, "the latter")):
        if only := [name for name in has.classes if name not in lacks.classes]:
            words.append(f"only {which} has {_some(only)}")
    if words:
        raise FolderError(f"the class folders of {one.name!r} and {other.name!r} differ: {', '.join(words)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more
