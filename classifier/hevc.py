"""What the HEVC pictures of a HEIF file will cost libheif, which need not be what its container tells.

libheif bounds an image to 2^30 pixels and a file to 1,000 items, and pillow-heif can only switch these limits off. It
decodes a picture at its own size, a tile as often as a grid names it, and copies metadata and colour profiles for each
image that has them: some kilobytes could take gigabytes.

Items are those of ISO/IEC 23008-12, NAL units those of ITU-T H.265, 7.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from classifier import boxes
from classifier.boxes import Bits, Extents, Numbers

# Bytes that are read or copied of a file, as a multiple of its own: items may share them, but not for ever.
_MAX_SHARED = 4
_MIN_SHARED = 1_000_000
# Slices of one picture: each may be a few bytes that send libde265 over all of it once more. Cameras make up to eight.
_MAX_SLICES = 32
# Alpha of alpha of alpha.
_MAX_DEPTH = 4
_IDR = (19, 20)
_SPS = 33
# Types of NAL units below this are slices of pictures.
_FIRST_OTHER = 32
# Bytes: more than what is before a picture's width and height, with seven sub-layers.
_MAX_SPS = 256

Size = tuple[int, int]


@dataclass
class _File:
    """What a file's boxes tell."""

    numbers: Numbers
    primary: int | None = None
    kinds: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, Extents] = field(default_factory=dict)
    tiles: dict[int, list[int]] = field(default_factory=dict)
    auxiliary: dict[int, list[int]] = field(default_factory=dict)
    configurations: dict[int, list[bytes]] = field(default_factory=dict)
    sizes: dict[int, Size] = field(default_factory=dict)
    shared: int = 0

    def share(self, count: int) -> None:
        """Count bytes that libheif reads or copies. Raises ValueError for too many."""
        self.shared += count
        if self.shared > max(_MIN_SHARED, _MAX_SHARED * len(self.numbers.data)):
            raise ValueError("its items share too many bytes")

    def content(self, item: int) -> bytes:
        """The data of an item."""
        extents = self.places.get(item, ())
        if any(begin >= end for begin, end in extents):
            raise ValueError(f"item {item} has a part without a length")
        self.share(sum(end - begin for begin, end in extents))
        return b"".join(self.numbers.data[begin:end] for begin, end in extents)


def pictures(data: bytes) -> list[Size]:
    """Widths and heights in pixels of what decoding the HEIF file ``data`` takes: each picture, each time, and grids.

    Those of the primary image are meant: of its tiles, and of what belongs to it, such as its alpha. A grid stands for
    the image that its tiles are put together in. Raises ValueError for a file that has none, or is laid out as none may
    be; RecursionError for boxes too deep in one another.
    """
    file = _read(Numbers(data))
    if file.primary is None:
        raise ValueError("it has no primary image")
    return _decoded(file, file.primary, 0)


def _read(numbers: Numbers) -> _File:
    file = _File(numbers)
    for kind, first, last in boxes.boxes(numbers, 0, len(numbers.data)):
        if kind == b"mini":
            raise ValueError("it has a box 'mini'")
        if kind == b"meta":
            _read_meta(file, list(boxes.boxes(numbers, first + 4, last)))
    return file


def _read_meta(file: _File, meta: list[boxes.Box]) -> None:
    numbers = file.numbers
    for item in boxes.items(numbers, meta):
        if item.number in file.kinds:
            raise ValueError(f"it has two items {item.number}")
        # A name, a media type and how it is compressed, each with a zero after it.
        if item.kind == b"mime" and any(item.rest.split(b"\0")[2:]):
            raise ValueError("its metadata is compressed")
        file.kinds[item.number] = item.kind
    for number, extents in boxes.locations(numbers, meta):
        if number in file.places:
            raise ValueError(f"item {number} is in two places")
        file.places[number] = extents
    for kind, first, last in meta:
        numbers.at = first
        if kind == b"pitm":
            file.primary = numbers.next(4 if numbers.next(4) >> 24 else 2)
        elif kind == b"iref":
            _read_references(file, first, last)
    for owner, properties in boxes.properties(numbers, meta):
        if owner in file.configurations:
            raise ValueError(f"item {owner} has two lists of properties")
        file.configurations[owner] = []
        for name, first, last in properties:
            file.share(last - first)
            if name == b"hvcC":
                file.configurations[owner].append(numbers.data[first:last])


def _read_references(file: _File, begin: int, end: int) -> None:
    numbers = file.numbers
    numbers.at = begin
    size = 4 if numbers.next(4) >> 24 else 2
    for kind, first, _ in boxes.boxes(numbers, numbers.at, end):
        numbers.at = first
        origin = numbers.next(size)
        targets = [numbers.next(size) for _ in range(numbers.next(2))]
        if kind == b"dimg":
            if origin in file.tiles:
                raise ValueError(f"item {origin} is made twice")
            file.tiles[origin] = targets
        elif kind == b"auxl":
            for target in targets:
                file.auxiliary.setdefault(target, []).append(origin)
        elif kind == b"cdsc":
            copied = sum(last - first for first, last in file.places.get(origin, ()))
            file.share(len(targets) * copied)


