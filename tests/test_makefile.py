"""What `make` hands to the programs: whatever a path or an address looks like."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Names that people give to files, and what a shell or make would make of them.
NAMES = [
    "it's mine.pth",
    "two words.pth",
    'quoted ".pth',
    "a$b.pth",
    "a$(HOME)`id`;&.pth",
    "-x.pth",
    "猫.pth",
    "a\\b#.pth",
]


@pytest.fixture
def handed(tmp_path: Path) -> Callable[..., list[str]]:
    """A function that runs make with programs that print their arguments, one a line, and gives those lines."""
    for name in ("python", "bentoml"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
        program.chmod(0o755)

    def run(*arguments: str, **variables: str) -> list[str]:
        names = ("HOST", "PORT", "WEIGHTS", "MAKEFLAGS", "MAKELEVEL")
        env = {name: value for name, value in environment().items() if name not in names}
        old = [word for name in ("build", "dev", "load") for word in ("-o", f".venv/{name}.done")]
        command = ["make", "--no-print-directory", *old, f"BIN={tmp_path}/bin", *arguments]
        result = subprocess.run(
            command, cwd=ROOT, env=env | {"BENTOML_HOME": str(tmp_path)} | variables, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines()

    return run


@pytest.mark.parametrize("name", NAMES)
def test_any_path_may_be_weights(handed: Callable[..., list[str]], name: str) -> None:
    # As one types it: make itself reads $$ as $, and # not at all, on its command line as in the environment.
    assert f"--weights={name}" in handed("model", WEIGHTS=name)
    assert f"--weights={name}" in handed("model", f"WEIGHTS={name}")
    assert f"--weights={name}" in handed("serve", f"WEIGHTS={name}")


@pytest.mark.parametrize("name", NAMES)
def test_any_path_may_be_a_folder_to_send(handed: Callable[..., list[str]], name: str) -> None:
    assert handed("corpus", f"DIR={name}")[-2:] == ["--", name]


def test_any_path_may_be_the_store(handed: Callable[..., list[str]], tmp_path: Path) -> None:
    home = tmp_path / "it's a [store]"
    assert "model_build" in handed("serve", BENTOML_HOME=str(home))
    (home / "models" / "resnet18-onnx-int8").mkdir(parents=True)
    (home / "models" / "resnet18-onnx-int8" / "latest").touch()
    assert "model_build" not in handed("serve", BENTOML_HOME=str(home))


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({}, "127.0.0.1"),
        ({"HOST": "x86_64-conda-linux-gnu"}, "127.0.0.1"),  # conda's, which names a platform
        ({"HOST": "localhost"}, "127.0.0.1"),
        ({"HOST": "0.0.0.0"}, "0.0.0.0"),
        ({"HOST": "::1"}, "::1"),
    ],
)
def test_where_it_listens(handed: Callable[..., list[str]], given: dict[str, str], used: str) -> None:
    assert f"--host={used}" in handed("serve", PORT="3456", **given)
    assert "--port=3456" in handed("serve", PORT="3456", **given)


def test_a_host_that_was_asked_for_is_not_replaced(handed: Callable[..., list[str]]) -> None:
    assert "--host=x86_64-conda-linux-gnu" in handed("serve", "HOST=x86_64-conda-linux-gnu")


def test_only_a_url_names_a_server_to_load(handed: Callable[..., list[str]]) -> None:
    assert "--host=http://10.0.0.7:3000" in handed("load", HOST="http://10.0.0.7:3000")
    assert "--serve" in handed("load", HOST="x86_64-conda-linux-gnu")
