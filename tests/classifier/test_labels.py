"""Top-k, and the label files that are packaged."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from classifier.labels import Groups, Labels
from model_build.labels import parse_labels
from model_build.weights import DEMO_LABELS, IMAGENET_LABELS

LABELS = Labels(("ant", "bee", "cat", "dog"), ("蚂蚁", "蜜蜂", "猫", "狗"))


GROUPS = Groups(Labels(("pet", "insect"), ("宠物", "昆虫")), (1, -1, 0, 0))


def ids(probabilities: list[float], k: int) -> list[int]:
    return [prediction["class_id"] for prediction in LABELS.top(np.array(probabilities, np.float32), k)]


def test_top_is_best_first_with_both_names() -> None:
    assert LABELS.top(np.array([0.1, 0.2, 0.6, 0.1], np.float32), 2) == [
        {"class_id": 2, "label": "cat", "label_zh": "猫", "probability": 0.6},
        {"class_id": 1, "label": "bee", "label_zh": "蜜蜂", "probability": 0.2},
    ]


def test_without_chinese_names_there_is_no_such_key() -> None:
    (prediction,) = Labels(("a", "b")).top(np.array([0.25, 0.75], np.float32), 1)
    assert prediction == {"class_id": 1, "label": "b", "probability": 0.75}


def test_equal_probabilities_come_in_class_order() -> None:
    assert ids([0.25, 0.25, 0.25, 0.25], 4) == [0, 1, 2, 3]
    assert ids([0.2, 0.3, 0.2, 0.3], 4) == [1, 3, 0, 2]


def test_a_thousand_equal_probabilities_come_in_class_order() -> None:
    labels = Labels(tuple(f"class {number}" for number in range(1000)))
    row = np.full(1000, 1e-3, np.float32)
    assert [prediction["class_id"] for prediction in labels.top(row, 50)] == list(range(50))
    row[[900, 100]] = 0.2
    assert [prediction["class_id"] for prediction in labels.top(row, 4)] == [100, 900, 0, 1]


@pytest.mark.parametrize("k", [1, 3, 4])
def test_k_is_the_length(k: int) -> None:
    assert ids([0.1, 0.4, 0.2, 0.3], k) == [1, 3, 2, 0][:k]


def test_more_than_there_are_gives_all() -> None:
    assert ids([0.1, 0.4, 0.2, 0.3], 9) == [1, 3, 2, 0]


def test_predictions_are_plain_json() -> None:
    probabilities = np.array([0.7, 0.1, 0.1, 0.1], np.float32)
    predictions = LABELS.top(probabilities, 4)
    assert json.loads(json.dumps(predictions)) == predictions
    assert predictions[0]["probability"] == 0.7  # not 0.699999988079071


def test_order_is_that_of_a_full_sort_on_many_rows() -> None:
    labels = Labels(tuple(f"class {number}" for number in range(1000)))
    random = np.random.default_rng(0)
    for _ in range(20):
        row = random.dirichlet(np.full(1000, 0.05)).astype(np.float32)
        expected = sorted(range(1000), key=lambda index: (-row[index], index))[:5]
        assert [prediction["class_id"] for prediction in labels.top(row, 5)] == expected


@pytest.mark.parametrize(
    ("en", "zh", "message"),
    [
        ((), None, "must not be empty"),
        (("a", "b"), ("甲",), "'zh' has 1 names, 'en' has 2"),
        (("a",), (), "'zh' has 0 names, 'en' has 1"),
        (("a", ""), None, "blank"),
        (("a", "b"), ("甲", ""), "blank"),
    ],
)
def test_bad_labels_are_refused(en: tuple[str, ...], zh: tuple[str, ...] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Labels(en, zh)


def test_length_is_the_number_of_classes() -> None:
    assert len(LABELS) == 4


def packaged(name: str) -> Labels:
    path = IMAGENET_LABELS if name == "imagenet" else DEMO_LABELS
    return parse_labels(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "count"), [("imagenet", 1000), ("cifar10", 10)])
def test_packaged_labels_are_complete_and_clean(name: str, count: int) -> None:
    labels = packaged(name)
    assert labels.zh is not None
    assert len(labels.en) == len(labels.zh) == count
    for label in (*labels.en, *labels.zh):
        assert label == label.strip()
        assert label.isprintable()
    # A Chinese name may be given twice only where the English one is.
    for names in (zh for zh, times in Counter(labels.zh).items() if times > 1):
        assert len({en for en, zh in zip(labels.en, labels.zh, strict=True) if zh == names}) == 1, names


def test_chinese_names_are_chinese() -> None:
    for name in ("imagenet", "cifar10"):
        labels = packaged(name)
        foreign = {
            en: zh
            for en, zh in zip(labels.en, labels.zh or (), strict=True)
            if not any("\u4e00" <= character <= "\u9fff" for character in zh)
        }
        assert foreign == ({"iPod": "iPod"} if name == "imagenet" else {})  # a trade name, written so in Chinese too


@pytest.mark.slow
def test_imagenet_labels_are_in_the_order_of_the_weights() -> None:
    from model_build.network import import_torchvision

    import_torchvision()
    from torchvision.models import ResNet18_Weights

    assert list(packaged("imagenet").en) == ResNet18_Weights.IMAGENET1K_V1.meta["categories"]


@pytest.mark.parametrize(
    ("index", "en", "zh"), [(1, "goldfish", "金鱼"), (281, "tabby", "虎斑猫"), (999, "toilet tissue", "卫生纸")]
)
def test_some_imagenet_names(index: int, en: str, zh: str) -> None:
    labels = packaged("imagenet")
    assert labels.zh is not None
    assert (labels.en[index], labels.zh[index]) == (en, zh)


def test_demo_labels_are_those_of_the_demo_checkpoint() -> None:
    from safetensors import safe_open

    from model_build.weights import DEMO_FILE

    with safe_open(DEMO_FILE, "pt") as file:
        assert list(packaged("cifar10").en) == json.loads(file.metadata()["labels"])


def test_a_group_is_the_sum_of_its_classes_and_a_class_may_have_none() -> None:
    assert GROUPS.top(np.array([0.1, 0.2, 0.4, 0.3], np.float32), 2) == [
        {"group_id": 0, "label": "pet", "label_zh": "宠物", "probability": 0.7},
        {"group_id": 1, "label": "insect", "label_zh": "昆虫", "probability": 0.1},
    ]


def test_a_sum_is_never_over_one() -> None:
    groups = Groups(Labels(("all",)), (0,) * 3)
    assert groups.top(np.array([0.4, 0.4, 0.2000001], np.float32), 1)[0]["probability"] == 1


def test_groups_are_told_where_there_are_any() -> None:
    grouped = replace(LABELS, groups=GROUPS)
    assert Labels.parse(json.loads(json.dumps(grouped.told()))) == grouped
    assert {name: names for name, names in grouped.told().items() if name != "groups"} == LABELS.told()
    assert "groups" not in LABELS.told()


def test_groups_are_listed_beside_the_classes() -> None:
    assert LABELS.listed() == {"en": LABELS.en, "zh": LABELS.zh}
    listed = replace(LABELS, groups=GROUPS).listed()
    assert listed["groups"] == {"en": ("pet", "insect"), "zh": ("宠物", "昆虫"), "of": (1, -1, 0, 0)}


@pytest.mark.parametrize("of", [(0, 0), (0, 1, 2, 0), (0, -2, 0, 0), (0, True, 0, 0)])
def test_groups_that_do_not_fit(of: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="group"):
        replace(LABELS, groups=Groups(GROUPS.names, of))
