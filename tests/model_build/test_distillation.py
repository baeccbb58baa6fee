"""The teacher's part of the loss, against the formula, and what a teacher must be.  Runs: test_train.py."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from classifier.labels import Labels
from classifier.preprocessing import Preprocessing
from model_build.distillation import Teacher
from model_build.listing import FolderError
from model_build.weights import Checkpoint, WeightsError
from tests.model_build.checkpoints import made

if TYPE_CHECKING:
    from numpy.typing import NDArray


def checkpoint(names: tuple[str, ...], size: int = 32, upsample: int | None = None) -> Checkpoint:
    state = made(len(names), architecture="shufflenet_v2_x1_0")
    half = (0.5, 0.5, 0.5)
    return Checkpoint(
        *(state, "t.pth", Labels(names), Preprocessing(size, size), upsample, half, half, "0" * 64),
        architecture="shufflenet_v2_x1_0",
    )


@pytest.fixture(scope="module")
def taught() -> Checkpoint:
    return checkpoint(("ant", "bee", "cat"))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return found


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.5), (4.0, 0.9), (7.0, 1.0), (3.0, 0.0)])
def test_the_loss_is_hinton_s(taught: Checkpoint, temperature: float, alpha: float) -> None:
    random = np.random.default_rng(0)
    student, teacher = random.normal(size=(5, 3)), 3 * random.normal(size=(5, 3))
    q, p = softmax(student / temperature), softmax(teacher / temperature)
    divergence = (p * np.log(p / q)).sum(1).mean()
    expected = (1 - alpha) * 1.25 + alpha * temperature**2 * divergence
    given = (torch.from_numpy(student), torch.from_numpy(teacher), torch.tensor(1.25))
    loss = Teacher(taught, ("ant", "bee", "cat"), temperature, alpha).loss(*given)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_its_gradient_does_not_shrink_with_the_temperature(taught: Checkpoint) -> None:
    """For small logits it is (z - v) / C whatever T is, as the paper's equation 4 times T²."""
    student, teacher = torch.tensor([[0.02, 0.0, -0.02]]), torch.tensor([[0.0, 0.01, -0.01]])
    for temperature in (2.0, 20.0):
        logits = student.clone().requires_grad_()
        Teacher(taught, ("ant", "bee", "cat"), temperature, 1.0).loss(logits, teacher, torch.tensor(0.0)).backward()
        assert logits.grad is not None
        assert torch.allclose(logits.grad, (student - teacher) / 3, atol=2e-4)


def test_it_answers_in_the_student_s_order(taught: Checkpoint) -> None:
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    rows = []
    for names in (("ant", "bee", "cat"), ("cat", "ant", "bee")):
        teacher = Teacher(taught, names, 4, 0.9)
        teacher.sit_with(taught, torch.device("cpu"))
        rows.append(teacher.logits(pixels))
    assert torch.equal(rows[1], rows[0][:, [2, 0, 1]])
    assert not rows[0].requires_grad


def test_it_sees_the_student_s_pixels_enlarged() -> None:
    large = checkpoint(("ant", "bee"), size=64)
    teacher = Teacher(large, ("ant", "bee"), 4, 0.9)
    teacher.sit_with(checkpoint(("ant", "bee"), size=32), torch.device("cpu"))
    flat = torch.full((1, 64, 64, 3), 100, dtype=torch.uint8)
    small = teacher.logits(flat[:, :32, :32])
    teacher.sit_with(large, torch.device("cpu"))
    assert torch.allclose(small, teacher.logits(flat), atol=1e-5)


def test_a_teacher_that_sees_less_is_refused(taught: Checkpoint) -> None:
    teacher = Teacher(taught, taught.labels.en, 4, 0.9)
    student = replace(taught, preprocessing=Preprocessing(48, 48))
    with pytest.raises(WeightsError, match=r"--teacher t\.pth sees 32 pixels and the student 48; .*: --size 32"):
        teacher.sit_with(student, torch.device("cpu"))


@pytest.mark.parametrize(
    ("classes", "odd"), [(("ant", "bee"), "cat"), (("ant", "bee", "dog"), "cat"), (("ant", "bee", "cat", "dog"), "dog")]
)
def test_other_classes_are_refused(taught: Checkpoint, classes: tuple[str, ...], odd: str) -> None:
    with pytest.raises(FolderError) as raised:
        Teacher(taught, classes, 4, 0.9)
    said = f"--teacher t.pth has 3 classes and DIR has {len(classes)}; they must have the same names, and {odd!r} "
    assert str(raised.value).startswith(said)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(WeightsError, match=r"--teacher 'nowhere\.pth' is not a file"):
        Teacher.find("nowhere.pth", ("a", "b"), 4, 0.9)
