"""make: values reach the commands as they are given, whatever characters a path has, and from whatever folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT, environment, eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

PATHS = [
    "it's mine",
    'a "quoted" one',
    "$HOME",
    "$(shell touch made)",
    "$(unclosed",
    "cost$",
    "$$",
    "`touch made`",
    "back\\slash\\",
    "猫 und Übermut",
    "-dash",
    "--help",
    "a;touch made",
    "50%",
    "#1",
    "~/x*?[y]",
    "a=b&c|d",
]
RECORD = """
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps([sys.argv[1:], os.environ.get("BENTOML_HOME")]) + "\\n")
"""
Calls = list[tuple[list[str], str]]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Calls]:
    """A function that runs make in a folder of awkward name, all that it needs set up, and gives what it would run:

    the arguments of each Python command, and the store. Variables are given on the command line or by the environment.
    """
    clone = tmp_path / "it's a $HOME"
    binaries = clone / ".venv" / "bin"
    binaries.mkdir(parents=True)
    shutil.copytree(ROOT / "requirements", clone / "requirements")
    shutil.copy(ROOT / "Makefile", clone)
    (tmp_path / "record.py").write_text(RECORD)
    python = binaries / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/record.py" "$@"\n')
    python.chmod(0o755)
    for name in ("build", "dev", "load"):
        (clone / ".venv" / f"{name}.done").touch()

    def run(*arguments: str, env: dict[str, str] | None = None) -> Calls:
        record = tmp_path / "record"
        record.unlink(missing_ok=True)
        kept = {name: value for name, value in environment().items() if name not in ("BENTOML_HOME", "HOST")}
        done = subprocess.run(
            ["make", *arguments],
            cwd=clone,
            env=kept | {"RECORD": str(record)} | (env or {}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert not (clone / "made").exists()
        return [tuple(json.loads(line)) for line in record.read_text().splitlines()]

    return run


@pytest.mark.parametrize("way", ["command line", "environment"])
@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_taken_as_it_is(make: Callable[..., Calls], path: str, way: str) -> None:
    def run(target: str, **values: str) -> Calls:
        if way == "command line":
            return make(target, *(f"{name}={value}" for name, value in values.items()))
        return make(target, env=values)

    # The first of them by way of another make.
    calls = run("bento", WEIGHTS=path, BENTOML_HOME=path)
    assert [call for call, _ in calls] == [["-m", "model_build", f"--weights={path}"], ["-m", "bentoml", "build"]]
    assert {home for _, home in calls} == {path}
    assert run("corpus", DIR=path)[-1][0] == ["-m", "tests.corpus", "--", path]
    image = ["-m", "deploy.image", "--variant=cpu", f"--base={path}", f"--torch-index={path}", "--"]
    assert run("image", BASE=path, TORCH_INDEX=path)[-1][0] == image


def test_a_store_of_awkward_name_is_looked_into(make: Callable[..., Calls], tmp_path: Path) -> None:
    home = tmp_path / "it's [a] $(store) \\"
    assert len(make("bento", f"BENTOML_HOME={home}")) == 2
    model = home / "models" / "mobilenet_v2-onnx-fp32" / "1"
    model.mkdir(parents=True)
    (model / "manifest.json").touch()
    assert [call for call, _ in make("bento", f"BENTOML_HOME={home}")] == [["-m", "bentoml", "build"]]


def test_the_store_is_in_the_project(make: Callable[..., Calls], tmp_path: Path) -> None:
    assert {home for _, home in make("model")} == {str(tmp_path / "it's a $HOME" / ".bentoml")}


def test_args_are_words_for_the_shell(make: Callable[..., Calls]) -> None:
    ((call, _),) = make("model", "ARGS=--labels 'my names.json'")
    assert call[-2:] == ["--labels", "my names.json"]


@pytest.mark.parametrize(
    ("arguments", "env", "host"),
    [
        ((), {}, "127.0.0.1"),
        ((), {"HOST": "x86_64-conda-linux-gnu"}, "127.0.0.1"),
        ((), {"HOST": "arm64-apple-darwin20.0.0"}, "127.0.0.1"),
        ((), {"HOST": ""}, "127.0.0.1"),
        ((), {"HOST": "0.0.0.0"}, "0.0.0.0"),
        ((), {"HOST": "::1"}, "::1"),
        (("HOST=::1",), {"HOST": "x86_64-conda-linux-gnu"}, "::1"),
        (("HOST=localhost",), {}, "127.0.0.1"),
        ((), {"HOST": "localhost"}, "127.0.0.1"),
        # To be refused, for somebody has asked for it.
        (("HOST=my-machine",), {}, "my-machine"),
    ],
)
def test_a_host_of_the_environment_counts_if_it_is_an_address(
    make: Callable[..., Calls], arguments: tuple[str, ...], env: dict[str, str], host: str
) -> None:
    served = make("serve", "PORT=3001", *arguments, env=env)[-1][0]
    assert served == ["-m", "bentoml", "serve", "service:ResNet18", f"--host={host}", "--port=3001"]


@pytest.mark.parametrize("port", ["abc", "", "30 00", "-1", "it's"])
def test_a_port_that_is_no_number_is_refused_in_a_line(port: str) -> None:
    command = ["make", "--no-print-directory", "-o", ".venv/build.done", "serve", f"PORT={port}", "MAKE=true"]
    # The tests themselves may be run by make.
    env = {name: value for name, value in environment().items() if not name.startswith("MAKE")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[0] == f"PORT={port} is no port: a number from 1 to 65535, such as 3000"
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    ("host", "loaded"),
    [("x86_64-conda-linux-gnu", "--serve"), ("https://10.0.0.7", "--host=https://10.0.0.7")],
)
def test_a_host_of_the_environment_is_loaded_if_it_is_a_url(make: Callable[..., Calls], host: str, loaded: str) -> None:
    assert loaded in make("load", env={"HOST": host})[-1][0]


@pytest.mark.slow
def test_serving_from_a_folder_of_awkward_name(store: Path, tmp_path: Path) -> None:
    """For real: a clone of the project in such a folder, the store within it."""
    clone = tmp_path / 'it\'s a "clone"'
    clone.mkdir()
    for name in ("classifier", "runners", "serving", "web", "requirements"):
        shutil.copytree(ROOT / name, clone / name)
    for name in ("Makefile", "service.py", "bentofile.yaml"):
        shutil.copy(ROOT / name, clone)
    shutil.copytree(store / "models", clone / ".bentoml" / "models")
    (clone / ".venv").symlink_to(Path(sys.prefix))
    kept = {name: value for name, value in environment().items() if name not in ("BENTOML_HOME", "HOST", "PYTHONPATH")}
    port, log = free_port(), tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            ["make", "-o", ".venv/build.done", "serve", f"PORT={port}"],
            cwd=clone,
            env=kept | {"RESNET18_DECODER": "contained"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        assert eventually(lambda: f"ready: http://127.0.0.1:{port}\n" in log.read_text(), 60), log.read_text()
    finally:
        process.terminate()
        process.wait(30)
    assert "rror" not in log.read_text()
