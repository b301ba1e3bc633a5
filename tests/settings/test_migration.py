"""What the existing agent was told means the same after it moved."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ConfigError
from agent.settings import Reading, read
from agent.settings.migration import look, properties_file, standing
from agent.settings.safekeeping import keep_secret, write_private

if TYPE_CHECKING:
    from conftest import Host

ID = st.from_regex(r"[A-Za-z0-9.-]{1,20}", fullmatch=True)
WORD = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20)
LEVEL = st.sampled_from(["DEBUG", "info", "Warn", "error", "NONE", "loud"])  # the last is none
NUMBER = st.one_of(st.integers(-1, 20_000).map(str), st.just("many"))
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "baseUrl": st.sampled_from(["https://api.medplum.com/", "http://localhost:8103", "no url"]),
        "clientId": ID,
        "clientSecret": WORD.map("s3cret-{}".format),
        "agentId": ID,
        "logLevel": LEVEL,
        "logger.main.logLevel": LEVEL,
        "logger.main.logDir": WORD,
        "logger.main.maxFileSizeMb": NUMBER,
        "logger.main.filesToKeep": NUMBER,
        "logger.channel.logLevel": LEVEL,
        "logger.channel.logDir": WORD,
        "logger.channel.maxFileSizeMb": NUMBER,
        "logger.channel.filesToKeep": NUMBER,
        "somethingElse": WORD,
    },
)
VARIABLES = st.fixed_dictionaries(
    {}, optional={"MEDPLUM_CLIENT_SECRET": ID.map("s3cret-{}".format), "MEDPLUM_LOG_LEVEL": LEVEL}
)


@contextmanager
def _existing(properties: dict[str, str]) -> Iterator[tuple[Path, Path]]:
    """(the folder of the existing agent, our configuration folder)"""
    with tempfile.TemporaryDirectory() as folder:
        old, config = Path(folder) / "old", Path(folder) / "config"
        old.mkdir()
        config.mkdir()
        path = old / "agent.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8")
        path.chmod(0o600)
        yield old, config


def _values(reading: Reading) -> dict[str, object]:
    return {name: value for name, value in reading.values.items() if not name.endswith("secret_file")}


@settings(max_examples=150, deadline=None)
@given(PROPERTIES, VARIABLES)
def test_after_it_moved_it_means_the_same(properties: dict[str, str], variables: dict[str, str]) -> None:
    with _existing(properties) as (old, config):
        place = {"AGENT_CONFIG_DIR": str(config), "AGENT_DATA_DIR": "/data"}
        before = read({}, {**place, **variables}, old)
        found = look(old / "agent.properties", variables, old)
        config_file, secret_file = standing(config)
        text = found.toml("", config_file, secret_file.name)
        if found.secret is not None:
            keep_secret(secret_file, found.secret.reveal())
            assert "s3cret" not in text
        write_private(config_file, text.encode())

        after = read({}, place, config)

        assert _values(after) == _values(before)
        assert {finding.code for finding in after.findings} <= {"settings.missing", "settings.unencrypted"}
        assert len(found.left) >= sum(value in ("loud", "many", "no url") for value in _used(properties, variables))


def _used(properties: dict[str, str], variables: dict[str, str]) -> list[str]:
    """The values that count for a key, where a general name wins over others."""
    general = variables.get("MEDPLUM_LOG_LEVEL") or properties.get("logLevel")
    return [properties.get("baseUrl", ""), properties.get("logger.main.filesToKeep", ""), general or ""]


def test_what_has_no_place_is_told_with_its_line(host: Host) -> None:
    path = host.write("cwd/agent.properties", "clientId=a\nnonsense\nproxyHost=x\nlogger.other.logLevel=INFO\n")

    found = look(path, {}, host.cwd)

    assert [taken.key.name for taken in found.taken] == ["server.client_id"]
    assert [left.code for left in found.left] == [
        "settings.bad-line", "settings.unknown-property", "settings.unknown-property",
    ]  # fmt: skip
    assert [left.where.rpartition("line ")[2] for left in found.left] == ["2", "3", "4"]


def test_a_variable_of_the_existing_agent_wins_and_ours_stay_where_they_are(host: Host) -> None:
    path = host.write("cwd/agent.properties", "clientId=file\nagentId=b\n")

    found = look(path, {"MEDPLUM_CLIENT_ID": "variable", "AGENT_LOG_LEVEL": "DEBUG", "MEDPLUM_AGENT_ID": ""}, host.cwd)

    assert [(taken.value, taken.source) for taken in found.taken] == [
        ("variable", "environment MEDPLUM_CLIENT_ID"),
        ("b", f"{path} (agentId)"),
    ]


def test_a_file_that_is_there_keeps_its_remarks_and_loses_the_secret_in_clear(host: Host) -> None:
    properties = host.write("cwd/agent.properties", "clientSecret=new\nagentId=b\n")
    config = host.config_dir / "config.toml"
    before = '# ours\n[server]\nclient_secret = "old"\nagent_id = "a"\n[limits]\nwindow_frames = 7 # slow line\n'

    text = look(properties, {}, host.cwd).toml(before, config, "client_secret")

    assert "# ours" in text
    assert "window_frames = 7 # slow line" in text
    assert 'client_secret_file = "client_secret"' in text
    assert "old" not in text
    assert "new" not in text


def test_the_file_is_found_where_a_start_would_find_it_or_where_one_says(host: Host) -> None:
    def found(named: str | None) -> Path | None:
        return properties_file(None if named is None else Path(named), host.config_dir, host.cwd)

    assert found(None) is None
    beside = host.write("config/agent.properties", "")
    here = host.write("cwd/agent.properties", "")
    assert found(None) == beside
    assert found(".") == here
    assert found("agent.properties") == here
    assert found(str(host.config_dir)) == beside
    for absent in ("elsewhere", str(host.folder)):
        with pytest.raises(ConfigError) as refused:
            found(absent)
        assert refused.value.findings[0].remedy


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there")
def test_a_file_that_cannot_be_looked_at_is_an_error_and_not_an_absent_one(host: Host) -> None:
    (host.cwd / "agent.properties").symlink_to("agent.properties")

    with pytest.raises(ConfigError, match="cannot be looked at"):
        properties_file(None, host.config_dir, host.cwd)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read_is_an_error_and_not_an_empty_one(host: Host) -> None:
    path = host.write("cwd/agent.properties", "clientId=a\n", mode=0)

    with pytest.raises(ConfigError, match="cannot be read"):
        look(path, {}, host.cwd)
