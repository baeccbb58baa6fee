"""Documents agree with the code (settings, commands, paths, error codes, data), and each twin with its English text."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from classifier.errors import STATUS
from classifier.settings import PREFIX, Settings
from tests import tree
from tests.conftest import ROOT

READMES = ("README.md", "README.zh-CN.md")
ELASTICITY = ("docs/elasticity.md", "docs/elasticity.zh-CN.md")
TWINS = (READMES, ELASTICITY)
DOCUMENTS = [
    *READMES,
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
]


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


def commands(text: str) -> list[str]:
    """The code blocks of a Markdown text without their comments, whose words are translated."""
    return [
        "\n".join(line.split(" # ")[0].rstrip() for line in block.splitlines() if line[0:1] != "#")
        for block in blocks(text)
    ]


def numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+(?:[.,]\d+)*", text))


@pytest.mark.parametrize("twins", TWINS, ids=lambda twins: twins[0])
def test_twins_hold_the_same_code_headings_figures_and_pictures(twins: tuple[str, str]) -> None:
    english, chinese = (read(name) for name in twins)
    assert commands(english) == commands(chinese)
    for mark in (r"^#+ ", r"^[ ]*- ", r"^\|", r"!\[[^\]]*\]\("):
        found = [len(re.findall(mark, text, re.MULTILINE)) for text in (english, chinese)]
        assert found[0] == found[1], f"{mark!r} occurs {found[0]} times in English, {found[1]} times in Chinese"
    assert numbers(english) == numbers(chinese)


def test_twins_are_linked_with_each_other_and_from_both_readmes() -> None:
    for english, chinese in TWINS:
        assert f"]({Path(chinese).name})" in read(english)
        assert f"]({Path(english).name})" in read(chinese)
    for name in READMES:
        assert all(f"]({path})" in read(name) for path in ELASTICITY), name


def test_the_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) < 150


@pytest.mark.parametrize("name", READMES)
def test_the_reply_in_the_readme_has_the_service_s_shape(name: str) -> None:
    replies = [json.loads(block) for block in blocks(read(name)) if block.startswith("{")]
    assert replies
    assert set(replies[0]) == {"predictions", "model", "timing_ms"}
    assert set(replies[0]["predictions"][0]) == {"class_id", "label", "label_zh", "probability"}


def test_the_tree_names_each_file_in_a_line() -> None:
    (shown,) = [block for block in blocks(read("CONTRIBUTING.md")) if block.startswith("service.py")]
    assert shown.splitlines() == tree.lines(), "python -m tests.tree --write puts today's tree into CONTRIBUTING.md"
    paths = [line.split()[0] for line in tree.lines()]
    for path in paths:
        assert (ROOT / path).exists(), path
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    for path in listed.splitlines():
        if not path.startswith("tests/") and (ROOT / path).exists():
            assert path in paths or (path.endswith("/__init__.py") and path.removesuffix("__init__.py") in paths), path


def test_every_line_of_the_tree_says_something() -> None:
    for line in tree.lines():
        path, _, sentence = line.partition(" ")
        assert len(sentence.split()) >= 2, path


def anchors(document: str) -> set[str]:
    """The anchors of a Markdown text's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", document, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS)
def test_links_between_documents_lead_somewhere(path: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", read(path)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / path).parent / name if name else ROOT / path
        assert file.exists(), f"{path} → {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{path} → {target}"


@pytest.mark.parametrize("path", DOCUMENTS)
def test_files_that_documents_name_exist(path: str) -> None:
    prose = re.sub(r"^```.*?^```", "", read(path), flags=re.MULTILINE | re.DOTALL)
    folders = "|".join((*tree.PACKAGES, "docs", "requirements", "tests", "web"))
    for name in re.findall(rf"`((?:{folders})/[\w./-]*\w)[`:]", prose):
        found = [ROOT / name, ROOT / "docs" / name]
        assert any(file.exists() for file in found), f"{path} names {name}"


def test_the_table_of_goodput_is_the_benchmark_s_data() -> None:
    data = json.loads(read("docs/results/openloop.json"))
    _, _, table = read("docs/results.md").partition("\n| Offered, share of bare | A: ")
    table = table.partition("\n\n")[0]
    rows = re.findall(r"^\| (\d\.\d\d)[^|]*\| (\d\.\d\d) \| (\d+) / (\d+) \|", table, re.MULTILINE)
    steady, sweep, overload = data["steady"], data["sweep"], data["overload"]
    measured = [(0.7, steady["goodput"] / steady["bare"], steady)]
    measured += [(point["share"], point["to_bare"], point) for point in sweep]
    measured.append((3.0, overload["to_bare"], overload))
    assert rows == [
        (f"{share:.2f}", f"{ratio:.2f}", f"{point['p50_ms']:.0f}", f"{point['p99_ms']:.0f}")
        for share, ratio, point in measured
    ]
