"""The images that ``train`` learns from and measures on: found, compared with each other, and read."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from rich.progress import track

from model_build import splits
from model_build.folders import ImageFolder, Pixels
from model_build.listing import FolderError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from numpy.typing import NDArray
    from rich.console import Console

    from classifier.preprocessing import Preprocessing

SHARE = "0.1"  # of each class to hold back, unless --validation or DIR's folders say otherwise
NAMED = 20


def share(validation: str) -> float | None:
    """``--validation`` as the share of images to hold back; None if it is a directory or zip."""
    try:
        found = float(validation)
    except ValueError:
        if Path(validation).exists():
            return None
        found = -1.0
    if not 0 <= found < 1:
        raise click.UsageError(f"--validation {validation!r} is no share from 0 to below 1, no directory and no .zip")
    return found


def find(source: Path, validation: str, chosen: bool) -> tuple[ImageFolder, ImageFolder | None]:
    """The folder of images to train on, and the folder to measure on; None for the latter if there is none of its own.

    Then ``validation`` is the share of the first folder that the caller holds back to measure on. A ``source`` in parts
    gives both folders, unless the user has ``chosen`` the ``validation``. Raises FolderError.
    """
    split, others, held = splits.find(source), None, share(validation)
    if split.folders and splits.TRAIN not in split:
        raise FolderError(f"{str(source)!r} holds {' and '.join(map(repr, split.names()))}, but no folder 'train'")
    folder = _labelled(split.open(splits.TRAIN if split.folders else None))
    splits.check_whole(folder)
    if held is None:
        given = splits.find(Path(validation))
        others = given.open(given.first(splits.VALIDATION, splits.TEST))
    elif split.folders and not chosen:
        part = split.first(splits.VALIDATION, splits.TEST)
        others = split.open(part)
        if part == splits.TEST and not others.classes:  # as in contests, which keep the classes of theirs to themselves
            others = None
    if others:
        splits.check_classes(folder, others if others.classes else _labelled(others))
    if split.folders:
        _tell(folder, others, held, [name for name in split.names() if name != folder.name])
    return folder, others


def _tell(folder: ImageFolder, others: ImageFolder | None, held: float | None, parts: list[str]) -> None:
    """Print the use of each part of a set."""
    judge = repr(others.name) if others else f"{held:.0%} of it" if held else "nothing"
    left = [repr(name) for name in parts if others is None or name != others.name]
    rest = f"; {' and '.join(left)} {'are' if len(left) > 1 else 'is'} left out" if left else ""
    click.echo(f"training on {folder.name!r}, measuring on {judge}{rest}")


def _labelled(folder: ImageFolder) -> ImageFolder:
    if len(folder.classes) < 2:
        found = f"only the class folder {folder.classes[0]!r}" if folder.classes else "no class folders"
        raise FolderError(f"{folder.name!r} holds {found}; expected two or more, each with its images")
    return folder


def indexes(names: tuple[str, ...], classes: tuple[str, ...], whose: str) -> NDArray[np.int64]:
    """The index int64[C] in ``names`` of each of the class folders ``classes``. Raises FolderError if others are there.

    ``whose`` names are they, for the message.
    """
    if sorted(names) != sorted(classes):
        odd = sorted(set(names) ^ set(classes)) or [names[0]]
        raise FolderError(
            f"{whose} has {len(names)} classes and DIR has {len(classes)}; they must have the same names, and "
            f"{odd[0]!r} is not in both"
        )
    return np.array([names.index(name) for name in classes], np.int64)


def read(folder: ImageFolder, served: Preprocessing, pool: ThreadPoolExecutor, console: Console) -> Pixels:
    """The folder's pixels, not yet cropped. Prints the skipped files.

    Raises FolderError if a class has no image left.
    """
    if folder.skipped:
        click.echo(f"{folder.name}: skipped what is no image: {folder.skipped}", err=True)
    watch = partial(track, description="reading", total=len(folder.items), console=console, transient=True)
    pixels = Pixels(folder, replace(served, size=served.resize), pool, watch)
    if pixels.skipped:
        lines = [f"{folder.name}: {len(pixels.skipped)} unreadable, skipped:", *pixels.skipped[:NAMED]]
        more = len(pixels.skipped) - NAMED
        click.echo("\n  ".join(lines + ([f"and {more} more"] if more > 0 else [])), err=True)
    for label, name in enumerate(folder.classes):
        if label not in pixels.labels:
            raise FolderError(f"{folder.name!r}: no image of the class folder {name!r} can be read")
    return pixels


def unseen(judged: Pixels, trained: Pixels) -> NDArray[np.int64]:
    """The indexes int64[n] of the images to measure on that are not trained on. Raises FolderError if there are none.

    An image learned by heart would look like accuracy.
    """
    known = np.isin(judged.checksums, trained.checksums)
    if known.any():
        told = f"{known.sum()} of the {len(known)} images to measure on are among those to train on"
        if known.all():
            raise FolderError(f"{told}; give others with --validation")
        click.echo(f"{told}, and are left out", err=True)
    return np.flatnonzero(~known)
