"""`agent config schema` prints all that can be set."""

from __future__ import annotations

import json

import pytest

from agent.cli import main
from agent.plan.options import describe_options
from agent.settings.keys import KEYS, NAMED
from agent.settings.schema import toml_schema

Screen = pytest.CaptureFixture[str]


def test_for_an_editor_it_is_the_json_schema_with_the_servers_options_beside(capsys: Screen) -> None:
    assert main(["config", "schema", "--json"]) == 0

    printed = json.loads(capsys.readouterr().out)
    options = printed.pop("x-server-options")
    assert printed == json.loads(json.dumps(toml_schema()))
    assert options == json.loads(json.dumps(describe_options()))


def test_for_a_person_every_key_and_every_option_has_its_sentence_and_its_names(capsys: Screen) -> None:
    assert main(["config", "schema"]) == 0

    printed = capsys.readouterr().out
    flat = " ".join(printed.split())
    for key in (*KEYS, *(key for section in NAMED.values() for key in section.keys_of("NAME"))):
        assert f"\n{key.leaf}  (" in printed
        assert f"[{key.section}]" in printed
        assert key.doc[1:] in flat
        assert all(name in flat for name in key.env_names)
    for option in describe_options():
        assert f"\n{option['name'] or option['setting']}  (" in printed
        assert str(option["doc"])[1:].strip() in flat


def test_no_line_is_too_wide_for_a_terminal(capsys: Screen) -> None:
    main(["config", "schema"])

    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("name", ["base_url", "window_frames"])
def test_a_key_is_shown_with_its_kind_and_its_default(name: str, capsys: Screen) -> None:
    main(["config", "schema"])

    blocks = capsys.readouterr().out.split("\n\n")
    (block,) = [block for block in blocks if block.startswith(f"{name}  (")]
    assert ("required" if name == "base_url" else "integer 1 to 1,000,000") in block
