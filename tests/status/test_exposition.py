from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metrics import ChannelMetrics
from agent.status import (
    ChannelState,
    ChannelStatus,
    ClientStatus,
    ServerStatus,
    SpoolStatus,
    StatusReport,
    prometheus,
)

Build = Callable[..., StatusReport]

SAMPLE = re.compile(
    r"(?P<name>[a-z_]+)(?:\{(?P<labels>(?:[a-z]+=\"(?:[^\"\\\n]|\\[\\n\"])*\",?)*)\})? (?P<value>-?[0-9.e+-]+)"
)


def samples(text: str) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_every_line_is_a_comment_or_a_sample_under_its_own_family(report: Build, lab: ClientStatus) -> None:
    family, kinds = "", {}
    seen: set[str] = set()
    for line in prometheus(report(clients=(lab, ClientStatus("mllp://pacs:2762")))).splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in kinds, f"{family} appears twice"
        elif line.startswith("# TYPE "):
            assert line.split()[2] == family
            kinds[family] = line.split()[3]
        else:
            matched = SAMPLE.fullmatch(line)
            assert matched, line
            assert line.rsplit(" ", 1)[0] not in seen, f"{line} appears twice"
            seen.add(line.rsplit(" ", 1)[0])
            name = (
                re.sub(r"_(bucket|sum|count)$", "", matched["name"])
                if kinds[family] == "histogram"
                else matched["name"]
            )
            assert name == family
    assert all(kind == "counter" for family, kind in kinds.items() if family.endswith("_total"))
    assert all(family.endswith("_total") for family, kind in kinds.items() if kind == "counter")


def test_numbers_carry_their_channel(report: Build) -> None:
    told = samples(prometheus(report()))
    assert told['onprem_agent_channel_received_total{channel="adt"}'] == "1200"
    assert told['onprem_agent_channel_listening{channel="adt"}'] == "1"
    assert told['onprem_agent_channel_listening{channel="lab"}'] == "0"
    assert told['onprem_agent_channel_oldest_queued_seconds{channel="adt"}'] == "1.5"
    assert told['onprem_agent_channel_refused_total{channel="adt",kind="charset"}'] == "2"
    assert told['onprem_agent_channel_odd_total{channel="adt",kind="http"}'] == "12"
    assert told['onprem_agent_spool_messages{state="queued"}'] == "10"
    assert told['onprem_agent_findings{severity="error"}'] == "1"
    assert told["onprem_agent_server_ping_seconds"] == "0.0125"
    assert told["onprem_agent_server_last_heartbeat_timestamp_seconds"] == "1769828400.0"


def test_a_round_trip_histogram_closes_with_all_of_them(report: Build) -> None:
    told = samples(prometheus(report()))
    name = "onprem_agent_channel_round_trip_seconds"
    assert told[f'{name}_bucket{{channel="adt",le="0.01"}}'] == "3"
    assert told[f'{name}_bucket{{channel="adt",le="0.1"}}'] == "4"
    assert told[f'{name}_bucket{{channel="adt",le="+Inf"}}'] == "4"
    assert told[f'{name}_count{{channel="adt"}}'] == "4"
    assert float(told[f'{name}_sum{{channel="adt"}}']) == 0.055


def test_numbers_carry_the_url_of_their_remote(report: Build, lab: ClientStatus) -> None:
    told = samples(prometheus(report(clients=(lab,))))
    mine = {
        name: value for name, value in told.items() if name.startswith("onprem_agent_client_") and "le=" not in name
    }
    at = 'remote="mllp://10.0.0.9:2575"'
    assert float(mine.pop(f"onprem_agent_client_round_trip_seconds_sum{{{at}}}")) == pytest.approx(0.055)
    assert mine == {
        f"onprem_agent_client_connections{{{at}}}": "2",
        f"onprem_agent_client_connections_total{{{at}}}": "9",
        f"onprem_agent_client_reconnects_total{{{at}}}": "4",
        f"onprem_agent_client_waiting{{{at}}}": "6",
        f"onprem_agent_client_in_flight{{{at}}}": "2",
        f"onprem_agent_client_pushed_total{{{at}}}": "120",
        f"onprem_agent_client_acknowledged_total{{{at}}}": "100",
        f"onprem_agent_client_refused_total{{{at}}}": "11",
        f"onprem_agent_client_retried_total{{{at}}}": "13",
        f"onprem_agent_client_late_total{{{at}}}": "1",
        f'onprem_agent_client_failed_total{{{at},kind="dns"}}': "1",
        f'onprem_agent_client_failed_total{{{at},kind="silent"}}': "2",
        f"onprem_agent_client_stored{{{at}}}": "8",
        f"onprem_agent_client_oldest_stored_seconds{{{at}}}": "61.25",
        f"onprem_agent_client_round_trip_seconds_count{{{at}}}": "4",
    }


def test_without_remotes_there_is_nothing_about_them(report: Build) -> None:
    assert "onprem_agent_client_" not in prometheus(report())


def test_the_age_of_what_is_not_stored_is_absent(report: Build) -> None:
    told = samples(prometheus(report(clients=(ClientStatus("mllp://pacs:2762"),))))
    assert told['onprem_agent_client_stored{remote="mllp://pacs:2762"}'] == "0"
    assert 'onprem_agent_client_oldest_stored_seconds{remote="mllp://pacs:2762"}' not in told


def test_what_was_not_measured_is_absent(report: Build) -> None:
    told = samples(prometheus(report(server=ServerStatus("x", live=False), spool=SpoolStatus("x"))))
    assert 'onprem_agent_channel_oldest_queued_seconds{channel="lab"}' not in told
    assert not {"onprem_agent_server_ping_seconds", "onprem_agent_spool_disk_free_bytes",
                "onprem_agent_server_last_heartbeat_timestamp_seconds"} & told.keys()  # fmt: skip
    assert told["onprem_agent_server_live"] == "0"


@given(name=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_name_survives_as_a_label(name: str) -> None:
    channel = ChannelStatus.of(
        ChannelMetrics(), name=name, address="", state=ChannelState.OFF, queued=0, oldest_queued_seconds=None
    )
    server, spool = ServerStatus("", live=False), SpoolStatus("")
    told = prometheus(StatusReport("1", True, 0, server, (channel,), (ClientStatus(name),), spool)).split("\n")
    for sample, label in (("channel_queued", "channel"), ("client_waiting", "remote")):
        (line,) = (each for each in told if each.startswith(f"onprem_agent_{sample}{{"))
        assert SAMPLE.fullmatch(line)
        escaped = line.removeprefix(f'onprem_agent_{sample}{{{label}="').removesuffix('"} 0')
        unescaped = re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), escaped)
        assert unescaped == name
