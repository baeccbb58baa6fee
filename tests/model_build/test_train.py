"""Training: that it learns, goes on where it stopped, keeps what it should, and says what is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from classifier import pixels
from classifier.preprocessing import Preprocessing
from model_build import folders, training, weights
from model_build.structure import Structure
from model_build.train import train
from model_build.training import Training
from model_build.weights import WeightsError, find
from tests.model_build import originals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

pytestmark = pytest.mark.slow

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}
SCRATCH = ("--init", "none", "--size", "16", "--batch-size", "8")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(root: Path, seed: int) -> Path:
    """Coloured discs on noise, 20x16 px, 14 of each of three colours."""
    random = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(14):
            image = Image.fromarray(random.integers(0, 255, (16, 20, 3), dtype=np.uint8))
            ImageDraw.Draw(image).ellipse([4, 2, 16, 14], fill=colour)
            image.save(root / name / f"{number:02}.png")
    return root


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("data") / "shapes", seed=0)


@pytest.fixture(scope="session")
def archive(shapes: Path) -> Path:
    return Path(shutil.make_archive(str(shapes), "zip", shapes))


def outcome(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(train, [str(argument) for argument in (*arguments, "--threads", 1)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())


def run(*arguments: object) -> str:
    code, output = outcome(*arguments)
    assert code == 0, output
    return output


def fails(*arguments: object) -> str:
    code, output = outcome(*arguments)
    assert code != 0
    return output.split("Error: ")[1]


def same(one: Path, other: Path) -> bool:
    ours, theirs = load_file(one), load_file(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_learns_and_the_build_takes_the_file(shapes: Path, tmp_path: Path) -> None:
    out, unseen = tmp_path / "shapes.safetensors", draw(tmp_path / "unseen", seed=1)
    command = (*SCRATCH, "--batch-size", 4, "--epochs", 6, "--resize", 18, "--validation", unseen)
    output = run(shapes, *command, "--out", out)
    checkpoint = find(str(out))
    assert checkpoint.labels.en == ("blue", "green", "red")
    assert checkpoint.labels.zh is None
    assert (checkpoint.preprocessing, checkpoint.upsample, checkpoint.classes) == (Preprocessing(16, 18), None, 3)
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert float(metadata["accuracy"].split()[0]) >= 0.9
    assert metadata["accuracy"].endswith("top-1 on 42 validation images")
    assert metadata["mean"] == "0.485,0.456,0.406"
    assert metadata["recipe"].startswith("whole network trained from scratch on 42 images: 6 epochs")
    assert "epoch 6 of 6: loss" in output
    assert f"to serve it: make serve WEIGHTS={out}" in output
    page = (tmp_path / "shapes.mistakes.html").read_text(encoding="utf-8")
    assert "of 42 images are classified right: " in page
    assert f"{100 * float(metadata['accuracy'].split()[0]):.1f}" in page
    assert sorted(tmp_path.iterdir()) == [page_of(out), out, unseen]


def page_of(out: Path) -> Path:
    return out.with_suffix(".mistakes.html")


def test_it_prepares_images_as_what_it_starts_from_and_says_so(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init, out = tmp_path / "init.safetensors", tmp_path / "out.safetensors"
    told = {"input_size": "16", "resize": "18", "squash": "true", "interpolation": "bicubic"}
    demo = find("demo")
    save_file(demo.state, init, told | {"mean": "0.5,0.5,0.5", "std": "0.25,0.25,0.25", "bgr": "true"})
    seen = set()

    def watch(data: bytes, preprocessing: Preprocessing, max_pixels: int) -> NDArray[np.uint8]:
        seen.add(preprocessing)
        return pixels.decode(data, preprocessing, max_pixels)

    monkeypatch.setattr(folders, "decode", watch)
    run(shapes, "--init", init, "--frozen", "--epochs", 1, "--out", out)
    # All of the scaled image; training and validation crop it themselves.
    assert seen == {Preprocessing(18, 18, squash=True, interpolation="bicubic")}
    trained = find(str(out))
    assert trained.preprocessing == Preprocessing(16, 18, squash=True, interpolation="bicubic")
    assert (trained.mean, trained.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    # Its weights are of R, G, B, as the pixels it has seen.
    assert not trained.bgr
    assert torch.allclose(trained.state["conv1.weight"], demo.state["conv1.weight"].flip(1), atol=1e-3)
    with safe_open(out, "pt") as file:
        assert set(told) <= set(file.metadata())


def test_what_no_shape_tells_can_be_told(shapes: Path, tmp_path: Path) -> None:
    network = originals.cifar(3)
    network.fc = nn.Sequential(nn.Linear(512, 8), nn.Tanh(), nn.Linear(8, 3))
    init, out = tmp_path / "init.safetensors", tmp_path / "out.safetensors"
    save_file(network.state_dict(), init, {"labels": json.dumps(["blue", "green", "red"])})
    told = ("--max-pool", "--stem-stride", 2, "--head-activation", "tanh")
    output = run(shapes, "--init", init, *told, "--size", 16, "--frozen", "--epochs", 1, "--out", out)
    assert not re.search("(stride|max-pool|relu).*assumed", output)
    # The size was told too.
    assert "pixels are assumed" not in output
    structure = find(str(out)).structure
    assert (structure.pool, structure.stride, structure.activation) == (True, 2, "tanh")
    save_file(network.state_dict(), init, {"labels": json.dumps(["a", "b", "c"])})
    refused = fails(shapes, "--init", init, *told, "--size", 16, "--out", out)
    assert "--head-activation tanh tells of a head that is not kept: the classes in DIR are not those of" in refused
    assert "--init none is none" in fails(shapes, "--init", "none", "--max-pool", "--out", out)
    assert "--init auto is none" in fails(shapes, "--head-activation", "tanh", "--out", out)


@pytest.mark.parametrize("names", [("blue", "green", "red"), ("a", "b", "c")])
def test_a_network_of_another_structure_stays_what_it_is(
    shapes: Path, tmp_path: Path, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its stem and what no shape tells of it; and its head, if the classes are the same."""
    network = originals.cifar(3, channels=1)
    network.fc = nn.Sequential(nn.Linear(512, 8), nn.Tanh(), nn.Linear(8, 3))
    told = {"input_size": "16", "mean": "0.4", "std": "0.3", "max_pool": "true", "stem_stride": "1"}
    told |= {"head_activation": "tanh", "labels": json.dumps(names)}
    init, out = tmp_path / "init.safetensors", tmp_path / "out.safetensors"
    save_file(network.state_dict(), init, told)
    run(shapes, "--init", init, "--frozen", "--epochs", 1, "--out", out)
    capsys.readouterr()
    trained = find(str(out))
    assert "assumed" not in capsys.readouterr().out
    head: tuple[tuple[str, int], ...] = (("linear", 8), ("activation", 0))
    same = names[0] == "blue"
    stem = Structure(channels=1, kernel=3, stride=1, pool=True)
    assert trained.structure == (replace(stem, head=head, activation="tanh") if same else stem)
    assert trained.mean == (0.4, 0.4, 0.4)
    before = find(str(init)).state
    changed = {
        key for key, value in trained.state.items() if not torch.allclose(value, before.get(key, value), atol=1e-3)
    }
    assert all(key.startswith("fc.") for key in changed)


