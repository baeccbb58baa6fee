"""``python -m offline`` as a user calls it: on folders, zips and lists, broken off, resumed, and given nonsense."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from offline.__main__ import INTERRUPTED, main
from tests.server import ROOT, Server, environment

if TYPE_CHECKING:
    from collections.abc import Callable


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_mandelbrot((60 + number, 50), (-2, -1.5, 1, 1.5), 10 + number).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Five images in three folders, a broken one, a link to nothing, a folder that links to itself, and a text."""
    root = tmp_path / "album"
    for number, name in enumerate(("b/2.jpg", "a.jpg", "b/1.JPG", "c/日.jpg", 'c/no,"comma.jpg')):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(number))
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    (root / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "b" / "again").symlink_to(root)
    (root / "notes.txt").write_text("of the album")
    return root


NAMES = ["a.jpg", "b/1.JPG", "b/2.jpg", "broken.png", 'c/no,"comma.jpg', "c/日.jpg", "gone.jpg"]


@pytest.fixture
def offline(store: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function of arguments that runs the command in this process."""
    monkeypatch.setenv("RESNET18_ENGINE", "onnxruntime")
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_becomes_a_table(offline: Callable[..., Result], album: Path, tmp_path: Path) -> None:
    out = album / "labels.csv"
    done = offline(album, "--out", out, "--chinese")
    assert done.exit_code == 1, done.output
    assert "2 images have an error" in done.output
    assert "passed over, as no images: 1 text\n" in done.output
    found = rows(out)
    assert [row["path"] for row in found] == NAMES
    assert list(found[0]) == ["path", "label", "label_zh", "class_id", "probability", "error", "message", "model"]
    broken, gone = found[3], found[6]
    assert (broken["error"], gone["error"]) == ("unreadable_image", "unreadable_image")
    assert "PNG" in broken["message"]
    assert "No such file" in gone["message"]
    assert broken["label"] == broken["class_id"] == broken["probability"] == ""
    assert all(row["label_zh"] and row["model"].startswith("resnet18-onnx-") for row in found if not row["error"])

    before = out.read_bytes()
    again = offline(album, "--out", out, "--chinese")
    assert again.exit_code == 1
    assert "0 images now, 7 before" in again.output
    assert out.read_bytes() == before


def test_it_answers_as_the_service_does(
    offline: Callable[..., Result], server: Server, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels.jsonl"
    assert offline(album, "--out", out, "--chinese", "--top-k", 3).exit_code == 1
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["path"] for row in found] == NAMES
    for row in found[:-1]:
        reply = httpx.post(f"{server.url}/classify?top_k=3", content=(album / row["path"]).read_bytes()).json()
        for name in ("predictions", "error"):
            assert row.get(name) == reply.get(name)


def test_a_zip_and_a_list_give_the_rows_of_the_folder(
    offline: Callable[..., Result], album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (album / "gone.jpg").unlink()
    with zipfile.ZipFile(tmp_path / "album.zip", "w") as archive:
        for name in NAMES[:-1]:
            archive.write(album / name, name)
    (tmp_path / "list.txt").write_text("\n".join([*reversed(NAMES[:-1]), "", NAMES[0]]))
    monkeypatch.chdir(album)
    texts = []
    for source in (album, tmp_path / "album.zip", tmp_path / "list.txt"):
        out = tmp_path / f"{source.stem}.csv"
        assert offline(source, "--out", out).exit_code == 1
        texts.append(out.read_bytes())
        out.unlink()
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_run_that_was_broken_off_anywhere_is_gone_on_with(
    offline: Callable[..., Result], album: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"labels{suffix}"
    assert offline(album, "--out", out).exit_code == 1
    whole = out.read_bytes()
    for kept in (0, 5, len(whole) // 2, len(whole) - 1):
        out.write_bytes(whole[:kept])
        done = offline(album, "--out", out)
        assert done.exit_code == 1, done.output
        assert out.read_bytes() == whole, kept


def test_limits_are_the_services(
    offline: Callable[..., Result], album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (album / "large.jpg").write_bytes(jpeg(0) + bytes(20_000))
    monkeypatch.setenv("RESNET18_MAX_BODY_BYTES", "20000")
    monkeypatch.setenv("RESNET18_MAX_PIXELS", str(61 * 50))
    offline(album, "--out", tmp_path / "labels.csv")
    errors = {row["path"]: row["error"] for row in rows(tmp_path / "labels.csv")}
    assert errors["large.jpg"] == "body_too_large"
    assert errors["b/2.jpg"] == errors["a.jpg"] == ""
    assert errors["c/日.jpg"] == "image_too_large"


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    message = result.output.strip().splitlines()[-1]
    assert all(word in message for word in words), message
    assert "Traceback" not in result.output


def test_mistakes_are_refused_in_a_sentence(
    offline: Callable[..., Result], album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "labels.csv"
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(offline(empty, "--out", out), f"'{empty}' holds no images")
    (empty / "a.txt").write_text("text")
    refused(offline(empty, "--out", out), f"'{empty}' holds no images; it holds 1 text")
    refused(offline(tmp_path / "nothing", "--out", out), "nothing", "does not exist")
    refused(offline(album / "a.jpg", "--out", out), "a.jpg", "a folder, a .zip, or a text file")
    refused(offline(album, "--out", tmp_path / "labels.xlsx"), "labels.xlsx", ".csv, .jsonl or .parquet")
    refused(offline(album, "--out", out, "--top-k", "2"), "--top-k 2", "labels.csv")
    refused(offline(album, "--out", tmp_path / "x.jsonl", "--top-k", "11"), "--top-k 11", "10 classes")
    refused(offline(album, "--out", tmp_path / "no" / "labels.csv"), "labels.csv", "No such file")
    monkeypatch.setenv("RESNET18_MODEL", "nobody:1")
    refused(offline(album, "--out", out), "nobody:1")
    monkeypatch.setenv("RESNET18_THREADS", "many")
    refused(offline(album, "--out", out), "'many'")
    assert not out.exists()


def test_ctrl_c_leaves_a_file_that_is_gone_on_with(store: Path, tmp_path: Path) -> None:
    many = tmp_path / "many.txt"
    one = tmp_path / "one.jpg"
    one.write_bytes(jpeg(0))
    names = [f"{one.parent}{'/' * slashes}one.jpg" for slashes in range(1, 4000)]
    many.write_text("\n".join(names))
    out = tmp_path / "labels.csv"
    command = [sys.executable, "-m", "offline", str(many), "--out", str(out)]
    variables = environment() | {"BENTOML_HOME": str(store), "RESNET18_ENGINE": "onnxruntime"}
    # A shell without job control starts what is in its background with SIGINT ignored, and so are its children.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    end = time.monotonic() + 60
    while not (out.exists() and out.stat().st_size > 1000) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, told
    assert "the same command goes on from there" in told
    assert "Traceback" not in told
    got = [row["path"] for row in rows(out)]
    assert 0 < len(got) < len(names)
    assert got == sorted(names)[: len(got)]
