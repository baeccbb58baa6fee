"""What can be extended has one table each: its rows are whole, and no other module lists them."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

from classifier import formats, languages, runtimes
from classifier.labels import Labels
from deploy.variants import VARIANTS, Variant
from serving.schema import UPLOADS
from tests.conftest import ROOT

FILE = r"[\w./<>-]+\.(?:py|js|txt|yaml|md|toml)"
PACKAGES = ("classifier", "runners", "serving", "model_build", "deploy")
SOURCES = [ROOT / "service.py", *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))]
# Where the names of a table's rows may stand besides the table itself, and why.
HOMES = {
    # A variant is named after its runtime, and says which it is.
    "classifier/runtimes.py": ("deploy/variants.py",),
    # A field for each language.
    "classifier/languages.py": ("classifier/labels.py",),
}


def literals(path: Path) -> set[str]:
    """The texts that a module holds, but for its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = [node.body[0] for node in ast.walk(tree) if isinstance(node, kinds) and ast.get_docstring(node)]
    docstrings = {id(statement.value) for statement in documented if isinstance(statement, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    }


def naming(rows: set[str], at_least: int = 1) -> list[str]:
    """The modules that hold so many of the names in ``rows``."""
    return [str(path.relative_to(ROOT)) for path in SOURCES if len(rows & literals(path)) >= at_least]


def defined(path: Path) -> dict[str, ast.stmt]:
    """The functions and classes of a module, by name."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def packages(name: str) -> set[str]:
    """The packages that a file in requirements/ pins, with those that it includes."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[\S+\])?==", text, re.MULTILINE))
    return pinned.union(*map(packages, re.findall(r"^-r (\S+)", text, re.MULTILINE)))


