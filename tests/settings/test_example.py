"""config.example.toml and the table of keys say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from agent.settings import read
from agent.settings.example import example_toml
from agent.settings.keys import KEYS, NAMED
from agent.settings.shape import Key
from agent.spec import TlsSpec

FILE = Path(__file__).parents[2] / "config.example.toml"
NAMED_KEYS: tuple[Key, ...] = tuple(key for section in NAMED.values() for key in section.keys_of(section.example))


def _uncommented() -> str:
    return re.sub(r"(?m)^# (?=\w+ = |\[[\w.]+\]$)", "", example_toml())


def _leaves(table: dict[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in table.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def test_the_file_is_what_the_table_says() -> None:
    assert FILE.read_text(encoding="utf-8") == example_toml()


def test_every_key_stands_in_it_and_the_required_ones_are_to_be_filled_in() -> None:
    as_it_is = _leaves(tomllib.loads(example_toml()))

    assert set(as_it_is) == {key.name for key in KEYS if key.required}
    assert set(_leaves(tomllib.loads(_uncommented()))) == {key.name for key in (*KEYS, *NAMED_KEYS)}


def test_it_names_no_certificate_of_its_own_accord() -> None:
    assert not set(tomllib.loads(example_toml())) & set(NAMED)


def test_no_line_of_it_is_too_wide_for_a_terminal() -> None:
    assert [line for line in example_toml().splitlines() if len(line) > 120] == []


def test_a_filled_in_example_with_every_comment_sign_removed_has_no_problem_and_the_defaults(tmp_path: Path) -> None:
    for key in NAMED_KEYS:
        (tmp_path / Path(key.example).name).touch(mode=0o600)
    content = _uncommented().replace("/etc/onprem-agent/tls", tmp_path.as_posix())
    content = content.replace('base_url = ""', 'base_url = "https://x/"').replace('_id = ""', '_id = "x"')
    content = content.replace('client_secret = ""', 'client_secret = "x"')
    (tmp_path / "config.toml").write_text(content, encoding="utf-8")
    (tmp_path / "config.toml").chmod(0o600)

    reading = read({}, {"AGENT_CONFIG_DIR": str(tmp_path)}, tmp_path)

    assert reading.findings == ()
    for key in KEYS:
        if key.default is not None:
            assert reading.values[key.name] == key.default
    assert reading.tls == {
        "main": TlsSpec(
            "main",
            tmp_path / "main.pem",
            tmp_path / "main.key",
            tmp_path / "main.password",
            tmp_path / "hospital-ca.pem",
        )
    }
