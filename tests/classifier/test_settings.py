"""Settings: every default holds, and every bad value is refused in words that quote it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pydantic
import pytest

from classifier.runtimes import RUNTIMES
from classifier.settings import PREFIX, Settings, SettingsError, read

if TYPE_CHECKING:
    from collections.abc import Callable


# As pydantic lists what is allowed.
RUNTIMES_LISTED = " or ".join(", ".join(map(repr, RUNTIMES)).rsplit(", ", 1))


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """A function that reads settings from the variables given."""

    def from_environment(**values: str) -> Settings:
        for name, value in values.items():
            monkeypatch.setenv(PREFIX + name.upper(), value)
        return read()

    return from_environment


def test_defaults() -> None:
    settings = read()
    assert (settings.runtime, settings.precision, settings.device, settings.placement) == (
        "onnx",
        "auto",
        "auto",
        "auto",
    )
    assert (settings.model, settings.workers, settings.threads, settings.access_log) == (None, 1, 0, False)
    assert settings.max_body_bytes == 20 * 1024 * 1024


def test_every_default_can_be_set_explicitly(given: Callable[..., Settings]) -> None:
    defaults = {name: str(value) for name, value in read().model_dump().items() if value is not None}
    assert given(**defaults) == read()


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("runtime", "torchscript", "torchscript"),
        ("precision", "bf16", "bf16"),
        ("device", "cpu", "cpu"),
        ("device", "cuda", "cuda"),
        ("device", "cuda:3", "cuda:3"),
        ("placement", "dedicated", "dedicated"),
        ("model", "resnet18-onnx-int8:abc", "resnet18-onnx-int8:abc"),
        ("workers", "4", 4),
        ("threads", "8", 8),
        ("max_pixels", "1000000000", 1_000_000_000),
        ("access_log", "true", True),
        ("access_log", "0", False),
        ("open_paths", "", ""),
        ("open_paths", "/metrics, /assets/*", "/metrics, /assets/*"),
        ("cors_origins", "*", "*"),
        ("cors_origins", "https://a.example,http://[::1]:8080", "https://a.example,http://[::1]:8080"),
        ("rate_limit", "0.5", 0.5),
        ("trusted_proxies", "10.0.0.7, fd00::/8", "10.0.0.7, fd00::/8"),
    ],
)
def test_good_values(given: Callable[..., Settings], name: str, text: str, value: object) -> None:
    assert getattr(given(**{name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("runtime", "tensorrt", RUNTIMES_LISTED),
        ("runtime", "", RUNTIMES_LISTED),
        ("precision", "int4", "'auto', 'fp32', 'int8', 'bf16' or 'fp16'"),
        ("device", "gpu", "auto, cpu, cuda or cuda:N"),
        ("device", "cuda:", "auto, cpu, cuda or cuda:N"),
        ("device", "cuda:-1", "auto, cpu, cuda or cuda:N"),
        ("device", "cuda:1000", "auto, cpu, cuda or cuda:N"),
        ("device", "cpu ", "auto, cpu, cuda or cuda:N"),
        ("placement", "remote", "'auto', 'inline' or 'dedicated'"),
        ("workers", "0", "greater than or equal to 1"),
        ("workers", "65", "less than or equal to 64"),
        ("workers", "two", "valid integer"),
        ("workers", "1.5", "valid integer"),
        ("workers", "", "valid integer"),
        ("threads", "-1", "greater than or equal to 0"),
        ("threads", "257", "less than or equal to 256"),
        ("max_batch", "0", "greater than or equal to 1"),
        ("max_batch", "1025", "less than or equal to 1024"),
        ("max_queue", "0", "greater than or equal to 1"),
        ("max_queue", "100001", "less than or equal to 100000"),
        ("min_confidence", "1.1", "less than or equal to 1"),
        ("min_confidence", "-0.1", "greater than or equal to 0"),
        ("min_confidence", "nan", "finite"),
        ("max_images", "0", "greater than or equal to 1"),
        ("max_images", "1025", "less than or equal to 1024"),
        ("max_body_bytes", "1023", "greater than or equal to 1024"),
        ("max_pixels", "0", "greater than or equal to 1"),
        ("max_pixels", "1000000001", "less than or equal to 1000000000"),
        ("timeout_ms", "0", "greater than or equal to 1"),
        ("timeout_ms", "600001", "less than or equal to 600000"),
        ("timeout_ms", "nan", "valid integer"),
        ("access_log", "perhaps", "valid boolean"),
        ("open_paths", "metrics", "'metrics' must be a path such as /metrics"),
        ("open_paths", "/livez,/static*", "'/static*' must be a path"),
        ("open_paths", "/*/x", "'/*/x' must be a path"),
        ("cors_origins", "shop.example", "'shop.example' must be an origin such as https://"),
        ("cors_origins", "https://shop.example/", "without a path"),
        ("cors_origins", "https://*.shop.example", "must be an origin"),
        ("cors_origins", "null", "must be an origin"),
        ("rate_limit", "0", "greater than 0"),
        ("rate_limit", "-1", "greater than 0"),
        ("rate_limit", "inf", "finite number"),
        ("rate_limit", "nan", "finite number"),
        ("rate_burst", "0", "greater than or equal to 1"),
        ("trusted_proxies", "*", "'*' must be an address such as 10.0.0.7 or a network"),
        ("trusted_proxies", "proxy.local", "must be an address"),
        ("trusted_proxies", "10.0.0.1/24", "must be an address"),
    ],
)
def test_bad_values_are_quoted_with_what_is_allowed(
    given: Callable[..., Settings], name: str, text: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        given(**{name: text})
    message = str(raised.value)
    assert f"RESNET18_{name.upper()}={text!r} can't be honoured: " in message
    assert allowed in message
    assert "\n" not in message
    assert "pydantic" not in message


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("", "it holds no key"),
        (" , ", "it holds no key"),
        ("tooshort", "key 1 has 8 characters, at least 16 are needed"),
        ("a-key-of-16-chars,fifteen-letters", "key 2 has 15 characters"),
        ("a-key-with-ümläuts", "key 1 has a character that is not printable ASCII"),
        ("a key with blanks in it", "key 1 has a character that is not printable ASCII"),
    ],
)
def test_a_bad_key_is_refused_and_not_quoted(given: Callable[..., Settings], keys: str, told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        given(api_keys=keys)
    message = str(raised.value)
    assert message.startswith(f"RESNET18_API_KEYS can't be honoured: {told}")
    assert not any(key in message for key in keys.split(",") if key.strip())


def test_keys_do_not_show_in_settings(given: Callable[..., Settings]) -> None:
    settings = given(api_keys="a-key-of-16-chars")
    assert "a-key-of-16-chars" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_all_bad_values_are_told_at_once(given: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError) as raised:
        given(workers="0", runtime="caffe", device="tpu")
    lines = str(raised.value).splitlines()
    assert [line.split("=")[0] for line in lines] == ["RESNET18_RUNTIME", "RESNET18_DEVICE", "RESNET18_WORKERS"]


@pytest.mark.parametrize("name", ["RESNET18_WORKER", "RESNET18_", "resnet18_batch"])
def test_unknown_names_are_refused_with_the_list(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError) as raised:
        read()
    assert str(raised.value).startswith(f"{name} is not a setting; the settings are RESNET18_ACCESS_LOG, ")
    assert all(PREFIX + field.upper() in str(raised.value) for field in Settings.model_fields)


def test_other_variables_are_no_concern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET", "1")
    monkeypatch.setenv("RUNTIME", "caffe")
    assert read().runtime == "onnx"


def test_settings_are_frozen() -> None:
    settings: Any = read()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.workers = 2


@pytest.mark.parametrize(
    ("threads", "cores", "processes", "expected"),
    [("0", 8, 1, 8), ("0", 8, 4, 2), ("0", 8, 3, 2), ("0", 2, 4, 1), ("3", 8, 4, 3)],
)
def test_threads_share_the_cores(
    given: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    threads: str,
    cores: int,
    processes: int,
    expected: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert given(threads=threads).threads_of(processes) == expected


def test_threads_where_affinity_is_not_told(given: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert given().threads_of(2) == 3
