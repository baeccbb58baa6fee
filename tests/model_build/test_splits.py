"""Sets in parts: which folders are which, and what looks like parts but can't be told."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from model_build import splits
from model_build.listing import FolderError
from model_build.splits import TEST, TRAIN, VALIDATION


def fill(root: Path, *names: str) -> Path:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(buffer.getvalue())
    return root


def parts(*folders: str) -> list[str]:
    return [f"{folder}/{kind}/1.png" for folder in folders for kind in ("cat", "dog")]


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize(
    ("folders", "found"),
    [
        (("train", "val"), {TRAIN: "train/", VALIDATION: "val/"}),
        (("Training", "VALID", "Test"), {TRAIN: "Training/", VALIDATION: "VALID/", TEST: "Test/"}),
        (("train", "validation"), {TRAIN: "train/", VALIDATION: "validation/"}),
        (("train", "dev"), {TRAIN: "train/", VALIDATION: "dev/"}),
        (("train", "eval", "testing"), {TRAIN: "train/", VALIDATION: "eval/", TEST: "testing/"}),
        (("train", "test"), {TRAIN: "train/", TEST: "test/"}),
        (("val", "test"), {VALIDATION: "val/", TEST: "test/"}),
        (("pets/data/train", "pets/data/val"), {TRAIN: "pets/data/train/", VALIDATION: "pets/data/val/"}),
        (("train",), {}),
        (("train", "tram"), {}),  # vehicles
        (("val", "test", "prod"), {}),
    ],
)
def test_parts_are_known_by_their_names(
    tmp_path: Path, as_zip: bool, folders: tuple[str, ...], found: dict[str, str]
) -> None:
    root = fill(tmp_path / "set", *parts(*folders))
    (root / "README.txt").write_text("about")
    split = splits.find(Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", root)) if as_zip else root)
    assert split.folders == found
    for part in found:
        folder = split.open(part)
        assert (folder.classes, [name for name, _ in folder.items]) == (("cat", "dog"), parts(found[part][:-1]))
    if not found and folders == ("train",):
        assert split.open().classes == ("cat", "dog")


def test_a_part_without_images_is_told_when_it_is_opened(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", *parts("train"))
    (root / "val").mkdir()
    with pytest.raises(FolderError, match=r"set/val' holds no images"):
        splits.find(root).open(VALIDATION)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (parts("train", "val", "valid"), "'val' and 'valid' are both folders of validation; leave one"),
        (parts("train", "Train", "val"), "'Train' and 'train' are both folders of train; leave one"),
        (parts("train", "val", "extra"), "image 'extra/cat/1.png' lies beside 'train' and 'val', which are parts of a"),
        ([*parts("train", "test"), "a.png"], "image 'a.png' lies beside 'test' and 'train', which are parts of a"),
    ],
)
def test_what_can_not_be_told_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(FolderError) as raised:
        splits.find(fill(tmp_path / "set", *names))
    assert message in str(raised.value)


@pytest.mark.parametrize("folders", [("fold1", "fold2"), ("cat/train", "cat/test", "dog/train", "dog/test")])
def test_folders_that_hold_folders_of_equal_names_are_no_classes(tmp_path: Path, folders: tuple[str, ...]) -> None:
    folder = splits.find(fill(tmp_path, *parts(*folders))).open()
    with pytest.raises(
        FolderError, match=r"hold folders of equal names \('(cat', 'dog|test', 'train)'\), as the parts of"
    ):
        splits.check_whole(folder)


@pytest.mark.parametrize(
    "names",
    [
        parts("pets"),
        ["cat/images/1.png", "dog/images/1.png"],
        ["cat/tabby/1.png", "cat/siamese/1.png", "dog/hound/1.png", "dog/poodle/1.png"],
        ["cat/1.png", "dog/1.png"],
        ["1.png"],
    ],
)
def test_other_folders_are(tmp_path: Path, names: list[str]) -> None:
    splits.check_whole(splits.find(fill(tmp_path, *names)).open())


def test_differing_classes_are_named(tmp_path: Path) -> None:
    root = fill(tmp_path, "train/cat/1.png", "val/cat/1.png", *(f"train/{letter}/1.png" for letter in "abcdefg"))
    split = splits.find(root)
    train, val = split.open(TRAIN), split.open(VALIDATION)
    splits.check_classes(train, train)
    message = (
        f"the class folders of '{root}/train' and '{root}/val' differ: only the former has 'a', 'b', 'c', 'd', 'e'"
    )
    with pytest.raises(FolderError) as raised:
        splits.check_classes(train, val)
    assert str(raised.value) == f"{message} and 2 more"
    fill(root, "val/owl/1.png")
    with pytest.raises(FolderError, match="only the former has 'owl', only the latter has 'a', 'b'"):
        splits.check_classes(splits.find(root).open(VALIDATION), train)
