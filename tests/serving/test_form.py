"""The form that a caller's process sends: any image as a file, and a sentence for what is none."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from bentoml.exceptions import InvalidArgument
from PIL import Image

from serving import schema
from serving.multipart import Form
from tests import hostile

if TYPE_CHECKING:
    from pathlib import Path

PNG = hostile.encode(hostile.picture(), "PNG")


def parsed(model: Any, name: str) -> tuple[list[bytes], dict[str, list[str]]]:
    """What our own parser reads in the form that ``model`` is."""
    kind, _, boundary = model.mime_type().partition("; boundary=")
    assert kind == "multipart/form-data"
    form = Form(boundary.encode(), name, images=9, fields=9, header_bytes=4096)
    form.write(model.model_dump())
    form.finish()
    return form.images, form.fields


def test_paths_files_and_bytes_arrive_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "猫.png"
    path.write_bytes(PNG)
    with path.open("rb") as file:
        images = [path, file, io.BytesIO(PNG), PNG, bytearray(PNG), memoryview(PNG)]
        found = parsed(schema.ClassifyBatchInput.from_inputs(images=images, top_k=2), "images")
    assert found == ([PNG] * 6, {"top_k": ["2"]})
    assert parsed(schema.ClassifyInput.from_inputs(path, 5), "image") == ([PNG], {"top_k": ["5"]})
    assert parsed(schema.ClassifyInput.from_inputs(image=path), "image") == ([PNG], {})


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "F", "I;16"])
def test_pillow_s_images_lose_nothing(mode: str) -> None:
    image = hostile.picture(mode)
    ((sent,), _) = parsed(schema.ClassifyInput.from_inputs(image), "image")
    with Image.open(io.BytesIO(sent)) as read:
        assert read.mode == mode
        assert read.tobytes() == image.tobytes()


def test_pillow_s_orientation_arrives() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    with Image.open(io.BytesIO(hostile.encode(hostile.picture(), "JPEG", exif=turned))) as image:
        ((sent,), _) = parsed(schema.ClassifyInput.from_inputs(image), "image")
    with Image.open(io.BytesIO(sent)) as read:
        assert read.getexif()[0x0112] == 6


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("http://a/b.jpg", "'image' is the text 'http://a/b.jpg'; URLs are never fetched"),
        ("photo.jpg", "pathlib.Path"),
        (5, "'image' is a int"),
        (None, "'image' is a NoneType"),
        (io.StringIO("text"), "mode 'rb'"),
    ],
)
def test_what_is_no_image_is_told(value: Any, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        schema.ClassifyInput.from_inputs(image=value)


def test_wrong_arguments_are_python_s_own_errors(tmp_path: Path) -> None:
    for arguments, named in (
        ((), {}),
        ((PNG, 3, 0.5, "class", 4), {}),
        ((PNG,), {"image": PNG}),
        ((PNG,), {"topk": 3}),
    ):
        with pytest.raises(TypeError):
            schema.ClassifyInput.from_inputs(*arguments, **named)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        schema.ClassifyInput.from_inputs(tmp_path / "nowhere.jpg")
