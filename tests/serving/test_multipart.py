"""Multipart bodies as clients write them: whole, in pieces, with preambles, and with what is not meant."""

from __future__ import annotations

import gc
import weakref

import pytest

from classifier.errors import ClassifierError
from serving.multipart import Form
from tests import hostile

IMAGE = hostile.encode(hostile.picture(), "PNG")
HEADER_BYTES = 4096


def part(disposition: str, content: bytes, more: str = "") -> bytes:
    head = f"--b\r\nContent-Disposition: form-data; {disposition}\r\n{more}\r\n"
    return head.encode() + content + b"\r\n"


FILE = part('name="image"; filename="a.png"', IMAGE)
END = b"--b--\r\n"


def parse(body: bytes, *, piece: int = 1 << 20, name: str = "image", boundary: bytes = b"b", images: int = 1) -> Form:
    """The form of ``body``, which comes in pieces."""
    form = Form(boundary, name, images=images, fields=2, header_bytes=HEADER_BYTES)
    for start in range(0, len(body), piece):
        form.write(body[start : start + piece])
    form.finish()
    return form


def refusal(body: bytes, code: str, **options: object) -> str:
    with pytest.raises(ClassifierError) as error:
        parse(body, **options)  # type: ignore[arg-type]
    assert error.value.code == code, error.value.message
    return error.value.message


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    "preamble",
    [
        b"",
        b"\r\n",
        b"\r\n\r\n",
        b"This is a multi-part message in MIME format.\r\n",
        b"--\r\n--a\r\n - not --b here\r\n",
        b"x" * (HEADER_BYTES - 40) + b"\r\n",
    ],
)
@pytest.mark.parametrize("epilogue", [b"", b"\r\n", b"\r\nthe end\r\n--b\r\n", b"x" * 10_000])
def test_preamble_and_epilogue_are_passed_over(preamble: bytes, epilogue: bytes, piece: int) -> None:
    form = parse(preamble + FILE + part('name="top_k"', b"2") + END + epilogue, piece=piece)
    assert form.images == [IMAGE]
    assert form.fields == {"top_k": ["2"]}


@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_blanks_after_a_boundary_are_passed_over(piece: int) -> None:
    body = FILE.replace(b"--b\r\n", b"--b \t \r\n") + part('name="top_k"', b"2").replace(b"--b\r\n", b"--b  \r\n")
    assert parse(body + END, piece=piece).images == [IMAGE]


def test_a_preamble_has_a_limit() -> None:
    told = refusal(b"x" * (HEADER_BYTES + 10) + b"\r\n" + FILE + END, "bad_request")
    assert "'--b'" in told
    assert "4096" in told


def test_lines_that_end_in_lf_alone() -> None:
    assert "CR and LF" in refusal((FILE + END).replace(b"\r\n", b"\n"), "bad_request")


def test_no_line_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    refusal(b"--b\r\nnot a header\r\n\r\n" + END, "bad_request")
    assert caplog.records == []


def test_another_boundary_than_is_told() -> None:
    told = refusal(FILE + END, "bad_request", boundary=b"other")
    assert "'--other'" in told
    assert "Content-Type" in told


def test_a_boundary_that_is_too_long() -> None:
    assert "300" in refusal(FILE + END, "bad_request", boundary=b"b" * 300)


@pytest.mark.parametrize(
    "disposition",
    [
        'name="image"',
        "name=image",
        'name="image"; filename=""',
        "name=\"image\"; filename*=UTF-8''%e7%8c%ab.png",
        'name="image"; filename="猫.png"',
    ],
)
def test_the_field_of_files_holds_a_file_whatever_it_is_called(disposition: str) -> None:
    assert parse(part(disposition, IMAGE) + END).images == [IMAGE]


@pytest.mark.parametrize("content", [b"\x00\x01\x02 no image", b"\xff\xfeabc"])
def test_what_is_no_text_is_a_file_too(content: bytes) -> None:
    """Decoding tells what is wrong with it."""
    assert parse(part('name="image"', content) + END).images == [content]


@pytest.mark.parametrize(
    "value", ["http://a/b.jpg", "/etc/passwd", "photo.jpg", "data:image/png;base64,iVBOR", "猫" * 99]
)
@pytest.mark.parametrize("name", ["image", "images"])
def test_text_in_its_place_is_quoted(value: str, name: str) -> None:
    told = refusal(part(f'name="{name}"', value.encode()) + END, "invalid_parameter", name=name)
    assert value[:30] in told
    assert f"{name!r}" in told
    assert "never fetched" in told


def test_no_text_at_all_is_no_file() -> None:
    assert "the text ''" in refusal(part('name="images"', b"") + END, "invalid_parameter", name="images")
    assert parse(part('name="images"; filename="a"', b"") + END, name="images").images == [b""]


