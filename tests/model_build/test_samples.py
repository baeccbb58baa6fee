"""Images for calibration and for the gate: the service's own pixels, the same every time."""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from PIL import Image

from classifier import pixels
from classifier.labels import Labels
from model_build import samples
from model_build.folders import MAX_IMAGE_PIXELS
from model_build.samples import Samples, SamplesError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from model_build.weights import Checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def defaults(demo: Checkpoint) -> tuple[Samples, Samples]:
    return samples.defaults(demo)


def picture(seed: int, kind: str = "PNG") -> bytes:
    random = np.random.default_rng(seed)
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def fill(folder: Path, names: list[str]) -> Path:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(seed))
    return folder


def decoded(checkpoint: Checkpoint, path: Path) -> NDArray[np.uint8]:
    return pixels.decode(path.read_bytes(), checkpoint.preprocessing, MAX_IMAGE_PIXELS)


class TestDefaults:
    """Crops of the photographs that scikit-image ships."""

    def test_shape(self, demo: Checkpoint, defaults: tuple[Samples, Samples]) -> None:
        for part in defaults:
            assert part.pixels.shape == (samples.CROPS, *2 * (demo.preprocessing.size,), 3)
            assert part.pixels.dtype == np.uint8
            assert part.classes is None
            assert len(part) == samples.CROPS

    def test_they_are_the_same_every_time(self, demo: Checkpoint, defaults: tuple[Samples, Samples]) -> None:
        again = samples.defaults(demo)
        assert [part.digest() for part in again] == [part.digest() for part in defaults]

    def test_no_photograph_is_in_both(self, defaults: tuple[Samples, Samples]) -> None:
        assert set(samples.CALIBRATION_PHOTOS).isdisjoint(samples.HELD_OUT_PHOTOS)
        one, other = ({row.tobytes() for row in part.pixels} for part in defaults)
        assert one.isdisjoint(other)
        assert len(one) == len(other) == samples.CROPS

    def test_they_use_the_range_of_the_pixels(self, defaults: tuple[Samples, Samples]) -> None:
        for part in defaults:
            assert part.pixels.min() < 10
            assert part.pixels.max() > 245
            assert part.pixels.std() > 40


