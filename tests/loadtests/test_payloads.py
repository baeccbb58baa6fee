"""Requests carry the photographs that they are named after."""

from __future__ import annotations

import pytest

from loadtests import payloads


def test_a_batch_holds_a_photo_and_those_after_it() -> None:
    photos = {f"{name}.jpg": name.encode() * 9 for name in "abcde"}
    requests = payloads.build(photos, ["raw", "multipart", "batch"], {})
    assert [request.kind for request in requests] == ["raw"] * 5 + ["multipart"] * 5 + ["batch"] * 5
    last = requests[-1]
    assert last.images == payloads.BATCH_IMAGES
    assert [last.body.count(photos[f"{name}.jpg"]) for name in "abcde"] == [1, 1, 1, 0, 1]
    with pytest.raises(ValueError, match="'video'"):
        payloads.build(photos, ["video"], {})
