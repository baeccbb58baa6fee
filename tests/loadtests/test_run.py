"""Whole runs as a user starts them, against servers that misbehave in a known way, and against the service."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from PIL import Image

from tests.conftest import ROOT, Server, environment, eventually

pytestmark = pytest.mark.slow


@pytest.fixture
def fake() -> Iterator[Callable[..., str]]:
    """A function that starts a fake server with options given by name, and gives its URL."""
    with contextlib.ExitStack() as stack:

        def start(**options: float | bool) -> str:
            words = [
                f"--{name.replace('_', '-')}" if value is True else f"--{name.replace('_', '-')}={value}"
                for name, value in options.items()
            ]
            command = [sys.executable, str(ROOT / "tests" / "fake_classifier.py"), *words]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            assert process.stdout is not None
            return f"http://127.0.0.1:{int(process.stdout.readline())}"

        yield start


class Done(NamedTuple):
    """How ``python -m loadtests`` ended."""

    code: int
    out: str
    err: str
    report: dict[str, Any]

    @property
    def verdict(self) -> str:
        return self.out.splitlines()[-1]


def finished(command: list[str]) -> subprocess.CompletedProcess[str]:
    env = environment()
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)


def loadtests(out: Path, *words: str) -> Done:
    command = [sys.executable, "-m", "loadtests", *words, "--out", str(out)]
    done = finished(command)
    file = out / "report.json"
    report = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return Done(done.returncode, done.stdout, done.stderr, report)


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Words that run the steady profile with three photos: six requests to ask the idle server for."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("a", "b", "c"):
        Image.effect_noise((64, 64), 50).convert("RGB").save(folder / f"{name}.jpg")
    return ("run", "--slo-ms", "500", "--photos", str(folder), "--warm-up", "1")


@pytest.mark.alone
def test_a_good_server_passes(fake: Callable[..., str], steady: tuple[str, ...], tmp_path: Path) -> None:
    done = loadtests(tmp_path, *steady, "--rate", "60", "--duration", "3", "--host", fake(delay_ms=5))
    assert done.code == 0, done
    assert done.verdict.startswith("PASSED: all")
    total = done.report["total"]
    assert total["planned"] == total["answered"] > 120
    assert 5 <= total["p50_ms"] < 300
    assert (tmp_path / "report.html").exists()


@pytest.mark.alone
def test_a_slowed_server_fails_and_the_last_line_says_why(
    fake: Callable[..., str], steady: tuple[str, ...], tmp_path: Path
) -> None:
    done = loadtests(tmp_path, *steady, "--rate", "60", "--duration", "3", "--host", fake(delay_ms=700))
    assert done.code == 1, done
    assert re.match(r"FAILED: p99_to_slo is [12]\.\d+; it must be at most 1 \(\d+\.\d% over\); ", done.verdict)
    assert "goodput_share is 0; it must be at least 0.99 (100.0% under)" in done.verdict
    assert done.report["passed"] is False and done.report["total"]["p50_ms"] >= 700


@pytest.mark.alone
def test_a_stall_is_in_the_latencies_of_all_that_it_delays(
    fake: Callable[..., str], steady: tuple[str, ...], tmp_path: Path
) -> None:
    """Coordinated omission is absent: a closed loop would send next to nothing in the two seconds of the stall."""
    # Six requests for labels, a second of warm-up, and the stall begins a second later.
    url = fake(stall_after=6 + 50 + 50, stall_s=2.0)
    done = loadtests(tmp_path, *steady, "--arrivals", "constant", "--rate", "50", "--duration", "10", "--host", url)
    total = done.report["total"]
    assert total["planned"] == total["answered"] == 500 and total["dropped"] == 0
    # 100 of 500 requests were meant to be sent during the stall; their latencies are spread evenly from 2 s to 0.
    assert total["p99_ms"] > 1800 and total["p95_ms"] > 1300
    assert total["p50_ms"] < 300
    assert done.code == 1 and "p99_to_slo" in done.verdict


def test_a_wrong_label_is_a_failure_that_is_quoted(
    fake: Callable[..., str], steady: tuple[str, ...], tmp_path: Path
) -> None:
    url = fake(wrong_after=300)
    done = loadtests(tmp_path, *steady, "--rate", "100", "--duration", "3", "--host", url)
    assert done.code == 1
    assert "failed_share is" in done.verdict and "unicorn; at idle" in done.out
    assert done.report["total"]["failures"].keys() == {"wrong_label"}


@pytest.mark.alone
def test_refusals_are_expected_of_an_overload_but_need_retry_after(
    fake: Callable[..., str], steady: tuple[str, ...], tmp_path: Path
) -> None:
    overload = (*steady, "--profile", "overload", "--limit", "100", "--duration", "4", "--host")
    done = loadtests(tmp_path, *overload, fake(capacity=110, refuse_after_ms=50))
    assert done.code == 0, done
    judged = next(phase for phase in done.report["phases"] if phase["name"] == "overload")
    assert 0.4 < judged["refused"] / judged["planned"] < 0.7 and judged["failed"] == 0
    done = loadtests(tmp_path, *overload, fake(capacity=110, refuse_after_ms=50, no_retry_after=True))
    assert done.code == 1 and "failed_share" in done.verdict and "Retry-After ''" in done.out


def test_a_dead_server_is_said(steady: tuple[str, ...], fake: Callable[..., str], tmp_path: Path) -> None:
    done = loadtests(tmp_path, *steady, "--rate", "60", "--duration", "3", "--host", fake(die_after=6 + 60 + 60))
    assert done.code == 1
    assert "failed_share" in done.verdict and done.report["total"]["failures"].keys() == {"no_answer"}
    assert "Traceback" not in done.err


@pytest.mark.alone
def test_workers_together_send_the_plan_that_one_would(
    fake: Callable[..., str], steady: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*steady, "--rate", "80", "--duration", "3", "--seed", "9", "--host", fake(delay_ms=5))
    alone = loadtests(tmp_path / "one", *words)
    split = loadtests(tmp_path / "two", *words, "--processes", "2")
    assert split.code == 0, split
    assert len(split.report["generator"]["cpu_shares"]) == 2
    total = split.report["total"]
    assert total["planned"] == total["answered"] == alone.report["total"]["planned"]
    assert [row["offered"] for row in split.report["timeline"]] == [row["offered"] for row in alone.report["timeline"]]


@pytest.mark.alone
@pytest.mark.parametrize("capacity", [150.0])
def test_the_limit_of_a_known_server_is_found(
    fake: Callable[..., str], steady: tuple[str, ...], tmp_path: Path, capacity: float
) -> None:
    """Evenly spaced arrivals and a fixed service time: below its capacity nothing waits, above it all do."""
    photos = steady[steady.index("--photos") : steady.index("--photos") + 2]
    done = loadtests(
        tmp_path,
        *("find-limit", "--arrivals", "constant", "--slo-ms", "100", "--quantile", "0.9", "--trial-s", "1.5"),
        *("--start-rate", "120", "--resolution", "0.03", *photos, "--host", fake(capacity=capacity)),
    )
    assert done.code == 0, done
    assert done.report["limit"] == pytest.approx(capacity, rel=0.05), done
    assert {trial["passed"] for trial in done.report["trials"]} == {True, False}


@pytest.mark.alone
def test_a_trace_is_replayed_to_the_count(fake: Callable[..., str], steady: tuple[str, ...], tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text("30 0 60 10\n")
    done = loadtests(tmp_path, *steady, "--trace", str(trace), "--host", fake(delay_ms=5))
    assert done.code == 0, done
    assert [row["offered"] for row in done.report["timeline"]] == [30, 0, 60, 10]
    trace.write_text("30\nmany\n")
    done = loadtests(tmp_path, *steady, "--trace", str(trace), "--host", "http://127.0.0.1:9")
    assert done.code == 2 and "trace.txt, line 2: 'many'" in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run",), "give either --host URL or --serve COMMAND"),
        (("run", "--host", "localhost:3000"), "must begin with http://"),
        (("run", "--host", "http://a", "--profile", "busy"), "no profile 'busy'; there are smoke"),
        (("run", "--host", "http://a", "--profile", "cold-start"), "needs --serve"),
        (("find-limit", "--host", "http://a", "--profile", "busy"), "no profile 'busy'"),
        (("run", "--serve", f"{sys.executable} -c exit(3)"), "ended with status 3"),
        (("run", "--serve", "no-such-command"), "no-such-command: No such file"),
    ],
)
def test_what_can_not_be_run_ends_with_2_and_a_sentence(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = loadtests(tmp_path, *words)
    assert done.code == 2 and said in " ".join(done.err.split()), done
    assert "Traceback" not in done.err


@pytest.mark.alone
def test_smoke_against_the_service(server: Server, tmp_path: Path) -> None:
    """The profile whole: half a minute, raw, multipart, batches and broken images."""
    done = loadtests(tmp_path, "run", "--profile", "smoke", "--slo-ms", "1000", "--host", server.url)
    assert done.code == 0, done
    total = done.report["total"]
    assert total["rejected"] > 0 and total["statuses"].keys() <= {"200", "400", "413", "415"}
    assert done.report["model"]["precision"] and "Images in a batch" in done.report["server"]
    assert done.report["memory"]["start_mb"] > 50


def test_plain_locust_runs_the_locustfile(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--host", server.url]
    command += ["--users", "6", "--spawn-rate", "6", "--run-time", "12s", "--json-file", str(tmp_path / "stats")]
    done = finished(command)
    assert done.returncode == 0, done.stderr
    assert "got 413 from the idle server" in done.stderr  # this one's limits are low: 12 MP are left out
    stats = {row["name"]: row for row in json.loads((tmp_path / "stats.json").read_text())}
    assert stats["raw"]["num_requests"] > 0 and not any(row["num_failures"] for row in stats.values()), stats


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_no_server(
    steady: tuple[str, ...], store: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "loadtests", *steady, "--rate", "5", "--out", str(tmp_path)]
    command += ["--serve", f"{sys.executable} -m bentoml serve service:ResNet18 --host 127.0.0.1 --port {{port}}"]
    env = environment() | {"BENTOML_HOME": str(store)}
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=said, start_new_session=True)
    assert eventually(lambda: "Running" in (tmp_path / "said").read_text(), 60)
    tree = psutil.Process(process.pid).children(recursive=True)
    assert len(tree) > 1
    process.send_signal(number)
    time.sleep(0.2)
    process.send_signal(number)  # as `timeout` and an impatient user do
    assert process.wait(60) == code
    assert [child for child in tree if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


# A finalizer drops what a signal's handler raises in it, as a Cython module's import does.
UNLUCKY = """
import os, sys, time
from loadtests import generator
from loadtests.commands.target import end_by_signals
end_by_signals()
class Unlucky:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        sum(range(10))
try:
    Unlucky()
    time.sleep(30)
finally:
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(0.1)
    print("cleaned up")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_wherever_it_meets_it_and_once(number: signal.Signals, code: int) -> None:
    done = finished([sys.executable, "-c", UNLUCKY, str(int(number))])
    assert (done.returncode, done.stdout, done.stderr) == (code, "cleaned up\n", "")


@pytest.mark.alone
def test_a_service_that_asks_for_keys_is_loaded_with_one(
    launch: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "only-for-this-test-91c4"
    url = launch(api_keys=key).wait().url
    words = ("run", "--profile", "smoke", "--duration", "4", "--slo-ms", "1000", "--host", url)
    done = loadtests(tmp_path, *words)
    assert done.code == 2 and "401" in done.err
    monkeypatch.setenv("LOADTEST_API_KEY", key)
    done = loadtests(tmp_path, *words)
    assert done.code == 0, done
    assert "Images in a batch" in done.report["server"]
    assert key not in json.dumps(done.report) + done.out + done.err
