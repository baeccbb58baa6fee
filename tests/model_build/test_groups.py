"""Groups of classes: what a file of them may hold, what it says of mistakes, and the packaged ones of ImageNet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from classifier.labels import Labels
from model_build.groups import IMAGENET_GROUPS, default, grouped
from model_build.label_text import LabelsError
from model_build.labels import read_labels
from model_build.weights import DEMO_LABELS, IMAGENET_LABELS

if TYPE_CHECKING:
    from pathlib import Path

LABELS = Labels(("tabby", "tiger cat", "beagle", "pug", "crane", "crane", "no"))


def read(tmp_path: Path, text: str) -> Labels:
    path = tmp_path / "groups.yaml"
    path.write_text(text, encoding="utf-8")
    return grouped(LABELS, path)


def test_names_indexes_and_ranges(tmp_path: Path) -> None:
    text = "cat: {zh: 猫, classes: [tabby, 1]}\nd: {en: dog, zh: 狗, classes: [2-3]}\nword: {zh: 词, classes: [no]}\n"
    groups = read(tmp_path, text).groups
    assert groups is not None
    assert (groups.names.en, groups.names.zh) == (("cat", "dog", "word"), ("猫", "狗", "词"))
    assert groups.of == (0, 0, 1, 1, -1, -1, 2)


def test_chinese_may_be_left_out(tmp_path: Path) -> None:
    groups = read(tmp_path, "cat: {classes: [0, 0-1]}\n").groups
    assert groups is not None
    assert (groups.names.zh, groups.of) == (None, (0, 0, -1, -1, -1, -1, -1))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cat: {classes: [tabyy]}", "group 'cat': 'tabyy' is none of the 7 labels"),
        ("cat: {classes: [7]}", "group 'cat': '7' is no index from 0 to 6"),
        ("cat: {classes: [5-7]}", "'5-7' is no index from 0 to 6, nor a range"),
        ("cat: {classes: [3-2]}", "'3-2' is no index"),
        ("cat: {classes: [-1]}", "'-1' is none of the 7 labels"),
        ("cat: {classes: [crane]}", "'crane' is the name of the classes [4, 5]; give the index of one"),
        (
            "cat: {classes: [0-1]}\npet: {classes: [tabby]}",
            "group 'pet': the class 'tabby' (0, 'tabby') is in the group",
        ),
        ("cat: [tabby]", "group 'cat' is ['tabby']; expected"),
        ("cat: {classes: []}", "group 'cat' is {'classes': []}; expected"),
        ("cat: {classes: tabby}", "group 'cat' is {'classes': 'tabby'}; expected"),
        ("cat: {classes: [[0]]}", "group 'cat': ['0'] is no class"),
        ("cat: {class: [0], classes: [0]}", "group 'cat' has 'class', which is none of en, zh, classes"),
        ("cat: {zh: '', classes: [0]}", "group 'cat' has zh: ''; a name is expected"),
        ('"cat\\x07": {classes: [0]}', "is no name: it is blank, too long or holds a control"),
        ("'': {classes: [0]}", "is no name: it is blank"),
        ("cat: {zh: 猫, classes: [0]}\ndog: {classes: [2]}", "group 'dog' has no name in zh, and others have one"),
        ("a: {en: cat, classes: [0]}\ncat: {classes: [1]}", "two groups are called 'cat'"),
        ("cat: {classes: [0]}\ncat: {classes: [1]}", "'cat'"),
        ("- cat", "holds no groups"),
        ("", "holds no groups"),
        ("cat: {classes: [0", "is no YAML"),
    ],
)
def test_a_mistake_is_quoted(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LabelsError, match=re.escape(said)) as raised:
        read(tmp_path, text)
    assert "groups.yaml" in str(raised.value)


def test_imagenet_s_have_each_class_once_in_both_languages() -> None:
    labels = read_labels(IMAGENET_LABELS)
    assert default(labels) == IMAGENET_GROUPS
    assert default(read_labels(DEMO_LABELS)) is None
    groups = grouped(labels, IMAGENET_GROUPS).groups
    assert groups is not None
    assert min(groups.of) == 0
    assert groups.names.zh is not None
    assert len(set(groups.names.zh)) == len(groups)
    for name, group in {
        "tabby": "cat",
        "tiger": "wild cat",
        "pug": "dog",
        "goldfish": "fish",
        "pizza": "food or drink",
        "banana": "fruit or vegetable",
        "sports car": "road or rail vehicle",
        "airliner": "aircraft or spacecraft",
        "gondola": "boat or ship",
        "grand piano": "musical instrument",
        "volcano": "landscape",
    }.items():
        assert groups.names.en[groups.of[labels.en.index(name)]] == group
