from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.lines import Tone, cells_of, plain
from agent.cli.status_screen import compose, exit_status, read, verdict

NOW_S = 1_769_828_403.0  # 2026-01-31T03:00:03Z
RTT = {"count": 9, "min": 1.5, "max": 218, "average": 20, "p50": 17.6, "p95": 97, "p99": 218, "pendingCount": 0}
PORT_TAKEN = {
    "code": "channel.port-taken",
    "severity": "error",
    "text": "port 2576 is in use by another program",
    "remedy": "stop that program, or give the channel's Endpoint another port",
    "where": "lab",
}
DISK_LOW = {"code": "spool.low", "severity": "warning", "text": "512 MiB left", "remedy": "free some space"}
NOTED = {"code": "queue.always-on", "severity": "info", "text": "durableQueue=false is ignored"}


def channel(name: str = "adt", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "address": "mllp://0.0.0.0:2575",
        "type": "mllp",
        "state": "listening",
        "connections": 2,
        "received": 123_456,
        "acknowledged": 1_200,
        "rejected": 3,
        "queued": 0,
        "oldestQueuedSeconds": None,
        "rtt": RTT,
    } | changes


def remote(url: str = "mllp://10.20.30.40:2575", **changes: Any) -> dict[str, Any]:
    counts = {"connections": 2, "maxClients": 5, "pushed": 1_200, "acknowledged": 1_190, "refused": 2}
    return {"remote": url, "rtt": RTT} | counts | changes


def failing(url: str = "mllp://lab.example:2575", **changes: Any) -> dict[str, Any]:
    error = "cannot connect to lab.example:2575: connection refused (ECONNREFUSED)"
    return remote(url, connections=0, failed={"refused": 3}, lastError=error, waiting=1) | changes


def finding_about(client: dict[str, Any]) -> dict[str, Any]:
    """What the daemon finds about a remote whose last message failed just now."""
    return {
        "code": "remote.refused",
        "severity": "warning",
        "text": client["lastError"],
        "remedy": "check that the system runs and listens there",
        "where": client["remote"].removeprefix("mllp://"),
    }


def status(**changes: Any) -> dict[str, Any]:
    """The object of `agent status --json` for an agent that is well; keywords replace its keys."""
    return {
        "version": "1.2.3",
        "running": True,
        "uptimeSeconds": 273_784,
        "pid": 4711,
        "server": {
            "url": "https://server.example/",
            "live": True,
            "pingMs": 12.4,
            "lastHeartbeat": "2026-01-31T03:00:00.000Z",
            "reconnects": 4,
            "lastError": "",
        },
        "channels": [channel()],
        "clients": [],
        "spool": {
            "path": "/data/spool.db",
            "sizeBytes": 4_096,
            "diskFreeBytes": 10**9,
            "countsByState": {"queued": 2, "processed": 1_188, "held": 0},
        },
        "upgrade": {},
        "findings": [],
    } | changes


def offline(**changes: Any) -> dict[str, Any]:
    down = channel(state="down", address="", received=0, queued=14, oldestQueuedSeconds=4_000)
    return status(running=False, uptimeSeconds=None, pid=None, channels=[down]) | changes


def away(error: str = "connection refused") -> dict[str, Any]:
    return {
        "url": "https://server.example/",
        "live": False,
        "pingMs": -1,
        "lastHeartbeat": None,
        "reconnects": 0,
        "lastError": error,
    }


def screen(shown: dict[str, Any], width: int = 80, height: int = 24) -> list[str]:
    return plain(compose(read(shown), now_s=NOW_S, width=width, height=height)).split("\n")


def test_an_agent_that_is_well_fills_one_calm_screen() -> None:
    assert screen(status()) == [
        "The agent is live and well.",
        "agent   version 1.2.3, up 3 d 4 h, process 4711",
        "server  https://server.example/  live  ping 12ms, heard 3 s ago, 4 reconnects",
        "",
        "channel  port state conn   in  ack  nak queue oldest   p50   p95   p99",
        "adt      2575 ok       2 123k 1200    3     0      -  18ms  97ms 218ms",
        "",
        "spool   4.0 KiB, 954 MiB of disk free  2 queued  1188 processed",
        "        /data/spool.db",
    ]


def test_a_wide_window_shows_the_whole_address() -> None:
    assert screen(status(), width=120)[4:6] == [
        "channel address             state conn   in  ack  nak queue oldest   p50   p95   p99",
        "adt     mllp://0.0.0.0:2575 ok       2 123k 1200    3     0      -  18ms  97ms 218ms",
    ]


def test_with_the_daemon_down_the_spool_is_shown_and_the_first_line_says_so() -> None:
    assert screen(offline()) == [
        "The agent is NOT RUNNING: 14 messages in its spool go out once it runs.",
        "agent   version 1.2.3",
        "server  https://server.example/",
        "",
        "channel queue oldest",
        "adt        14     1h",
        "",
        "spool   4.0 KiB, 954 MiB of disk free  2 queued  1188 processed",
        "        /data/spool.db",
    ]


