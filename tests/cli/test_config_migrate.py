"""`agent config migrate` takes over what the existing agent was told, and overwrites nothing unasked."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from agent.cli import main
from agent.settings import Settings

Screen = pytest.CaptureFixture[str]
SECRET = "topsecret"


@pytest.fixture(autouse=True)
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the existing agent, with what its installer wrote; ours is `config` beside it."""
    for name in list(os.environ):
        if name.startswith(("AGENT_", "MEDPLUM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AGENT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("AGENT_DATA_DIR", str(tmp_path / "data"))
    folder = tmp_path / "Medplum Agent"
    folder.mkdir()
    (folder / "agent.properties").write_bytes(
        b"baseUrl=https://api.medplum.com/\r\nclientId=c\r\nclientSecret=topsecret\r\nagentId=a\r\n"
        b"logger.main.filesToKeep=3\r\nlogger.main.colour=blue\r\n"
    )
    monkeypatch.chdir(folder)
    return folder


def test_after_it_the_agent_has_its_settings_without_the_old_file(old: Path, capsys: Screen) -> None:
    assert main(["config", "migrate"]) == 0

    config = old.parent / "config"
    told = capsys.readouterr()
    settings = Settings.load({}, {"AGENT_CONFIG_DIR": str(config)}, config)
    assert settings.server.client_secret.reveal() == SECRET
    assert (settings.server.agent_id, settings.log.main.files_to_keep) == ("a", 3)
    assert settings.findings == ()
    assert SECRET not in (config / "config.toml").read_text(encoding="utf-8")
    assert "server.agent_id" in told.out
    assert "agent.properties (agentId)" in told.out
    assert "logger.main.colour" in told.out
    assert "remove the secret" in told.err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_both_files_are_private() -> None:
    main(["config", "migrate"])

    for name in ("config.toml", "client_secret"):
        assert stat.S_IMODE((Path(os.environ["AGENT_CONFIG_DIR"]) / name).stat().st_mode) & 0o077 in (0, 0o040)


def test_a_dry_run_prints_the_file_and_writes_nothing(old: Path, capsys: Screen) -> None:
    assert main(["config", "migrate", "--dry-run"]) == 0

    told = capsys.readouterr()
    assert 'client_secret_file = "client_secret"' in told.out
    assert "Nothing was written" in told.err
    assert os.listdir(old.parent) == ["Medplum Agent"]


def test_what_is_there_is_overwritten_only_with_force_which_keeps_the_rest(old: Path, capsys: Screen) -> None:
    config = old.parent / "config" / "config.toml"
    config.parent.mkdir()
    config.write_text("# ours\n[limits]\nwindow_frames = 7\n", encoding="utf-8")

    assert main(["config", "migrate"]) == 2

    assert "--force" in capsys.readouterr().err
    assert os.listdir(config.parent) == ["config.toml"]
    assert main(["config", "migrate", "--force"]) == 0
    text = config.read_text(encoding="utf-8")
    assert text.startswith("# ours\n[limits]\nwindow_frames = 7\n")
    assert 'agent_id = "a"' in text


def test_a_secret_file_that_is_there_is_not_overwritten_either(old: Path, capsys: Screen) -> None:
    (old.parent / "config").mkdir()
    (old.parent / "config" / "client_secret").write_text("another")

    assert main(["config", "migrate"]) == 2

    assert "client_secret: the file is there" in capsys.readouterr().err
    assert (old.parent / "config" / "client_secret").read_text() == "another"


def test_the_folder_of_the_existing_agent_may_be_named(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: Screen
) -> None:
    monkeypatch.chdir(old.parent)

    assert main(["config", "migrate"]) == 1
    assert "nothing to take over" in capsys.readouterr().err
    assert main(["config", "migrate", str(old), "--json"]) == 0

    facts = json.loads(capsys.readouterr().out)
    assert facts["properties"] == str(old / "agent.properties")
    assert {
        "key": "server.client_secret",
        "value": "******",
        "source": f"{old / 'agent.properties'} (clientSecret)",
    } in (facts["taken"])
    assert [left["code"] for left in facts["left"]][-1] == "settings.unknown-property"
    assert facts["written"] == [str(old.parent / "config" / name) for name in ("config.toml", "client_secret")]


def test_a_name_that_leads_nowhere_is_a_sentence(old: Path, capsys: Screen) -> None:
    assert main(["config", "migrate", "/nowhere/agent.properties"]) == 2

    assert "there is no such file" in capsys.readouterr().err
    assert not (old.parent / "config").exists()


@pytest.mark.parametrize("form", [[], ["--json"], ["--dry-run"], ["--dry-run", "--json"]])
def test_the_secret_is_printed_nowhere(form: list[str], capsys: Screen) -> None:
    assert main(["config", "migrate", *form]) == 0

    assert SECRET not in "".join(capsys.readouterr())
