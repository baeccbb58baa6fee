"""The images that tests of exported files infer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from model_build import samples
from model_build.samples import Samples

if TYPE_CHECKING:
    from model_build.weights import Checkpoint


@pytest.fixture(scope="session")
def crops(demo: Checkpoint) -> Samples:
    """Ninety-six crops of the photographs that the accuracy gate judges on by default."""
    part = samples.defaults(demo)[1]
    return Samples(part.pixels[:96], None, part.source)
