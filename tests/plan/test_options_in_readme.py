"""The README names every option of the server's side, so that nobody has to look for one in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.plan.options import BY_PARAMETER, BY_SETTING

NAMED = set(re.findall(r"`([A-Za-z]+)`", (Path(__file__).parents[2] / "README.md").read_text()))


@pytest.mark.parametrize("name", sorted({name for options in BY_PARAMETER.values() for name in options}))
def test_every_parameter_of_an_address_stands_in_the_readme(name: str) -> None:
    assert name in NAMED


@pytest.mark.parametrize("name", sorted(BY_SETTING))
def test_every_agent_wide_setting_stands_in_the_readme(name: str) -> None:
    assert name in NAMED
