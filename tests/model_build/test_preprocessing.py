"""What prepares an image: what is told of it, by whom, which goes first, and what can't be meant."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from classifier.preprocessing import Preprocessing
from model_build import metadata
from model_build.network import resnet18
from model_build.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Given, default_resize, line, normalisation, resolve
from model_build.weights import WeightsError, find

if TYPE_CHECKING:
    from pathlib import Path

NONE = Given()


class TestPreprocessing:
    """The geometry that a manifest carries."""

    @pytest.mark.parametrize(
        ("preprocessing", "shape", "expected"),
        [
            (Preprocessing(224, 256), (4000, 3000), (341, 256)),
            (Preprocessing(224, 256), (3000, 4000), (256, 341)),
            (Preprocessing(224, 256), (100, 100), (256, 256)),
            (Preprocessing(224, 224, squash=True), (4000, 3000), (224, 224)),
            (Preprocessing(224, 256, squash=True), (10, 3000), (256, 256)),
        ],
    )
    def test_scaled(self, preprocessing: Preprocessing, shape: tuple[int, int], expected: tuple[int, int]) -> None:
        assert preprocessing.scaled(*shape) == expected

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"size": "224"}, "size is '224', expected int"),
            ({"size": True}, "size is True, expected int"),
            ({"squash": 1}, "squash is 1, expected bool"),
            ({"interpolation": "cubic"}, "interpolation 'cubic' is not one of bilinear, bicubic, nearest, box"),
            ({"resize": 223}, "resize 223 is smaller than the crop of 224 pixels"),
            ({"antialias": False, "interpolation": "bicubic"}, "antialias can be off with bilinear alone, not bicubic"),
        ],
        ids=str,
    )
    def test_what_can_not_be(self, fields: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            Preprocessing(**{"size": 224, "resize": 256} | fields)

    def test_what_is_usual_is_not_told(self) -> None:
        assert Preprocessing(224, 256).told() == {"size": 224, "resize": 256}
        unusual = Preprocessing(224, 224, True, "bilinear", antialias=False)
        assert unusual.told() == {"size": 224, "resize": 224, "squash": True, "antialias": False}
        for one in (unusual, Preprocessing(224, 235, interpolation="bicubic")):
            assert Preprocessing(**one.told()) == one


def prepared(given: Given, stored: Given = NONE) -> Preprocessing:
    found: Preprocessing = resolve(given, stored)["preprocessing"]
    return found


class TestResolve:
    """The command line goes before the file, and that before the default."""

    @pytest.mark.parametrize(("size", "resize"), [(224, 256), (112, 128), (64, 73), (63, 63), (32, 32)])
    def test_default_resize(self, size: int, resize: int) -> None:
        assert default_resize(size) == resize
        assert prepared(Given(size=size)) == Preprocessing(size, resize)

    def test_nobody_tells_anything(self) -> None:
        fields = resolve(NONE, NONE)
        assert fields["preprocessing"] == Preprocessing(224, 256)
        assert (fields["mean"], fields["std"], fields["bgr"]) == (IMAGENET_MEAN, IMAGENET_STD, False)
        assert set(fields["sources"].values()) == {"default"}

    # timm's own: resnet18.a1_in1k has a crop_pct of 0.95, for which it scales to floor(224/0.95).
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (Given(crop=0.95), Preprocessing(224, 235)),
            (Given(crop=0.875), Preprocessing(224, 256)),
            (Given(crop=1.0), Preprocessing(224, 224)),
            (Given(size=288, crop=0.95), Preprocessing(288, 303)),
            (Given(squash=True), Preprocessing(224, 224, squash=True)),
            (Given(squash=True, size=64), Preprocessing(64, 64, squash=True)),
            (Given(squash=True, resize=256), Preprocessing(224, 256, squash=True)),
            (Given(squash=True, crop=0.875), Preprocessing(224, 256, squash=True)),
            (Given(interpolation="bicubic"), Preprocessing(224, 256, interpolation="bicubic")),
            (Given(antialias=False), Preprocessing(224, 256, antialias=False)),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("by", ["option", "file"])
    def test_each(self, by: str, given: Given, expected: Preprocessing) -> None:
        assert prepared(*((given, NONE) if by == "option" else (NONE, given))) == expected

    @pytest.mark.parametrize(
        ("given", "stored", "expected"),
        [
            (Given(resize=240), Given(size=224, resize=235), Preprocessing(224, 240)),
            (Given(crop=0.875), Given(size=224, resize=235), Preprocessing(224, 256)),
            (Given(resize=240), Given(crop=0.95), Preprocessing(224, 240)),
            # A share of another size is the same share; so many pixels are not.
            (Given(size=112), Given(crop=0.95), Preprocessing(112, 117)),
            (Given(size=112), Given(size=224, resize=235), Preprocessing(112, 128)),
            (Given(size=224), Given(size=224, resize=235), Preprocessing(224, 235)),
            # Nor is what is cropped of a squashed image what is cropped of another.
            (Given(squash=True), Given(resize=256), Preprocessing(224, 224, squash=True)),
            (Given(squash=True), Given(crop=0.95), Preprocessing(224, 224, squash=True)),
            (Given(squash=False), Given(squash=True, resize=224), Preprocessing(224, 256)),
            (Given(squash=True), Given(squash=True, resize=256), Preprocessing(224, 256, squash=True)),
            (NONE, Given(squash=True, crop=0.875), Preprocessing(224, 256, squash=True)),
            (Given(interpolation="bilinear"), Given(interpolation="bicubic"), Preprocessing(224, 256)),
            (Given(antialias=True), Given(antialias=False), Preprocessing(224, 256)),
            (NONE, Given(resize=240, crop=0.5), Preprocessing(224, 240)),
        ],
        ids=str,
    )
    def test_which_goes_first(self, given: Given, stored: Given, expected: Preprocessing) -> None:
        assert prepared(given, stored) == expected

    def test_what_the_graph_does(self) -> None:
        stored = Given(size=32, upsample=64, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), bgr=True)
        fields = resolve(NONE, stored)
        assert [fields[name] for name in ("upsample", "mean", "std", "bgr")] == [64, stored.mean, stored.std, True]
        assert resolve(Given(size=48), stored)["upsample"] is None
        assert resolve(Given(bgr=False), stored)["bgr"] is False
        assert resolve(Given(mean=(0.5, 0.5, 0.5)), stored)["mean"] == (0.5, 0.5, 0.5)

    @pytest.mark.parametrize(
        ("given", "stored", "said"),
        [
            (Given(resize=200), NONE, "^--resize 200 is smaller than the crop of 224 pixels$"),
            (NONE, Given(resize=200), "^resize 200 is smaller than the crop of 224 pixels$"),
            (Given(crop=0.1), NONE, "^--crop 0.1 scales to 2240 pixels for a crop of 224; at most 2048 are possible$"),
            (NONE, Given(crop=0.1), "^crop_pct 0.1 scales to 2240 pixels"),
            (NONE, Given(crop=1e-320), "^crop_pct 1e-320 scales to inf pixels"),
            (Given(crop=1e-320), NONE, "^--crop 1e-320 scales to inf pixels"),
            (
                Given(antialias=False, interpolation="lanczos"),
                NONE,
                "^--no-antialias goes with bilinear alone, not with lanczos; --antialias is possible$",
            ),
            (
                Given(interpolation="lanczos"),
                Given(antialias=False),
                "^antialias false goes with bilinear alone, not with lanczos; --antialias is possible$",
            ),
        ],
        ids=str,
    )
    def test_what_can_not_be_meant(self, given: Given, stored: Given, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            resolve(given, stored)


class TestNormalisation:
    """``mean`` and ``std`` as pipelines write them: of pixels of 0 to 1, or of 0 to 255."""

    @pytest.mark.parametrize(
        ("mean", "std"),
        [(IMAGENET_MEAN, IMAGENET_STD), ((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1.0,) * 3), (None, (0.5,) * 3)],
        ids=str,
    )
    def test_of_0_to_1(self, mean: Any, std: Any) -> None:
        assert normalisation(mean, std) == (mean, std)

    @pytest.mark.parametrize(
        ("mean", "std", "expected"),
        [
            # mmcv's and Detectron's way to write ImageNet's; Caffe's; Keras's "tf" mode; nothing but a division.
            ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), (IMAGENET_MEAN, IMAGENET_STD)),
            ((123.68, 116.779, 103.939), (1, 1, 1), ((0.485020, 0.457957, 0.407604), (1 / 255,) * 3)),
            ((127.5,) * 3, (127.5,) * 3, ((0.5,) * 3, (0.5,) * 3)),
            ((0, 0, 0), (255, 255, 255), ((0, 0, 0), (1, 1, 1))),
        ],
        ids=str,
    )
    def test_of_0_to_255(self, mean: Any, std: Any, expected: Any) -> None:
        for ours, right in zip(normalisation(mean, std), expected, strict=True):
            assert ours == pytest.approx(right, abs=1e-6)

    @pytest.mark.parametrize(
        ("mean", "std", "said"),
        [
            ((0.5,) * 3, (0, 1, 1), "std 0,1,1 must be at least 0.001"),
            ((-0.5, 0, 0), None, "mean -0.5,0,0 must be from 0 to 1"),
            ((256, 0, 0), (1, 1, 1), "mean 256,0,0 must be from 0 to 1, or to 255 where std is, too"),
            ((0, 0, 0), (256, 1, 1), "std 256,1,1 must be at most 1, or 255"),
            ((123.675, 116.28, 103.53), None, "mean 123.675,116.28,103.53 is for pixels of 0 to 255: give std, 1,1,1"),
            (None, (58.395, 57.12, 57.375), "std 58.395,57.12,57.375 is for pixels of 0 to 255: give mean, 0,0,0"),
            ((123.675, 116.28, 103.53), IMAGENET_STD, "must both be for pixels of 0 to 1, or both for pixels of 0 to"),
            (IMAGENET_MEAN, (58.395, 57.12, 57.375), "must both be for pixels of 0 to 1, or both for pixels of 0 to"),
            ((0.485, 4.56, 0.406), IMAGENET_STD, "must both be for pixels of 0 to 1, or both for pixels of 0 to 255"),
        ],
        ids=str,
    )
    def test_what_can_not_be_meant(self, mean: Any, std: Any, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            normalisation(mean, std)


class TestMetadata:
    """What a file tells."""

    @pytest.mark.parametrize(
        ("told", "expected"),
        [
            ({}, NONE),
            ({"input_size": "48", "resize": "50", "upsample": "96"}, Given(size=48, resize=50, upsample=96)),
            ({"input_size": "[3, 224, 224]"}, Given(size=224)),
            ({"input_size": "(3, 224, 224)"}, Given(size=224)),
            ({"input_size": [3, 224, 224]}, Given(size=224)),
            ({"crop_pct": "0.95", "crop_mode": "center"}, Given(crop=0.95, squash=False)),
            ({"crop_mode": "squash"}, Given(squash=True)),
            ({"squash": "true", "antialias": "False", "bgr": True}, Given(squash=True, antialias=False, bgr=True)),
            ({"interpolation": "bicubic"}, Given(interpolation="bicubic")),
            (
                {"mean": "[0.5, 0.5, 0.5]", "std": [0.5, 0.5, 0.5]},
                Given(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
            ),
            ({"mean": "127.5,127.5,127.5", "std": "255,255,255"}, Given(mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0))),
            ({"format": "pt", "recipe": "{", "labels": "["}, NONE),
        ],
        ids=str,
    )
    def test_read(self, told: dict[str, Any], expected: Given) -> None:
        assert metadata.read(told) == expected

    def test_timms_own(self) -> None:
        """The pretrained_cfg of timm's resnet18.a1_in1k, as its config.json has it."""
        config = {
            "tag": "a1_in1k",
            "input_size": [3, 224, 224],
            "test_input_size": [3, 288, 288],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 0.95,
            "test_crop_pct": 1.0,
            "crop_mode": "center",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "num_classes": 1000,
            "pool_size": [7, 7],
            "classifier": "fc",
        }
        for told in (config, json.dumps(config)):
            given = metadata.read({"pretrained_cfg": told})
            assert prepared(NONE, given) == Preprocessing(224, 235, interpolation="bicubic")
        # What the file tells by itself goes before.
        assert metadata.read({"pretrained_cfg": config, "crop_pct": "0.9"}).crop == 0.9

    @pytest.mark.parametrize(
        ("told", "said"),
        [
            ({"input_size": "7"}, "input_size '7' must be a whole number of pixels from 8 to 1024"),
            ({"input_size": "[2, 28, 28]"}, "input_size '[2, 28, 28]' must be a whole number"),
            ({"input_size": "[3, 224, 160]"}, "input_size '[3, 224, 160]' must be"),
            ({"input_size": "224.5"}, "input_size '224.5' must be"),
            ({"input_size": "nan"}, "input_size 'nan' must be"),
            ({"resize": "4096"}, "resize '4096' must be a whole number of pixels from 8 to 2048"),
            ({"upsample": "4096"}, "upsample '4096' must be"),
            ({"crop_pct": "95"}, "crop_pct '95' must be more than 0 and at most 1"),
            ({"crop_pct": "x"}, "crop_pct 'x' must be"),
            ({"crop_mode": "border"}, "crop_mode 'border' must be one of center, squash"),
            ({"squash": "maybe"}, "squash 'maybe' must be true or false"),
            ({"bgr": "1"}, "bgr '1' must be true or false"),
            ({"interpolation": "random"}, "interpolation 'random' must be one of bilinear, bicubic, nearest"),
            ({"mean": "0.5,0.5"}, "mean '0.5,0.5' must be three finite numbers, of R, G, B, or one of grey"),
            ({"mean": "nan,0,0"}, "mean 'nan,0,0' must be three finite numbers"),
            ({"std": "a,b,c"}, "std 'a,b,c' must be three finite numbers"),
            ({"pretrained_cfg": "[1]"}, "pretrained_cfg must be a JSON object"),
            ({"pretrained_cfg": "{"}, "pretrained_cfg must be a JSON object"),
        ],
        ids=str,
    )
    def test_what_can_not_be_used(self, told: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match="must be") as raised:
            metadata.read(told)
        assert said in str(raised.value)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(resnet18(3).state_dict())


