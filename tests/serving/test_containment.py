"""Contained decoding: the same pixels, and whatever befalls a decoder, only its own image feels it."""

from __future__ import annotations

import io
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from PIL import Image

from classifier import decoder, pixels
from classifier.decoder import Limits
from classifier.errors import ClassifierError
from classifier.preprocessing import Preprocessing
from serving import containment
from serving.containment import ContainedDecoder
from tests.conftest import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Server

pytestmark = pytest.mark.slow

LIMITS = Limits(Preprocessing(64, 73), max_pixels=60_000_000, seconds=20.0, memory=600 * 2**20)
# A decoder that some bytes make fail as a broken library would.
SABOTAGED = """
import os, sys, socket, time
from classifier import decoder, pixels
decode = pixels.read
def sabotaged(data, *options):
    if data == b"die":
        os.abort()
    while data == b"hang":
        pass
    return decode(data, *options)
pixels.read = sabotaged
decoder.main(socket.socket(fileno=int(sys.argv[1])), decoder.Limits.parse(sys.argv[2]))
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ContainedDecoder]]:
    """A function that starts a contained decoder, sabotaged or not."""
    all_started: list[ContainedDecoder] = []
    command = decoder.command

    def start(limits: Limits = LIMITS, sabotaged: bool = False) -> ContainedDecoder:
        if sabotaged:
            monkeypatch.setattr(
                decoder, "command", lambda *given: [sys.executable, "-c", SABOTAGED, *command(*given)[-2:]]
            )
        all_started.append(ContainedDecoder(limits))
        return all_started[-1]

    yield start
    for one in all_started:
        one.close()


@pytest.fixture(scope="module")
def jpegs(photograph: Callable[[int, int], Image.Image]) -> list[bytes]:
    images = []
    for width, height in ((640, 480), (300, 500), (64, 64), (2000, 1500)):
        buffer = io.BytesIO()
        photograph(width, height).save(buffer, "JPEG")
        images.append(buffer.getvalue())
    return images


def expected(data: bytes) -> np.ndarray:
    return pixels.decode(data, LIMITS.preprocessing, LIMITS.max_pixels)


def processes(decode: ContainedDecoder) -> tuple[psutil.Process, list[psutil.Process]]:
    """The process that forks decoders, and the decoders."""
    assert decode._forker is not None
    forker = psutil.Process(decode._forker.pid)
    return forker, forker.children()


def code(decode: ContainedDecoder, data: bytes) -> str:
    with pytest.raises(ClassifierError) as raised:
        decode(data)
    return raised.value.code


def test_the_pixels_are_those_of_the_threads(started: Callable[..., ContainedDecoder], jpegs: list[bytes]) -> None:
    decode = started()
    with ThreadPoolExecutor(3) as pool:
        for number, decoded in enumerate(pool.map(decode, jpegs * 5)):
            np.testing.assert_array_equal(decoded.pixels, expected(jpegs[number % len(jpegs)]))
        assert 1 <= len(processes(decode)[1]) <= 3


def test_errors_keep_their_code_message_and_facts(started: Callable[..., ContainedDecoder], jpegs: list[bytes]) -> None:
    decode = started()
    for data in (b"", b"no image", jpegs[0][:3000]):
        with pytest.raises(ClassifierError) as inside:
            expected(data)
        with pytest.raises(ClassifierError) as outside:
            decode(data)
        assert outside.value.body() == inside.value.body()
        assert outside.value.code == inside.value.code


def test_one_that_dies_of_its_image_costs_that_image_only(
    started: Callable[..., ContainedDecoder], jpegs: list[bytes]
) -> None:
    decode = started(sabotaged=True)
    for _ in range(3):
        assert code(decode, b"die") == "unreadable_image"
        np.testing.assert_array_equal(decode(jpegs[0]).pixels, expected(jpegs[0]))


def test_one_that_hangs_is_ended(started: Callable[..., ContainedDecoder], jpegs: list[bytes]) -> None:
    decode = started(Limits(**{**vars(LIMITS), "seconds": 0.5}), sabotaged=True)
    decode(jpegs[2])
    (hanging,) = processes(decode)[1]
    assert code(decode, b"hang") == "decode_timeout"
    assert eventually(lambda: not hanging.is_running())
    decode(jpegs[2])


def test_one_that_is_stopped_is_ended(started: Callable[..., ContainedDecoder], jpegs: list[bytes]) -> None:
    decode = started(Limits(**{**vars(LIMITS), "seconds": 0.5}))
    decode(jpegs[2])
    (stopped,) = processes(decode)[1]
    stopped.send_signal(signal.SIGSTOP)
    assert code(decode, jpegs[2]) == "decode_timeout"
    assert eventually(lambda: not stopped.is_running())
    decode(jpegs[2])


def test_the_kernel_ends_one_that_nobody_waits_for(
    started: Callable[..., ContainedDecoder], jpegs: list[bytes]
) -> None:
    decode = started(Limits(**{**vars(LIMITS), "seconds": 1.0}), sabotaged=True)
    decode(jpegs[2])
    (child,) = processes(decode)[1]
    connection = decode._process().connection
    connection.sendall(decoder.LENGTH.pack(4) + b"hang")
    assert eventually(lambda: child.status() == psutil.STATUS_ZOMBIE)
    assert child.cpu_times().user + child.cpu_times().system < 4


def test_one_that_needs_too_much_memory(started: Callable[..., ContainedDecoder], jpegs: list[bytes]) -> None:
    decode = started(Limits(**{**vars(LIMITS), "memory": 64 * 2**20}))
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(buffer, "PNG", compress_level=1)  # 144 MB in Pillow's memory
    with pytest.raises(ClassifierError, match="memory") as raised:
        decode(buffer.getvalue())
    assert raised.value.code == "image_too_large"
    np.testing.assert_array_equal(decode(jpegs[0]).pixels, expected(jpegs[0]))


def test_a_killed_decoder_costs_no_answer(started: Callable[..., ContainedDecoder], jpegs: list[bytes]) -> None:
    decode = started()
    for _ in range(5):
        decode(jpegs[2])
        for child in processes(decode)[1]:
            os.kill(child.pid, signal.SIGKILL)
        np.testing.assert_array_equal(decode(jpegs[0]).pixels, expected(jpegs[0]))


def test_what_forks_them_may_be_killed_too(started: Callable[..., ContainedDecoder], jpegs: list[bytes]) -> None:
    decode = started()
    decode(jpegs[2])
    forker, children = processes(decode)
    for process in (forker, *children):
        os.kill(process.pid, signal.SIGKILL)
    np.testing.assert_array_equal(decode(jpegs[0]).pixels, expected(jpegs[0]))


def test_a_decoder_is_recycled(
    started: Callable[..., ContainedDecoder], jpegs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containment, "RECYCLE", 3)
    decode = started()
    for _ in range(2):
        decode(jpegs[2])
        (child,) = processes(decode)[1]
        for _ in range(2):
            assert child.is_running()
            decode(jpegs[2])
        assert eventually(lambda child=child: not child.is_running())  # type: ignore[misc]


def test_no_process_is_left(started: Callable[..., ContainedDecoder], jpegs: list[bytes]) -> None:
    decode = started()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(decode, jpegs))
    forker, children = processes(decode)
    decode.close()
    assert not any(process.is_running() for process in (forker, *children))


def test_a_decoder_can_write_no_file_and_knows_no_secret(
    started: Callable[..., ContainedDecoder], jpegs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNET18_API_KEYS", "a-secret-of-the-service")
    decode = started()
    decode(jpegs[2])
    forker, (child,) = processes(decode)
    assert child.rlimit(psutil.RLIMIT_FSIZE) == child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    for process in (forker, child):
        assert "a-secret-of-the-service" not in str(process.environ())


# In the service.


@pytest.mark.parametrize("placement", ["inline", "dedicated"])
def test_a_service_with_contained_decoders(
    launch: Callable[..., Server], server: Server, jpegs: list[bytes], placement: str
) -> None:
    contained = launch(decoder="contained", placement=placement, decode_timeout_ms="2000").wait()
    assert contained.client.get("/model").json()["decoder"] == "contained"

    def ask(one: Server, image: bytes) -> object:
        reply = one.client.post("/classify", content=image, headers={"content-type": "image/jpeg"})
        assert reply.status_code == 200, reply.text
        return [prediction["class_id"] for prediction in reply.json()["predictions"]]

    answers = [ask(server, image) for image in jpegs]
    forkers = [process for process in map(psutil.Process, contained.processes()) if is_forker(process)]
    assert forkers
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(10):
            results = pool.map(lambda image: ask(contained, image), jpegs * 5)
            for process in [child for forker in forkers for child in forker.children()][: round_ % 3]:
                os.kill(process.pid, signal.SIGKILL)
            assert list(results) == answers * 5
    contained.stop()
    assert eventually(lambda: not any(forker.is_running() for forker in forkers))


def is_forker(process: psutil.Process) -> bool:
    parent = process.parent()
    return "classifier.decoder" in process.cmdline() and "classifier.decoder" not in (
        parent.cmdline() if parent else []
    )
