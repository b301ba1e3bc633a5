"""Only the words that belong to one program on one machine are left out of a comparison."""

from __future__ import annotations

import json

import pytest
from golden_shapes import PAGE, shaped

IPUTILS = (
    "PING localhost (127.0.0.1) 56(84) bytes of data.\n64 bytes from localhost (127.0.0.1): icmp_seq=1 ttl=64 "
    "time=0.031 ms\n\n--- localhost ping statistics ---\n1 packets transmitted, 1 received, 0% packet loss, time 0ms\n"
    "rtt min/avg/max/mdev = 0.031/0.031/0.031/0.000 ms"
)
OVER_IPV6 = (
    "PING localhost(localhost (::1)) 56 data bytes\n64 bytes from localhost (::1): icmp_seq=1 ttl=64 time=0.05 ms\n\n"
    "--- localhost ping statistics ---\n1 packets transmitted, 1 received, 0% packet loss, time 0ms\n"
    "rtt min/avg/max/mdev = 0.050/0.050/0.050/0.000 ms"
)
OF_BSD = (
    "PING localhost (127.0.0.1): 56 data bytes\n64 bytes from 127.0.0.1: icmp_seq=0 ttl=64 time=0.1 ms\n\n"
    "--- localhost ping statistics ---\n1 packets transmitted, 1 packets received, 0.0% packet loss\n"
    "round-trip min/avg/max/stddev = 0.1/0.1/0.1/0.0 ms"
)
LINE = {"level": "INFO", "msg": "up", "timestamp": "2026-11-22T07:50:09.294Z"}
OLDER = {**LINE, "timestamp": "2026-11-22T07:50:09.293Z"}


def answer(body: str) -> str:
    return json.dumps({"type": "agent:transmit:response", "statusCode": 200, "body": body}, separators=(",", ":"))


def logs(*lines: object, **more: object) -> str:
    frame = {"type": "agent:logs:response", "statusCode": 200, "logs": lines, "callback": "a", **more}
    return json.dumps(frame, separators=(",", ":"))


@pytest.mark.parametrize("other", [OVER_IPV6, OF_BSD, IPUTILS.replace("0.031", "12.5")])
def test_a_ping_is_the_same_whoever_timed_it(other: str) -> None:
    assert shaped(answer(other)) == shaped(answer(IPUTILS))
    assert "<localhost: 1 sent, 1 received, 1 shown>" in shaped(answer(other))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1 received", "0 received"),
        ("1 packets", "2 packets"),
        ("PING localhost", "PING elsewhere"),
        ("time=", "lost="),
    ],
)
def test_a_ping_of_another_host_or_with_other_answers_is_another(old: str, new: str) -> None:
    assert shaped(answer(IPUTILS.replace(old, new))) != shaped(answer(IPUTILS))


def test_what_only_looks_like_a_ping_stays_as_it_is() -> None:
    assert shaped(answer("PING 2")) == answer("PING 2")
    assert shaped(answer("Command failed: PING")) == answer("Command failed: PING")


def test_log_lines_are_counted() -> None:
    words = {**LINE, "level": "WARN", "msg": "down", "port": 2575}
    assert shaped(logs(LINE, OLDER)) == shaped(logs(words, OLDER))
    assert shaped(logs(LINE, OLDER)) != shaped(logs(LINE))


@pytest.mark.parametrize(
    "wrong",
    [
        (OLDER, LINE),
        (LINE, {**OLDER, "timestamp": "yesterday"}),
        (LINE, {**OLDER, "level": "chatty"}),
        (LINE, {"level": "INFO", "timestamp": OLDER["timestamp"]}),
        (LINE, "a line"),
    ],
)
def test_log_lines_in_another_order_or_form_are_not_counted(wrong: tuple[object, ...]) -> None:
    assert shaped(logs(*wrong)) == logs(*wrong)


def test_a_page_is_a_page_however_long_and_tells_where_the_next_one_begins() -> None:
    page = shaped(logs(LINE, OLDER, hasMore=False))
    assert page == shaped(logs(OLDER, hasMore=True, nextBefore=OLDER["timestamp"]))
    assert page == shaped(f'{{"type":"agent:logs:response","statusCode":200,"logs":"{PAGE}","callback":"a"}}')
    assert page != shaped(logs(LINE, OLDER))


@pytest.mark.parametrize(
    "more",
    [
        {"hasMore": True},
        {"hasMore": True, "nextBefore": LINE["timestamp"]},
        {"hasMore": False, "nextBefore": OLDER["timestamp"]},
        {"nextBefore": OLDER["timestamp"]},
    ],
)
def test_a_page_that_leads_nowhere_is_none(more: dict[str, object]) -> None:
    assert shaped(logs(LINE, OLDER, **more)) == logs(LINE, OLDER, **more)


def test_no_lines_are_no_page() -> None:
    assert shaped(logs(hasMore=False)) == logs(hasMore=False)


def test_which_release_answers_a_heartbeat_does_not_matter() -> None:
    heartbeat = '{"type":"agent:heartbeat:response","version":"%s"}'
    assert shaped(heartbeat % "5.0.10") == shaped(heartbeat % "0.4.0")
    assert shaped(heartbeat % "5.0.10") != shaped('{"type":"agent:heartbeat:response"}')
