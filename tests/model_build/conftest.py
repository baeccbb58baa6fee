"""What tests of exported files share: the demo model's artifacts, and images to infer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from model_build import samples
from model_build.samples import Samples
from runners import artifacts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from model_build.weights import Checkpoint
    from runners.artifacts import Artifact


@pytest.fixture(scope="session")
def artifact_of(store: Path) -> Callable[[str, str], Artifact]:
    """A function that gives the demo model's artifact of a runtime and precision."""
    return lambda runtime, precision: artifacts.open_artifact(f"{artifacts.store_name(runtime, precision)}:latest")


@pytest.fixture(scope="session")
def crops(demo: Checkpoint) -> Samples:
    """Ninety-six crops of the photographs that the accuracy gate judges on by default."""
    part = samples.defaults(demo)[1]
    return Samples(part.pixels[:96], None, part.source)
