"""Each benchmark's command can be started, so that all its modules are there; what they measure is `make bench`'s."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.__main__ import EXTRA, SUITE
from tests.conftest import ROOT, environment


@pytest.mark.parametrize("name", SUITE | EXTRA)
def test_a_benchmark_tells_its_options(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--help"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: ")