def test_findings_stand_last_the_gravest_first_each_with_its_remedy() -> None:
    lines = screen(status(findings=[NOTED, DISK_LOW, PORT_TAKEN]))
    assert lines[0] == "PROBLEM: lab: port 2576 is in use by another program"
    assert lines[-5:] == [
        "error   lab: port 2576 is in use by another program",
        "        fix: stop that program, or give the channel's Endpoint another port",
        "warning 512 MiB left",
        "        fix: free some space",
        "info    durableQueue=false is ignored",
    ]


@pytest.mark.parametrize(
    ("shown", "first", "tone", "exit_"),
    [
        (status(), "The agent is live and well.", Tone.GOOD, 0),
        (status(findings=[NOTED]), "The agent is live and well.", Tone.GOOD, 0),
        (status(findings=[DISK_LOW]), "The agent is live, with 1 warning below.", Tone.WARNING, 0),
        (status(server=away()), "The server is NOT REACHED", Tone.BAD, 1),
        (status(server=away(), findings=[PORT_TAKEN, PORT_TAKEN]), "PROBLEM: lab: port 2576", Tone.BAD, 1),
        (status(channels=[channel(state="failed")]), "PROBLEM: not listening: adt", Tone.BAD, 1),
        (
            status(spool={"path": "x", "writable": False}, findings=[PORT_TAKEN]),
            "The spool cannot be written",
            Tone.BAD,
            1,
        ),
        (status(clients=[remote()]), "The agent is live and well.", Tone.GOOD, 0),
        (status(clients=[failing(waiting=0)]), "The agent is live and well.", Tone.GOOD, 0),
        (status(clients=[failing()]), "The agent is live; messages to lab.example:2575 fail.", Tone.WARNING, 0),
        (
            status(clients=[failing(waiting=0)], findings=[finding_about(failing()), DISK_LOW]),
            "The agent is live, with 1 warning below; messages to lab.example:2575 fail.",
            Tone.WARNING,
            0,
        ),
        (
            status(clients=[failing("mllps://a:1", waiting=9), failing("mllp://b:1")]),
            "The agent is live; messages to mllps://a:1 and b:1 fail.",
            Tone.WARNING,
            0,
        ),
        (
            status(clients=[failing(f"mllp://{name}:1") for name in "abcde"]),
            "The agent is live; messages to a:1, b:1, c:1 and 2 more fail.",
            Tone.WARNING,
            0,
        ),
        (
            status(clients=[failing(f"mllp://{'ward-' * 20}.example:2575")]),
            "The agent is live; messages to ward-ward-ward-ward..-ward-.example:2575 fail.",
            Tone.WARNING,
            0,
        ),
        (status(clients=[failing()], findings=[PORT_TAKEN]), "PROBLEM: lab: port 2576", Tone.BAD, 1),
        (offline(), "The agent is NOT RUNNING: 14 messages", Tone.BAD, 3),
        (
            offline(clients=[{"remote": "mllp://lab:1", "durable": True, "stored": 3}]),
            "The agent is NOT RUNNING: 17 messages",
            Tone.BAD,
            3,
        ),
        (offline(channels=[]), "The agent is NOT RUNNING: nobody hears", Tone.BAD, 3),
    ],
)
def test_the_first_line_is_the_one_thing_to_know(shown: dict[str, Any], first: str, tone: Tone, exit_: int) -> None:
    report = read(shown)
    assert verdict(report).text.startswith(first)
    assert verdict(report).tone is tone
    assert exit_status(report) == exit_


def test_why_the_server_is_away_is_told() -> None:
    assert "        last error: certificate expired" in screen(status(server=away("certificate expired")))


def test_a_channels_own_trouble_is_told_even_without_a_finding() -> None:
    assert "warning adt: the sender broke off" in screen(status(channels=[channel(lastError="the sender broke off")]))


def test_messages_that_wait_for_a_person_stand_out() -> None:
    spool = {"path": "x", "countsByState": {"queued": 1, "held": 2}}
    spans = [span for line in compose(read(status(spool=spool)), now_s=NOW_S) for span in line]
    assert ("2 held", Tone.WARNING) in spans
    assert ("1 queued", Tone.PLAIN) in spans


def test_what_is_wrong_is_shown_when_not_all_channels_fit() -> None:
    channels = [channel(f"ward-{number}") for number in range(30)]
    channels[17] = channel("ward-17", state="failed")
    channels[20] = channel("ward-20", queued=5, oldestQueuedSeconds=30)
    lines = screen(status(channels=channels, findings=[PORT_TAKEN]))
    assert len(lines) <= 24
    assert [line.split()[0] for line in lines[5:8]] == ["ward-17", "ward-20", "ward-0"]
    assert any(line.startswith("and ") and "more quiet ones" in line for line in lines)
    assert lines[-1].startswith("        fix: stop that program")


def test_a_file_gets_every_channel_in_its_order() -> None:
    names = [f"ward-{number}" for number in range(200)]
    lines = plain(compose(read(status(channels=[channel(name) for name in names])), now_s=NOW_S)).split("\n")
    assert [line.split()[0] for line in lines if line.startswith("ward-")] == names


