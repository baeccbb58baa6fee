"""The page of the mistakes: its counts, its order, its bounds, and that no name gets out of its text."""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from classifier.labels import Labels
from model_build import mistakes
from model_build.mistakes import Judged

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABELS = Labels(("cat", "dog", "hen"), ("猫", "狗", "鸡"))
# Right; a dog for a cat, hardly; a hen for a dog, surely; right.
LOGITS = np.array([[4, 0, 0], [0, 0.5, 0], [0, 0, 9], [0, 3, 0]], np.float32)
TRUTH = np.array([0, 0, 1, 1])


def grey(which: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.stack([np.full((200, 200, 3), 40 * (index + 1), np.uint8) for index in which])


def test_counts_and_order() -> None:
    judged = Judged(LABELS, LOGITS, TRUTH)
    assert judged.confusion().tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert judged.worst().tolist() == [2, 1]
    assert judged.worst(1).tolist() == [2]
    assert judged.probabilities().sum(1) == pytest.approx(np.ones(4))
    assert Judged(LABELS, LOGITS * 1e4, TRUTH).probabilities()[2].tolist() == [0, 0, 1]


def test_the_page() -> None:
    names = ["a.png", "b.png", "c.png", "d.png"]
    page = mistakes.document("Mistakes of pets", Judged(LABELS, LOGITS, TRUTH), names, grey)
    assert "2 of 4 images are classified right: 50.00%" in page
    assert re.findall(r"<figcaption>(.+?) (\d+\.\d%)<br>right: <b>(.+?)</b>", page) == [
        ("hen 鸡", "100.0%", "dog 狗"),
        ("dog 狗", "45.2%", "cat 猫"),
    ]
    assert page.index("c.png") < page.index("b.png")
    assert "a.png" not in page
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    decoded = [Image.open(io.BytesIO(base64.b64decode(text))) for text in pictures]
    assert [(image.size, image.getpixel((9, 9))) for image in decoded] == [
        ((96, 96), (120,) * 3),
        ((96, 96), (80,) * 3),
    ]
    # Nothing is fetched from anywhere.
    assert re.findall(r"(?:src|href)=\"(?!data:)|url\(|<script|@import", page) == []
    # No image of hens was there: no share can be told.
    assert "<th>2 hen 鸡</th>" in page
    assert "<td>–</td>" in page


def test_without_mistakes() -> None:
    page = mistakes.document("t", Judged(LABELS, LOGITS[:1], TRUTH[:1]), ["a.png"], grey)
    assert "There are none." in page
    assert "100.00%" in page


def test_names_stay_text() -> None:
    labels = Labels(('<script>alert("x")</script>', "b" * 500))
    judged = Judged(labels, np.array([[0, 1], [1, 0]], np.float32), np.array([0, 1]))
    page = mistakes.document("<b>", judged, ["<img src=x>.png", "y"], grey)
    assert "<script" not in page
    assert "<img src=x>" not in page
    assert "b" * 61 not in page
    assert "<title>&lt;b&gt;</title>" in page


def test_it_is_bounded() -> None:
    random = np.random.default_rng(0)
    count, classes = 4000, 1000
    judged = Judged(
        Labels(tuple(f"class {number}" for number in range(classes))),
        random.normal(size=(count, classes)).astype(np.float32),
        random.integers(0, classes, count),
    )
    noise = random.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    page = mistakes.document("t", judged, ["x.png"] * count, lambda which: np.stack([noise] * len(which)))
    assert "The 30 of 1000 classes with the most mistakes are shown." in page
    assert page.count("<figure>") == 48
    assert len(page) < 1e6


def test_of_many_classes_those_with_mistakes_are_shown() -> None:
    classes = 100
    truth = np.arange(classes)
    logits = np.eye(classes, dtype=np.float32)
    logits[97] = np.eye(classes)[98]
    page = mistakes.document("t", Judged(Labels(tuple(map(str, truth))), logits, truth), ["x"] * classes, grey)
    assert "<th>97 97</th>" in page
    assert "<th>98 98</th>" in page
    assert "<th>50 50</th>" not in page
