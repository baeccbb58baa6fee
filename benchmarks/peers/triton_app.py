"""Triton: its server from the wheel nvidia-pytriton, with ``triton_model.py`` in its Python backend, an instance a core.

Writes the model repository into the working directory, then becomes the server. A request carries an encoded
image as a tensor of bytes, in the protocol's binary form.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from benchmarks.peers.recipe import workers

_CONFIG = """
backend: "python"
max_batch_size: 0
input [{ name: "image", data_type: TYPE_STRING, dims: [1] }]
output [
  { name: "class_id", data_type: TYPE_INT64, dims: [1] },
  { name: "label", data_type: TYPE_STRING, dims: [1] },
  { name: "probability", data_type: TYPE_FP32, dims: [1] }
]
instance_group [{ kind: KIND_CPU, count: %d }]
"""


def repository() -> Path:
    """A model repository in the working directory."""
    model = Path("models/resnet18").absolute()
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(_CONFIG % workers(), encoding="utf-8")
    shutil.copy(Path(__file__).with_name("triton_model.py"), model / "1" / "model.py")
    return model.parent


def backends(triton: Path) -> Path:
    """A folder of backends in the working directory: Python's, with its process for this version of Python."""
    python = Path("backends/python").absolute()
    python.mkdir(parents=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    for path in (*(triton / "backends" / "python").iterdir(), stub):
        (python / path.name).symlink_to(path)
    return python.parent


def main() -> None:
    """Become the server."""
    found = importlib.util.find_spec("pytriton")
    if found is None or found.origin is None:
        sys.exit("nvidia-pytriton is not installed here; pip install -r requirements/bench-triton.txt")
    triton = Path(found.origin).parent / "tritonserver"
    # The backend's process loads the interpreter's library and finds packages by PYTHONPATH alone.
    packages = sysconfig.get_paths()["platlib"]
    libraries = [str(Path(packages) / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR") or ""]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    os.environ["PYTHONPATH"] = os.pathsep.join((os.environ.get("PYTHONPATH", ""), packages))
    server = str(triton / "bin" / "tritonserver")
    options = [f"--model-repository={repository()}", f"--backend-directory={backends(triton)}"]
    options += ["--http-address=127.0.0.1", f"--http-port={os.environ['PEER_PORT']}"]
    options += ["--allow-grpc=false", "--allow-metrics=false", "--log-info=false"]
    os.execv(server, [server, *options])


if __name__ == "__main__":
    main()
