"""No verb of `agent config` shows a secret, and `set-secret` keeps one."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent.cli import main
from agent.settings import Secret, Settings

Screen = pytest.CaptureFixture[str]
SECRET, PASSWORD = "topsecret", "hidden"
FOUR = "[server]\nbase_url = 'https://h'\nclient_id = 'c'\nagent_id = 'a'\n"


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("AGENT_", "MEDPLUM_", "CREDENTIALS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AGENT_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("AGENT_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """`text` is what somebody pipes in."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def load(host: Path, environ: Mapping[str, str] | None = None) -> Settings:
    return Settings.load({}, {"AGENT_CONFIG_DIR": str(host), **(environ or {})}, host)


def test_what_was_piped_in_is_the_client_secret_from_then_on(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: Screen
) -> None:
    (host / "config.toml").write_text(f"# ours\n{FOUR}client_secret = 'old'\n")
    typed(monkeypatch, f"\ufeff{SECRET}\r\n")

    assert main(["config", "set-secret"]) == 0

    settings = load(host)
    assert settings.server.client_secret.reveal() == SECRET
    assert settings.findings == ()
    assert (host / "config.toml").read_text() == f'# ours\n{FOUR}client_secret_file = "client_secret"\n'
    assert "client_secret" in capsys.readouterr().out


def test_it_may_be_the_first_that_a_host_is_told(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, SECRET)

    assert main(["config", "set-secret", "--file", str(host / "vault" / "secret")]) == 0

    four = {"MEDPLUM_BASE_URL": "https://h", "MEDPLUM_CLIENT_ID": "c", "MEDPLUM_AGENT_ID": "a"}
    settings = load(host, four)
    assert settings.server.client_secret.reveal() == SECRET
    assert str(host / "vault" / "secret") in settings.source_of("server.client_secret")


def test_the_proxy_and_the_password_of_a_key_are_kept_likewise(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: Screen
) -> None:
    (host / "config.toml").write_text(f"{FOUR}client_secret = 'x'\n[tls.lab]\ncertificate_file = 'c.pem'\n")
    typed(monkeypatch, f"http://user:{PASSWORD}@proxy:3128")
    assert main(["config", "set-secret", "proxy"]) == 0
    typed(monkeypatch, "opens it")
    assert main(["config", "set-secret", "tls.lab.key_password", "--json"]) == 0

    settings = load(host)
    assert settings.server.proxy == Secret(f"http://user:{PASSWORD}@proxy:3128")
    password_file = settings.tls["lab"].key_password_file
    assert password_file is not None
    assert password_file.read_text() == "opens it\n"
    facts = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert (facts["key"], facts["file"]) == ("tls.lab.key_password_file", str(password_file))
    assert facts["strongerSource"] is None


def test_a_stronger_source_that_says_something_else_is_told(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: Screen
) -> None:
    monkeypatch.setenv("MEDPLUM_CLIENT_SECRET", "another")
    typed(monkeypatch, SECRET)

    assert main(["config", "set-secret"]) == 1

    assert "environment MEDPLUM_CLIENT_SECRET is stronger" in capsys.readouterr().err
    assert (host / "client_secret").read_text() == f"{SECRET}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")
