"""config.toml is changed as a person would change it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError
from agent.settings.tomlfile import TomlValue, edited, text_of

NAMES = st.sampled_from(["server.base_url", "server.agent_id", "log.level", "log.channel.level", "tls.main.key_file"])
VALUES = st.one_of(st.text(st.characters(exclude_categories=["C"])), st.integers(-(2**62), 2**62), st.booleans())

BY_HAND = """\
# our ward
[server]
base_url = "https://h/"   # the new one
client_secret = "topsecret"

[log.channel]
level = 'INFO'

[tls.main]
key_file = 'C:\\keys\\main.key'
"""


def _leaf(text: str, name: str) -> object:
    found: object = tomllib.loads(text)
    for part in name.split("."):
        found = found[part]  # type: ignore[index]
    return found


@given(st.dictionaries(NAMES, VALUES), st.sampled_from(["", "# a remark\n", BY_HAND]))
def test_what_is_put_is_read_back_and_remarks_stay(put: dict[str, TomlValue], before: str) -> None:
    after = edited(before, put, where="config.toml")

    for name, value in put.items():
        assert _leaf(after, name) == value
    assert [line for line in before.splitlines() if line.startswith("#")] == [
        line for line in after.splitlines() if line.startswith("#")
    ]


def test_what_is_not_meant_stays_to_the_letter() -> None:
    after = edited(BY_HAND, {"server.client_secret_file": "client_secret"}, ["server.client_secret"], where="c")

    assert after == BY_HAND.replace('client_secret = "topsecret"\n', 'client_secret_file = "client_secret"\n')


def test_a_key_that_is_put_is_not_dropped_and_a_missing_one_is_no_trouble_to_drop() -> None:
    after = edited(BY_HAND, {"log.channel.level": "DEBUG"}, ["log.channel.level", "no.such.key"], where="c")

    assert _leaf(after, "log.channel.level") == "DEBUG"


@pytest.mark.parametrize(
    "before",
    [
        "[server\n",
        "server = 1\n",
        "log = { level = 1 }\nlog.channel = 3\n",
        "[[log]]\nlevel = 'INFO'\n",
        "log.level = 'INFO'\nserver.base_url = 'x'\n",  # the writer would move the second into [log.channel]
    ],
)
def test_a_file_that_cannot_be_changed_is_refused_and_not_quoted(before: str) -> None:
    with pytest.raises(ConfigError) as refused:
        edited(before, {"server.base_url": "x", "log.channel.level": "INFO"}, where="/etc/config.toml")

    (finding,) = refused.value.findings
    assert (finding.code, finding.where) == ("settings.not-edited", "/etc/config.toml")


def test_no_file_is_no_text_and_an_unreadable_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xff")

    assert text_of(tmp_path / "none") == ""
    with pytest.raises(ConfigError, match="UTF-8"):
        text_of(tmp_path / "latin")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege there")
def test_a_file_that_cannot_be_looked_at_is_refused_and_not_taken_for_absent(tmp_path: Path) -> None:
    (tmp_path / "config.toml").symlink_to("config.toml")

    with pytest.raises(ConfigError, match="cannot be looked at"):
        text_of(tmp_path / "config.toml")
