"""`agent config` tells what this host was told, and no secret."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent.cli import main


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("AGENT_", "MEDPLUM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AGENT_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("AGENT_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _configure(host: Path, extra: str = "") -> Path:
    path = host / "config.toml"
    path.write_text(
        "[server]\nbase_url = 'https://h'\nclient_id = 'c'\nclient_secret = 'topsecret'\nagent_id = 'a'\n"
        f"proxy = 'http://user:hidden@proxy:3128'\n{extra}"
    )
    path.chmod(0o600)
    return path


def test_a_complete_configuration_is_well(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _configure(host)

    assert main(["config", "check"]) == 0
    assert capsys.readouterr() == ("", "The configuration is complete.\n")


def test_check_lists_every_problem_errors_first(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _configure(host, "[limits]\nwindow_frames = 'many'\n")
    path.chmod(0o644)

    assert main(["config", "check"]) == 1

    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: limits.window_frames")
    if os.name == "posix":
        assert lines[1].startswith(f"warning: {path}")


def test_check_for_a_script(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--json"]) == 1

    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["code"], finding["severity"]) == ("settings.missing", "error")
    assert finding["remedy"]


def test_show_tells_each_value_and_where_it_comes_from(
    host: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _configure(host)
    monkeypatch.setenv("AGENT_LIMITS_WINDOW_FRAMES", "9")

    assert main(["config", "show", "--log-level", "DEBUG"]) == 0

    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert rows["server.base_url"].split() == ["server.base_url", '"https://h/"', str(path)]
    assert rows["limits.window_frames"].split() == [
        "limits.window_frames",
        "9",
        "environment",
        "AGENT_LIMITS_WINDOW_FRAMES",
    ]
    assert rows["log.level"].split() == ["log.level", '"DEBUG"', "argument", "log_level"]
    assert rows["spool.min_free_mb"].split() == ["spool.min_free_mb", "64", "default"]
    assert "(the data folder)" in rows["spool.dir"]
    assert rows["spool"].split()[1] == str(host / "spool.db")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_show_masks_secrets(host: Path, form: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _configure(host)

    main(["config", "show", *form])

    shown = "".join(capsys.readouterr())
    assert "topsecret" not in shown
    assert "hidden" not in shown
    assert "http://******@proxy:3128" in shown


def test_show_for_a_script(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _configure(host)

    assert main(["config", "show", "--json"]) == 0

    facts = json.loads(capsys.readouterr().out)
    assert facts["settings"]["server.client_secret"] == {"value": "******", "source": str(path)}
    assert facts["settings"]["server.ca_file"] == {"value": None, "source": "default"}
    assert facts["settings"]["diagnostics.listen"]["value"] == "127.0.0.1:8640"
    assert facts["paths"]["data_dir"] == str(host)
    assert facts["findings"] == []


def test_show_works_on_a_broken_configuration(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show"]) == 1

    shown = capsys.readouterr()
    assert "(missing)" in shown.out
    assert shown.err.startswith("error: server.base_url")
