"""Machines: what a table may hold, what a machine answers, and figures that were measured."""

from __future__ import annotations

import http.server
import json
import math
import threading
from typing import TYPE_CHECKING, Any

import pytest

from autoscaling import machines
from autoscaling.machines import PACKAGED, Figures, Machine, MachinesError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Server

CPU = Machine("c", 0.1, 2, alpha_ms=8.0, beta_ms=0.0, host_ms=2.0, measured=False)
GPU = Machine("g", 1.0, 4, alpha_ms=0.2, beta_ms=1.0, host_ms=3.0, measured=False, gpu="NVIDIA T4", gpus=1)


def test_a_vcpu_decodes_and_infers_one_image_after_the_other() -> None:
    assert CPU.capacity(1000) == pytest.approx(2 / 0.010)
    assert CPU.bound(1000) == "cores"


def test_a_gpu_answers_in_batches_and_its_host_bounds_it() -> None:
    # 32 images in 7.4 ms; four vCPUs decode in 3 ms each.
    gpu, host = GPU.limits(1000)
    assert gpu == pytest.approx(32 / 0.0074)
    assert host == pytest.approx(4 / 0.003)
    assert GPU.capacity(1000) == host
    # With 4 vCPUs, 32 images of 7.4 ms are decoded in time where one takes less than 4 · 7.4 / 32 ms.
    assert GPU.bound(1000) == "cores, above 0.93 ms"
    fast = machines._machine({**vars(GPU), "host_ms": 0.9}, "")
    assert fast.bound(1000) == "GPU"


def test_a_short_slo_makes_batches_small_and_a_shorter_one_can_t_be_held() -> None:
    # Two batches of b within 10 ms: 0.2 b + 1 <= 5.
    assert GPU.batch(10) == 20
    assert GPU.batch(4.3) == 5
    assert (CPU.batch(9.9), CPU.capacity(9.9), CPU.bound(9.9)) == (0, 0.0, "misses the SLO")


def test_the_packaged_table_is_dated_and_owns_to_what_it_assumes() -> None:
    found = machines.read(PACKAGED)
    assert len({machine.type for machine in found}) == len(found) >= 10
    for machine in found:
        assert machine.source
        assert machine.price_date
        assert machine.measured or machine.basis


def table(folder: Path, *rows: Any) -> Path:
    path = folder / "machines.json"
    path.write_text(json.dumps({"machines": list(rows)}))
    return path


ROW = {"type": "x", "usd_per_hour": 1, "vcpu": 2, "alpha_ms": 8, "beta_ms": 0, "host_ms": 2, "measured": True}


