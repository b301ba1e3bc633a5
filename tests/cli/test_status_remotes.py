"""The remotes on the status screen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.lines import Line, Tone, cells_of, plain
from agent.cli.status_remotes import Health, not_told_by, remote_table, remotes_of
from agent.errors import Finding, Severity
from agent.status import ClientStatus, Rtt

TRIPS = Rtt(count=9, min=1.5, max=218, average=20, p50=17.6, p95=97, p99=218, pending_count=0)
SILENT = "10.20.30.40:2575 sent no acknowledgement within 30 s"
REFUSED = "cannot connect to pacs.radiology.hospital.example:2762: connection refused (ECONNREFUSED)"


def remote(url: str = "mllp://10.20.30.40:2575", **changes: Any) -> ClientStatus:
    """A remote that is well; keywords replace its fields."""
    usual = {"connections": 2, "max_clients": 5, "rtt": TRIPS, "pushed": 1200, "acknowledged": 1190, "refused": 2}
    return ClientStatus(url, **(usual | changes))


def ill(url: str = "mllp://10.20.30.40:2575", error: str = SILENT, **changes: Any) -> ClientStatus:
    """A remote whose last message failed, while more of them wait."""
    return remote(url, **({"last_error": error, "waiting": 1, "failed": {"silent": 1}} | changes))


def finding(error: str = SILENT, where: str = "10.20.30.40:2575", remedy: str = "look at it") -> Finding:
    return Finding("remote.silent", Severity.WARNING, error, remedy, where)


def table(*clients: ClientStatus, findings: tuple[Finding, ...] = (), width: int = 80, room: int = 1_000) -> list[Line]:
    return remote_table(remotes_of(clients, findings), spool_only=False, width=width, room=room)


def drawn(*clients: ClientStatus, **how: Any) -> list[str]:
    return plain(table(*clients, **how)).split("\n")


def names(*clients: ClientStatus, **how: Any) -> list[str]:
    """The first word of each row."""
    rows = [line for line in drawn(*clients, **how)[1:] if not line.startswith((" ", "and "))]
    return [row.split()[0] for row in rows]


ROW_SPANS = 15  # a row has more: two for each of eleven columns; what stands below one has fewer


def test_a_remote_that_is_well_has_one_line() -> None:
    assert drawn(remote()) == [
        "remote           state    wait unack  out  ack  nak fail   p50   p95   p99",
        "10.20.30.40:2575 open 2/5    0     0 1200 1190    2    0  18ms  97ms 218ms",
    ]


def test_a_failing_remote_says_how_much_waits_for_it_and_why_and_what_helps() -> None:
    pacs = ill(
        "mllps://pacs.radiology.hospital.example:2762", REFUSED,
        waiting=0, in_flight=0, stored=312, oldest_stored_seconds=4_000,
        failed={"silent": 5, "refused": 12, "dns": 1}, reconnects=3, retried=17, late=1,
    )  # fmt: skip
    told = finding(REFUSED, "pacs.radiology.hospital.example:2762", "check that it listens there")
    assert drawn(remote(), pacs, findings=(told,)) == [
        "remote                 state    wait unack  out  ack  nak fail   p50   p95   p99",
        "mllps://pa..ample:2762 FAILING     0     0 1200 1190    2   18  18ms  97ms 218ms",
        "        312 stored, oldest 1h  failed: 12 connection refused, 5 timed out, 1 dns",
        "        open 2/5  3 reconnects  17 retried  1 late answer",
        "        last error: cannot connect to pacs.radiology.hospital.example:2762:",
        "        connection refused (ECONNREFUSED)",
        "        fix: check that it listens there",
        "10.20.30.40:2575       open 2/5    0     0 1200 1190    2    0  18ms  97ms 218ms",
    ]


def test_in_a_wide_window_particulars_stand_beside_the_row() -> None:
    [_, row] = drawn(remote(stored=3, oldest_stored_seconds=8, reconnects=1), width=120)
    assert row.endswith("218ms  3 stored, oldest 8s  1 reconnect")


@pytest.mark.parametrize(
    ("status", "word", "tone"),
    [
        (remote(), "open 2/5", Tone.GOOD),
        (remote(max_clients=0), "open 2", Tone.GOOD),
        (remote(connections=0), "idle", Tone.QUIET),
        (remote(connections=0, stored=4), "idle", Tone.QUIET),
        (remote(connections=0, waiting=1), "connecting", Tone.PLAIN),
        (ill(), "FAILING", Tone.BAD),
        (ill(waiting=0, stored=1), "FAILING", Tone.BAD),
        (ill(waiting=0), "failed", Tone.WARNING),
    ],
)
def test_the_state_is_a_word(status: ClientStatus, word: str, tone: Tone) -> None:
    [_, row, *_] = table(status)
    assert (word, tone) in [(text.rstrip(), tone) for text, tone in row]


def test_an_error_that_is_news_fails_a_remote_also_when_nothing_waits() -> None:
    [old] = remotes_of([ill(waiting=0)], [])
    [news] = remotes_of([ill(waiting=0)], [finding()])
    [answered] = remotes_of([remote()], [finding()])
    assert (old.health, news.health, answered.health) == (Health.FAILED, Health.FAILING, Health.WELL)
    assert (old.remedy, news.remedy) == ("", "look at it")


def test_what_stands_below_a_remote_is_not_told_again() -> None:
    other = finding("the address has a fragment, which means nothing")
    of_a_channel = finding(where="adt")
    told = not_told_by([ill(), remote("mllp://lab:1")], [finding(), other, of_a_channel])
    assert told == (other, of_a_channel)


def test_a_remote_is_called_by_host_and_port_and_by_its_parameters_only_where_they_tell_it_apart() -> None:
    urls = [
        "mllp://lab:1?durable=true",
        "mllps://lab:1",
        "mllp://[fd00::99]:2575?keepAlive=true",
        "mllp://pacs:2762",
        "mllp://pacs:2762?serialize=true",
    ]
    assert [each.name for each in remotes_of([remote(url) for url in urls], [])] == [
        "lab:1",
        "mllps://lab:1",
        "[fd00::99]:2575",
        "pacs:2762",
        "pacs:2762?serialize=true",
    ]


def test_a_long_name_keeps_its_port_and_loses_of_its_parameters_first() -> None:
    shown = names(
        remote("mllp://10.20.30.40:2575"),
        remote("mllp://10.20.30.40:2575?durable=true&maxClients=1"),
        remote("mllp://laboratory.building-9.hospital.example:10500"),
    )
    assert shown == ["10.20.30.40:2575", "10.20.30.40:2575?d..=1", "laboratory..mple:10500"]


def test_the_failing_ones_come_first_the_one_that_most_waits_for_before_the_others() -> None:
    clients = [
        remote("mllp://a:1", waiting=40),
        ill("mllp://b:1", waiting=0),
        ill("mllp://c:1", waiting=2),
        ill("mllp://d:1", waiting=1, stored=7),
        remote("mllp://e:1"),
    ]
    assert names(*clients) == ["d:1", "c:1", "b:1", "a:1", "e:1"]


def test_remotes_that_are_well_keep_their_order_whatever_waits_for_them() -> None:
    """So that rows do not jump while one watches."""
    assert names(*(remote(f"mllp://{name}:1", waiting=n) for n, name in enumerate("cab"))) == ["c:1", "a:1", "b:1"]


def test_where_not_all_fit_the_quiet_ones_give_way_and_are_counted() -> None:
    clients = [remote(f"mllp://10.1.0.{n}:2575", reconnects=2) for n in range(58)]
    clients[30:30] = [ill("mllp://sick:1", waiting=14)]
    clients[40:40] = [remote("mllp://busy:1", waiting=3)]
    lines = drawn(*clients, room=7)
    assert lines[1:] == [
        "sick:1         FAILING    14     0 1200 1190    2    1  18ms  97ms 218ms",
        f"        last error: {SILENT}",
        "busy:1         open 2/5    3     0 1200 1190    2    0  18ms  97ms 218ms",
        "10.1.0.0:2575  open 2/5    0     0 1200 1190    2    0  18ms  97ms 218ms",
        "10.1.0.1:2575  open 2/5    0     0 1200 1190    2    0  18ms  97ms 218ms",
        "and 56 more quiet ones: agent status | more",
    ]


@pytest.mark.parametrize(
    ("clients", "last"),
    [
        ([ill(f"mllp://10.1.0.{n}:1") for n in range(60)], "and 57 more that fail: agent status | more"),
        (
            [ill(f"mllp://10.1.0.{n}:1") for n in range(5)] + [remote(f"mllp://b{n}:1") for n in range(5)],
            "and 7 more remotes, 2 of them failing: agent status | more",
        ),
        ([remote(f"mllp://b{n}:1", waiting=1) for n in range(20)], "and 14 more remotes: agent status | more"),
        ([ill(f"mllp://b{n}:1", waiting=0) for n in range(20)], "and 14 more remotes: agent status | more"),
    ],
)
def test_it_is_said_whether_any_that_were_left_out_fail(clients: list[ClientStatus], last: str) -> None:
    assert drawn(*clients, room=8)[-1] == last


def test_when_all_fail_the_first_has_its_remedy_and_as_many_as_fit_their_reason() -> None:
    clients = [ill(f"mllp://10.1.0.{n}:1", f"10.1.0.{n}:1 closed the connection") for n in range(60)]
    findings = tuple(finding(each.last_error, f"10.1.0.{n}:1") for n, each in enumerate(clients))
    assert [line.strip() for line in drawn(*clients, findings=findings, room=7) if line.startswith("  ")] == [
        "last error: 10.1.0.0:1 closed the connection",
        "fix: look at it",
        "last error: 10.1.0.1:1 closed the connection",
    ]


def test_the_first_remote_is_shown_with_its_whole_reason_even_where_there_is_no_room() -> None:
    lines = drawn(ill(error="x" * 60 + " " + "y" * 60), remote("mllp://lab:1"), room=0)
    assert [line.strip() for line in lines[2:4]] == [f"last error: {'x' * 60}", "y" * 60]
    assert lines[4] == "and 1 more quiet ones: agent status | more"


def test_with_the_daemon_down_only_what_is_stored_is_told() -> None:
    held = ClientStatus("mllp://pacs:2762?durable=true", durable=True, stored=312, oldest_stored_seconds=4_000)
    assert plain(remote_table(remotes_of([held], []), spool_only=True, width=80, room=20)) == (
        "remote    stored oldest\npacs:2762    312     1h"
    )


@given(st.integers(20, 79))
def test_in_a_narrow_window_the_rightmost_columns_of_remotes_give_way(width: int) -> None:
    lines = drawn(remote(), ill("mllps://pacs.radiology.hospital.example:2762"), width=width)
    assert all(cells_of(line) <= max(width, 28) for line in lines)
    assert lines[0].split()[:2] == ["remote", "state"]


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
small = st.integers(0, 10**7)
statuses = st.builds(
    ClientStatus,
    remote=st.one_of(text, text.map(lambda host: f"mllp://{host}:2575"), text.map(lambda name: f"mllp://a:1?x={name}")),
    connections=st.integers(0, 999), max_clients=st.integers(0, 999), rtt=st.just(TRIPS), waiting=small,
    in_flight=small, pushed=small, acknowledged=small, refused=small, retried=small, late=small, reconnects=small,
    failed=st.dictionaries(st.sampled_from(["silent", "dns", "wrong-id"]), small), stored=small,
    oldest_stored_seconds=st.none() | st.floats(0, 10**8), last_error=text,
)  # fmt: skip


@given(st.lists(statuses, min_size=1, max_size=30), st.sampled_from([80, 100, 120, 200]), st.integers(0, 60))
def test_any_remotes_keep_to_the_window_and_none_is_forgotten(
    clients: list[ClientStatus], width: int, room: int
) -> None:
    lines = table(*clients, width=width, room=room)
    shown = plain(lines).split("\n")
    assert all(cells_of(line) <= width for line in shown)
    assert all(line.isprintable() for line in shown)
    rows = sum(len(line) > ROW_SPANS for line in lines)
    left_out = int(shown[-1].split()[1]) if shown[-1].endswith(": agent status | more") else 0
    assert rows + left_out == len(clients)
    assert rows >= 1
    assert len(lines) <= room or rows == 1, "one remote is shown even where there is no room"
