"""Values as people write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.settings import values
from agent.settings.keys import KEYS, NAMED, find, nearest
from agent.settings.shape import Key
from agent.settings.values import HostPort, Number, Secret, Unfit

HERE = Path.cwd()
ALL_KEYS = (*KEYS, *(key for section in NAMED.values() for key in section.keys_of(section.example)))
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers(), max_size=2)
)


@given(st.sampled_from(ALL_KEYS), ANYTHING)
def test_any_value_is_taken_or_refused_with_a_remedy(key: Key, value: object) -> None:
    refused = ("", "")
    try:
        key.parse(value, HERE)
    except Unfit as unfit:
        refused = (str(unfit), unfit.remedy)

    assert all(refused) or not any(refused)


@pytest.mark.parametrize("key", ALL_KEYS, ids=lambda key: key.name)
def test_every_default_and_every_example_passes_its_own_check(key: Key) -> None:
    if key.default is not None:
        assert key.parse(str(key.default), HERE) == key.default
    if key.example:
        key.parse(key.example, HERE)


@pytest.mark.parametrize(
    ("raw", "finished"),
    [
        ("https://api.medplum.com", "https://api.medplum.com/"),
        ("https://h:8443/medplum/", "https://h:8443/medplum/"),
        (" http://[::1]:8103 ", "http://[::1]:8103/"),
    ],
)
def test_a_base_url_ends_in_a_slash(raw: str, finished: str) -> None:
    assert values.base_url(raw, HERE) == finished


@pytest.mark.parametrize(
    "raw",
    ["", "api.medplum.com", "ftp://h", "https://", "https://h:port/", "https://h/?a=1", "https://h/#x", "https://u:p@h/",
     "wss://h/ws", "https://[::1", "https://h\n/"],
)  # fmt: skip
def test_a_base_url_that_leads_nowhere_is_refused_and_never_repeated_with_its_password(raw: str) -> None:
    with pytest.raises(Unfit) as refused:
        values.base_url(raw, HERE)
    assert "u:p" not in str(refused.value)


@pytest.mark.parametrize(
    ("raw", "finished"),
    [
        ("127.0.0.1:8640", HostPort("127.0.0.1", 8640)),
        ("[::1]:0", HostPort("::1", 0)),
        (":9000", HostPort("127.0.0.1", 9000)),
        ("9000", HostPort("127.0.0.1", 9000)),
        (9000, HostPort("127.0.0.1", 9000)),
        ("off", None),
        (False, None),
    ],
)
def test_a_listening_address(raw: object, finished: HostPort | None) -> None:
    assert values.listen(raw, HERE) == finished


@pytest.mark.parametrize("raw", ["::1:80", "host", "host:", "host:70000", "host:-1", "h:８０", True, 3.5])
def test_no_listening_address(raw: object) -> None:
    with pytest.raises(Unfit):
        values.listen(raw, HERE)


@given(st.integers(0, 65_535), st.sampled_from(["127.0.0.1", "::1", "host.example.org"]))
def test_a_listening_address_reads_back_as_it_is_shown(port: int, host: str) -> None:
    assert values.listen(str(HostPort(host, port)), HERE) == HostPort(host, port)


@pytest.mark.parametrize("raw", ["warning", "WARN", "Warn"])
def test_levels_are_understood_in_any_spelling(raw: str) -> None:
    assert values.level(raw, HERE) == "WARN"


@pytest.mark.parametrize(
    ("raw", "fits"), [("5", True), (5.0, True), ("5.5", False), (True, False), ("nan", False), (0, False)]
)
def test_a_whole_number_within_bounds(raw: object, fits: bool) -> None:
    parse: Callable[[], object] = lambda: Number(1, 10)(raw, HERE)  # noqa: E731
    if fits:
        assert parse() == 5
    else:
        with pytest.raises(Unfit):
            parse()


def test_a_number_that_is_none_is_out_of_every_range() -> None:
    with pytest.raises(Unfit):
        Number(0, 10, whole=False)("nan", HERE)


def test_an_agents_reference_is_as_good_as_its_id() -> None:
    assert values.agent_id("Agent/123e4567-e89b-12d3-a456-426614174000", HERE) == "123e4567-e89b-12d3-a456-426614174000"


def test_secrets_are_equal_by_what_they_hide() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert repr(Secret("a")) == str(Secret("a")) == f"{Secret('a')}" == "******"


@pytest.mark.parametrize(
    ("wrote", "meant"),
    [
        ("baseUrl", "server.base_url"),
        ("base_url", "server.base_url"),
        ("servr.base_url", "server.base_url"),
        ("log.channel.levl", "log.channel.level"),
        ("logger.main.logDir", "log.dir"),
        ("tls.lab.cert_file", "tls.lab.certificate_file"),
        ("tls.lab.key", "tls.lab.key_file"),
        ("tls.lab.password_file", "tls.lab.key_password_file"),
        ("tls.lab.zzzz", ""),
        ("key_file", "tls.main.key_file"),
        ("cafile", "server.ca_file"),
        ("zzzzzzzzzz", ""),
    ],
)
def test_the_key_that_was_meant(wrote: str, meant: str) -> None:
    assert nearest(wrote) == meant


@pytest.mark.parametrize("key", ALL_KEYS, ids=lambda key: key.name)
def test_every_key_is_found_by_its_name(key: Key) -> None:
    assert find(key.name) == key


@pytest.mark.parametrize(
    "name", ["tls", "tls.main", "tls..ca_file", "tls.a b.ca_file", "tls.a.b.ca_file", "tls.x.y", ""]
)
def test_no_key_goes_by_the_name_of_a_table_or_by_one_that_no_table_may_have(name: str) -> None:
    assert find(name) is None
