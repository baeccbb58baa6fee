"""Images in directories and zips: what is found, what is refused, and their pixels."""

from __future__ import annotations

import io
import os
import shutil
import stat
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from classifier.preprocessing import Preprocessing
from model_build import folders
from model_build.folders import ImageFolder, Pixels
from model_build.listing import FolderError

if TYPE_CHECKING:
    from collections.abc import Iterator


def png(value: int, side: int = 12) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side + 4, side), (value, 255 - value, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number * 9))
    return root


def zipped(root: Path) -> Path:
    return Path(shutil.make_archive(str(root.with_name(root.name + "-zipped")), "zip", root))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return fill(tmp_path / "pets", *(f"{kind}/{number}.png" for kind in ("dog", "cat", "ant") for number in range(4)))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_a_zip_equals_the_directory_it_was_made_of(pets: Path) -> None:
    (pets / "cat" / ".hidden.png").write_bytes(b"")
    (pets / "cat" / "notes.txt").write_text("not an image")
    fill(pets, "__MACOSX/cat/._0.png")
    directory, archive = ImageFolder.open(pets), ImageFolder.open(zipped(pets))
    assert directory.classes == archive.classes == ("ant", "cat", "dog")
    assert directory.items == archive.items
    assert directory.items[:5] == [*((f"ant/{number}.png", 0) for number in range(4)), ("cat/0.png", 1)]
    assert [directory.read(name) for name, _ in directory.items] == [archive.read(name) for name, _ in archive.items]


def test_links_are_followed_but_not_in_circles(pets: Path) -> None:
    (pets / "cat" / "self").symlink_to(".")
    (pets / "cat" / "up").symlink_to("..")
    (pets / "puppy").symlink_to("dog")
    found = ImageFolder.open(pets)
    assert found.classes == ("ant", "cat", "dog", "puppy")
    assert len(found.items) == 16


def test_flat_images_have_no_classes(tmp_path: Path) -> None:
    for path in (root := fill(tmp_path / "flat", "b.png", "a.JPG"), zipped(root)):
        folder = ImageFolder.open(path)
        assert folder.classes == ()
        assert folder.items == [("a.JPG", None), ("b.png", None)]


def test_a_folder_around_the_class_folders_is_looked_through(tmp_path: Path) -> None:
    root = fill(tmp_path / "out", "data/pets/cat/1.png", "data/pets/dog/deep/2.png")
    (root / "README.txt").write_text("about")
    for path in (root, zipped(root)):
        folder = ImageFolder.open(path)
        assert folder.classes == ("cat", "dog")
        assert folder.items == [("data/pets/cat/1.png", 0), ("data/pets/dog/deep/2.png", 1)]


def test_a_single_class_folder_is_a_class(tmp_path: Path) -> None:
    assert ImageFolder.open(fill(tmp_path, "cat/1.png")).classes == ("cat",)


@pytest.mark.parametrize("as_zip", [False, True])
def test_refused_sets(tmp_path: Path, as_zip: bool) -> None:
    mixed = fill(tmp_path / "mixed", "cat/1.png", "dog/1.png", "stray.png")
    hollow = fill(tmp_path / "hollow", "cat/1.png", "dog/1.png")
    (hollow / "owl").mkdir()
    nothing = tmp_path / "nothing"
    (nothing / "cat").mkdir(parents=True)
    film = b"\0\0\0\x18ftypisom\0\0\0\0"
    apple, half = tmp_path / "apple", fill(tmp_path / "half", "cat/1.png")
    for path in (apple / "cat" / "1.mp4", apple / "cat" / "2.mp4", half / "dog" / "1.mp4"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(film)
    (half / "dog" / "1.txt").write_text("a dog")
    bell, blank, twin = (fill(tmp_path / name, f"{name}/1.png", "dog/1.png") for name in ("c\x07t", " ", "dog "))
    for root, message in (
        (mixed, r"image 'stray\.png' lies beside the class folders"),
        (hollow, r"class folder 'owl' holds no images"),
        (apple, r"holds no images \(JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIF\); found 2 video"),
        (half, r"class folder 'dog' holds no images, but 1 text, 1 video"),
        (bell, r"the class folder 'c\\x07t' has U\+0007 in its name; rename it"),
        (blank, r"the name of the class folder ' ' begins or ends with a blank; rename it"),
        (twin, r"the name of the class folder 'dog ' begins or ends with a blank; rename it"),
        (nothing, r"holds no images \(JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIF\)$"),
    ):
        with pytest.raises(FolderError, match=message):
            ImageFolder.open(zipped(root) if as_zip else root)


def test_a_zip_whose_class_names_are_of_some_code_page(tmp_path: Path) -> None:
    path = tmp_path / "old.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("xx/1.png", "ant/1.png"):
            archive.writestr(name, png(1))
    path.write_bytes(path.read_bytes().replace(b"xx/", "狗/".encode("gbk")))
    with pytest.raises(FolderError, match=r"the class folder .* is not UTF-8; make the zip anew with UTF-8 names"):
        ImageFolder.open(path)


def test_what_is_no_image_is_counted(pets: Path) -> None:
    (pets / "cat" / "notes").write_text("about cats")
    (pets / "@eaDir" / "dog").mkdir(parents=True)
    for path in (pets, zipped(pets)):
        folder = ImageFolder.open(path)
        assert (folder.classes, len(folder.items), folder.skipped) == (("ant", "cat", "dog"), 12, "1 text")


def test_a_named_pipe_is_not_waited_for(pets: Path) -> None:
    os.mkfifo(pets / "cat" / "pipe.jpg")
    with pytest.raises(OSError, match="it is no plain file"):
        ImageFolder.open(pets).read("cat/pipe.jpg")


def test_neither_directory_nor_zip(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"absent' does not exist; a directory or a \.zip"):
        ImageFolder.open(tmp_path / "absent")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(FolderError, match=r"text\.zip' is neither a directory nor a readable \.zip"):
        ImageFolder.open(tmp_path / "text.zip")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../cat/1.png", "is no plain relative path"),
        ("cat/../../1.png", "is no plain relative path"),
        ("/cat/1.png", "is no plain relative path"),
        ("cat//1.png", "is no plain relative path"),
        ("cat\\1.png", "is no plain relative path"),
        ("cat/link.png", "is a link"),
        ("cat/0.png", "occurs twice"),
        ("cat/secret.png", "is encrypted"),
    ],
)
def test_odd_members_of_a_zip_are_refused_by_name(tmp_path: Path, name: str, problem: str) -> None:
    path = tmp_path / "odd.zip"
    info = zipfile.ZipInfo(name)
    if "link" in problem:
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's, of the name that occurs twice
        archive.writestr("cat/0.png", png(1))
        archive.writestr(info, png(2))
    if "encrypted" in problem:
        data = bytearray(path.read_bytes())
        data[data.rindex(b"PK\1\2") + 8] |= 1  # the flags of the last entry in the directory of the zip
        path.write_bytes(data)
    with pytest.raises(FolderError, match=problem) as caught:
        ImageFolder.open(path)
    assert repr(name) in str(caught.value)


