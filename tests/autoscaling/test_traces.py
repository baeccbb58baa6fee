"""Traces as files have them: every form that is read, every fault that is told."""

from __future__ import annotations

import bz2
import gzip
import tarfile
from pathlib import Path

import numpy as np
import pytest

from autoscaling import traces
from autoscaling.traces import TraceError, read

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "traces"


def write(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text", ["1\n2\n3\n", "images\n1\n2\n3\n", "1 2 3", "\ufeffimages\r\n1\r\n2\r\n3\r\n", "\n\n1\n2\n\n3\n"]
)
def test_counts_are_read_with_a_header_or_none(tmp_path: Path, text: str) -> None:
    trace = read(write(tmp_path, text), 60)
    assert trace.counts.tolist() == [1, 2, 3] and trace.step_s == 60 and trace.start is None


@pytest.mark.parametrize(
    "text",
    [
        "timestamp,images\n1700000000,1\n1700000060,2\n1700000180,4\n",
        "1700000000000,1\n1700000060000,2\n1700000180000,4\n",
        "2023-11-14T22:13:20,1\n2023-11-14T22:14:20Z,2\n2023-11-14T23:16:20+01:00,4\n",
    ],
)
def test_timestamps_give_the_step_and_what_is_missing(tmp_path: Path, text: str) -> None:
    trace = read(write(tmp_path, text))
    assert trace.start == 1_700_000_000 and trace.step_s == 60
    np.testing.assert_array_equal(trace.counts, [1, 2, np.nan, 4])


def test_packed_files_are_read(tmp_path: Path) -> None:
    plain = write(tmp_path, "5\n6\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "a.csv.bz2").write_bytes(bz2.compress(plain.read_bytes()))
    with tarfile.open(tmp_path / "a.tbz2", "w:bz2") as archive:
        archive.add(plain)
    for name in ("a.csv.gz", "a.csv.bz2", "a.tbz2"):
        assert read(tmp_path / name).counts.tolist() == [5, 6]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty"),
        ("images\n", "it holds 0 values;"),
        ("7\n", "it holds 1 value; a trace needs 2 or more"),
        ("0\n0\n0\n", "all its 3 values are 0"),
        ("1\ntwo\n3\n", "line 2: 'two' is no count"),
        ("images\n1\ntwo\n", "line 3: 'two' is no count"),
        ("1\n-2\n3\n", "line 2: '-2' is no count of images; a number of 0 or more is"),
        ("1\nnan\n", "line 2: 'nan' is no count"),
        ("1\ninf\n", "line 2: 'inf' is no count"),
        ("t,n\n10,1\n", "it holds 1 value"),
        ("t,n\n10,1\n20,-4\n", "line 3: '-4' is no count"),
        ("10,1\n20,2\n15,3\n", "line 3: the timestamp '15' is before the line above it; they must rise"),
        ("10,1\n20,2\n20,3\n", "line 3: the timestamp '20' is there twice"),
        ("10,1\n20,2\n30,2\n37,3\n", "timestamps 30 and 37 are 7 s apart, no multiple of the step of"),
        ("10,1\nlater,2\n", "line 2: 'later' is no timestamp"),
        ("10,1,5\n20,2,6\n", "line 1: '10,1,5' has 3 fields"),
        ("10,1\n10.5,2\n", "whole seconds are needed"),
        ("10,1\n20,2\n99999999990,3\n", "are more than 400 days"),
        ("10,1\n20,2\n1e40,3\n", "are more than 400 days"),
        ("90000000000,1\n90000000060,2\n", "the timestamp 9e+10 is outside the years 1970 to 2199"),
        ("-90000000000,1\n-89999999940,2\n", "the timestamp -9e+10 is outside the years 1970 to 2199"),
        ("1\n1e300\n", "line 2: '1e300' images are too many; at most 1e+12 are allowed"),
        ("1e308\n" * 3, "line 1: '1e308' images are too many"),
        ("2025-03-04,42\n", "it holds 1 value;"),
        ("1\x002\n3\n4\n", "line 1: '1\\x002' is no count"),
        ("1,000\n1,200\n", "'1,200' as a count has no comma"),
    ],
)
def test_a_fault_is_one_sentence_that_quotes_it(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(TraceError) as error:
        read(write(tmp_path, text))
    assert told in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_text_or_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="can't be read as a trace"):
        read(tmp_path / "none.csv")
    (tmp_path / "a.csv.gz").write_bytes(b"no gzip")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("a.csv.gz", "b.csv"):
        with pytest.raises(TraceError, match="can't be read as a trace"):
            read(tmp_path / name)


def test_a_step_that_the_timestamps_contradict_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "0,1\n60,2\n120,3\n")
    with pytest.raises(TraceError, match="--step-s 1 is not the 60 s that its timestamps are apart"):
        read(path, 1)
    assert read(path, 60).step_s == 60


def test_a_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "UP.CSV.GZ").write_bytes(gzip.compress(b"5\n6\n"))
    assert read(tmp_path / "UP.CSV.GZ").counts.tolist() == [5, 6]


def test_the_packaged_example_is_half_hours_of_two_weeks() -> None:
    trace = read(Path(traces.__file__).with_name("assets") / "nyc-taxi.csv")
    assert (trace.step_s, len(trace.counts)) == (1800, 672)
