"""What lies in directories and zips: images by their bytes, the rest counted, what systems leave unseen."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from model_build.listing import FolderError, Listing


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), (200, 30, 40)).save(buffer, kind)
    return buffer.getvalue()


def fill(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(root: Path) -> Path:
    return Path(shutil.make_archive(str(root.with_name(root.name + "-zipped")), "zip", root))


JPEG = encoded("JPEG")
IMAGES = {
    "a.jfif": JPEG,
    "a.jpe": JPEG,
    "a.JPG": JPEG,
    "jpeg": JPEG,
    "photo.jpg_large": JPEG,
    "png.txt": encoded("PNG"),
    "webp.bin": encoded("WEBP"),
    "gif": encoded("GIF"),
    "bmp": encoded("BMP"),
    "tiff.dat": encoded("TIFF"),
    "heif.dat": b"\0\0\0\x18ftypheic\0\0\0\0",
    "avif": encoded("AVIF"),
    "damaged.jpg": b"no image",  # it claims to be one, so that it is told when it is read
}
OTHERS = {
    "a.mp4": (b"\0\0\0\x18ftypisom\0\0\0\0", "video"),
    "a.jxl": (b"\xff\x0a\xfa", "JPEG XL"),
    "a.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "a.psd": (b"8BPS\0\1", "Photoshop"),
    "a.nef": (encoded("TIFF"), "camera raw"),
    "a.svg": (b"<?xml version='1.0'?><svg/>", "SVG"),
    "BMW.txt": (b"BMW and others begin with the two letters of a bitmap", "text"),
    "notes": (("x" + "ä" * 300).encode(), "text"),  # cut within a letter
    "a.npy": (b"\x93NUMPY\1\0v\0", "other"),
    "a.zip": (b"PK\x03\x04\x14\0", "zip"),
    "nothing": (b"", "empty"),
}
SYSTEMS = (
    *("@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "cat/@eaDir/b.jpg@SynoEAStream", "cat/c.jpg:Zone.Identifier"),
    *("__MACOSX/cat/._a.jpg", ".hidden/a.jpg", "cat/.ipynb_checkpoints/a.jpg", "cat/.a.jpg", ".DS_Store"),
    *("cat/Thumbs.db", "cat/desktop.ini", "$RECYCLE.BIN/a.jpg", "lost+found/a.jpg", "System Volume Information/a.jpg"),
    *("#recycle/a.jpg", "cat/Icon\r"),
)


@pytest.mark.parametrize("as_zip", [False, True])
def test_images_are_told_by_their_bytes(tmp_path: Path, as_zip: bool) -> None:
    root = fill(tmp_path / "set", IMAGES | {name: content for name, (content, _) in OTHERS.items()})
    listing = Listing.open(zipped(root) if as_zip else root)
    assert listing.images == sorted(IMAGES)
    assert listing.skipped == {name: kind for name, (_, kind) in OTHERS.items()}
    told = "2 text, 1 JPEG 2000, 1 JPEG XL, 1 Photoshop, 1 SVG, 1 camera raw, 1 empty, 1 other, 1 video, 1 zip"
    assert listing.told() == told


@pytest.mark.parametrize("as_zip", [False, True])
def test_what_systems_leave_is_not_seen(tmp_path: Path, as_zip: bool) -> None:
    root = fill(tmp_path / "set", dict.fromkeys(SYSTEMS, JPEG) | {"cat/a.jpg": JPEG})
    listing = Listing.open(zipped(root) if as_zip else root)
    assert (listing.names, listing.images, listing.skipped) == (["cat/", "cat/a.jpg"], ["cat/a.jpg"], {})


def test_what_would_never_end_or_is_not_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    fill(tmp_path, {"a.jpg": JPEG})
    listing = Listing.open(tmp_path)
    assert (listing.images, listing.skipped) == (["a.jpg"], {"link": "unreadable", "pipe": "unreadable"})


def test_a_folder_that_can_not_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"cat/a.jpg": JPEG, "cat/more/b.jpg": JPEG})
    scandir = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(FolderError, match=r"cat/more' can't be read: Permission denied"):
        Listing.open(tmp_path)


def test_members_are_read_only_at_their_beginning(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image", JPEG + bytes(50_000_000))
        archive.writestr("text", b"a" * 50_000_000)
    data = bytearray(path.read_bytes())
    end = data.index(b"PK\x01\x02")
    data[end - 5000 : end] = bytes(5000)  # the end of the last member, which is damaged, is not reached
    path.write_bytes(data)
    listing = Listing.open(path)
    assert (listing.images, listing.skipped) == (["image"], {"text": "text"})


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_would_unpack_whole_are_told_by_their_names_alone(tmp_path: Path, method: int) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.jpg", JPEG)
        archive.writestr("b", JPEG)
    listing = Listing.open(path)
    assert (listing.images, listing.skipped) == (["a.jpg"], {"b": "unreadable"})


@pytest.mark.parametrize(
    ("written", "utf8", "name"), [("猫/é.jpg", True, "猫/é.jpg"), ("cat/é.jpg", False, "cat/Θ.jpg")]
)
def test_names_of_zips_without_the_mark_of_utf8(tmp_path: Path, written: str, utf8: bool, name: str) -> None:
    """As macOS and older archivers write them: UTF-8 all the same, or in some code page."""
    path, placeholder = tmp_path / "old.zip", "x" * len(written.encode("utf-8" if utf8 else "cp1252"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(placeholder, JPEG)
    raw = written.encode("utf-8" if utf8 else "cp1252")
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), raw))
    listing = Listing.open(path)
    assert (listing.images, listing.utf8) == ([name], utf8)
    assert listing.archive is not None
    assert listing.archive.read(name) == JPEG
