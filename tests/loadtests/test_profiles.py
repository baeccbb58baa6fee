"""Profiles are read, stretched and set to a rate; a bad file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests import profiles
from loadtests.profiles import ProfileError

PROFILE = '[x]\nabout = ""\nmix = { raw = 1 }\nphases = [{ name = "a", seconds = 1, rate = 1 }]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PROFILE.replace("raw", "video"), "mix holds video"),
        (PROFILE.replace("raw = 1", "raw = 0"), "weights in mix are all 0"),
        (PROFILE.replace("rate = 1", "speed = 1"), "speed"),
        (PROFILE.replace(", rate = 1", ""), "either rate or of_limit"),
        (PROFILE.replace("rate = 1", "rate = 1, of_limit = 1"), "either rate or of_limit"),
        (PROFILE + 'judged = "b"\n', "judged 'b'"),
        (PROFILE + 'photos = "small"\n', "photos 'small'"),
        ('[x]\nabout = ""\nmix = { raw = 1 }\n', "no phases"),
    ],
)
def test_a_bad_profile_is_quoted(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "file.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError) as raised:
        profiles.read(file)
    assert said in str(raised.value) and "'x'" in str(raised.value)


def test_a_profile_is_stretched_and_set_to_a_rate_in_its_proportions() -> None:
    spike = profiles.read()["spike"]
    assert [phase.seconds for phase in spike.lasting(90.0).phases] == [30.0, 20.0, 40.0]
    rates = [segment.rate for segment in spike.at_rate(300.0).segments(capacity=1.0)]
    assert rates == pytest.approx([40.0, 40.0, 300.0, 40.0])
    assert not spike.at_rate(300.0).needs_capacity and spike.needs_capacity
    assert [segment.rate for segment in spike.segments(100.0)] == pytest.approx([40.0, 40.0, 300.0, 40.0])
