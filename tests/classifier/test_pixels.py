"""Bytes to pixels: parity with torchvision, every mode by its rule, and nothing but ClassifierError for the rest."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from classifier import pixels
from classifier.errors import ClassifierError
from classifier.formats import FORMATS, sniff
from classifier.preprocessing import Preprocessing
from tests import hostile

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from model_build.weights import Checkpoint

LIMIT = 50_000_000
# Mean absolute difference from torchvision, in grey levels, by (size, resize): what docs/results.md states.
# PNG bounds what the geometry costs. A JPEG decoded at a smaller scale differs more where the target is tiny.
BOUND_PHOTO = {(224, 256): 0.5, (32, 32): 2.0}
BOUND_PNG = {(224, 256): 0.25, (32, 32): 0.6}


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(mode: str, left: Any, right: Any) -> Image.Image:
    """8x8 pixels, the left half of one value and the right half of another."""
    image = Image.new(mode, (8, 8), left)
    image.paste(right, (4, 0, 8, 8))
    return image


def decode(data: bytes, size: int = 8, resize: int | None = None) -> NDArray[np.uint8]:
    return pixels.decode(data, Preprocessing(size, resize or size), LIMIT)


def two(data: bytes) -> tuple[list[int], list[int]]:
    """The colours of an encoded halves() picture, each checked to be one colour to its edges."""
    array = decode(data)
    left, right = array[0, 0], array[0, 7]
    assert (array[:, :4] == left).all()
    assert (array[:, 4:] == right).all()
    return left.tolist(), right.tolist()


def over_white(colour: tuple[int, ...], alpha: int) -> list[int]:
    return [round(value * alpha / 255 + 255 - alpha) for value in colour]


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def refused(data: bytes, limit: int = LIMIT) -> ClassifierError:
    with pytest.raises(ClassifierError) as raised:
        pixels.decode(data, Preprocessing(8, 8), limit)
    return raised.value


@pytest.fixture(scope="module")
def odd_shapes(photograph: Any) -> dict[tuple[int, int], bytes]:
    """PNG photographs by width and height, both of 20 to 700 pixels, up to 20 times as long as wide."""
    random = np.random.default_rng(0)
    shapes = [(20, 400), (400, 20), (35, 700), (700, 35), (256, 256), (225, 256), (32, 32), (33, 32), (257, 255)]
    for _ in range(24):
        width = int(random.integers(20, 701))
        ratio = float(np.exp(random.uniform(-np.log(20), np.log(20))))
        shapes.append((width, int(np.clip(width * ratio, 20, 700))))
    return {shape: encode(photograph(*shape), "PNG", compress_level=1) for shape in shapes}


@pytest.mark.slow
class TestParity:
    """With torchvision's ``Resize(bilinear, antialias)`` then ``CenterCrop``."""

    @pytest.mark.parametrize(("size", "resize"), BOUND_PHOTO)
    def test_photographs(self, photos: list[Path], torchvision_pixels: Any, size: int, resize: int) -> None:
        worst = {}
        for path in photos:
            data = path.read_bytes()
            ours = decode(data, size, resize)
            assert ours.shape == (size, size, 3)
            assert ours.dtype == np.uint8
            assert ours.flags["C_CONTIGUOUS"]
            worst[path.name] = difference(ours, torchvision_pixels(data, Preprocessing(size, resize)))
        assert len(worst) >= 50
        assert {name: value for name, value in worst.items() if value > BOUND_PHOTO[size, resize]} == {}

    @pytest.mark.parametrize("shape", [(4000, 3000), (1080, 1920), (2999, 2001), (1500, 1001), (1001, 1501)])
    def test_large_jpegs_that_are_decoded_at_a_scale(
        self, photograph: Any, torchvision_pixels: Any, shape: tuple[int, int]
    ) -> None:
        data = encode(photograph(*shape), "JPEG", quality=85)
        for (size, resize), bound in BOUND_PHOTO.items():
            assert (
                difference(decode(data, size, resize), torchvision_pixels(data, Preprocessing(size, resize))) <= bound
            )

    @pytest.mark.parametrize(("size", "resize"), [*BOUND_PNG, (33, 47), (64, 73)])
    def test_odd_sizes_and_extreme_ratios(
        self, odd_shapes: dict[tuple[int, int], bytes], torchvision_pixels: Any, size: int, resize: int
    ) -> None:
        worst = {
            shape: difference(decode(data, size, resize), torchvision_pixels(data, Preprocessing(size, resize)))
            for shape, data in odd_shapes.items()
        }
        bound = BOUND_PNG.get((size, resize), 0.6)
        assert {shape: value for shape, value in worst.items() if value > bound} == {}

    @pytest.mark.parametrize(("width", "height"), [(9, 8), (11, 8), (13, 8), (8, 9), (8, 11), (8, 13), (15, 8)])
    def test_crop_offsets_are_exact_where_nothing_is_scaled(
        self, torchvision_pixels: Any, width: int, height: int
    ) -> None:
        random = np.random.default_rng(width * height)
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))
        for size in (8, 7, 6, 5):  # odd and even margins: torchvision rounds half to even
            ours = decode(encode(image, "PNG"), size, 8)
            np.testing.assert_array_equal(ours, torchvision_pixels(encode(image, "PNG"), Preprocessing(size, 8)))

    def test_one_pixel_fills_the_square(self) -> None:
        assert (decode(encode(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"), 32) == (1, 2, 3)).all()

    def test_a_line_of_pixels(self, torchvision_pixels: Any) -> None:
        line = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        data = encode(line, "PNG")
        assert difference(decode(data, 32, 36), torchvision_pixels(data, Preprocessing(32, 36))) < 0.5

    @pytest.mark.slow
    def test_the_network_sees_the_same(self, demo: Checkpoint, torchvision_pixels: Any) -> None:
        """Top-1 of the demo network on our pixels and on torchvision's, over 512 JPEGs cut from photographs."""
        from pathlib import Path

        import skimage.data

        from model_build import export, gate
        from model_build.samples import CALIBRATION_PHOTOS, HELD_OUT_PHOTOS, Samples

        folder = Path(skimage.data.__file__).parent
        pictures = [Image.open(folder / name).convert("RGB") for name in (*CALIBRATION_PHOTOS, *HELD_OUT_PHOTOS)]
        random = np.random.default_rng(0)
        ours, theirs = [], []
        for number in range(512):
            picture = pictures[number % len(pictures)]
            width, height = (int(side * random.uniform(0.2, 0.9)) for side in picture.size)
            left, upper = int(random.integers(picture.width - width)), int(random.integers(picture.height - height))
            data = encode(picture.crop((left, upper, left + width, upper + height)), "JPEG", quality=90)
            ours.append(pixels.decode(data, demo.preprocessing, LIMIT))
            theirs.append(torchvision_pixels(data, demo.preprocessing))
        network = export.contract(demo)
        one, other = (gate.reference(network, Samples(np.stack(rows), None, "")).argmax(1) for rows in (ours, theirs))
        assert len(np.unique(other)) >= 5  # the crops are not all one class, which would prove nothing
        assert np.mean(one == other) >= 0.98
        worst = max(difference(mine, reference) for mine, reference in zip(ours, theirs, strict=True))
        assert worst <= BOUND_PHOTO[demo.preprocessing.size, demo.preprocessing.resize]


STORED_AS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


class TestOrientation:
    """An image stored turned, with EXIF that says so, gives the pixels of the upright one."""

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(
        ("kind", "options", "bound"),
        [
            # Two passes of resampling round differently when the axes are swapped; lossy formats add their own.
            ("PNG", {}, 0.3),
            ("TIFF", {}, 0.3),
            ("WEBP", {"lossless": True}, 0.3),
            ("JPEG", {"quality": 95}, 1.5),
            ("AVIF", {"quality": 95}, 1.5),
        ],
    )
    def test_upright(self, photograph: Any, kind: str, options: dict[str, Any], bound: float, orientation: int) -> None:
        upright = photograph(301, 200)
        stored = upright.transpose(STORED_AS[orientation]) if orientation > 1 else upright
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(stored, kind, exif=exif, **options)
        expected = decode(encode(upright, "PNG"), 64, 73)
        assert difference(decode(data, 64, 73), expected) < bound
        # Turned any other way it would be far off: the picture has no symmetry.
        others = [np.rot90(expected, turn) for turn in (1, 2, 3)] + [expected[:, ::-1], expected[::-1]]
        assert min(difference(np.ascontiguousarray(other), expected) for other in others) > 20

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_values_that_mean_nothing_change_nothing(self, photograph: Any, orientation: int) -> None:
        image = photograph(60, 40)
        exif = Image.Exif()
        exif[0x0112] = orientation
        np.testing.assert_array_equal(decode(encode(image, "PNG", exif=exif)), decode(encode(image, "PNG")))

    def test_broken_exif_does_not_cost_the_image(self, photograph: Any) -> None:
        image = photograph(60, 40)
        plain = decode(encode(image, "JPEG", quality=90))
        for garbage in (b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0" + bytes(range(200))):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, of the EXIF
                np.testing.assert_array_equal(decode(encode(image, "JPEG", quality=90, exif=garbage)), plain)


def palette(transparency: Any = None, kind: str = "PNG") -> bytes:
    """Colour 0 on the left and colour 1 on the right."""
    image = halves("P", 0, 1)
    image.putpalette([200, 100, 0, 10, 20, 30])
    return encode(image, kind, **({} if transparency is None else {"transparency": transparency}))


def png16(colour_type: int, left: tuple[int, ...], right: tuple[int, ...]) -> bytes:
    """A PNG with 16 bits a sample, which Pillow can't write in colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + struct.pack(f">{len(left)}H", *left) * 4 + struct.pack(f">{len(right)}H", *right) * 4
    header = struct.pack(">IIBBBBB", 8, 8, 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def samples(dtype: Any, left: float, right: float) -> Image.Image:
    array = np.full((8, 8), left, dtype)
    array[:, 4:] = right
    return Image.fromarray(array)


class TestModes:
    """The rules of pixels.py's docstring, the expected values by hand."""

    @pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
    def test_grey_is_repeated(self, kind: str) -> None:
        assert two(encode(halves("L", 0, 77), kind)) == ([0, 0, 0], [77, 77, 77])

    @pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
    def test_one_bit(self, kind: str) -> None:
        assert two(encode(halves("1", 0, 1), kind)) == ([0, 0, 0], [255, 255, 255])

    @pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
    def test_rgb_as_it_is(self, kind: str) -> None:
        assert two(encode(halves("RGB", (1, 2, 3), (250, 0, 9)), kind)) == ([1, 2, 3], [250, 0, 9])

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
    def test_alpha_over_white(self, kind: str) -> None:
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        data = encode(halves("RGBA", (200, 100, 0, 51), (10, 20, 30, 0)), kind, **options)
        assert two(data) == (over_white((200, 100, 0), 51), [255, 255, 255])

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_grey_with_alpha_over_white(self, kind: str) -> None:
        assert two(encode(halves("LA", (100, 51), (100, 255)), kind)) == ([224, 224, 224], [100, 100, 100])

    @pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
    def test_palette(self, kind: str) -> None:
        assert two(palette(kind=kind)) == ([200, 100, 0], [10, 20, 30])

    @pytest.mark.parametrize("kind", ["PNG", "GIF"])
    def test_palette_with_one_transparent_colour(self, kind: str) -> None:
        assert two(palette(transparency=1, kind=kind)) == ([200, 100, 0], [255, 255, 255])

    def test_palette_with_alpha_of_each_colour(self) -> None:
        expected = over_white((200, 100, 0), 102), over_white((10, 20, 30), 204)
        assert two(palette(transparency=bytes([102, 204]))) == expected

    def test_palette_and_alpha_of_each_pixel(self) -> None:
        image = halves("P", 0, 1)
        image.putpalette([200, 100, 0, 10, 20, 30])
        image = image.convert("PA")
        image.putalpha(Image.fromarray(np.array([[51] * 4 + [255] * 4] * 8, np.uint8)))
        data = encode(image, "TIFF")
        assert Image.open(io.BytesIO(data)).mode == "PA"
        assert two(data) == (over_white((200, 100, 0), 51), [10, 20, 30])

    @pytest.mark.parametrize(("mode", "left", "right"), [("RGB", (1, 2, 3), (4, 5, 6)), ("L", 7, 8), ("1", 0, 1)])
    def test_a_transparent_colour_becomes_white(self, mode: str, left: Any, right: Any) -> None:
        plain = two(encode(halves(mode, left, right), "PNG"))
        assert two(encode(halves(mode, left, right), "PNG", transparency=left)) == ([255, 255, 255], plain[1])

    @pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
    def test_cmyk(self, kind: str) -> None:
        options = {"quality": 100} if kind == "JPEG" else {}
        for cmyk in [(0, 255, 255, 0), (0, 0, 0, 255), (100, 0, 50, 0), (0, 128, 0, 128)]:
            expected = [(255 - ink) * (255 - cmyk[3]) / 255 for ink in cmyk[:3]]
            data = encode(Image.new("CMYK", (16, 16), cmyk), kind, **options)
            np.testing.assert_allclose(decode(data)[3, 3], expected, atol=2)

    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:2:0"}, {"optimize": True}])
    def test_ycbcr_jpeg(self, options: dict[str, Any]) -> None:
        for colour in [(200, 30, 60), (0, 128, 255), (255, 255, 255)]:
            data = encode(Image.new("RGB", (16, 16), colour), "JPEG", quality=98, **options)
            np.testing.assert_allclose(decode(data)[3, 3], colour, atol=3)

    def test_progressive_jpeg_is_the_same_picture(self, photograph: Any) -> None:
        one, other = (encode(photograph(301, 203), "JPEG", progressive=progressive) for progressive in (False, True))
        assert one != other
        np.testing.assert_array_equal(decode(one, 64, 73), decode(other, 64, 73))

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_16_bit_grey_keeps_the_high_byte(self, kind: str) -> None:
        assert two(encode(samples(np.uint16, 0x80FF, 0x00FF), kind)) == ([128, 128, 128], [0, 0, 0])

    def test_16_bit_colour_keeps_the_high_byte(self) -> None:
        assert two(png16(2, (0x1234, 0x80FF, 0xFFFF), (0x00FF, 0x0100, 0))) == ([0x12, 0x80, 0xFF], [0, 1, 0])

    def test_16_bit_alpha_over_white(self) -> None:
        expected = over_white((200, 100, 0), 51), [10, 20, 30]
        assert two(png16(6, (200 << 8, 100 << 8, 0, 51 << 8), (10 << 8, 20 << 8, 30 << 8, 0xFFFF))) == expected
        assert two(png16(4, (100 << 8, 51 << 8), (100 << 8, 0xFFFF))) == ([224, 224, 224], [100, 100, 100])

    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
    def test_first_frame_of_several(self, kind: str) -> None:
        frames = [Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
        options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "AVIF" else {}
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
        np.testing.assert_allclose(decode(data), np.broadcast_to([255, 0, 0], (8, 8, 3)), atol=3)

    def test_mpo_gives_its_first_picture(self, photograph: Any) -> None:
        first = photograph(60, 40)
        data = encode(first, "MPO", save_all=True, append_images=[Image.new("RGB", (60, 40))], quality=90)
        assert Image.open(io.BytesIO(data)).format == "MPO"
        assert sniff(data) == "JPEG"
        assert difference(decode(data, 32), decode(encode(first, "JPEG", quality=90), 32)) < 0.5

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
    @pytest.mark.parametrize("tile", [0, 64])
    def test_heif(self, mode: str, tile: int) -> None:
        image = hostile.picture(mode, 200, 150)
        data = hostile.encode(image, "HEIF", quality=100, tile_size=tile)
        assert difference(decode(data, 32), decode(encode(image, "PNG"), 32)) < 1

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_heif_is_upright_once(self, orientation: int) -> None:
        """libheif turns it as its container says; EXIF says so again."""
        turned = Image.Exif()
        turned[0x0112] = orientation
        image = hostile.picture("RGB", 200, 150)
        data = hostile.encode(image, "HEIF", quality=100, exif=turned.tobytes())
        assert difference(decode(data, 32), decode(encode(image, "PNG", exif=turned), 32)) < 1

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
    def test_avif(self, mode: str) -> None:
        colour: Any = {"RGB": (200, 100, 0), "RGBA": (200, 100, 0, 51), "L": 77}[mode]
        expected = {"RGB": [200, 100, 0], "RGBA": over_white((200, 100, 0), 51), "L": [77] * 3}[mode]
        data = encode(Image.new(mode, (16, 16), colour), "AVIF", quality=100)
        np.testing.assert_allclose(decode(data)[3, 3], expected, atol=3)


NEAR_MISSES = {
    "nothing": b"",
    "three bytes": b"abc",
    "half a JPEG marker": b"\xff\xd8",
    "JPEG XL": b"\xff\x0a\xff\xff",
    "MP4": b"\0\0\0\x18ftypisom\0\0\0\0isomavc1",
    "PSD": b"8BPS\0\x01\0\0",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0",
    "PDF": b"%PDF-1.7\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "WAVE": b"RIFF\x24\0\0\0WAVEfmt ",
    "GIF of no version": b"GIF88a\1\0\1\0",
    "PNG read as text": b"\x89PNG\n\x1a\n",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "ICO": b"\0\0\1\0\1\0",
    "PPM": b"P6 1 1 255\n\0\0\0",
    "HTML": b"<!doctype html>",
    "a space before": b" \xff\xd8\xff\xe0",
}


class TestSniff:
    """The format comes from the bytes alone."""

    @pytest.mark.parametrize("kind", FORMATS)
    def test_what_pillow_writes(self, photograph: Any, kind: str) -> None:
        data = encode(photograph(40, 30), kind)
        assert sniff(data) == kind
        assert decode(data).shape == (8, 8, 3)

    @pytest.mark.parametrize("data", NEAR_MISSES.values(), ids=NEAR_MISSES)
    def test_near_misses(self, data: bytes) -> None:
        assert sniff(data) is None
        error = refused(data)
        if data:
            assert (error.code, error.facts) == ("unsupported_media_type", {"allowed": list(FORMATS)})
            assert f"the {len(data)} bytes are no image" in error.message
        else:
            assert (error.code, error.message) == ("unreadable_image", "the image is empty: 0 bytes")

    def test_an_image_behind_the_wrong_head_is_not_tried(self, photograph: Any) -> None:
        """``BM`` before a PNG is a broken BMP: no plugin but the sniffed one sees the bytes."""
        error = refused(b"BM" + encode(photograph(9, 9), "PNG"))
        assert (error.code, error.facts) == ("unreadable_image", {"format": "BMP"})


def claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is large and holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + end


class TestLimits:
    """Size is checked before decoding; damage is told in one way."""

    @pytest.mark.parametrize("side", [7072, 8000, 30_000, 2**31 - 1])
    def test_what_the_header_claims_is_checked_before_decoding(self, side: int) -> None:
        error = refused(claims(side, side))
        assert (error.code, error.status) == ("image_too_large", 413)
        assert error.facts == {"limit": LIMIT}
        assert str(LIMIT) in error.message

    def test_the_size_is_named(self) -> None:
        assert refused(claims(8000, 7000)).message == "8000x7000 has more pixels than the limit of 50000000"

    def test_the_limit_itself_is_allowed(self, photograph: Any) -> None:
        data = encode(photograph(40, 25), "PNG")
        assert pixels.decode(data, Preprocessing(8, 8), 1000).shape == (8, 8, 3)
        assert refused(data, 999).code == "image_too_large"

    def test_the_highest_limit_that_settings_allow_is_honoured(self) -> None:
        """Also where Pillow, from 89 megapixels, would warn of a decompression bomb."""
        data = encode(Image.new("L", (12_000, 8_000), 50), "JPEG")
        assert (pixels.decode(data, Preprocessing(8, 8), 178_000_000) == 50).all()

    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.filterwarnings("ignore")  # Pillow warns of some damage that it can live with
    def test_damage_is_an_unreadable_image_or_none(self, photograph: Any, kind: str) -> None:
        options = {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"}
        data = encode(photograph(48, 36), kind, **(options if kind not in ("GIF", "BMP") else {}))
        random = np.random.default_rng(len(data))
        damaged = [data[: int(length)] for length in random.integers(1, len(data), 30)]
        for flips in (1, 4, 32):
            for _ in range(20):
                broken = bytearray(data)
                # Half of the flips hit the first hundred bytes, where the structure is.
                for _ in range(flips):
                    where = random.integers(0, len(data) if random.random() < 0.5 else 100)
                    broken[int(where)] ^= 1 << int(random.integers(0, 8))
                damaged.append(bytes(broken))
        outcomes: dict[str, int] = {}
        for item in damaged:
            try:
                array = pixels.decode(item, Preprocessing(32, 36), 1_000_000)
            except ClassifierError as error:
                assert error.code in ("unreadable_image", "image_too_large", "unsupported_media_type")
                assert "object at 0x" not in error.message
                assert 10 < len(error.message) < 300
                outcomes[error.code] = outcomes.get(error.code, 0) + 1
            else:
                assert array.shape == (32, 32, 3)
                assert array.dtype == np.uint8
        assert outcomes.get("unreadable_image", 0) >= 10

    @pytest.mark.filterwarnings("ignore")
    def test_hostile_files(self, shared: Path) -> None:
        files = sorted(
            path for path in (shared / "images" / "hostile").iterdir() if not path.name.startswith("LICENSE")
        )
        assert len(files) >= 40
        codes = {}
        for path in files:
            try:
                array = pixels.decode(path.read_bytes(), Preprocessing(32, 36), LIMIT)
            except ClassifierError as error:
                assert "object at 0x" not in error.message
                codes[path.name] = error.code
            else:
                assert array.shape == (32, 32, 3)
        assert codes["decompression_bomb.gif"] == "image_too_large"
        assert codes["decompression_bomb.ico"] == "unsupported_media_type"
        assert codes["truncated_jpeg.jpg"] == "unreadable_image"
        assert codes["crash-5762152299364352.fli"] == "unsupported_media_type"
