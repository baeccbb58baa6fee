"""The reliability diagram: what it draws, and what it says where there is none."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from model_build.reliability import draw, main
from model_build.temperature import Reliability

if TYPE_CHECKING:
    from pathlib import Path


def test_a_bar_and_a_dot_for_each_bin_with_images() -> None:
    rows = np.array([[0.75, 0.25], [0.75, 0.25], [0.95, 0.05]], np.float32)
    found = asdict(Reliability.of(rows, np.array([0, 1, 0])))
    told = {"temperature": 1.25, "before": found, "after": found}
    root = ElementTree.fromstring(draw(told, "a <title>".replace("<", "&lt;")))
    names = [element.tag.partition("}")[2] for element in root.iter()]
    assert names.count("circle") == 4
    assert "T = 1.25: ECE 0.1833, 3 images" in "".join(root.itertext())
    heights = [float(element.get("height", "0")) for element in root.iter() if element.get("fill") == "#0b6e4f"]
    assert heights == pytest.approx([110, 220, 110, 220], abs=0.1)


@pytest.mark.parametrize("tag", ["resnet18-onnx-fp32:latest", "nothing:1"])
def test_one_sentence_where_there_is_nothing_to_draw(store: Path, tmp_path: Path, tag: str) -> None:
    result = CliRunner().invoke(main, [tag, "--out", str(tmp_path / "a.svg")])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert tag in result.output
    assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "a.svg").exists()