class TestFolders:
    """``--calibration`` and ``--eval``."""

    def test_pixels_are_those_of_the_service(self, demo: Checkpoint, tmp_path: Path) -> None:
        fill(tmp_path, ["b.png", "a.png"])
        found = samples.from_folder(demo, tmp_path)
        for row, name in zip(found.pixels, ("a.png", "b.png"), strict=True):
            np.testing.assert_array_equal(row, decoded(demo, tmp_path / name))
        assert found.classes is None
        assert found.source == tmp_path.name

    def test_classes_follow_the_labels_not_the_folders_order(self, demo: Checkpoint, tmp_path: Path) -> None:
        fill(tmp_path, ["truck/1.png", "Cat/1.png", "airplane/1.png", "airplane/2.png"])
        found = samples.from_folder(demo, tmp_path)
        assert found.classes is not None
        by_name = {"airplane/1.png": 0, "airplane/2.png": 0, "Cat/1.png": 3, "truck/1.png": 9}
        for row, number in zip(found.pixels, found.classes.tolist(), strict=True):
            (name,) = (name for name in by_name if (decoded(demo, tmp_path / name) == row).all())
            assert by_name[name] == number

    def test_underscores_are_blanks(self, tmp_path: Path, demo: Checkpoint) -> None:
        checkpoint = replace(demo, labels=Labels(("Golden retriever", "tabby cat")))
        found = samples.from_folder(checkpoint, fill(tmp_path, ["tabby_cat/1.png", "golden_retriever/1.png"]))
        assert found.classes is not None
        assert found.classes.tolist() == [0, 1]

    def test_one_folder_that_is_no_label_means_classes_are_unknown(self, demo: Checkpoint, tmp_path: Path) -> None:
        told: list[str] = []
        folder = fill(tmp_path, ["cat/1.png", "zebra/1.png"])
        assert samples.from_folder(demo, folder, notice=told.append).classes is None
        (notice,) = told
        assert "the folder 'zebra' is called as none of the 10 labels (1 of 2 folders are so)" in notice

    def test_labels_that_are_nearly_alike_are_told_apart(self, demo: Checkpoint, tmp_path: Path) -> None:
        checkpoint = replace(demo, labels=Labels(("Cardigan", "cardigan", "a b")))
        found = samples.from_folder(checkpoint, fill(tmp_path, ["Cardigan/1.png", "a_b/1.png", "cardigan/1.png"]))
        assert found.classes is not None
        assert found.classes.tolist() == [0, 2, 1]
        fill(tmp_path, ["CARDIGAN/1.png"])
        assert samples.from_folder(checkpoint, tmp_path).classes is None

    def test_more_than_memory_holds_is_refused_before_it_is_read(
        self, demo: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
        with pytest.raises(SamplesError, match=r"1 images of 32x32 pixels take 0\.0 GB of memory"):
            samples.from_folder(demo, fill(tmp_path, ["cat/1.png"]))

    def test_a_zip_is_as_its_directory(self, demo: Checkpoint, tmp_path: Path) -> None:
        names = ["cat/1.png", "dog/1.png", "dog/2.png"]
        folder = fill(tmp_path / "set", names)
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for name in names:
                archive.write(folder / name, name)
        one, other = samples.from_folder(demo, folder), samples.from_folder(demo, tmp_path / "set.zip")
        assert one.digest() == other.digest()
        assert other.source == "set.zip"

    @pytest.mark.parametrize(("limit", "kept"), [(3, [0, 3, 6]), (10, range(10)), (99, range(10)), (1, [0])])
    def test_a_limit_takes_every_kth(self, demo: Checkpoint, tmp_path: Path, limit: int, kept: Any) -> None:
        fill(tmp_path, [f"{number}.png" for number in range(10)])
        everything = samples.from_folder(demo, tmp_path).pixels
        found = samples.from_folder(demo, tmp_path, limit=limit)
        np.testing.assert_array_equal(found.pixels, everything[list(kept)])

    def test_an_image_that_can_not_be_read_is_an_error(self, demo: Checkpoint, tmp_path: Path) -> None:
        fill(tmp_path, ["a.png", "c.png"])
        (tmp_path / "b.png").write_bytes(picture(0)[:100])
        with pytest.raises(SamplesError, match=r"'b\.png': the PNG image can't be decoded"):
            samples.from_folder(demo, tmp_path)

    def test_parts_of_a_set_are_no_classes(self, demo: Checkpoint, tmp_path: Path) -> None:
        fill(tmp_path, ["train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/cat/2.png", "test/dog/1.png"])
        told: list[str] = []
        judged = samples.from_folder(demo, tmp_path, notice=told.append)
        assert judged.classes is not None
        assert judged.classes.tolist() == [3, 3]
        assert judged.source == f"{tmp_path.name}/val"
        calibrated = samples.from_folder(demo, tmp_path, notice=told.append, calibrating=True)
        assert len(calibrated) == 2
        np.testing.assert_array_equal(calibrated.pixels[0], decoded(demo, tmp_path / "train/cat/1.png"))
        assert told == [
            f"{tmp_path} holds the parts of a set: {tmp_path}/val is what is judged on",
            f"{tmp_path} holds the parts of a set: {tmp_path}/train is what is calibrated on",
        ]

    def test_what_is_judged_on_is_not_calibrated_on(self, demo: Checkpoint, tmp_path: Path) -> None:
        fill(tmp_path, ["val/cat/1.png", "test/dog/1.png"])
        for calibrating, name in ((False, "val/cat/1.png"), (True, "test/dog/1.png")):
            (found,) = samples.from_folder(demo, tmp_path, calibrating=calibrating).pixels
            np.testing.assert_array_equal(found, decoded(demo, tmp_path / name))

    def test_what_is_no_image_is_told(self, demo: Checkpoint, tmp_path: Path) -> None:
        fill(tmp_path, ["a", "b.jfif"])
        (tmp_path / "c.txt").write_text("about")
        told: list[str] = []
        assert len(samples.from_folder(demo, tmp_path, notice=told.append)) == 2
        assert told == [f"{tmp_path}: skipped what is no image: 1 text"]

    def test_accents_are_the_same_in_folders_and_labels(self, demo: Checkpoint, tmp_path: Path) -> None:
        checkpoint = replace(demo, labels=Labels(("café", "tea")))  # one character, on macOS's disks two
        found = samples.from_folder(checkpoint, fill(tmp_path, ["cafe\u0301/1.png"]))
        assert found.classes is not None
        assert found.classes.tolist() == [0]

    def test_a_name_that_is_no_text(self, demo: Checkpoint, tmp_path: Path) -> None:
        path = tmp_path / os.fsdecode(b"caf\xe9.png")
        path.write_bytes(b"no image")
        with pytest.raises(SamplesError) as raised:
            samples.from_folder(demo, tmp_path)
        str(raised.value).encode()

    def test_nothing_there(self, demo: Checkpoint, tmp_path: Path) -> None:
        with pytest.raises(SamplesError):
            samples.from_folder(demo, tmp_path)
        (tmp_path / "x.zip").write_bytes(b"no zip")
        with pytest.raises(SamplesError, match=r"x\.zip"):
            samples.from_folder(demo, tmp_path / "x.zip")


def test_digest_tells_samples_apart() -> None:
    rows = np.zeros((2, 4, 4, 3), np.uint8)
    other = rows.copy()
    other[1, 3, 3, 2] = 1
    classes = np.array([0, 1])
    digests = [Samples(pixels, known, "x").digest() for pixels, known in ((rows, None), (other, None), (rows, classes))]
    assert len(set(digests)) == 3
    assert Samples(rows, None, "another name").digest() == digests[0]