def test_what_can_not_be_read_is_an_os_error(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(pets)
    data = bytearray(path.read_bytes())
    start = data.index(b"ant/2.png") + len("ant/2.png")
    data[start + 8 : start + 12] = b"\xff" * 4
    path.write_bytes(data)
    with pytest.raises(OSError, match="damaged in the zip"):
        ImageFolder.open(path).read("ant/2.png")
    monkeypatch.setattr(folders, "MAX_IMAGE_BYTES", 50)
    for folder in (ImageFolder.open(pets), ImageFolder.open(path)):
        with pytest.raises(OSError, match="more than the 50 an image may have"):
            folder.read("cat/1.png")


def test_pixels_in_memory_and_read_again_are_the_same(
    pets: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Pixels(ImageFolder.open(pets), Preprocessing(8, 8), pool)
    monkeypatch.setattr(folders, "CACHE_BYTES", 0)
    read = Pixels(ImageFolder.open(zipped(pets)), Preprocessing(8, 8), pool)
    assert kept.digest == read.digest
    which = np.array([11, 0, 7, 3, 5])
    for (ours, our_labels), (theirs, their_labels) in zip(kept.batches(which, 2), read.batches(which, 2), strict=True):
        assert ours.dtype == np.uint8
        assert ours.shape[1:] == (8, 8, 3)
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(our_labels, their_labels)
    assert [label for _, labels in kept.batches(which, 2) for label in labels] == [2, 0, 1, 0, 1]
    assert not list(read.batches(which[:0], 2))


def test_unreadable_images_are_skipped_and_named(pets: Path, pool: ThreadPoolExecutor) -> None:
    (pets / "cat" / "1.png").write_bytes(png(1)[:45])
    (pets / "dog" / "0.png").write_bytes(b"no image")
    pixels = Pixels(ImageFolder.open(pets), Preprocessing(8, 8), pool)
    assert [line.split(":")[0] for line in pixels.skipped] == ["'cat/1.png'", "'dog/0.png'"]
    assert pixels.labels.tolist() == [0] * 4 + [1] * 3 + [2] * 3


def test_an_image_that_changes_while_in_use(
    pets: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "CACHE_BYTES", 0)
    pixels = Pixels(ImageFolder.open(pets), Preprocessing(8, 8), pool)
    (pets / "cat" / "1.png").unlink()
    with pytest.raises(FolderError, match=r"pets' has changed since it was first read: .*1\.png"):
        list(pixels.batches(np.arange(12), 4))


def test_copies_of_an_image_are_on_one_side_of_the_split(pets: Path, pool: ThreadPoolExecutor) -> None:
    for number in range(4):
        for copy in range(5):
            shutil.copy(pets / "cat" / f"{number}.png", pets / "cat" / f"{number}-{copy}.png")
    pixels = Pixels(ImageFolder.open(pets), Preprocessing(8, 8), pool)
    for seed in range(20):
        kept, held = pixels.split(0.3, seed)
        assert not set(pixels.checksums[kept]) & set(pixels.checksums[held])
        assert sorted(pixels.labels[held].tolist()) == [0] + [1] * 6 + [2]


def test_the_split_is_stratified_and_seeded(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    names = [f"big/{number}.png" for number in range(20)] + ["one/0.png", "two/0.png", "two/1.png"]
    pixels = Pixels(ImageFolder.open(fill(tmp_path, *names)), Preprocessing(8, 8), pool)
    kept, held = pixels.split(0.2, seed=3)
    assert sorted([*kept, *held]) == list(range(23))
    assert np.bincount(pixels.labels[held], minlength=3).tolist() == [4, 0, 1]
    assert held.tolist() == pixels.split(0.2, seed=3)[1].tolist() != pixels.split(0.2, seed=4)[1].tolist()
    assert not len(pixels.split(0.0, seed=3)[1])
