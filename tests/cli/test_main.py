"""The words an operator types, and what a shell hears back."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import VERBS, Verb, main

PRETEND = {"run": Verb("pretend_verb", "carry messages"), "status": Verb("pretend_verb", "one screen")}
FOUR = ["https://h/", "client", "secret", "agent"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host that was told nothing, and where this test finds its pretended verb."""
    for name in list(os.environ):
        if name.startswith(("AGENT_", "MEDPLUM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AGENT_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("AGENT_DATA_DIR", str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _reached(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    reached = ast.literal_eval(capsys.readouterr().out)
    assert isinstance(reached, dict)
    return reached


def _python(*words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("words", [["run", *FOUR], FOUR])
def test_the_existing_agents_arguments_run_the_daemon(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "DEBUG"], PRETEND) == 7

    assert _reached(capsys) == {
        "verb": "run", "base_url": "https://h/", "client_id": "client", "client_secret": "secret", "agent_id": "agent",
        "log_level": "DEBUG",
    }  # fmt: skip


def test_the_log_level_may_be_an_option_too(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "--log-level", "WARN", *FOUR], PRETEND)

    assert _reached(capsys)["log_level"] == "WARN"


@pytest.mark.parametrize("words", [["status"], ["--status"]])
def test_status_by_both_its_names(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--data-dir", "d"], PRETEND) == 7

    assert _reached(capsys) == {"verb": "status", "data_dir": "d"}


def test_options_about_settings_may_stand_before_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--config", "c.toml", "--data-dir=d", "status"], PRETEND)

    assert _reached(capsys) == {"verb": "status", "config": "c.toml", "data_dir": "d"}


def test_alone_it_runs_where_a_server_is_configured_and_helps_where_none_is(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], PRETEND) == 2
    assert "agent BASE_URL" in capsys.readouterr().err

    (host / "agent.properties").write_text("baseUrl=https://h\nclientId=c\nclientSecret=s\nagentId=a\n")

    assert main([], PRETEND) == 7
    assert _reached(capsys) == {"verb": "run"}
    assert main(["--log-level", "DEBUG"], PRETEND) == 7
    assert _reached(capsys) == {"verb": "run", "log_level": "DEBUG"}


def test_a_configuration_error_is_one_line_per_finding_with_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--fail", "config"], PRETEND) == 2

    assert capsys.readouterr().err.splitlines() == [
        "agent: error: first.key: the first is wrong — correct it",
        "agent: warning: second.key: the second is odd — look at it",
    ]


def test_other_expected_trouble_is_one_sentence_with_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--fail", "link"], PRETEND) == 1
    assert capsys.readouterr().err == "agent: the server is away — wait\n"

    assert main(["status", "--fail", "exit"], PRETEND) == 1
    assert capsys.readouterr().err == "a last word\n"


def test_an_interrupt_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--fail", "interrupt"], PRETEND) == 130
    assert capsys.readouterr() == ("", "")


def test_a_bug_is_not_dressed_up() -> None:
    with pytest.raises(ZeroDivisionError):
        main(["status", "--fail", "bug"], PRETEND)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stauts"], "did you mean 'status'?"),
        (["frobnicate"], "agent --help"),
        (["--frobnicate"], "--frobnicate"),
        (["status", "--frobnicate"], "--frobnicate"),
        (["--config"], "--config"),
    ],
)
def test_wrong_usage_is_told_and_is_exit_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words, PRETEND) == 2
    assert said in capsys.readouterr().err


def test_help_names_every_verb_and_imports_none_of_them() -> None:
    code = (
        "import sys, agent.cli as cli; status = cli.main(['--help']); "
        "loaded = [name for name in sys.modules if name.startswith('agent.cli.') or name in ('aiohttp', 'rich')]; "
        "sys.exit(f'loaded {loaded}' if loaded else status)"
    )
    done = _python("-c", code)

    assert (done.returncode, done.stderr) == (0, "")
    for name in VERBS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    done = _python("-m", "agent", verb, "--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: agent {verb}" in done.stdout
    assert f"\n  agent {verb}" in done.stdout


def test_the_version_is_told_and_python_m_agent_is_the_same_program() -> None:
    done = _python("-m", "agent", "--version")

    assert done.returncode == 0
    assert done.stdout.startswith("onprem-agent ")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently there")
@pytest.mark.parametrize("words", [["--help"], ["config", "show"]])
def test_a_reader_that_stops_reading_is_no_error(words: list[str]) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environ["PYTHONPATH"] = str(ROOT)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "agent", *words],
            env=environ, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)

    assert done.returncode == 141
    assert "BrokenPipe" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_console_without_a_dash_gets_a_question_mark_and_no_traceback() -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "agent", "stauts"], env=environ, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 2
    assert "? did you mean" in done.stderr
