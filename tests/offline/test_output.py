"""The output: what is there is gone on with or refused, never overwritten."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from offline.output import Layout, Output, OutputError, rows_of

MODEL = "resnet18-onnx-fp32:1"
LAYOUT = Layout(MODEL, 1, chinese=False)
CAT = {"class_id": 3, "label": "cat", "label_zh": "猫", "probability": 0.5}


def row(path: str, **changes: Any) -> dict[str, Any]:
    return {"path": path, "predictions": [dict(CAT)], "model": MODEL, **changes}


BROKEN = {"path": "b.png", "error": {"code": "unreadable_image", "message": 'no "image"\nat all'}, "model": MODEL}


def written(path: Path, *given: dict[str, Any], layout: Layout = LAYOUT) -> Output:
    output = Output(path, layout)
    output.write([(output.encode(each), "error" in each) for each in given])
    output.close()
    return output


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_rows_are_found_again(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    written(path, row('a\n"1.jpg'), BROKEN)
    size = path.stat().st_size
    again = written(path)
    assert again.done == {'a\n"1.jpg', "b.png"}
    assert again.failed == 1
    assert path.stat().st_size == size


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_row_that_is_not_whole_is_cut_off(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    written(path, row("a.jpg"))
    first = path.read_bytes()
    written(path, BROKEN)
    whole = path.read_bytes()
    for size in range(len(first), len(whole)):
        path.write_bytes(whole[:size])
        assert written(path).done == {"a.jpg"}, size
        assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "my,own\n1,2\n"),
        ("a.csv", "a will without an end of line"),
        ("a.csv", "path,label,class_id,probability,error,message,model\none,two\n"),
        ("a.jsonl", "my own\n"),
        ("a.jsonl", '{"my": 1}\n'),
        ("a.jsonl", "[1]\n"),
        ("a.jsonl", '{"path":"a.jpg","predictions":7,"model":"m"}\n'),
        ("a.jsonl", '{"pat'[:3] + "s"),
    ],
)
def test_a_file_of_someone_else_is_refused_and_kept(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(OutputError, match=r"is not by this command: line [12] begins '"):
        Output(path, LAYOUT)
    assert path.read_text() == content


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_another_models_rows_and_other_choices_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    written(path, row("a.jpg"))
    with pytest.raises(OutputError, match=r"written by the model 'resnet18-onnx-fp32:1', not by 'other:2'"):
        Output(path, Layout("other:2", 1, chinese=False))
    with pytest.raises(OutputError, match=r"another choice of --chinese"):
        Output(path, Layout(MODEL, 1, chinese=True))
    if suffix == ".jsonl":
        with pytest.raises(OutputError, match=r"another choice of --top-k"):
            Output(path, Layout(MODEL, 2, chinese=False))


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    first = Output(path, LAYOUT)
    with pytest.raises(OutputError, match=r"is being written by another run"):
        Output(path, LAYOUT)
    first.close()
    Output(path, LAYOUT).close()


def test_a_full_disk_is_told_in_a_sentence(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    output = Output(tmp_path / "out.jsonl", LAYOUT)
    with Path("/dev/full").open("ab") as full:
        os.dup2(full.fileno(), output._file.fileno())
    with pytest.raises(OutputError, match=r"out\.jsonl' can't be written: No space left"):
        output.write([(b"row\n", False)])
    with contextlib.suppress(OSError):
        output.close()


def test_chinese_names_are_there_if_asked_for(tmp_path: Path) -> None:
    for chinese in (False, True):
        for suffix in (".csv", ".jsonl"):
            path = tmp_path / f"{chinese}{suffix}"
            pet = {"group_id": 0, "label": "pet", "label_zh": "宠物", "probability": 0.9}
            written(path, row("a.jpg") | {"groups": [pet]}, layout=Layout(MODEL, 1, chinese))
            text = path.read_text(encoding="utf-8")
            assert ("猫" in text) is chinese
            assert ("宠物" in text) is (chinese and suffix == ".jsonl")


def test_parquet_without_pyarrow_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OutputError, match=r"out\.parquet' needs pyarrow, which is not installed"):
        Output(tmp_path / "out.parquet", LAYOUT)


def test_parquet_has_the_columns_of_a_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "out.parquet"
    written(path, row("a.jpg"))
    output = Output(path, LAYOUT)
    assert output.done == {"a.jpg"}
    output.write([(output.encode(BROKEN), True)])
    output.finish()
    output.close()
    assert not rows_of(path).exists()
    found = parquet.read_table(path).to_pylist()
    assert [each["path"] for each in found] == ["a.jpg", "b.png"]
    assert found[0] == LAYOUT.flat(row("a.jpg"))
    assert found[1]["error"] == "unreadable_image"
    with pytest.raises(OutputError, match=r"exists, and a Parquet file can't be added to"):
        Output(path, LAYOUT)


def test_a_table_has_warnings_as_its_message() -> None:
    flat = LAYOUT.flat(row("a.jpg", warnings=["it ends early", "it is dark"]))
    assert (flat["error"], flat["message"]) == (None, "it ends early; it is dark")
    assert LAYOUT.flat(row("a.jpg"))["message"] is None


def test_json_has_the_services_objects(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    written(path, row("日.jpg"), layout=Layout(MODEL, 1, chinese=True))
    assert json.loads(path.read_bytes()) == row("日.jpg")
