from __future__ import annotations

import re
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from agent.metrics import ChannelMetrics
from agent.status import ChannelState, ChannelStatus, ServerStatus, SpoolStatus, StatusReport, prometheus

Build = Callable[..., StatusReport]

SAMPLE = re.compile(
    r"(?P<name>[a-z_]+)(?:\{(?P<labels>(?:[a-z]+=\"(?:[^\"\\\n]|\\[\\n\"])*\",?)*)\})? (?P<value>-?[0-9.e+-]+)"
)


def samples(text: str) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_every_line_is_a_comment_or_a_sample_under_its_own_family(report: Build) -> None:
    family, kinds = "", {}
    for line in prometheus(report()).splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in kinds, f"{family} appears twice"
        elif line.startswith("# TYPE "):
            assert line.split()[2] == family
            kinds[family] = line.split()[3]
        else:
            matched = SAMPLE.fullmatch(line)
            assert matched, line
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


def test_what_was_not_measured_is_absent(report: Build) -> None:
    told = samples(prometheus(report(server=ServerStatus("x", live=False), spool=SpoolStatus("x"))))
    assert 'onprem_agent_channel_oldest_queued_seconds{channel="lab"}' not in told
    assert not {"onprem_agent_server_ping_seconds", "onprem_agent_spool_disk_free_bytes",
                "onprem_agent_server_last_heartbeat_timestamp_seconds"} & told.keys()  # fmt: skip
    assert told["onprem_agent_server_live"] == "0"


@given(name=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_channel_name_survives_as_a_label(name: str) -> None:
    channel = ChannelStatus.of(
        ChannelMetrics(), name=name, address="", state=ChannelState.OFF, queued=0, oldest_queued_seconds=None
    )
    told = prometheus(StatusReport("1", True, 0, ServerStatus("", live=False), (channel,), (), SpoolStatus(""))).split(
        "\n"
    )
    (line,) = (each for each in told if each.startswith("onprem_agent_channel_queued{"))
    assert SAMPLE.fullmatch(line)
    escaped = line.removeprefix('onprem_agent_channel_queued{channel="').removesuffix('"} 0')
    unescaped = re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), escaped)
    assert unescaped == name