def test_the_scan_sees_texts_and_no_docstrings(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('"""zh"""\ndef f(x):\n    """onnx"""\n    if x == "en":\n        return {"JPEG": f"a{x}b"}\n')
    assert literals(path) == {"en", "JPEG", "a", "b"}


@pytest.mark.parametrize(
    ("table", "rows"), [("classifier/runtimes.py", runtimes.RUNTIMES), ("classifier/languages.py", languages.LANGUAGES)]
)
def test_a_row_is_named_in_its_table_alone(table: str, rows: dict[str, object]) -> None:
    assert sorted(naming(set(rows))) == sorted((table, *HOMES[table]))


@pytest.mark.slow
def test_no_other_module_lists_formats_precisions_or_variants() -> None:
    """One may be meant by name, where it alone is different: only JPEG can be decoded at a smaller scale."""
    assert naming(set(formats.KNOWN), at_least=4) == ["classifier/formats.py"]
    assert naming({suffix for each in formats.KNOWN.values() for suffix in each.suffixes}, at_least=4) == [
        "classifier/formats.py"
    ]
    # Which numbers each precision is made of, is for torch to know.
    assert naming(set(runtimes.PRECISIONS), at_least=3) == ["classifier/runtimes.py", "model_build/export.py"]
    # Some variants are named after their runtime.
    assert naming(set(VARIANTS) - set(runtimes.RUNTIMES), at_least=3) == ["deploy/variants.py"]


@pytest.mark.parametrize("path", [path for path in (ROOT / "web").glob("*.js") if "strings." not in path.name], ids=str)
def test_the_page_s_modules_name_no_language_runtime_or_engine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    names = "|".join((*languages.LANGUAGES, *runtimes.RUNTIMES, *runtimes.ENGINES))
    assert re.findall(rf"""["'`](?:{names})["'`]|\b(?:{names})\s*:|_(?:{names})\b|\.(?:{names})\b""", text) == []


def test_the_page_s_document_lists_no_language_and_no_engine() -> None:
    text = (ROOT / "web" / "index.html").read_text(encoding="utf-8")
    assert "data-language=" not in text
    assert not re.search("|".join(each.title for each in runtimes.ENGINES.values()), text)


@pytest.mark.parametrize("runtime", runtimes.RUNTIMES.values(), ids=runtimes.RUNTIMES)
def test_a_runtime_is_whole(runtime: runtimes.Runtime) -> None:
    for engine in map(runtimes.ENGINES.__getitem__, runtime.engines):
        assert {"Backend", "has_cuda"} <= set(defined(ROOT / "runners" / f"{engine.module}.py"))
    for engine in map(runtimes.ENGINES.__getitem__, runtime.engines[1:]):
        assert engine.package in packages(f"{engine.name}.txt")
    assert "export" in defined(ROOT / "model_build" / f"{runtime.name}.py")
    assert {*runtime.on_cpu, *runtime.on_gpu} <= set(runtimes.PRECISIONS)
    assert {"fp32"} <= set(runtime.on_cpu)
    assert set(runtime.last_resort) <= set(runtime.on_cpu)
    assert runtime.suffix.startswith(".")
    assert {*runtime.exporters, runtime.package} <= packages("build.txt")


def test_every_precision_is_of_a_runtime() -> None:
    served = {precision for runtime in runtimes.RUNTIMES.values() for precision in runtime.precisions}
    assert served == set(runtimes.PRECISIONS)


def test_suffixes_tell_runtimes_apart() -> None:
    suffixes = [runtime.suffix for runtime in runtimes.RUNTIMES.values()]
    assert len(set(suffixes)) == len(suffixes)


@pytest.mark.parametrize("language", languages.LANGUAGES.values(), ids=languages.LANGUAGES)
def test_a_language_is_whole(language: languages.Language) -> None:
    assert (ROOT / "web" / f"strings.{language.code}.js").is_file()
    assert language.code in language.headings
    others = [each.headings for each in languages.LANGUAGES.values() if each is not language]
    assert language.headings.isdisjoint(set[str]().union(*others))


def test_labels_have_a_field_for_each_language() -> None:
    assert [field.name for field in dataclasses.fields(Labels)] == [*languages.LANGUAGES, "groups"]
    words = {path.name.split(".")[1] for path in (ROOT / "web").glob("strings.*.js")}
    assert words == set(languages.LANGUAGES)


@pytest.mark.parametrize("each", formats.KNOWN.values(), ids=formats.KNOWN)
def test_a_format_is_whole(each: formats.Format) -> None:
    assert all(importlib.util.find_spec(plugin) for plugin in each.plugins)
    assert re.compile(each.magic).groups == 0
    assert each.suffixes
    if each.package:
        assert each.package in packages(f"{each.requirements}.txt")
        assert each.package not in packages("runtime.txt")


def test_the_page_s_chooser_shows_what_browsers_may_not_know_as_images() -> None:
    text = (ROOT / "web" / "index.html").read_text(encoding="utf-8")
    (accepted,) = re.findall(r'id="files" accept="([^"]+)"', text)
    unknown = {suffix for each in formats.KNOWN.values() if each.package for suffix in each.suffixes}
    assert set(accepted.split(",")) == {"image/*", *unknown}


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "SECURITY.md", "docs/operations.md"])
def test_a_document_that_lists_formats_lists_all(name: str) -> None:
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        named = {each for each in formats.KNOWN if re.search(rf"\b{each}\b", line, re.IGNORECASE)}
        assert len(named) < 4 or named == set(formats.KNOWN), line


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_is_whole(variant: Variant) -> None:
    assert (ROOT / variant.bentofile).is_file()
    assert variant.runtime in runtimes.RUNTIMES
    assert (
        f"VARIANT={variant.name}" in (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8") or variant.name == "cpu"
    )
    needed = packages(f"{variant.lock}.txt")
    package = runtimes.RUNTIMES[variant.runtime].package
    assert {package, f"{package}-gpu"} & needed
    assert variant.indexed is None or variant.indexed in needed


def test_no_two_routes_take_images_in_fields_of_one_name() -> None:
    fields = [field for upload in UPLOADS.values() for field in (upload.field, *upload.aliases)]
    assert len(set(fields)) == len(fields)
    text = (ROOT / "service.py").read_text(encoding="utf-8")
    for path in UPLOADS:
        assert f'route="{path}"' in text


def extending() -> str:
    """The section of CONTRIBUTING.md that this file holds."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text[text.index("## How to extend it") :].split("\n## ", 2)[0]


def test_every_file_that_contributing_names_is_there() -> None:
    rows = {"name": [*runtimes.RUNTIMES], "code": [*languages.LANGUAGES]}
    rows["set"] = [each.requirements for each in formats.KNOWN.values() if each.requirements]
    rows["lock"] = [variant.lock for variant in VARIANTS.values()]
    rows["bento"] = [Path(each.bentofile).stem for each in VARIANTS.values() if "/" in each.bentofile]
    named = re.findall(rf"`({FILE})`", extending())
    assert len(named) > 15
    for path in named:
        placeholder = re.search(r"<(\w+)>", path)
        found = [path.replace(placeholder[0], row) for row in rows[placeholder[1]]] if placeholder else [path]
        for each in found:
            assert (ROOT / each).is_file(), each


def test_contributing_keeps_each_change_to_the_files_it_promises() -> None:
    lines = re.findall(r"^\| (an? .+?) \| (.+) \| (\d) \|$", extending(), re.MULTILINE)
    assert len(lines) > 8
    for change, files, most in lines:
        assert len(re.findall(rf"`{FILE}`", files)) <= int(most), change
