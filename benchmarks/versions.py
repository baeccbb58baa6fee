"""The code that a benchmark measures: versions of packages, and this repository's revision."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks.peers import ROOT

PACKAGES = (
    "bentoml",
    "fastapi",
    "uvicorn",
    "litserve",
    "mosec",
    "nvidia-pytriton",
    "ray",
    "flask",
    "gunicorn",
    "torch",
    "onnxruntime",
    "openvino",
    "pillow",
)


def installed(python: Path) -> dict[str, str]:
    """The versions of PACKAGES in the environment of an interpreter."""
    code = (
        "import json, sys\nfrom importlib.metadata import distributions\n"
        "print(json.dumps({d.name.lower(): d.version for d in distributions() if d.name.lower() in sys.argv[1:]}))"
    )
    done = subprocess.run([python, "-c", code, *PACKAGES], capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return dict(sorted(found.items()))


def revision() -> str:
    """The git revision of this repository, "unknown" outside one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, timeout=10
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
