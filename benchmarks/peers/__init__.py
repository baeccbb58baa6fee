"""What a user would pick instead of this service: one table. Each file beside this one is one server.

All serve the artifact that ``PEER_ARTIFACT`` names (an .onnx file with its manifest.json beside it) with
``PEER_WORKERS`` worker processes of one thread each, except the Flask tutorial, which has only torch weights
(``PEER_WEIGHTS``). ``PEER_DRAFT=1`` lets the ONNX servers decode JPEG at a reduced scale, which their docs don't teach.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
TRITON_PYTHON = ROOT / ".venv-bench-triton" / "bin" / "python"
RAY_PYTHON = ROOT / ".venv-bench-ray" / "bin" / "python"
_BOUNDARY = "resnet18-benchmark-boundary"
# The bytes of JSON in front of a "v2" request's image.
_V2_HEAD = 160


@dataclass(frozen=True)
class Peer:
    """A server to measure. ``argv`` may hold ``{python}``, ``{port}`` and ``{workers}``.

    ``python`` is its environment's interpreter. ``body``: "raw", "multipart" (field ``image``) or "v2" (the Open
    Inference Protocol's binary form), as its docs teach; ``headers``: what a request has besides.
    ``ready``: a path that answers 200 when it can serve. ``pixels``: the preprocessing whose top-1 it must reproduce,
    "plain" or, for this project's own decoder, "service". ``same_artifact``: whether it serves the ONNX file; where
    not, near-equal top-1 will do. ``engine``: what runs that file, as RESNET18_ENGINE names it. ``workers``: where its
    environment tells how many processes answer, the variable of that name.
    """

    name: str
    argv: tuple[str, ...]
    path: str
    body: str
    ready: str
    python: Path = VENV_PYTHON
    pixels: str = "plain"
    same_artifact: bool = True
    engine: str = "onnxruntime"
    workers: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def command(self, port: int, workers: int) -> list[str]:
        """The command line that starts it."""
        return [part.format(python=self.python, port=port, workers=workers) for part in self.argv]

    def request(self, image: bytes) -> tuple[bytes, str]:
        """The request body that carries a JPEG, and its content type."""
        if self.body == "raw":
            return image, "image/jpeg"
        if self.body == "v2":
            tensor = len(image).to_bytes(4, "little") + image
            described = {"name": "image", "shape": [1], "datatype": "BYTES"}
            inputs = [described | {"parameters": {"binary_data_size": len(tensor)}}]
            # Blanks at the end give all requests of a run the same headers.
            return json.dumps({"inputs": inputs}).ljust(_V2_HEAD).encode() + tensor, "application/octet-stream"
        head = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        tail = f"\r\n--{_BOUNDARY}--\r\n"
        return head.encode() + image + tail.encode(), f"multipart/form-data; boundary={_BOUNDARY}"


_UVICORN = ("{python}", "-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--workers", "{workers}")
# The control socket would be a file in the user's home.
_GUNICORN = ("{python}", "-m", "gunicorn", "-w", "{workers}", "-b", "127.0.0.1:{port}", "--no-control-socket")
_BENTOML = ("{python}", "-m", "bentoml", "serve", "--host", "127.0.0.1", "--port", "{port}")

PEERS = (
    Peer(
        name="fastapi",
        argv=(*_UVICORN, "--no-access-log", "benchmarks.peers.fastapi_app:app"),
        path="/classify",
        body="multipart",
        ready="/health",
    ),
    Peer(
        name="litserve",
        argv=("{python}", "-m", "benchmarks.peers.litserve_app"),
        path="/predict",
        body="multipart",
        ready="/health",
    ),
    Peer(
        name="mosec",
        argv=("{python}", "-m", "benchmarks.peers.mosec_app", "--address", "127.0.0.1", "--port", "{port}"),
        path="/inference",
        body="raw",
        ready="/",
    ),
    Peer(
        name="triton",
        argv=("{python}", "-m", "benchmarks.peers.triton_app"),
        path="/v2/models/resnet18/infer",
        body="v2",
        headers=(("Inference-Header-Content-Length", str(_V2_HEAD)),),
        ready="/v2/health/ready",
        python=TRITON_PYTHON,
    ),
    Peer(
        name="ray-serve",
        argv=("{python}", "-m", "benchmarks.peers.ray_app"),
        path="/",
        body="raw",
        ready="/-/healthz",
        python=RAY_PYTHON,
    ),
    Peer(
        name="flask-torch",
        argv=(*_GUNICORN, "benchmarks.peers.flask_torch_app:app"),
        path="/predict",
        body="multipart",
        ready="/",
        same_artifact=False,
    ),
    Peer(
        name="naive-bentoml",
        argv=(*_BENTOML, "benchmarks.peers.naive_bentoml:Classifier"),
        path="/classify",
        body="multipart",
        ready="/readyz",
    ),
)
