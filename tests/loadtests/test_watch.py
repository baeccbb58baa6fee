"""What is read of a server's own metrics and memory."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from loadtests import watch
from loadtests.watch import Memory, Watch

PAGE = """\
# HELP resnet18_batch_images Images in a batch
# TYPE resnet18_batch_images histogram
resnet18_batch_images_bucket{le="1.0"} 3.0
resnet18_batch_images_count 10.0
resnet18_batch_images_sum 25.0
resnet18_queue_images{pid="11"} 3.0
resnet18_queue_images{pid="12"} 4.0
resnet18_stage_seconds_sum{stage="decode"} 0.5
resnet18_refused_total{reason="deadline"} 7.0
process_resident_memory_bytes 2.5e+08
python_info{version="3.11"} 1.0
"""


def test_what_the_panels_need_is_read_and_workers_are_summed() -> None:
    assert watch.parse(PAGE) == {
        "resnet18_batch_images_count": 10.0,
        "resnet18_batch_images_sum": 25.0,
        "resnet18_queue_images": 7.0,
        'resnet18_stage_seconds_sum{stage="decode"}': 0.5,
        'resnet18_refused_total{reason="deadline"}': 7.0,
        "process_resident_memory_bytes": 2.5e8,
    }


class _Pages(http.server.BaseHTTPRequestHandler):
    pages: Iterator[str]

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(next(self.pages).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def pages() -> Iterator[tuple[str, type[_Pages]]]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Pages) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", _Pages
        server.shutdown()
        thread.join()


def test_panels_show_means_rates_and_gauges_of_each_interval(pages: tuple[str, type[_Pages]]) -> None:
    url, handler = pages
    grown = PAGE.replace("count 10.0", "count 14.0").replace("sum 25.0", "sum 41.0").replace("} 7.0", "} 27.0")
    handler.pages = iter([PAGE, PAGE, grown])
    seen = Watch(url, every_s=1.0)
    for at in (0.0, 0.4, 2.0):  # the second is too soon
        seen.look(at)
    panels = seen.panels()
    assert panels["Images in a batch"] == {"mean": [(2.0, 4.0)]}
    assert panels["Refused by the server, a second"]["deadline"] == [(2.0, 10.0)]
    assert panels["Waiting images"] == {"queue": [(0.0, 7.0), (2.0, 7.0)]}
    # It listens on this machine, so its processes are watched, not what it says of itself.
    assert "processes behind the port" in str(seen.memory.source)
    assert len(seen.memory.points) == 2 and all(megabytes > 5 for _, megabytes in seen.memory.points)


def test_memory_is_that_of_all_processes_where_the_server_tells_it(pages: tuple[str, type[_Pages]]) -> None:
    url, handler = pages
    handler.pages = iter(f"{PAGE}resnet18_memory_bytes {value}\n" for value in ("2e+08", "2e+08", "3e+08"))
    seen = Watch(url, every_s=1.0)
    for at in (0.0, 1.0):
        seen.look(at)
    assert "all processes" in str(seen.memory.source) and seen.memory.points == [(0.0, 200.0), (1.0, 300.0)]


def test_memory_that_can_not_be_known_is_said() -> None:
    body = Memory(None).body()
    assert body["source"] is None and "growth_mb" not in body and "/metrics" in body["why_not"]
    assert Memory("x", [(0.0, 1.0)]).body()["why_not"] == "too short to tell"


def test_growth_is_told_from_the_end_of_the_warm_up() -> None:
    points = [(float(at), 500.0) for at in range(-10, 0)] + [(float(at), 100.0 + 0.01 * at) for at in range(3600)]
    body = Memory("x", points).body()
    assert body["start_mb"] == pytest.approx(101.8, abs=0.1) and body["end_mb"] == pytest.approx(134.2, abs=0.1)
    assert body["growth_mb"] == pytest.approx(32.4, abs=0.1)
    assert body["slope_mb_per_hour"] == pytest.approx(36.0, abs=0.1)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:3000", True),
        ("http://localhost", True),
        ("http://[::1]:1", True),
        ("https://example.com", False),
        ("http://10.0.0.1", False),
    ],
)
def test_only_a_loopback_address_is_this_machine(url: str, local: bool) -> None:
    assert watch.is_local(url) is local


def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(OSError, match=r"not ready after 0 s: GET /readyz said .*refused"):
        watch.wait_ready("http://127.0.0.1:9", 0.2)
