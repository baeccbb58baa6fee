"""The documents and the code tell the same: settings, commands, paths, error codes, and both languages."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from classifier.errors import STATUS
from classifier.settings import PREFIX, Settings
from tests.conftest import ROOT

READMES = ("README.md", "README.zh-CN.md")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    """The fenced code blocks of a Markdown text."""
    return re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_table_of_settings_is_the_code_s() -> None:
    expected = []
    for name, field in Settings.model_fields.items():
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        shown = "none" if default is None else f"`{default}`"
        expected.append(f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |")
    text = read("docs/operations.md")
    assert [line for line in text.splitlines() if line.startswith(f"| `{PREFIX}")] == expected


def test_every_error_code_is_in_the_table() -> None:
    table = [line for line in read("docs/operations.md").splitlines() if re.match(r"\| [45]\d\d", line)]
    told = {code for line in table for code in re.findall(r"`([a-z_]+)`", line.split("|")[2])}
    assert told == set(STATUS)


def test_every_metric_in_the_docs_is_exported() -> None:
    told = set(re.findall(r"`(resnet18_\w+)", read("docs/operations.md")))
    code = read("serving/metrics.py")
    assert told
    for name in told:
        assert f'"{name}"' in code, name


@pytest.mark.parametrize("name", READMES)
def test_the_readme_s_make_commands_are_the_makefile_s(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", read("Makefile"), flags=re.MULTILINE))
    told = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(blocks(read(name)))))
    assert {"serve", "test"} <= told <= targets


def test_make_help_lists_every_target() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("serve", "test", "model", "bento", "lint", "clean", "help"):
        assert f"make {target} " in told


def test_both_readmes_hold_the_same_code_and_headings() -> None:
    english, chinese = (read(name) for name in READMES)

    def commands(text: str) -> list[str]:
        """What is typed and answered: the blocks without comments and the tree, whose words are translated."""
        code = [block for block in blocks(text) if not block.startswith("service.py")]
        return [
            "\n".join(line.split(" # ")[0].rstrip() for line in block.splitlines() if line[0:1] != "#")
            for block in code
        ]

    assert commands(english) == commands(chinese)
    assert len(blocks(english)) == len(blocks(chinese))
    assert len(re.findall(r"^#+ ", english, re.MULTILINE)) == len(re.findall(r"^#+ ", chinese, re.MULTILINE))


@pytest.mark.parametrize("name", READMES)
def test_the_reply_in_the_readme_has_the_service_s_shape(name: str) -> None:
    replies = [json.loads(block) for block in blocks(read(name)) if block.startswith("{")]
    assert replies
    assert set(replies[0]) == {"predictions", "model", "timing_ms"}
    assert set(replies[0]["predictions"][0]) == {"class_id", "label", "label_zh", "probability"}


@pytest.mark.parametrize("name", READMES)
def test_the_tree_in_the_readme_exists(name: str) -> None:
    tree = next(block for block in blocks(read(name)) if block.startswith("service.py"))
    paths = [line.split()[0] for line in tree.splitlines() if line.strip()]
    assert len(paths) > 10
    for path in paths:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(
    "path", [*READMES, "SECURITY.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_between_documents_lead_somewhere(path: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", read(path)):
        if "://" not in target:
            assert (ROOT / Path(path).parent / target).exists(), f"{path} → {target}"