def _decoded(file: _File, item: int, depth: int) -> list[Size]:
    """The sizes of what decoding an item takes, with what is auxiliary to it."""
    file.numbers.next(0)  # counted, as numbers are: items may be named again and again
    kind = file.kinds.get(item, b"")
    if depth > _MAX_DEPTH:
        raise ValueError("its items are too deep in one another")
    if kind == b"hvc1":
        if item not in file.sizes:
            file.sizes[item] = _picture(file, item)
        found = [file.sizes[item]]
    elif kind == b"grid":
        found = [_grid(file.content(item))]
        for tile in file.tiles.get(item, ()):
            if file.kinds.get(tile) != b"hvc1":
                raise ValueError("a tile is no HEVC picture")
            found += _decoded(file, tile, depth + 1)
    else:
        raise ValueError(f"its item {item} is of type {kind.decode('ascii', 'replace')!r}; hvc1 and grid are read")
    for other in file.auxiliary.get(item, ()):
        # Of other kinds is nothing that libheif would decode beside a picture.
        if file.kinds.get(other) in (b"hvc1", b"grid"):
            found += _decoded(file, other, depth + 1)
    return found


def _grid(content: bytes) -> Size:
    """The size that a grid's item tells (6.6.2.3 of ISO/IEC 23008-12)."""
    numbers = Numbers(content)
    flags = numbers.next(2)  # the version, and then they
    numbers.next(2)  # rows and columns
    size = 4 if flags & 1 else 2
    return numbers.next(size), numbers.next(size)


def _picture(file: _File, item: int) -> Size:
    """The size of an item's picture: the largest that a sequence parameter set of it tells."""
    units = []
    for configuration in file.configurations.get(item, ()):
        numbers = Numbers(configuration)
        numbers.left = file.numbers.left
        numbers.at = 21  # profile, level, chroma and depth
        if numbers.next(1) & 3 != 3:
            raise ValueError("the lengths of its NAL units don't have 4 bytes")
        for _ in range(numbers.next(1)):
            numbers.next(1)  # the type that all of these have
            units += [_unit(numbers, 2) for _ in range(numbers.next(2))]
        file.numbers.left = numbers.left
    numbers = Numbers(file.content(item))
    numbers.left = file.numbers.left
    while numbers.at < len(numbers.data):
        units.append(_unit(numbers, 4))
    file.numbers.left = numbers.left
    return _largest(units)


def _unit(numbers: Numbers, size: int) -> bytes:
    """The NAL unit whose length is told in ``size`` bytes."""
    length = numbers.next(size)
    numbers.at += length
    numbers.next(0)  # raises where it ends
    return numbers.data[numbers.at - length : numbers.at]


def _largest(units: list[bytes]) -> Size:
    """The largest size that NAL units tell. Raises ValueError unless they are one picture that needs no other."""
    sizes, slices, begun = [], 0, 0
    for unit in units:
        if len(unit) < 3:
            continue
        kind = unit[0] >> 1 & 63
        if kind == _SPS:
            sizes.append(_size(Bits(unit[2:_MAX_SPS].replace(b"\0\0\3", b"\0\0"))))
        elif kind < _FIRST_OTHER:
            # libde265 would make up to sixteen pictures that one lacks which isn't an IDR picture.
            if kind not in _IDR:
                raise ValueError(f"a picture has NAL units of type {kind}; 19 and 20 are read")
            slices, begun = slices + 1, begun + (unit[2] >> 7)
    if not sizes:
        raise ValueError("a picture has no size")
    if begun > 1 or slices > _MAX_SLICES:
        raise ValueError(f"an item has {begun} pictures of {slices} slices; 1 of at most {_MAX_SLICES} is read")
    return max(sizes, key=lambda size: size[0] * size[1])


def _size(bits: Bits) -> Size:
    """Width and height of a sequence parameter set (7.3.2.2 of H.265), without its NAL unit's header."""
    bits.next(4)
    layers = bits.next(3)
    bits.next(1 + 88 + 8)  # temporal nesting; profile and level
    told = [(bits.next(1), bits.next(1)) for _ in range(layers)]
    if layers:
        bits.next(2 * (8 - layers))
    for profile, level in told:
        bits.next(88 * profile + 8 * level)
    bits.exp_golomb()  # its number
    if bits.exp_golomb() == 3:  # chroma format
        bits.next(1)
    return bits.exp_golomb(), bits.exp_golomb()
