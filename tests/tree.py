"""`python -m tests.tree`: the repository's tree, a file a line, as CONTRIBUTING.md shows it.

The words of a line are the first sentence of the module's docstring. ``--write`` puts the tree into CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Every package but the tests, from what is imported by most to what is imported by none.
PACKAGES = (
    "classifier",
    "runners",
    "serving",
    "model_build",
    "offline",
    "harness",
    "loadtests",
    "benchmarks",
    "autoscaling",
    "deploy",
    "examples",
)
# Folders and files that are no modules.
OTHERS = {
    "bentofile.yaml": "What a bento contains.",
    "web/": "The page's files: plain HTML, CSS and ES modules, no build step.",
    "deploy/image/Containerfile": "The container image, in several stages.",
    "deploy/nginx/": "The load balancer in front of the replicas.",
    "deploy/kubernetes/": "Manifests: a base and its overlays.",
    "deploy/bento/": "Build files of the GPU and the TorchScript bento.",
    "deploy/bentocloud/": "Deployments for BentoCloud.",
    "deploy/prometheus/": "Scrape configuration, alert rules and their tests.",
    "deploy/grafana/": "The dashboard.",
    "requirements/": "Pinned requirements, one file a purpose; the lock files hold hashes.",
    "docs/": "Documents, measured results, pictures.",
    "tests/": "Tests, in folders that mirror the packages.",
}
_BLOCK = re.compile(r"(?<=```\n)service\.py .*?\n(?=```)", re.DOTALL)


def modules() -> list[Path]:
    """service.py and every module of every package but the tests, in the order of the tree.

    Raises ValueError for a package that PACKAGES does not name.
    """
    found = sorted((path.parent.name for path in ROOT.glob("*/__init__.py")), key=("tests", *PACKAGES).index)
    paths = [ROOT / "service.py"]
    for package in found:
        if package != "tests":
            # A folder's own line comes first, and its files before its folders.
            paths += sorted(
                (path for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts),
                key=lambda path: (path.parent.parts, path.name != "__init__.py", path.name),
            )
    return paths


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, without marks of code. Raises ValueError where there is none."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{path} has no docstring")
    paragraph = " ".join(text.split("\n\n")[0].split()).replace("`", "")
    return re.split(r"(?<=[.?!])\s", paragraph)[0]


def lines() -> list[str]:
    """The tree's lines: a path, and a sentence that says what is there."""
    ours = {_name(path): first_sentence(path) for path in modules()}
    width = max(map(len, [*ours, *OTHERS])) + 2
    return [f"{name:<{width}}{sentence}" for name, sentence in [*ours.items(), *OTHERS.items()]]


def _name(path: Path) -> str:
    """A module's path from the root; a package's is its folder's."""
    return path.relative_to(ROOT).as_posix().removesuffix("__init__.py")


def written(document: str) -> str:
    """``document`` with the tree of today in place of the one that it holds."""
    return _BLOCK.sub(lambda _: "\n".join(lines()) + "\n", document)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        contributing = ROOT / "CONTRIBUTING.md"
        contributing.write_text(written(contributing.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write("\n".join(lines()) + "\n")