def stopped_before_it_writes(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Train for all epochs, and leave the file to go on from alone."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Training, "write", stop)
        assert outcome(*arguments)[0] == 1


def test_an_unfinished_run_is_not_gone_on_with_on_other_pixels(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init, out = tmp_path / "init.safetensors", tmp_path / "out.safetensors"

    def told(**metadata: str) -> tuple[object, ...]:
        save_file(find("demo").state, init, {"input_size": "16"} | metadata)
        return (shapes, "--init", init, "--frozen", "--epochs", 2, "--out", out)

    stopped_before_it_writes(monkeypatch, *told(squash="true"))
    assert "an unfinished run with --init with squash True, but this one has --init with squash None" in fails(*told())
    assert "going on after epoch 2" in run(*told(squash="true"))


def test_an_unfinished_run_tells_the_structure_that_differs(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init, out = tmp_path / "init.safetensors", tmp_path / "out.safetensors"
    save_file(originals.cifar(3).state_dict(), init)
    command = (shapes, "--init", init, "--size", 16, "--epochs", 1, "--out", out)

    stopped_before_it_writes(monkeypatch, *command)
    refused = fails(*command, "--max-pool")
    assert re.search(r"--init of the structure \{.*\"max_pool\": false\}, but this one has --init of .* 1\}", refused)
    kept = Path(f"{out}.unfinished")
    state = torch.load(kept, weights_only=True)
    del state["fingerprint"]["--init of the structure"]  # as versions before it
    torch.save(state, kept)
    assert "going on after epoch 1" in run(*command)


def test_an_interrupted_run_goes_on_to_the_same_weights(
    shapes: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    command = (*SCRATCH, "--epochs", 3, "--upsample", 32, "--out")
    run(shapes, *command, whole)

    epoch = Training.epoch

    def stop_in_the_third(self: Training, *arguments: object) -> float:
        if len(self.history) == 2:
            raise KeyboardInterrupt
        return epoch(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Training, "epoch", stop_in_the_third)
        code, output = outcome(shapes, *command, parts)
    assert code == 1
    assert f"2 epochs are kept in '{parts}.unfinished'; the same command goes on" in output
    assert not parts.exists()

    for arguments, difference in (
        (("--lr", 0.5), "--lr 0.00625, but this one has --lr 0.5"),
        (("--seed", 1), "--seed 0, but this one has --seed 1"),
        (("--epochs", 4), "--epochs 3, but this one has --epochs 4"),
        (("--no-flip",), "--flip True, but this one has --flip False"),
        (("--size", 20), "--size 16, but this one has --size 20"),
    ):
        assert f"holds an unfinished run with {difference}" in fails(shapes, *command, parts, *arguments)
    # From a zip of the same images, as only what is in them counts.
    output = run(archive, *command, parts)
    assert "going on after epoch 2 of 3" in output
    assert "epoch 1 of 3" not in output
    assert same(whole, parts)
    assert sorted(tmp_path.iterdir()) == [page_of(parts), parts, page_of(whole), whole]


def test_a_damaged_state_is_told_and_can_be_left_behind(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    kept = tmp_path / "a.safetensors.unfinished"
    kept.write_bytes(b"damaged")
    command = (shapes, *SCRATCH, "--epochs", 1, "--out", out)
    assert f"'{kept}' can't be read (UnpicklingError); start over with --no-resume" in fails(*command)
    run(*command, "--no-resume")
    assert sorted(tmp_path.iterdir()) == [page_of(out), out]


def test_a_zip_equals_the_directory(shapes: Path, archive: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "directory.safetensors", tmp_path / "zip.safetensors"]
    for source, out in zip((shapes, archive), outs, strict=True):
        run(source, *SCRATCH, "--epochs", 1, "--out", out)
    assert same(*outs)


def test_frozen_trains_the_head_alone(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "head.safetensors"
    run(shapes, "--init", "demo", "--frozen", "--epochs", 6, "--batch-size", 8, "--out", out)
    demo, tuned = find("demo"), find(str(out))
    body = [name for name in demo.state if not name.startswith("fc.")]
    assert all(torch.equal(demo.state[name], tuned.state[name]) for name in body)
    assert tuned.state["fc.weight"].shape == (3, 512)
    assert (tuned.preprocessing, tuned.upsample) == (Preprocessing(32, 32), 64)
    with safe_open(out, "pt") as file:
        assert float(file.metadata()["accuracy"].split()[0]) > 0.6


def test_a_checkpoint_of_other_classes_gives_all_but_its_head(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned.safetensors"
    run(shapes, "--init", weights.DEMO_FILE, "--size", 24, "--epochs", 1, "--lr", 1e-9, "--out", out)
    demo, tuned = find("demo"), find(str(out))
    assert (tuned.preprocessing, tuned.upsample) == (Preprocessing(24, 24), None)
    assert torch.allclose(tuned.state["layer4.1.conv2.weight"], demo.state["layer4.1.conv2.weight"], atol=1e-4)
    assert not torch.equal(tuned.state["bn1.running_mean"], demo.state["bn1.running_mean"])
    assert tuned.state["fc.bias"].shape == (3,)


def test_a_checkpoint_of_the_same_classes_gives_its_head_and_labels_too(tmp_path: Path) -> None:
    for number, name in enumerate(CIFAR):
        (tmp_path / "cifar" / name).mkdir(parents=True)
        for copy in range(2):
            Image.new("RGB", (32, 32), (20 * number, 100, 50 * copy)).save(tmp_path / "cifar" / name / f"{copy}.png")
    out = tmp_path / "cifar.safetensors"
    run(tmp_path / "cifar", "--init", "demo", "--frozen", "--epochs", 1, "--lr", 1e-9, "--out", out)
    demo, tuned = find("demo"), find(str(out))
    assert torch.allclose(tuned.state["fc.weight"], demo.state["fc.weight"], atol=1e-6)
    assert tuned.labels == demo.labels


def test_labels_in_both_languages_are_carried(shapes: Path, tmp_path: Path) -> None:
    names, out = tmp_path / "names.json", tmp_path / "named.safetensors"
    names.write_text(json.dumps({"en": ["Blue", "Green", "Red"], "zh": ["蓝", "绿", "红"]}), encoding="utf-8")
    run(shapes, *SCRATCH, "--epochs", 1, "--labels", names, "--validation", 0, "--out", out)
    labels = find(str(out)).labels
    assert (labels.en, labels.zh) == (("Blue", "Green", "Red"), ("蓝", "绿", "红"))
    with safe_open(out, "pt") as file:
        assert "accuracy" not in file.metadata()
    names.write_text('["one", "two"]')
    message = fails(shapes, *SCRATCH, "--labels", names)
    assert message == f"--labels '{names}' holds 2 names, but DIR has 3 class folders: blue, green, red"


def test_label_files_of_any_form_but_in_the_folders_order(shapes: Path, tmp_path: Path) -> None:
    names, out = tmp_path / "names.csv", tmp_path / "named.safetensors"
    names.write_text("index,en,zh\n2,Crimson,红\n0,Azure,蓝\n1,Green,绿", encoding="utf-8")
    command = (shapes, *SCRATCH, "--epochs", 1, "--validation", 0, "--labels", names, "--out", out)
    told = "names.csv: 3 names, from column 'en' (Chinese: 'zh'), by the index column 'index'"
    assert told in run(*command)
    labels = find(str(out)).labels
    assert (labels.en, labels.zh) == (("Azure", "Green", "Crimson"), ("蓝", "绿", "红"))
    names.write_text("name\nRed\nGreen\nBlue")
    message = f"labels file '{names}': holds the names in another order: 'blue' is class 0, but stands in the place of"
    assert fails(*command).startswith(message)


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders train, val and test, each with the same classes and images of its own."""
    root = tmp_path_factory.mktemp("parted") / "shapes"
    for seed, part in enumerate(("train", "val", "test")):
        draw(root / part, seed)
    return root


def test_train_and_val_are_parts_and_no_classes(parted: Path, tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("parts.safetensors", "zip.safetensors", "whole.safetensors")]
    sources = (parted, Path(shutil.make_archive(str(tmp_path / "parted"), "zip", parted)))
    for source, out in zip(sources, outs, strict=False):
        output = run(source, *SCRATCH, "--epochs", 1, "--out", out)
        assert f"training on '{source}/train', measuring on '{source}/val'; '{source}/test' is left out" in output
        assert "Validation on 42 images" in output
        assert find(str(out)).labels.en == ("blue", "green", "red")
    run(parted / "train", *SCRATCH, "--epochs", 1, "--validation", parted / "val", "--out", outs[2])
    assert same(outs[0], outs[1])
    assert same(outs[0], outs[2])


@pytest.mark.parametrize(
    ("given", "told", "images"),
    [
        ("0.3", "measuring on 30% of it; '{0}/test' and '{0}/val' are left out", 12),
        ("0", "measuring on nothing; '{0}/test' and '{0}/val' are left out", 0),
        ("{0}/test", "measuring on '{0}/test'; '{0}/val' is left out", 42),
    ],
)
def test_what_the_user_chooses_to_measure_on_goes_before_the_folders(
    parted: Path, tmp_path: Path, given: str, told: str, images: int
) -> None:
    command = (parted, *SCRATCH, "--epochs", 1, "--out", tmp_path / "a.safetensors")
    output = run(*command, "--validation", given.format(parted))
    assert told.format(parted) in output
    assert f"Validation on {images} images" in output


def test_a_set_in_parts_to_measure_on(shapes: Path, parted: Path, tmp_path: Path) -> None:
    """Its validation part is meant, not two classes of the names of its parts."""
    out = tmp_path / "a.safetensors"
    output = run(shapes, *SCRATCH, "--epochs", 1, "--out", out, "--validation", parted)
    assert "Validation on 42 images" in output


def test_a_test_folder_without_classes_is_left_out(parted: Path, tmp_path: Path) -> None:
    root = tmp_path / "contest"
    shutil.copytree(parted / "train", root / "train")
    shutil.copytree(parted / "test" / "red", root / "test")
    output = run(root, *SCRATCH, "--epochs", 1, "--out", tmp_path / "a.safetensors")
    assert f"training on '{root}/train', measuring on 10% of it; '{root}/test' is left out" in output
    shutil.rmtree(root / "test")
    shutil.copytree(parted / "test", root / "TEST")
    output = run(root, *SCRATCH, "--epochs", 1, "--out", tmp_path / "a.safetensors")
    assert f"training on '{root}/train', measuring on '{root}/TEST'" in output


def test_parts_that_do_not_fit_each_other(parted: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(parted, tmp_path / "set"))
    shutil.rmtree(root / "test")
    (root / "val" / "red").rename(root / "val" / "rouge")
    message = (
        f"the class folders of '{root}/train' and '{root}/val' differ: only the former has 'red', only the latter "
    )
    assert fails(root, *SCRATCH) == f"{message}has 'rouge'"
    for name in ("green", "rouge"):
        shutil.rmtree(root / "val" / name)
    assert fails(root, *SCRATCH).endswith("differ: only the former has 'green', 'red'")
    shutil.rmtree(root / "val")
    shutil.copytree(parted / "val" / "red", root / "val")
    assert fails(root, *SCRATCH).startswith(f"'{root}/val' holds no class folders; expected two or more")
    (root / "train").rename(root / "test")
    assert fails(root, *SCRATCH) == f"'{root}' holds '{root}/test' and '{root}/val', but no folder 'train'"
    (root / "test").rename(root / "fold1")
    shutil.rmtree(root / "val")
    shutil.copytree(parted / "val", root / "fold2")
    assert "the folders 'fold1', 'fold2' hold folders of equal names" in fails(root, *SCRATCH)


def test_images_that_are_in_both_parts_are_not_measured_on(parted: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(parted, tmp_path / "set"))
    shutil.copy(root / "train" / "red" / "00.png", root / "val" / "red" / "copy.png")
    output = run(root, *SCRATCH, "--epochs", 1, "--out", tmp_path / "a.safetensors")
    assert "1 of the 43 images to measure on are among those to train on, and are left out" in output
    assert "Validation on 42 images" in output


def test_what_is_no_image_is_counted_and_what_has_no_suffix_is_learned(shapes: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(shapes, tmp_path / "phone"))
    for number, path in enumerate(sorted((root / "red").iterdir())):
        path.rename(path.with_name(f"IMG_{number}"))
    (root / "blue" / "IMG_1.MOV").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0")
    (root / "blue" / "notes.txt").write_text("taken in spring")
    (root / "@eaDir").mkdir()
    output = run(root, *SCRATCH, "--epochs", 1, "--validation", 0, "--out", tmp_path / "a.safetensors")
    assert f"{root}: skipped what is no image: 1 text, 1 video" in output
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert "on 42 images" in file.metadata()["recipe"]


def test_unreadable_images_are_skipped_and_named_unless_none_is_left(shapes: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(shapes, tmp_path / "broken"))
    (broken / "red" / "03.png").write_bytes(b"no image")
    out = tmp_path / "broken.safetensors"
    output = run(broken, *SCRATCH, "--epochs", 1, "--out", out)
    assert f"{broken}: 1 unreadable, skipped: 'red/03.png': the 8 bytes are no image" in output
    for path in (broken / "red").iterdir():
        path.write_bytes(b"")
    message = fails(broken, *SCRATCH, "--out", out)
    assert message == f"'{broken}': no image of the class folder 'red' can be read"


def test_auto_starts_from_scratch_without_imagenet(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str, key: str | None, architecture: str | None, **_: object) -> None:
        assert (name, key, architecture) == ("imagenet", None, None)
        raise WeightsError("ImageNet's weights can't be downloaded")

    monkeypatch.setattr(weights, "find", absent)
    out = tmp_path / "auto.safetensors"
    command = (shapes, *SCRATCH[2:], "--epochs", 1, "--out", out)
    assert "can't be downloaded Training starts from scratch instead" in run(*command)
    assert "--frozen needs weights to start from, and --init auto gave none" in fails(*command, "--frozen")
    assert fails(*command, "--init", "imagenet") == "ImageNet's weights can't be downloaded"


def test_key_is_handed_on(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, key: str | None, **_: object) -> None:
        raise WeightsError(f"found {Path(name).name} {key}")

    monkeypatch.setattr(weights, "find", find)
    assert fails(shapes, "--init", __file__, "--key", "ema") == "found test_train.py ema"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "7"), "Invalid value for '--size': 7 is not in the range 8<=x<=1024."),
        (("--resize", "15"), "--resize 15 is smaller than the network's input of 16 pixels (--size)"),
        (("--upsample", "12"), "--upsample 12 is smaller than the network's input of 16 pixels (--size)"),
        (("--epochs", "0"), "Invalid value for '--epochs': 0 is not in the range x>=1."),
        (("--lr", "nan"), "the loss became nan at --lr nan; try a smaller one"),
        (("--validation", "1"), "--validation '1' is no share from 0 to below 1, no directory and no .zip"),
        (("--validation", "nowhere"), "--validation 'nowhere' is no share from 0 to below 1, no directory and no .zip"),
        (("--init", "imagnet"), "--init 'imagnet' is not a file, nor one of auto, imagenet, demo, none"),
        (("--init", __file__), "test_train.py is a text that begins with"),
        (("--key", "ema"), "--key 'ema' chooses in a file of weights; --init none is none"),
        (("--frozen",), "--frozen needs weights to start from, and --init none gave none"),
        (("--out", "a.pth"), "--out 'a.pth' must end in .safetensors"),
        (("--out", "no/where.safetensors"), "--out 'no/where.safetensors' can't be written: it must be a file in"),
        (("--labels", "absent.json"), "labels file 'absent.json': can't be read: No such file"),
        (("--device", "tpu"), "Invalid value for '--device': 'tpu' is not one of 'auto', 'cpu', 'cuda'."),
    ],
)
def test_errors_quote_the_value_and_say_what_is_allowed(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fails(shapes, *SCRATCH, *arguments).startswith(message)
    assert not list(tmp_path.iterdir())


def test_images_that_are_trained_on_do_not_validate(shapes: Path, archive: Path, tmp_path: Path) -> None:
    for same in (shapes, archive):
        told = fails(shapes, *SCRATCH, "--epochs", 1, "--out", tmp_path / "a.safetensors", "--validation", same)
        assert told == "42 of the 42 images to measure on are among those to train on; give others with --validation"


def test_a_class_whose_name_is_no_text(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"tea"):
        folder = Path(os.fsdecode(os.fsencode(tmp_path / "drinks") + b"/" + name))
        folder.mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(folder / "1.png")
    assert "is not UTF-8; rename it" in fails(tmp_path / "drinks", *SCRATCH, "--epochs", 1)


def test_a_full_disk_is_told(shapes: Path, tmpfs: Callable[[str], Path]) -> None:
    disk = tmpfs("1m")
    told = fails(shapes, *SCRATCH, "--epochs", 1, "--out", disk / "a.safetensors")
    assert "a.safetensors.unfinished' can't be written: " in told
    assert list(disk.iterdir()) == []


def test_two_trainings_into_one_file(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, told = tmp_path / "a.safetensors", []
    epoch = training.Training.epoch

    def meanwhile(self: Training, tick: Callable[[float, float, float], None]) -> float:
        told.append(fails(shapes, *SCRATCH, "--epochs", 1, "--out", out))
        return epoch(self, tick)

    monkeypatch.setattr(training.Training, "epoch", meanwhile)
    run(shapes, *SCRATCH, "--epochs", 1, "--out", out)
    assert told == [f"--out {str(out)!r} is what another training writes just now"]
    assert sorted(tmp_path.iterdir()) == [page_of(out), out]


def test_a_batch_that_does_not_fit_is_told(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(training.Training, "epoch", no_memory)
    told = fails(shapes, *SCRATCH, "--epochs", 1, "--out", tmp_path / "a.safetensors")
    assert re.match(r"--batch-size \d+ does not fit the memory of cpu; try a smaller", told)


def test_cuda_where_there_is_none(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert fails(shapes, *SCRATCH, "--device", "cuda").startswith("--device 'cuda': no CUDA device is usable here")


def test_sets_that_can_not_be_trained_on(shapes: Path, tmp_path: Path) -> None:
    flat = shapes / "red"
    one = tmp_path / "one"
    shutil.copytree(shapes / "red", one / "red")
    other = tmp_path / "other"
    for name, colour in (("red", "red"), ("green", "green"), ("azure", "blue")):
        shutil.copytree(shapes / colour, other / name)
    end = "; expected two or more, each with its images"
    assert fails(flat, *SCRATCH) == f"'{flat}' holds no class folders{end}"
    assert fails(one, *SCRATCH) == f"'{one}' holds only the class folder 'red'{end}"
    assert fails(tmp_path / "absent", *SCRATCH).startswith(f"'{tmp_path / 'absent'}' does not exist;")
    message = f"the class folders of '{shapes}' and '{other}' differ: only the former has 'blue', only the latter has "
    message += "'azure'"
    assert fails(shapes, *SCRATCH, "--validation", other) == message


def test_another_architecture_learns_from_a_teacher(shapes: Path, tmp_path: Path) -> None:
    """Dropout's draws are the recipe's too: the same command gives the same file, also after a crash."""
    out, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    taught = tmp_path / "teacher.pth"
    state = find("demo").state
    torch.save(
        {
            "model": {k: v[:3] if k.startswith("fc.") else v for k, v in state.items()},
            "classes": ["red", "blue", "green"],
            "input_size": 16,
        },
        taught,
    )
    command = ("--arch", "mobilenet_v2", "--init", "none", "--batch-size", 8, "--epochs", 1, "--teacher", taught)
    run(shapes, *command, "--out", out)
    checkpoint = find(str(out))
    assert (checkpoint.architecture, checkpoint.preprocessing.size) == ("mobilenet_v2", 16), "the teacher's side"
    with safe_open(out, "pt") as file:
        recipe = file.metadata()["recipe"]
    assert recipe.startswith("whole network (MobileNetV2) trained from scratch on 39 images: ")
    assert ", distilled from teacher.pth " in recipe
    assert recipe.endswith(" at temperature 4, alpha 0.9")
    run(shapes, *command, "--out", other)
    assert same(out, other)
    run(shapes, *command, "--alpha", 0.5, "--out", other)
    assert not same(out, other)
    tuned = run(shapes, "--init", out, "--epochs", 1, "--batch-size", 8, "--frozen", "--out", other)
    assert "a.safetensors has the keys of MobileNetV2" in tuned
    before = load_file(out)
    changed = {name for name, value in load_file(other).items() if not torch.equal(value, before[name])}
    head = {name for name in changed if not name.endswith("num_batches_tracked")}  # reading leaves counters out
    assert head == {"classifier.1.weight", "classifier.1.bias"}


def test_a_teacher_of_other_classes_is_refused(shapes: Path) -> None:
    said = fails(shapes, *SCRATCH, "--teacher", "demo")
    assert said.startswith("--teacher demo has 10 classes and DIR has 3; they must have the same names, and ")
    said = fails(shapes, *SCRATCH, "--teacher", "nowhere.pth")
    assert said.startswith("--teacher 'nowhere.pth' is not a file")
