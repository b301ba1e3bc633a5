"""The names that a table gets from people, in a file and in the environment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.settings.keys import TLS
from agent.settings.shape import OWN_NAME, folded

OWN = st.from_regex(OWN_NAME, fullmatch=True)
LEAVES = [key.leaf for key in TLS.keys]


@given(OWN, st.sampled_from(LEAVES))
def test_a_variable_is_read_as_the_table_and_the_leaf_that_it_was_made_of(own: str, leaf: str) -> None:
    key = TLS.key(own, leaf)

    assert key is not None
    assert TLS.in_variable(key.env_names[0]) == (folded(own), leaf)


@given(st.one_of(st.text(), st.text("AGENT_TLSCFIKYPW2", max_size=40).map("AGENT_TLS_".__add__)))
def test_any_variable_is_one_of_such_a_table_or_none_and_may_have_been_meant_as_one(variable: str) -> None:
    parts, meant = TLS.in_variable(variable), TLS.nearest_variable(variable)

    if parts is not None:
        assert variable == f"AGENT_TLS_{parts[0]}_{parts[1].upper()}"
    assert not meant or TLS.in_variable(meant) is not None


@pytest.mark.parametrize(
    ("wrote", "meant"),
    [
        ("AGENT_TLS_LAB_CERT_FILE", "AGENT_TLS_LAB_CERTIFICATE_FILE"),
        ("AGENT_TLS_LAB_2_KEY", "AGENT_TLS_LAB_2_KEY_FILE"),
        ("AGENT_TLS_CA_FILE", "AGENT_TLS_MAIN_CA_FILE"),
        ("AGENT_TLS_", ""),
        ("AGENT_LOG_LEVLE", ""),
    ],
)
def test_the_variable_that_was_meant(wrote: str, meant: str) -> None:
    assert TLS.in_variable(wrote) is None
    assert TLS.nearest_variable(wrote) == meant


@pytest.mark.parametrize("own", ["", "a b", "a.b", "ä", "x" * 41, "a\n"])
def test_a_table_cannot_have_every_name(own: str) -> None:
    assert TLS.key(own, "ca_file") is None