def test_a_table_of_one_s_own(tmp_path: Path) -> None:
    assert machines.read(table(tmp_path, ROW)) == [Machine(**ROW)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"usd_per_hour": -1}, "usd_per_hour is -1; it must be more than 0"),
        ({"usd_per_hour": 0}, "usd_per_hour is 0; it must be more than 0"),
        ({"usd_per_hour": 10**400}, r"usd_per_hour is 10+; it must be at most 1e\+09"),
        ({"usd_per_hour": "cheap"}, "usd_per_hour is 'cheap'; it must be a number"),
        ({"usd_per_hour": math.nan}, "usd_per_hour is nan"),
        ({"alpha_ms": math.inf}, "alpha_ms is inf"),
        ({"vcpu": 0}, "vcpu is 0; it must be more than 0"),
        ({"vcpu": 2.5}, r"vcpu is 2\.5; it must be a whole number"),
        ({"vcpu": True}, "vcpu is True"),
        ({"measured": 1}, "measured is 1; it must be a true or false"),
        ({"prize": 3}, "'prize' is no field; there are type, usd_per_hour"),
        ({"gpus": 1}, "gpu is '' and gpus is 1"),
        ({"gpu": "T4"}, "gpu is 'T4' and gpus is 0"),
        (None, "'usd_per_hour' is missing"),
    ],
)
def test_a_machine_that_can_t_be_is_named(tmp_path: Path, change: dict[str, Any] | None, told: str) -> None:
    row = {"type": "y"} if change is None else ROW | change
    with pytest.raises(MachinesError, match=told) as caught:
        machines.read(table(tmp_path, ROW, row))
    assert "machine 2" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", '{"machines": 3}', "{}", "\ufffe", "[" * 200_000])
def test_what_is_no_table_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(MachinesError, match="is no table of machines"):
        machines.read(tmp_path / "t")


def test_a_table_that_is_empty_away_or_no_table_of_machines(tmp_path: Path) -> None:
    with pytest.raises(MachinesError, match="holds no machine"):
        machines.read(table(tmp_path))
    with pytest.raises(MachinesError, match="machine 1: 7 is no object"):
        machines.read(table(tmp_path, 7))
    with pytest.raises(MachinesError, match="can't be read: No such file"):
        machines.read(tmp_path / "away")


def test_measured_figures_replace_one_machine_s_and_scale_the_others() -> None:
    here, there, gpu = machines.scaled([CPU, Machine(**{**vars(CPU), "type": "d", "alpha_ms": 4.0}), GPU], "c",
                                       Figures(16.0, 0.5, 1.0))  # fmt: skip
    assert (here.alpha_ms, here.beta_ms, here.host_ms, here.measured) == (16.0, 0.5, 1.0, True)
    assert (there.alpha_ms, there.beta_ms, there.host_ms, there.measured) == (8.0, 0.5, 1.0, False)
    # A GPU's launch is its own.
    assert (gpu.alpha_ms, gpu.beta_ms, gpu.host_ms, gpu.measured) == (0.4, 1.0, 1.5, False)


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        (Figures(0, 1, 1), "α of 0 ms: it must be more than 0"),
        (Figures(1, -1, 1), "β of -1 ms: it must be 0 or more"),
        (Figures(1, 1, math.nan), "host of nan ms"),
    ],
)
def test_figures_that_can_t_be(figures: Figures, told: str) -> None:
    with pytest.raises(MachinesError, match=told):
        machines.scaled([CPU], "c", figures)
    with pytest.raises(MachinesError, match="'z' is no machine of the table; it has c"):
        machines.scaled([CPU], "z", Figures(1, 1, 1))


def test_a_running_service_tells_alpha_and_beta(launch: Callable[..., Server], photos: list[Path]) -> None:
    server = launch().wait()
    url = f"{server.url}/model"
    with pytest.raises(MachinesError, match="has run 0 batches; 64 are needed"):
        machines.served(url, 0.1)
    body = photos[0].read_bytes()
    for _ in range(100):
        assert server.client.post("/classify", content=body, headers={"content-type": "image/jpeg"}).is_success
    learned = server.client.get("/model").json()["runner"]["batcher"]
    decoding = learned["alpha_ms"] / 4
    found = machines.served(url, decoding)
    # Its cores decode, so that its α holds decoding.
    assert found.alpha_ms == pytest.approx(learned["alpha_ms"] - decoding)
    assert (found.beta_ms, found.host_ms) == (learned["beta_ms"], decoding)
    with pytest.raises(MachinesError, match="decoding included, and decoding alone was 1000"):
        machines.served(url, 1000)


class Answer(http.server.BaseHTTPRequestHandler):
    """Says what the path tells, in hexadecimal."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(bytes.fromhex(self.path.strip("/")))

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


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"runner": 3}', '{"runner": {"batcher": {"alpha_ms": "x"}}}'])
def test_what_is_no_service_is_said_to_be_none(stranger: str, body: str) -> None:
    with pytest.raises(MachinesError, match="does not answer as the service's GET /model does"):
        machines.served(f"{stranger}/{body.encode().hex()}", 1)


@pytest.mark.parametrize("url", ["", "127.0.0.1:3000", "file:///etc/passwd"])
def test_what_is_no_address_is_quoted(url: str) -> None:
    with pytest.raises(MachinesError, match="is no address") as caught:
        machines.served(url, 1)
    assert repr(url) in str(caught.value)


def test_a_service_that_is_away() -> None:
    with pytest.raises(MachinesError, match=r"'http://127.0.0.1:1/model' does not answer: .*refused"):
        machines.served("http://127.0.0.1:1/model", 1)
