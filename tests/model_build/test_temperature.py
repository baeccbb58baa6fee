"""Temperature scaling: what T is fitted, on which images, and what becomes of the calibration error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from model_build import export, temperature
from model_build.samples import Samples
from runners import backends

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from classifier.manifest import Manifest
    from model_build.weights import Checkpoint

COUNT, CLASSES = 4000, 5


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: NDArray[np.float32] = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return shares


def drawn(hotter: float, count: int = COUNT) -> tuple[NDArray[np.float32], Samples]:
    """Probabilities whose logits are ``hotter`` times those by which the true classes were drawn."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(count, CLASSES)) * 2
    true = np.array([random.choice(CLASSES, p=row / row.sum()) for row in softmax(logits).astype(np.float64)])
    return softmax(logits * hotter), Samples(np.zeros((count, 8, 8, 3), np.uint8), true, "drawn")


def fitted(probabilities: NDArray[np.float32], samples: Samples) -> temperature.Fitted:
    found = temperature.fit(probabilities, samples)
    assert found is not None
    return found


@pytest.mark.parametrize("hotter", [0.5, 1.0, 1.7, 3.0])
def test_the_temperature_undoes_what_logits_were_multiplied_by(hotter: float) -> None:
    probabilities, samples = drawn(hotter)
    found = fitted(probabilities, samples)
    assert samples.classes is not None
    assert found.temperature == pytest.approx(hotter, rel=0.05)
    told = found.told(temperature.scale(probabilities, found.temperature), samples.classes)
    assert told["after"]["ece"] < 0.03
    if hotter != 1:
        assert told["before"]["ece"] > 3 * told["after"]["ece"]
    assert fitted(probabilities, samples).temperature == found.temperature


def test_ece_by_hand() -> None:
    """Three of four right at 0.75, one of two at 0.95: |0.75-0.75| * 4/6 + |0.5-0.95| * 2/6."""
    top = np.array([0.75, 0.75, 0.75, 0.75, 0.95, 0.95], np.float32)
    rows = np.stack([top, 1 - top], 1)
    found = temperature.Reliability.of(rows, np.array([0, 0, 0, 1, 0, 1]))
    assert found.ece == pytest.approx(0.15, abs=1e-5)
    assert [one.count for one in found.bins] == [0] * 11 + [4, 0, 0, 2]
    assert (found.bins[11].confidence, found.bins[11].accuracy) == (0.75, 0.75)
    assert (found.bins[0].confidence, found.bins[0].accuracy) == (None, None)


def test_a_probability_of_one_is_in_the_last_bin() -> None:
    rows = np.array([[1, 0], [0, 1]], np.float32)
    found = temperature.Reliability.of(rows, np.array([0, 1]))
    assert (found.ece, found.bins[-1].count) == (0, 2)


def test_halves_share_no_image_and_each_class_between_them() -> None:
    classes = np.random.default_rng(1).integers(0, CLASSES, 501)
    fitting, judged = temperature.halves(classes)
    assert sorted([*fitting, *judged]) == list(range(501))
    for number in range(CLASSES):
        assert abs(int((classes[fitting] == number).sum()) - int((classes[judged] == number).sum())) <= 1


def test_what_is_judged_on_decides_nothing() -> None:
    probabilities, samples = drawn(1.7)
    assert samples.classes is not None
    _, judged = temperature.halves(samples.classes)
    other = probabilities.copy()
    other[judged] = np.roll(other[judged], 1, axis=1)
    assert fitted(other, samples).temperature == fitted(probabilities, samples).temperature
    assert fitted(other, samples).before.ece != fitted(probabilities, samples).before.ece


def test_scaling_keeps_the_ranking_and_is_the_softmax_of_divided_logits() -> None:
    logits = np.random.default_rng(2).normal(size=(50, CLASSES)) * 3
    scaled = temperature.scale(softmax(logits), 2.5)
    np.testing.assert_allclose(scaled, softmax(logits / 2.5), atol=1e-6)
    assert (scaled.argsort(1) == logits.argsort(1)).all()


def test_where_every_answer_is_right_there_is_no_likeliest_one() -> None:
    probabilities, samples = drawn(1.0, 400)
    right = Samples(samples.pixels, probabilities.argmax(1), "right")
    assert fitted(probabilities, right).temperature == 1


@pytest.mark.parametrize(("hotter", "bound"), [(0.02, temperature.LOWEST), (30.0, temperature.HIGHEST)])
def test_it_stays_within_its_bounds(hotter: float, bound: float) -> None:
    assert fitted(*drawn(hotter, 1000)).temperature == pytest.approx(bound)


def test_probabilities_that_are_not_finite_have_none() -> None:
    probabilities, samples = drawn(1.0, 400)
    probabilities[0, 0] = np.nan
    assert temperature.fit(probabilities, samples) is None


def test_what_is_missing_is_said() -> None:
    pixels = np.zeros((temperature.LEAST, 8, 8, 3), np.uint8)
    classes = np.zeros(temperature.LEAST, np.int64)
    assert temperature.missing(Samples(pixels, classes, "val")) is None
    assert temperature.missing(Samples(pixels, None, "photos")) == "the classes of the images (photos) are not known"
    few = temperature.missing(Samples(pixels[:64], classes[:64], "val"))
    assert few == f"val has 64 images, and at least {temperature.LEAST} are needed"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning")  # torch's of its own exporter
@pytest.mark.parametrize(("runtime", "precision"), [("onnx", "int8"), ("torchscript", "fp32")])
def test_a_files_softmax_is_of_divided_logits(
    demo: Checkpoint,
    crops: Samples,
    manifest_of: Callable[..., Manifest],
    tmp_path: Path,
    runtime: str,
    precision: str,
) -> None:
    few = Samples(crops.pixels[:16], None, "few")
    rows = {}
    for number in (1.0, 2.0):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = export.export(demo, runtime, precision, folder, few, number)
        rows[number] = backends.load(folder, manifest_of(path, runtime=runtime, precision=precision)).infer(few.pixels)
    np.testing.assert_allclose(rows[2.0], temperature.scale(rows[1.0], 2.0), atol=1e-5)
    assert np.abs(rows[2.0] - rows[1.0]).max() > 0.05
    assert (rows[2.0].argmax(1) == rows[1.0].argmax(1)).all()
