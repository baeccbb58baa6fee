"""The model of the HorizontalPodAutoscaler comes to the controller's own decisions, and says where it does not.

data/hpa_vectors.json has the inputs and results of Kubernetes' own tests (1.20.2 and newer) and some worked by hand;
data/hpa_random.jsonl.gz has 2,000 random decisions of the controller's code of Kubernetes 1.20.2.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autoscaling import vectors

DATA = Path(__file__).with_name("data")
RANDOM = DATA / "hpa_random.jsonl.gz"
VECTORS = DATA / "hpa_vectors.json"
AVERAGE = {
    "id": 11,
    "kind": "average-value",
    "current": 23,
    "target": 500,
    "value": 10955,
    "tolerance_up": 0,
    "tolerance_down": 0,
    "expected": 22,
}


def disagreeing(path: Path) -> list[str]:
    return [f"{one.name}: {one.expected} but {one.got}" for one in vectors.check(path) if not one.agrees]


def test_every_vector_of_todays_releases_comes_out_the_same() -> None:
    assert disagreeing(VECTORS) == []
    cases = json.loads(VECTORS.read_text())["vectors"]
    old = sum(case["semantics"] == "old" for case in cases)
    assert (len(cases), old, len(vectors.check(VECTORS))) == (295, 5, 290)


def test_every_random_decision_comes_out_the_same() -> None:
    assert disagreeing(RANDOM) == []
    assert len(vectors.check(RANDOM)) == 2000


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "cases.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def run(path: Path) -> tuple[int, str]:
    done = CliRunner().invoke(vectors.command, [str(path)])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.output


def test_the_command_counts_by_kind() -> None:
    code, told = run(VECTORS)
    assert code == 0
    assert "reconcile" in told
    assert "290" in told


def test_a_decision_that_does_not_agree_is_shown_and_makes_the_command_fail(tmp_path: Path) -> None:
    code, told = run(write(tmp_path, AVERAGE, AVERAGE | {"id": 12, "expected": 23}))
    assert code == 1
    assert "average-value 12\n" in told
    assert '"value": 10955' in told
    assert 'expected {"replicas": 23}\n  got      {"replicas": 22}' in told
    assert "average-value 11" not in told


def test_the_first_five_that_do_not_agree_are_shown(tmp_path: Path) -> None:
    code, told = run(write(tmp_path, *(AVERAGE | {"id": 100 + number, "expected": 23} for number in range(7))))
    assert code == 1
    assert [f"average-value {100 + number}\n" in told for number in range(7)] == [True] * 5 + [False] * 2
    assert "2 more do not agree." in told


@pytest.mark.parametrize(
    "change",
    [
        {"expected": None},
        {"kind": "value", "ready": 23},
        {"target": 550},
        {"tolerance_down": 0.1},
    ],
    ids=str,
)
def test_a_changed_decision_does_not_agree(tmp_path: Path, change: dict[str, Any]) -> None:
    assert len(disagreeing(write(tmp_path, AVERAGE | change))) == 1


def test_the_reason_must_agree_too(tmp_path: Path) -> None:
    with gzip.open(RANDOM, "rt") as lines:
        case = next(case for line in lines if (case := json.loads(line)).get("condition") == "ScaleUpLimit")
    assert len(disagreeing(write(tmp_path, case | {"condition": "TooManyReplicas"}))) == 1


def test_an_error_must_be_the_one_that_is_expected(tmp_path: Path) -> None:
    case = next(case for case in json.loads(VECTORS.read_text())["vectors"] if "error" in case["expected"])
    assert disagreeing(write(tmp_path, case)) == []
    (told,) = disagreeing(write(tmp_path, case | {"expected": {"error": "missing request for"}}))
    assert "no metrics returned matched known pods" in told
    assert len(disagreeing(write(tmp_path, case | {"expected": {"replicas": 1}}))) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no case"),
        ("1 2 3", "line 1: '1 2 3' is no JSON object"),
        ('{"vectors": 3}', "vectors is a int; a list is needed"),
        ('{"vectors": [3]}', "case 1: '3' is no case"),
        (
            '{"vectors": [{"kind": "rate", "inputs": {}, "expected": {}}]}',
            "kind 'rate' is unknown; known are resource-",
        ),
        ('{"kind": "value", "expected": 3}', "line 1: it can't be taken for a case: 'current' is missing"),
        ('{"expected": 3}', "line 1: it can't be taken for a case: 'kind' is missing"),
        (json.dumps(AVERAGE | {"target": 0}), "line 1: it can't be taken for a case: "),
        (json.dumps(AVERAGE | {"value": "many"}), "line 1: it can't be taken for a case: "),
        ("[" * 100_000, "is no JSON object"),
    ],
    ids=range(10),
)
def test_a_file_of_another_kind_is_refused_in_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    path = write(tmp_path, text)
    code, output = run(path)
    assert code == 2
    error = " ".join(output[output.index("Error: ") :].split())
    assert str(path) in error
    assert told in error


def test_a_file_that_is_not_there_or_is_torn_is_refused(tmp_path: Path) -> None:
    assert run(tmp_path / "none")[0] == 2
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(RANDOM.read_bytes()[:5000])
    code, told = run(torn)
    assert code == 2
    assert "it can't be read: Compressed file ended" in told
    torn.write_bytes(b"\x1f\x8b" + b"x" * 100)
    assert run(torn)[0] == 2
    torn.write_bytes(b"\xff\xfe{")
    assert "it is no UTF-8 text" in run(torn)[1]


def test_a_pod_of_which_a_container_has_no_sample_counts_as_missing(tmp_path: Path) -> None:
    case = next(case for case in json.loads(VECTORS.read_text())["vectors"] if case["id"] == "v003")
    case["inputs"]["metrics"][2]["usage_m"] = [700, None]
    (result,) = vectors.check(write(tmp_path, case))
    # 40 % of 30 %: 4 / 3 of two pods, and 1,600 m of three pods' 6,000 m once the third counts 0: below the target.
    assert result.got == {"replicas": 3, "utilisation_pct": 40, "raw_value_m": 800}