def test_a_flood_of_findings_leaves_room_for_the_channels() -> None:
    lines = screen(status(findings=[PORT_TAKEN] * 40))
    assert len(lines) <= 24
    assert any(line.startswith("adt ") for line in lines)
    assert lines[-1].endswith("more: agent status --json")


def test_remotes_stand_after_the_channels_each_with_its_numbers() -> None:
    assert screen(status(clients=[remote()]))[4:10] == [
        "channel  port state conn   in  ack  nak queue oldest   p50   p95   p99",
        "adt      2575 ok       2 123k 1200    3     0      -  18ms  97ms 218ms",
        "",
        "remote           state    wait unack  out  ack  nak fail   p50   p95   p99",
        "10.20.30.40:2575 open 2/5    0     0 1200 1190    2    0  18ms  97ms 218ms",
        "",
    ]


def test_a_failing_remote_says_why_and_what_helps_once() -> None:
    lines = screen(status(clients=[remote(), failing()], findings=[finding_about(failing()), DISK_LOW]))
    assert lines[7:14] == [
        "remote           state    wait unack  out  ack  nak fail   p50   p95   p99",
        "lab.example:2575 FAILING     1     0 1200 1190    2    3  18ms  97ms 218ms",
        "        failed: 3 connection refused",
        "        last error: cannot connect to lab.example:2575: connection refused",
        "        (ECONNREFUSED)",
        "        fix: check that the system runs and listens there",
        "10.20.30.40:2575 open 2/5    0     0 1200 1190    2    0  18ms  97ms 218ms",
    ]
    assert lines[-2:] == ["warning 512 MiB left", "        fix: free some space"]
    assert sum("fix: check that the system runs" in line for line in lines) == 1


def test_with_the_daemon_down_what_is_stored_for_remotes_is_shown() -> None:
    held = {"remote": "mllps://lab:1?durable=true", "durable": True, "stored": 3, "oldestStoredSeconds": 90}
    assert screen(offline(clients=[held]))[4:9] == [
        "channel queue oldest",
        "adt        14     1h",
        "",
        "remote        stored oldest",
        "mllps://lab:1      3   1min",
    ]


@pytest.mark.parametrize("findings", [[], [DISK_LOW], [PORT_TAKEN] * 40])
@pytest.mark.parametrize("ill", [0, 1, 60])
@pytest.mark.parametrize("remotes", [0, 1, 3, 60])
@pytest.mark.parametrize("channels", [0, 1, 30])
def test_everything_fits_a_small_screen_and_the_sickest_remote_is_on_it(
    channels: int, remotes: int, ill: int, findings: list[dict[str, Any]]
) -> None:
    clients = [(failing if n < ill else remote)(f"mllp://10.1.0.{n}:2575") for n in range(remotes)]
    shown = status(
        channels=[channel(f"ward-{n}") for n in range(channels)],
        clients=clients,
        findings=[*findings, *(finding_about(client) for client in clients if client.get("lastError"))],
    )
    lines = screen(shown, height=24)
    assert len(lines) <= 24
    assert sum(line.startswith("10.1.0.") for line in lines) >= min(remotes, 1)
    if remotes and ill:
        at = next(number for number, line in enumerate(lines) if line.startswith("10.1.0.0:2575"))
        assert "FAILING" in lines[at]
        assert "last error: cannot connect to lab.example:2575" in "".join(lines[at + 1 : at + 4])
        assert "        fix: check that the system runs and listens there" in lines[at + 1 : at + 6]
    if channels:
        assert any(line.startswith("ward-") for line in lines)


def test_an_upgrade_has_its_line() -> None:
    assert "upgrade state idle, latest 1.3.0" in screen(status(upgrade={"state": "idle", "latest": "1.3.0"}))


def test_the_object_of_another_release_is_read_as_far_as_it_goes() -> None:
    shown = status(novelty={"x": 1})
    del shown["pid"], shown["upgrade"]
    shown["clients"] = [{"remote": "mllp://10.0.0.9:2575", "connections": 2, "rtt": RTT, "novelty": 1}]
    lines = screen(shown)
    assert lines[0] == "The agent is live and well."
    assert "10.0.0.9:2575 open 2    0     0    0    0    0    0  18ms  97ms 218ms" in lines


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80), max_size=40),
    st.sampled_from([80, 100, 120, 200]),
)
def test_any_names_keep_to_the_window(names: list[str], width: int) -> None:
    channels = [channel(name, address=f"mllp://[::]:1?x={name}") for name in names]
    clients = [failing(f"mllp://{name}:1") for name in names]
    lines = screen(status(channels=channels, clients=clients, findings=[PORT_TAKEN]), width=width)
    assert all(cells_of(line) <= width for line in lines)
    assert len(lines) <= 24
    assert all(line.isprintable() for line in lines)


@given(st.integers(20, 79))
def test_in_a_narrow_window_the_rightmost_columns_give_way(width: int) -> None:
    table = [line for line in screen(status(), width=width) if line.startswith(("channel", "adt"))]
    assert all(cells_of(line) <= max(width, 20) for line in table)
    assert "state" in table[0]
