"""Folders as Hugging Face and timm publish them: the right file, and what their JSON files tell or rule out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from classifier.labels import Labels
from classifier.preprocessing import Preprocessing
from model_build.errors import FileError
from model_build.repositories import told, weights
from model_build.weights import WeightsError, find
from tests.model_build import originals
from tests.model_build.checkpoints import made, saved

if TYPE_CHECKING:
    from pathlib import Path

STATE = made(3)
NAMES = {"0": "cat", "1": "dog", "2": "fox"}
# As microsoft/resnet-18 and timm/resnet18.a1_in1k have them, for three classes.
CONFIG: dict[str, Any] = {
    "architectures": ["ResNetForImageClassification"],
    "depths": [2, 2, 2, 2],
    "downsample_in_first_stage": False,
    "embedding_size": 64,
    "hidden_act": "relu",
    "hidden_sizes": [64, 128, 256, 512],
    "id2label": NAMES,
    "layer_type": "basic",
    "model_type": "resnet",
    "num_channels": 3,
}
PROCESSOR: dict[str, Any] = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 224,
}
TIMM: dict[str, Any] = {
    "architecture": "resnet18",
    "num_classes": 3,
    "num_features": 512,
    "pretrained_cfg": {
        "tag": "a1_in1k",
        "input_size": [3, 224, 224],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "num_classes": 3,
        "first_conv": "conv1",
        "classifier": "fc",
    },
}
VIT = {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}, "resample": 2}
BIT = {"image_processor_type": "BitImageProcessorFast", "size": {"shortest_edge": 256}, "crop_size": 224}


def folder(path: Path, config: dict[str, Any] | None, processor: dict[str, Any] | None = None) -> Path:
    """A folder of these JSON files."""
    path.mkdir(exist_ok=True)
    for name, content in (("config.json", config), ("preprocessor_config.json", processor)):
        if content is not None:
            (path / name).write_text(json.dumps(content))
    return path


class TestFolders:
    """Given as --weights."""

    def test_hugging_face(self, tmp_path: Path) -> None:
        path = folder(tmp_path / "resnet-18", CONFIG, PROCESSOR)
        saved(path / "model.safetensors", originals.hugging_face().state_dict())
        (path / "pytorch_model.bin").touch()
        notices: list[str] = []
        checkpoint = find(str(path), tell=notices.append)
        assert checkpoint.origin == "resnet-18"
        assert checkpoint.labels == Labels(("cat", "dog", "fox"))
        assert checkpoint.preprocessing == Preprocessing(224, 256, interpolation="bicubic")
        assert checkpoint.sources["mean"] == "file"
        assert notices[0] == "resnet-18 is a folder: 'model.safetensors' is taken, 'pytorch_model.bin' left"

        notices.clear()
        alone = find(str(path / "model.safetensors"), tell=notices.append)
        assert alone.preprocessing == Preprocessing(224, 256)
        assert notices[0] == (
            "model.safetensors alone is read; what config.json and preprocessor_config.json beside it say is not: give "
            "the folder for that"
        )

    def test_timm_in_hugging_face_s_cache(self, tmp_path: Path) -> None:
        cache = tmp_path / "models--timm--resnet18.a1_in1k"
        (cache / "snapshots").mkdir(parents=True)
        path = folder(cache / "snapshots" / "0a1b", TIMM | {"label_names": ["n1", "n2", "n3"]})
        (cache / "snapshots" / "older").mkdir()
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text("0a1b")
        saved(path / "pytorch_model.bin", STATE)
        checkpoint = find(str(cache))
        assert checkpoint.preprocessing == Preprocessing(224, 235, interpolation="bicubic")
        assert (checkpoint.mean, checkpoint.std) == ((0.5,) * 3, (0.25,) * 3)
        assert checkpoint.labels.en == ("n1", "n2", "n3")
        assert torch.equal(checkpoint.state["fc.bias"], STATE["fc.bias"])

    def test_names_of_another_number_of_classes(self, tmp_path: Path) -> None:
        path = folder(tmp_path / "r", CONFIG | {"id2label": {"0": "a", "1": "b"}})
        saved(path / "model.safetensors", STATE)
        with pytest.raises(WeightsError, match=r"^r: its 'id2label' can't be used: 2 names, but the checkpoint has 3"):
            find(str(path))

    def test_another_network(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"^vit is a 'vit' of Hugging Face's transformers \(config\.json\), exp"):
            find(str(folder(tmp_path / "vit", {"model_type": "vit"})))

    @pytest.mark.parametrize(
        ("inside", "said"),
        [
            ([], r"is a folder without weights; expected model\.safetensors"),
            (["a.pth", "b.pth"], r"is a folder of several files of weights; name one: 'a\.pth', 'b\.pth'"),
            (["x.index.json", "y.index.json"], "several files of weights; name one"),
        ],
    )
    def test_no_one_file(self, tmp_path: Path, inside: list[str], said: str) -> None:
        for name in inside:
            (tmp_path / name).touch()
        with pytest.raises(FileError, match=said):
            weights(tmp_path, print)

    @pytest.mark.parametrize(
        ("inside", "taken"),
        [
            (["best.pth", "log.txt"], "best.pth"),
            (["a-00001-of-00002.safetensors", "a-00002-of-00002.safetensors", "a.index.json"], "a.index.json"),
            (["model.safetensors.index.json", "model-00001-of-00001.safetensors"], "model.safetensors.index.json"),
            (["model.safetensors", "optimizer.pt", "rng_state.pth", "training_args.bin"], "model.safetensors"),
        ],
    )
    def test_the_file_that_is_taken(self, tmp_path: Path, inside: list[str], taken: str) -> None:
        for name in inside:
            (tmp_path / name).touch()
        assert weights(tmp_path, print).name == taken


class TestTold:
    """What the files say of preprocessing, and what can't be served."""

    @pytest.mark.parametrize(
        ("processor", "expected"),
        [
            (PROCESSOR, (224, 256, False, "bicubic")),
            (PROCESSOR | {"size": {"shortest_edge": 384}}, (384, 384, True, "bicubic")),
            (PROCESSOR | VIT, (224, 224, True, "bilinear")),
            (PROCESSOR | VIT | {"size": 224, "resample": 0}, (224, 224, True, "nearest")),
            (PROCESSOR | BIT, (224, 256, False, "bicubic")),
            (PROCESSOR | BIT | {"size": 256}, (224, 256, False, "bicubic")),
            (PROCESSOR | {"crop_pct": None}, (224, 256, False, "bicubic")),
            (PROCESSOR | BIT | {"crop_size": {"height": 192, "width": 192}}, (192, 256, False, "bicubic")),
            (
                PROCESSOR
                | VIT
                | {"image_processor_type": "DeiTImageProcessor", "crop_size": 192, "do_center_crop": True},
                (192, 224, True, "bilinear"),
            ),
        ],
    )
    def test_sides(self, tmp_path: Path, processor: dict[str, Any], expected: tuple[Any, ...]) -> None:
        found = told(folder(tmp_path, CONFIG, processor))
        assert (*(found[name] for name in ("input_size", "resize", "squash", "interpolation")),) == expected

    def test_without_normalisation(self, tmp_path: Path) -> None:
        found = told(folder(tmp_path, CONFIG, PROCESSOR | {"do_normalize": False}))
        assert (found["mean"], found["std"]) == ([0, 0, 0], [1, 1, 1])

    def test_labels_that_are_none(self, tmp_path: Path) -> None:
        assert told(folder(tmp_path, CONFIG | {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}})) == {}

    def test_timm_s_descriptions_and_its_older_form(self, tmp_path: Path) -> None:
        older = {"architecture": "resnet18", "num_classes": 2, "global_pool": "avg", **TIMM["pretrained_cfg"]}
        older |= {"label_names": ["n1", "n2"], "label_descriptions": {"n1": "cat", "n2": "dog"}}
        assert told(folder(tmp_path, older)) == {
            "input_size": [3, 224, 224],
            "crop_pct": 0.95,
            "crop_mode": "center",
            "interpolation": "bicubic",
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
            "label_names": ["cat", "dog"],
        }

    @pytest.mark.parametrize(
        ("config", "processor", "said"),
        [
            (CONFIG | {"hidden_act": "silu"}, None, "hidden_act 'silu', expected 'relu'"),
            (
                CONFIG | {"problem_type": "multi_label_classification"},
                None,
                "problem_type 'multi_label_classification'",
            ),
            (
                TIMM | {"architecture": "resnetblur18.x"},
                None,
                "says architecture 'resnetblur18.x', expected 'resnet18'",
            ),
            (TIMM | {"model_args": {"act_layer": "silu"}}, None, "says model_args"),
            (TIMM | {"global_pool": "max"}, None, "says global_pool 'max', expected 'avg'"),
            (
                CONFIG,
                {"image_processor_type": "SegformerImageProcessor"},
                "'SegformerImageProcessor', which is not known",
            ),
            (CONFIG, PROCESSOR | {"do_rescale": False}, "with do_rescale False, expected true"),
            (CONFIG, PROCESSOR | {"rescale_factor": 1 / 127.5}, "with rescale_factor 0.00784"),
            (CONFIG, PROCESSOR | {"resample": 9}, "with resample 9, expected one of Pillow's, 0 to 5"),
            (
                CONFIG,
                PROCESSOR | VIT | {"size": {"height": 224, "width": 160}},
                "with size {'height': 224, 'width': 160}",
            ),
            (CONFIG, PROCESSOR | BIT | {"do_center_crop": False}, "keeps each image's shape and crops nothing"),
            (CONFIG, {**VIT}, "without image_mean; say it with --mean"),
            (CONFIG, PROCESSOR | {"image_mean": None}, "without image_mean; say it with --mean"),
            (
                CONFIG,
                PROCESSOR | {"image_processor_type": "MobileNetV2ImageProcessor", "size": 224},
                "keeps each image's shape and crops nothing",
            ),
            (CONFIG, PROCESSOR | {"rescale_factor": 10**400}, f"with rescale_factor 1{'0' * 59}, expected 1/255"),
            (CONFIG, PROCESSOR | {"rescale_factor": float("nan")}, "with rescale_factor nan, expected 1/255"),
            (CONFIG, PROCESSOR | {"crop_pct": 10**400}, f"with crop_pct 1{'0' * 59}, expected a number from"),
            (CONFIG, PROCESSOR | {"crop_pct": 0}, "with crop_pct 0, expected a number from 0.05 to 1"),
            (CONFIG, PROCESSOR | {"crop_pct": "a"}, "with crop_pct 'a', expected a number"),
            (CONFIG, PROCESSOR | {"resample": 3.0}, "with resample 3.0, expected a whole number"),
            (CONFIG, PROCESSOR | {"do_normalize": "no"}, "with do_normalize 'no', expected true or false"),
            (CONFIG | {"id2label": ["a"]}, None, "with id2label ['a'], expected an object"),
            (TIMM | {"model_args": [1]}, None, "has a config.json with model_args [1], expected an object"),
            (TIMM | {"pretrained_cfg": "resnet18"}, None, "with pretrained_cfg 'resnet18', expected an object"),
            (TIMM | {"label_names": "cat"}, None, "with label_names 'cat', expected a list"),
            (TIMM | {"label_names": [["cat"]]}, None, "with ['cat'] among label_names, expected texts"),
            (
                TIMM | {"label_names": ["a"], "label_descriptions": ["b"]},
                None,
                "with label_descriptions ['b'], expected an object",
            ),
        ],
    )
    def test_what_can_not_be_served(
        self, tmp_path: Path, config: dict[str, Any], processor: dict[str, Any] | None, said: str
    ) -> None:
        with pytest.raises(FileError) as raised:
            told(folder(tmp_path, config, processor))
        assert said in str(raised.value)

    def test_a_ref_that_is_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "refs").mkdir()
        (tmp_path / "refs" / "main").write_bytes(b"\xff\xfe\xfa")
        (tmp_path / "snapshots" / "0a1b").mkdir(parents=True)
        assert told(folder(tmp_path, None)) == {}

    def test_what_is_no_json(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("[1]")
        with pytest.raises(FileError, match=r"has a config\.json that is no JSON object"):
            told(tmp_path)