def test_a_file_that_holds_text_is_left_to_decoding() -> None:
    assert parse(part('name="image"; filename="a.jpg"', b"http://a/b.jpg") + END).images == [b"http://a/b.jpg"]


@pytest.mark.parametrize("disposition", ['name="topk"', 'name="Image"', 'name="img"; filename="a"', 'name="TOP_K"'])
def test_an_unknown_field_names_the_known_ones(disposition: str) -> None:
    told = refusal(FILE + part(disposition, b"2") + END, "invalid_parameter")
    assert disposition.split('"')[1] in told
    assert "'image'" in told
    assert "'top_k'" in told


@pytest.mark.parametrize(("name", "aliases"), [("image", ["file"]), ("images", ["files", "images[]"])])
def test_the_field_of_files_has_the_names_that_clients_send(name: str, aliases: list[str]) -> None:
    for alias in aliases:
        assert parse(part(f'name="{alias}"; filename="a"', IMAGE) + END, name=name).images == [IMAGE]
        told = refusal(part(f'name="{alias}"', b"http://a/b.jpg") + END, "invalid_parameter", name=name)
        assert f"{alias!r} holds the text 'http://a/b.jpg'" in told


def test_one_image_under_two_names_is_two() -> None:
    refusal(FILE + part('name="file"; filename="a"', IMAGE) + END, "too_many_images")
    both = part('name="images"; filename="a"', IMAGE) + part('name="files"; filename="a"', b"\0two") + END
    assert parse(both, name="images", images=2).images == [IMAGE, b"\0two"]


@pytest.mark.parametrize("one", ["image", "file"])
@pytest.mark.parametrize("many", ["images", "files", "images[]"])
def test_the_other_endpoint_s_field_names_it(one: str, many: str) -> None:
    image, images = (part(f'name="{name}"; filename="a"', IMAGE) + END for name in (one, many))
    assert f"{many!r} is of /classify_batch;" in refusal(images, "invalid_parameter", name="image")
    assert f"{one!r} is of /classify;" in refusal(image, "invalid_parameter", name="images")


def test_two_images_are_sent_to_the_other_endpoint() -> None:
    told = refusal(FILE + FILE + END, "too_many_images")
    assert "/classify_batch" in told
    assert "'images'" in told
    batch = part('name="images"; filename="a"', IMAGE)
    assert "more than 2" in refusal(batch * 3 + END, "too_many_images", name="images", images=2)
    assert len(parse(batch * 2 + END, name="images", images=2).images) == 2


def test_a_part_without_a_name() -> None:
    assert "no name" in refusal(part('filename="a"', IMAGE) + END, "invalid_parameter")
    assert "no name" in refusal(b"--b\r\nContent-Type: image/png\r\n\r\n" + IMAGE + b"\r\n" + END, "invalid_parameter")


def test_top_k_as_a_file() -> None:
    assert "text only" in refusal(part('name="top_k"; filename="a"', b"2") + END, "invalid_parameter")


@pytest.mark.parametrize("encoding", ["base64", "BASE64 ", "quoted-printable"])
def test_a_part_that_is_encoded(encoding: str) -> None:
    more = f"Content-Transfer-Encoding: {encoding}\r\n"
    told = refusal(part('name="image"; filename="a"', b"iVBORw0KGgo=", more) + END, "unsupported_encoding")
    assert encoding.strip().lower() in told


@pytest.mark.parametrize("encoding", ["binary", "8bit", "7bit"])
def test_a_part_that_is_not_encoded(encoding: str) -> None:
    more = f"Content-Transfer-Encoding: {encoding}\r\n"
    assert parse(part('name="image"; filename="a"', IMAGE, more) + END).images == [IMAGE]


@pytest.mark.parametrize("cut", [1, 3, 40, 200])
def test_a_body_that_ends_early(cut: int) -> None:
    refusal((FILE + b"--b--")[:-cut], "bad_request")


def test_a_body_is_gone_with_its_form() -> None:
    """Not when the garbage collector comes: until then bodies would pile up."""
    gc.collect()
    gc.disable()
    try:
        form = parse(FILE + END)
        gone = weakref.ref(form), weakref.ref(form._parts)
        del form
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


def test_limits_of_text() -> None:
    assert "over 1024" in refusal(part('name="top_k"', b"1" * 1025) + END, "invalid_parameter")
    assert "more than 2 text fields" in refusal(part('name="top_k"', b"1") * 3 + END, "bad_request")
    assert "over 4096" in refusal(part('name="top_k"', b"1", f"X: {'x' * 4096}\r\n") + END, "bad_request")
