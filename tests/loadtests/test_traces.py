"""Trace files are read in the forms people have; a bad one is named with its line."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from loadtests import traces
from loadtests.traces import TraceError


def file(folder: Path, text: str, name: str = "trace.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_counts_may_stand_on_lines_or_beside_each_other(tmp_path: Path) -> None:
    assert traces.read(file(tmp_path, "# requests\n3\n0\n\n5 # busy\n")) == [3, 0, 5]
    assert traces.read(file(tmp_path, "3 0 5\n7 1")) == [3, 0, 5, 7, 1]


def test_seconds_that_a_stamped_trace_leaves_out_are_silent(tmp_path: Path) -> None:
    assert traces.read(file(tmp_path, "timestamp,requests\n1000,4\n1001,2\n1004.0,9\n")) == [4, 2, 0, 0, 9]


def test_a_part_is_cut_out(tmp_path: Path) -> None:
    path = file(tmp_path, "\n".join(map(str, range(100))))
    assert traces.read(path, start=10, seconds=3) == [10, 11, 12]


def test_an_archive_of_one_file_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "trace.tbz2"
    with tarfile.open(path, "w:bz2") as archive:
        member = tarfile.TarInfo("inner/workload.txt")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"1 2 3"))
    assert traces.read(path) == [1, 2, 3]


def test_the_shared_traces_are_read(shared: Path) -> None:
    counts = traces.read(shared / "traces" / "twitter_trace.tbz2", seconds=600)
    assert len(counts) == 600 and 10 < sum(counts) / 600 < 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\n2\nthree\n", "trace.txt, line 3: 'three' is no count"),
        ("1\n-2\n", "trace.txt, line 2: '-2' is no count"),
        ("1\n2.5\n", "trace.txt, line 2: '2.5' is no count"),
        ("1\n²\n", "trace.txt, line 2: '²' is no count"),
        ("10,1\n11,2,3\n", "trace.txt, line 2: '11,2,3' has 3 fields"),
        ("10,1\nnoon,2\n", "trace.txt, line 2: timestamp 'noon'"),
        ("10,1\n10.4,2\n", "trace.txt, line 2: timestamp '10.4' does not come after second 10"),
        ("10,1\n11,many\n", "trace.txt, line 2: 'many' is no count"),
        ("10,1\n\ninf,1\n", "trace.txt, line 3: timestamp 'inf'"),
        ("# nothing\n\n", "trace.txt: it holds no counts"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TraceError) as raised:
        traces.read(file(tmp_path, text))
    assert said in str(raised.value)


def test_what_is_no_text_or_no_archive_is_said(tmp_path: Path) -> None:
    binary = tmp_path / "trace.bin"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(TraceError, match=r"trace\.bin: it can't be read"):
        traces.read(binary)
    with pytest.raises(TraceError, match=r"trace\.tgz: it can't be read"):
        traces.read(file(tmp_path, "1 2 3", "trace.tgz"))
    with pytest.raises(TraceError, match=r"absent\.txt: it can't be read"):
        traces.read(tmp_path / "absent.txt")


def test_a_start_past_the_end_is_said(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="holds 3 seconds, none of them from second 5 on"):
        traces.read(file(tmp_path, "1 2 3"), start=5)


def test_scaling_keeps_the_shape_and_meets_the_mean() -> None:
    assert traces.scale([1, 3, 0, 4], mean=10.0) == [5.0, 15.0, 0.0, 20.0]
    with pytest.raises(TraceError, match="no request"):
        traces.scale([0, 0], mean=10.0)
