"""The history of a service's offered rate, from a real Prometheus with two weeks of samples, and from what is none."""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import numpy as np
import pytest

from autoscaling import prometheus
from autoscaling.prometheus import PrometheusError
from tests.conftest import debian, eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

pytestmark = pytest.mark.slow

SCRAPE_S = 30
DAYS = 14
END = int(time.time()) // 3600 * 3600
START = END - DAYS * 86400
# Prometheus was away for three hours on the fifth day.
AWAY = (5 * 86400, 5 * 86400 + 3 * 3600)


def offered(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Images a second at ``at`` seconds: a day's rhythm, and a burst of ten minutes each noon."""
    rates: NDArray[np.float64] = 40 - 30 * np.cos(2 * np.pi * at / 86400)
    rates += 200 * ((at % 86400 >= 43200) & (at % 86400 < 43800))
    return rates


def openmetrics() -> Iterator[str]:
    """Two replicas' counters, of which 10 % are refusals; the second restarts on the eighth day; another is sparse."""
    at = np.arange(0, DAYS * 86400 + 1, SCRAPE_S, dtype=np.float64)
    total = np.concatenate(([0.0], np.cumsum(offered(at[:-1]) * SCRAPE_S)))
    there = (at < AWAY[0]) | (at >= AWAY[1])
    reset = np.where(at >= 8 * 86400, total[np.searchsorted(at, 8 * 86400)], 0.0)
    yield "# TYPE resnet18_images counter"
    for pod, share, base in (("a", 0.5, 0.0), ("b", 0.5, reset)):
        for outcome, part in (("ok", 0.9), ("overloaded", 0.1)):
            values = share * part * (total - base)
            for second, value in zip(at[there], values[there], strict=True):
                yield f'resnet18_images_total{{pod="{pod}",outcome="{outcome}"}} {value:.3f} {START + second:.0f}'
    for second in range(0, DAYS * 86400, 120):
        yield f'resnet18_images_total{{pod="sparse",outcome="ok"}} {second} {START + second}'
    yield "# EOF\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's Prometheus over the samples of ``openmetrics``."""
    folder = tmp_path_factory.mktemp("prometheus")
    server, promtool = debian("prometheus", command="prometheus"), debian("prometheus", command="promtool")
    (folder / "samples").write_text("\n".join(openmetrics()))
    blocks = [
        promtool,
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        "--quiet",
        str(folder / "samples"),
        str(folder / "data"),
    ]
    subprocess.run(blocks, check=True, capture_output=True)
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    address = f"127.0.0.1:{free_port()}"
    options = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    options += ["--storage.tsdb.retention.time=30d", f"--web.listen-address={address}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([server, *options], stderr=log)

    def ready() -> bool:
        try:
            return bool(urllib.request.urlopen(f"http://{address}/-/ready", timeout=2).status == 200)
        except OSError:
            return False

    try:
        assert eventually(ready, 60), (folder / "log").read_text()
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(10)


BOTH = 'pod=~"a|b"'


def test_two_weeks_are_more_than_one_answer_holds_and_come_whole(url: str) -> None:
    found = prometheus.history(url, DAYS, labels=BOTH, end=END)
    assert DAYS * 1440 > prometheus.MAX_POINTS
    # Refused images are offered, too; a restart is none.
    true = offered(np.arange(0, DAYS * 86400, 1.0)).reshape(-1, 60).sum(axis=1)
    first = (found.start - START) // 60
    assert (found.step_s, first, first + len(found.counts)) == (60, 0, DAYS * 1440)
    known = ~np.isnan(found.counts)
    # The edges of a burst are smeared over a scrape.
    error = np.abs(found.counts - true)[known] / true[known]
    assert np.quantile(error, 0.99) < 0.02
    assert found.counts[known].sum() == pytest.approx(true[known].sum(), rel=0.002)


def test_a_time_without_samples_is_a_gap_and_not_silence(url: str) -> None:
    found = prometheus.history(url, DAYS, labels=BOTH, end=END)
    ((first, steps),) = found.gaps()
    assert abs(found.start + 60 * first - (START + AWAY[0])) <= 60
    assert abs(60 * steps - (AWAY[1] - AWAY[0])) <= 60


def test_a_shorter_history_than_was_asked_for_begins_where_it_does(url: str) -> None:
    found = prometheus.history(url, 30, step_s=300, labels=BOTH, end=END)
    assert abs(found.start - START) <= 300
    assert found.start + 300 * len(found.counts) == END


def test_an_instant_value(url: str) -> None:
    assert prometheus.instant(url, "vector(3) * 2") == 6
    assert prometheus.instant(url, "nothing_of_the_kind") is None
    with pytest.raises(PrometheusError, match="2 values"):
        prometheus.instant(url, 'label_replace(vector(1), "a", "b", "", "") or vector(2)')


def test_no_history_is_told_in_a_sentence(url: str) -> None:
    with pytest.raises(
        PrometheusError, match=r'has no sample of resnet18_images_total\{pod="none"\} in the last 14 days'
    ):
        prometheus.history(url, DAYS, labels='pod="none"', end=END)
    with pytest.raises(PrometheusError, match=r"never has two samples .* within 60 s"):
        prometheus.history(url, 1, labels='pod="sparse"', end=END)
    with pytest.raises(PrometheusError, match=r"refuses .*parse error"):
        prometheus.history(url, 1, labels='pod="', end=END)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "prometheus:9090",
        "ftp://a/",
        "http://",
        "http://a:b/",
        "http://[::1",
        "file:///etc/passwd",
        "http://h/a b",
        "http://h/\u00e9",
    ],
)
def test_what_is_no_address_is_quoted(url: str) -> None:
    with pytest.raises(PrometheusError, match="is no address of a Prometheus") as caught:
        prometheus.history(url, 1)
    assert repr(url) in str(caught.value)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(PrometheusError, match="address alone") as caught:
        prometheus.history("http://me:secret@127.0.0.1:1/", 1)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("days", "step_s"), [(0, 60), (-1, 60), (float("nan"), 60), (1, 0), (401, 60), (1e9, 60)])
