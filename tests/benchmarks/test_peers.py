"""The peers' requests: each carries a JPEG as the peer's docs teach."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.peers import PEERS

TRITON = next(peer for peer in PEERS if peer.name == "triton")


@pytest.mark.parametrize("size", [1, 999, 1_000_000])
def test_requests_of_the_open_inference_protocol_share_their_headers(size: int) -> None:
    image = bytes(size)
    body, content_type = TRITON.request(image)
    head = int(dict(TRITON.headers)["Inference-Header-Content-Length"])
    (tensor,) = json.loads(body[:head])["inputs"]
    assert tensor == {
        "name": "image",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(body) - head},
    }
    assert body[head:] == size.to_bytes(4, "little") + image
    assert content_type == "application/octet-stream"


def test_other_requests_are_the_image_or_a_form_with_it() -> None:
    assert replace(TRITON, body="raw").request(b"jpeg") == (b"jpeg", "image/jpeg")
    body, content_type = replace(TRITON, body="multipart").request(b"jpeg")
    boundary = content_type.partition("boundary=")[2].encode()
    assert body.count(boundary) == 2
    assert b'name="image"' in body
    assert b"\r\n\r\njpeg\r\n" in body
