"""Pillow's plugin for HEIF: pillow-heif's, behind a check of what a file will cost it. Importing this registers it.

Importing pillow-heif takes 25 to 40 ms and loads 27 MB of libraries, so pixels.py does it when the first HEIF comes.
"""

from __future__ import annotations

import pillow_heif
from PIL import Image

from classifier import formats, hevc
from classifier.errors import ClassifierError

# A grid counts once for its tiles and once for itself; a photograph's alpha, depth and gain map are as much again.
_MAX_PICTURES = 4


class HeifFile(pillow_heif.HeifImageFile):
    """A HEIF whose pictures have at most ``Image.MAX_IMAGE_PIXELS`` each, and four times as many together.

    Opening one raises ClassifierError (``image_too_large``) for more, before libheif sees the file at all, and
    ValueError for a file that is laid out as none may be.
    """

    def _open(self) -> None:
        assert self.fp is not None
        data, limit = self.fp.read(), Image.MAX_IMAGE_PIXELS
        found = hevc.pictures(data)
        if limit is not None:
            width, height = max(found, key=lambda size: size[0] * size[1])
            if width * height > limit:
                message = f"a picture of {width}x{height} has more pixels than the limit of {limit}"
                raise ClassifierError("image_too_large", message, limit=limit)
            total = sum(width * height for width, height in found)
            if total > _MAX_PICTURES * limit:
                most = _MAX_PICTURES * limit
                message = f"its {len(found)} pictures have {total} pixels together; at most {most} are decoded"
                raise ClassifierError("image_too_large", message, limit=limit)
        super()._open()  # type: ignore[no-untyped-call]


# Images are decoded in parallel already. Nothing but the primary image and its alpha is wanted.
pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
Image.register_open(HeifFile.format, HeifFile, lambda head: formats.sniff(head) == HeifFile.format)