def test_no_time_is_refused(days: float, step_s: int) -> None:
    with pytest.raises(PrometheusError, match="can't be asked for"):
        prometheus.history("http://127.0.0.1:1", days, step_s=step_s)


def test_one_that_is_away() -> None:
    with pytest.raises(PrometheusError, match=r"no Prometheus answers at http://127.0.0.1:\d+: Connection refused"):
        prometheus.history(f"http://127.0.0.1:{free_port()}", 1)
    with pytest.raises(PrometheusError, match=r"no Prometheus answers at http://nowhere\.invalid: "):
        prometheus.history("http://nowhere.invalid", 1)
    with pytest.raises(PrometheusError, match=r"no Prometheus answers at http://a\.\.b: "):
        prometheus.history("http://a..b", 1)


class Answer(http.server.BaseHTTPRequestHandler):
    """Says what the path before /api tells: its status and its body, as JSON."""

    def do_GET(self) -> None:
        if self.path.startswith("/drip"):
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(40):
                    self.wfile.write(b" ")
                    time.sleep(0.1)
            return
        status, _, body = self.path.split("/api")[0].strip("/").partition("/")
        text = bytes.fromhex(body)
        self.send_response(int(status))
        if status == "302":
            self.send_header("Location", "http://login.example/?next=metrics")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (404, "<html>", r"does not answer like a Prometheus: status 404, a body that begins '<html>'"),
        (200, "", "status 200, a body that begins ''"),
        (302, "", "is not where Prometheus is: status 302, which leads to 'http://login.example/'"),
        (200, "[" * 100_000, "does not answer like a Prometheus"),
        (200, {"status": "success", "data": {"result": [{"values": [[10**400, "1"]]}]}}, "does not answer like"),
        (200, {"hello": 1}, "does not answer like a Prometheus"),
        (200, [], "does not answer like a Prometheus"),
        (200, {"status": "success", "data": {"result": {}}}, "does not answer like a Prometheus"),
        (200, {"status": "success", "data": {"result": [{"values": [[1, "x"]]}]}}, "does not answer like"),
        (200, {"status": "success", "data": {"result": [7]}}, "does not answer like a Prometheus"),
        (503, {"status": "error", "errorType": "timeout", "error": "query timed out"}, "refuses .*: query timed out"),
    ],
)
def test_one_that_answers_otherwise(stranger: str, status: int, body: object, told: str) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(PrometheusError, match=told):
        prometheus.history(f"{stranger}/{status}/{text.encode().hex()}", 1)


def test_one_that_drips_is_given_up(stranger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "TIMEOUT_S", 0.4)
    begin = time.monotonic()
    with pytest.raises(PrometheusError, match=r"its answer is not whole after 0\.4 s"):
        prometheus.history(f"{stranger}/drip", 1)
    assert time.monotonic() - begin < 2
    monkeypatch.setattr(prometheus, "HISTORY_S", 0.0)
    with pytest.raises(PrometheusError, match="is too slow: its history is not whole after 0 s; ask for fewer --days"):
        prometheus.history(f"{stranger}/drip", 1)