def test_what_is_typed_at_a_terminal_is_not_shown_there(host: Path) -> None:
    screen, keyboard = os.openpty()
    words = [sys.executable, "-m", "agent", "config", "set-secret"]
    with subprocess.Popen(
        words, stdin=keyboard, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as asking:
        assert asking.stderr is not None
        asked = b""
        # what is typed before the question may be shown, as in every shell
        while b"not shown" not in asked and (byte := asking.stderr.read(1)):
            asked += byte
        os.write(screen, f"{SECRET}\n".encode())
        told, complained = asking.communicate(timeout=60)
    os.set_blocking(screen, False)
    echoed = b""
    with contextlib.suppress(BlockingIOError):
        echoed = os.read(screen, 1_000)
    os.close(keyboard)
    os.close(screen)

    assert SECRET.encode() not in echoed + asked + told + complained
    assert asking.returncode == 0
    assert (host / "client_secret").read_text() == f"{SECRET}\n"


@pytest.mark.parametrize("text", ["", " \n", f"{SECRET}\nand more\n", f"{SECRET}\x00"])
def test_what_cannot_be_a_secret_is_refused_and_nothing_is_written(
    host: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: Screen
) -> None:
    typed(monkeypatch, text)

    assert main(["config", "set-secret"]) == 2

    assert SECRET not in "".join(capsys.readouterr())
    assert os.listdir(host) == []


def test_a_proxy_that_is_none_is_refused_and_not_quoted(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: Screen
) -> None:
    typed(monkeypatch, f"user:{PASSWORD}@proxy")

    assert main(["config", "set-secret", "proxy"]) == 2

    told = "".join(capsys.readouterr())
    assert "http://" in told
    assert PASSWORD not in told
    assert os.listdir(host) == []


@pytest.mark.parametrize("name", ["agent_id", "tls.a b.key_password", "tls.key_password", "tls.lab.key"])
def test_a_name_that_is_no_secret_is_a_usage_error(host: Path, name: str, capsys: Screen) -> None:
    assert main(["config", "set-secret", name]) == 2

    assert "is no secret: give client_secret, proxy or tls.NAME.key_password" in capsys.readouterr().err


def test_a_config_that_cannot_be_changed_is_left_and_no_secret_is_written(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: Screen
) -> None:
    (host / "config.toml").write_text("[server\n")
    typed(monkeypatch, SECRET)

    assert main(["config", "set-secret"]) == 2

    assert "settings" not in os.listdir(host)
    assert (host / "config.toml").read_text() == "[server\n"
    assert not (host / "client_secret").exists()
    assert "by hand" in capsys.readouterr().err


# ---- shown nowhere

PLACES = {
    "config.toml": f"{FOUR}client_secret = '{SECRET}'\nproxy = 'http://user:{PASSWORD}@proxy:1'\n",
    "config.toml, broken": f"{FOUR}client_secret = ['{SECRET}']\nproxy = 'user:{PASSWORD}@proxy'\n[limits]\nx = 1\n",
    "config.toml, no TOML": f"{FOUR}client_secret = {SECRET}\n",
    "config.toml, unended": f"{FOUR}proxy = 'http://user:{PASSWORD}@proxy:1'\nclient_secret = '{SECRET}\n",
    "config.toml, in the URL": f"[server]\nbase_url = 'https://{SECRET}:{PASSWORD}@h'\n",
    "agent.properties": f"baseUrl=https://h\nclientId=c\nagentId=a\nclientSecret={SECRET}\n",
    "client_secret": SECRET,
    "environment": "",
    "credential": SECRET,
}
VERBS: tuple[tuple[str, ...], ...] = (
    ("check",), ("show",), ("schema",), ("migrate", "--dry-run"), ("migrate", "--force"), ("set-secret",),
)  # fmt: skip


def _say(host: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = PLACES[place]
    match place:
        case "client_secret":
            (host / "config.toml").write_text(f"{FOUR}client_secret_file = 'client_secret'\n")
        case "environment":
            monkeypatch.setenv("MEDPLUM_CLIENT_SECRET", SECRET)
            monkeypatch.setenv("AGENT_PROXY", f"http://user:{PASSWORD}@proxy:1")
        case "credential":
            monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(host))
            place = "client_secret"
    if content:
        path = host / place.partition(",")[0]
        path.write_text(content)
        path.chmod(0o644)


def _cases() -> Iterator[tuple[str, tuple[str, ...]]]:
    for place, verb in itertools.product(PLACES, VERBS):
        yield place, ("config", *verb)
        yield place, ("config", *verb, "--json")


@pytest.mark.parametrize(
    ("place", "words"), list(_cases()), ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_no_verb_shows_a_secret_wherever_it_stands_and_whatever_is_wrong(
    host: Path, place: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _say(host, place, monkeypatch)
    typed(monkeypatch, SECRET)

    main(words)

    told = "".join(capfd.readouterr())
    assert told
    assert SECRET not in told
    assert PASSWORD not in told
