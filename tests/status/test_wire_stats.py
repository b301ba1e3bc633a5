from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.status import ClientStatus, ServerStatus, SpoolStatus, StatusReport, wire_stats
from agent.status.wire import client_keys

Build = Callable[..., StatusReport]


def test_every_field_that_the_servers_consumers_know_is_there(report: Build) -> None:
    stats = wire_stats(report())
    assert stats["hl7ConnectionsOpen"] == 2
    assert stats["ping"] == 12.5
    assert stats["webSocketQueueDepth"] == 6
    assert stats["hl7QueueDepth"] == 10
    assert stats["hl7ClientCount"] == 0
    assert stats["live"] is True
    assert stats["outstandingHeartbeats"] == 1
    assert stats["clientStats"] == {}
    assert set(stats["channelStats"]["adt"]["rtt"]) == {
        "count", "min", "max", "average", "p50", "p95", "p99", "pendingCount",
    }  # fmt: skip
    assert stats["channelStats"]["adt"]["rtt"]["pendingCount"] == 2


def test_what_a_channel_did_not_take_and_what_was_odd_at_its_door(report: Build) -> None:
    adt = wire_stats(report())["channelStats"]["adt"]
    assert (adt["refused"], adt["odd"], adt["fallbacks"]) == ({"charset": 2}, {"http": 12}, 5)


def test_the_durable_queue_is_always_on_and_tells_each_channels_depth(report: Build) -> None:
    queue = wire_stats(report())["durableQueue"]
    assert queue["enabled"] is True
    assert queue["dbSizeBytes"] == 4096
    assert queue["countsByState"] == {"queued": 10, "processed": 1188}
    assert queue["channelDepth"] == {
        "adt": {"queued": 10, "inflight": 2, "oldestQueuedAgeMs": 1500},
        "lab": {"queued": 0, "inflight": 0, "oldestQueuedAgeMs": -1},
    }


def test_what_was_not_measured_is_minus_one(report: Build) -> None:
    stats = wire_stats(report(server=ServerStatus("https://server.example/", live=False), pid=None))
    assert (stats["ping"], stats["pid"], stats["lastHeartbeat"]) == (-1, -1, -1)
    assert stats["durableQueue"]["lastSweepAt"] == -1
    lab = stats["channelStats"]["lab"]["rtt"]
    assert (lab["count"], lab["min"], lab["average"], lab["p99"]) == (0, -1, -1, -1)


def test_the_last_sweep_is_told_once_there_was_one(report: Build) -> None:
    spool = SpoolStatus("/data/spool.db", last_sweep_at="2026-01-31T03:00:00.000Z")
    assert wire_stats(report(spool=spool))["durableQueue"]["lastSweepAt"] == "2026-01-31T03:00:00.000Z"


def test_a_remote_tells_what_was_done_towards_it(report: Build, lab: ClientStatus) -> None:
    pacs = ClientStatus("mllps://pacs:2762?encoding=iso-8859-1", connections=3)
    stats = wire_stats(report(clients=(lab, pacs)))
    assert stats["hl7ClientCount"] == 5
    told = stats["clientStats"]["mllp://10.0.0.9:2575?encoding=utf-8"]
    assert told.pop("rtt") == {
        "count": 4, "min": 4, "max": 40, "average": 13.75, "p50": pytest.approx(5, rel=0.03), "p95": 40, "p99": 40,
        "pendingCount": 2,
    }  # fmt: skip
    assert told == {
        "connections": 2, "connectionsTotal": 9, "reconnects": 4, "waiting": 6, "inFlight": 2,
        "pushed": 120, "acknowledged": 100, "refused": 11, "retried": 13, "late": 1,
        "failed": {"dns": 1, "silent": 2}, "timeouts": 2, "stored": 8, "oldestStoredAgeMs": 61250,
        "lastError": "10.0.0.9:2575 sent no acknowledgement within 30 s",
    }  # fmt: skip
    quiet = stats["clientStats"]["mllps://pacs:2762?encoding=iso-8859-1"]
    assert (quiet["rtt"]["count"], quiet["rtt"]["p50"], quiet["oldestStoredAgeMs"]) == (0, -1, -1)


@pytest.mark.parametrize(
    ("urls", "keys"),
    [
        (["mllp://lab:2575"], ["mllp://lab:2575?encoding=utf-8"]),
        (["mllp://[::1]:2575?encoding=auto"], ["mllp://[::1]:2575?encoding=auto"]),
        (["mllps://lab:1?durable=true&encoding=iso-8859-1&tls=a"], ["mllps://lab:1?encoding=iso-8859-1"]),
        (
            ["mllp://lab:1?keepAlive=true", "mllp://lab:1"],
            ["mllp://lab:1?encoding=utf-8&keepAlive=true", "mllp://lab:1?encoding=utf-8"],
        ),
        (
            ["mllp://lab:1?durable=true&keepAlive=true", "mllp://lab:1?serialize=true"],
            ["mllp://lab:1?encoding=utf-8&durable=true&keepAlive=true", "mllp://lab:1?encoding=utf-8"],
        ),
        (
            ["mllp://lab:1", "mllp://lab:1?encoding=utf-8"],
            ["mllp://lab:1?encoding=utf-8", "mllp://lab:1?encoding=utf-8#2"],
        ),
        (["astm://sysmex:4000"], ["astm://sysmex:4000?encoding=iso-8859-1"]),
        (
            ["astm://HAEM?durable=true&encoding=utf-8", "astm://CHEM"],
            ["astm://HAEM?encoding=utf-8", "astm://CHEM?encoding=iso-8859-1"],
        ),
    ],
)
def test_remotes_are_named_as_the_existing_agent_names_them(urls: list[str], keys: list[str]) -> None:
    assert client_keys(urls) == dict(zip(urls, keys, strict=True))


parameters = st.sampled_from(
    ["encoding=utf-8", "encoding=auto", "encoding=iso-8859-1", "keepAlive=true", "durable=true", "tls=a"]
)
remotes = st.builds(
    lambda scheme, host, given: f"{scheme}://{host}:2575" + ("?" + "&".join(sorted(given)) if given else ""),
    st.sampled_from(["mllp", "mllps"]),
    st.sampled_from(["lab", "[::1]"]),
    st.sets(parameters, max_size=4),
)


@given(st.sets(remotes, max_size=12))
def test_no_two_remotes_hide_each_other_and_each_name_says_where_and_in_which_encoding(urls: set[str]) -> None:
    keys = client_keys(urls)
    assert keys.keys() == urls
    assert len(set(keys.values())) == len(urls)
    for url, key in keys.items():
        mine, shown = urlsplit(url), urlsplit(key)
        assert (shown.scheme, shown.netloc) == (mine.scheme, mine.netloc)
        assert shown.query.startswith("encoding=")
        assert parse_qs(shown.query)["encoding"][0] == parse_qs(mine.query).get("encoding", ["utf-8"])[0]
    assert client_keys(sorted(urls, reverse=True)) == keys


@given(st.sets(st.text(max_size=20), max_size=8))
def test_even_what_is_no_url_gets_a_name_of_its_own(urls: set[str]) -> None:
    keys = client_keys(urls)
    assert keys.keys() == urls
    assert len(set(keys.values())) == len(urls)