class TestCheckpoint:
    """Files whose metadata tell their preprocessing."""

    def test_a_file_tells_it_all(self, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
        told = {"input_size": "64", "crop_pct": "0.9", "interpolation": "bicubic", "mean": "0.5,0.5,0.5", "bgr": "true"}
        save_file(state, tmp_path / "w.safetensors", told)
        checkpoint = find(str(tmp_path / "w.safetensors"), given=Given(std=(0.5, 0.5, 0.5)))
        assert checkpoint.preprocessing == Preprocessing(64, 71, interpolation="bicubic")
        assert line(checkpoint) == (
            "preprocessing: size 64 (file), resize 71 (file), squash no (default), crop centre 64x64, "
            "interpolation bicubic (file), antialias yes (default), mean 0.5,0.5,0.5 (file), std 0.5,0.5,0.5 (--std), "
            "channels BGR (file)"
        )

    def test_a_line_of_options(self) -> None:
        checkpoint = find("demo", given=Given(size=64, squash=True, antialias=False, bgr=False))
        assert line(checkpoint) == (
            "preprocessing: size 64 (--size), resize 64 (--squash), squash yes (--squash), crop none, "
            "interpolation bilinear (default), antialias no (--no-antialias), mean 0.485,0.456,0.406 (file), "
            "std 0.229,0.224,0.225 (file), channels RGB (--rgb)"
        )

    def test_an_error_names_the_file(self, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
        save_file(state, tmp_path / "w.safetensors", {"crop_mode": "border"})
        with pytest.raises(WeightsError, match=r"^w\.safetensors: its metadata can't be used: crop_mode 'border' must"):
            find(str(tmp_path / "w.safetensors"))
        save_file(state, tmp_path / "v.safetensors", {"resize": "200"})
        with pytest.raises(WeightsError, match=r"^v\.safetensors: resize 200 is smaller than the crop of 224 pixels"):
            find(str(tmp_path / "v.safetensors"))

    def test_bgr_weights_become_rgb_weights(self) -> None:
        plain, turned = find("demo"), find("demo", given=Given(bgr=True))
        assert torch.equal(turned.state["conv1.weight"], plain.state["conv1.weight"][:, [2, 1, 0]])
        assert turned.digest != plain.digest
        for name, value in plain.state.items():
            assert name == "conv1.weight" or torch.equal(turned.state[name], value)
        assert {name for name, value in asdict(turned).items() if name != "state" and value != asdict(plain)[name]} == {
            "bgr",
            "digest",
            "sources",
        }
