"""`agent channel analyze-key` judges a key by stored messages and shows no patient."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest

from agent.cli import channel_key
from agent.cli.channel_key import NoSuchChannel
from agent.errors import StoreError
from agent.protocol.hl7 import Header
from agent.store.row import Content, Row
from agent.store.spool import Spool, SpoolEvents

Screen = pytest.CaptureFixture[str]
PATIENTS = 40
NOW_MS = int(datetime.now().astimezone().timestamp()) // 60 * 60_000  # what comes at one time is in one minute


@asynccontextmanager
async def spool_at(data_dir: Path) -> AsyncIterator[Spool]:
    def nobody(*_: object) -> None: ...

    events = SpoolEvents(nobody, nobody, nobody, nobody, nobody)
    async with Spool.open(data_dir / "spool.db", events, min_free_bytes=0) as spool, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(spool.run())
        try:
            yield spool
        finally:
            work.cancel()


def came(spool: Spool, body: bytes, channel: str, *, ago_s: float = 0, content: Content = Content.HL7) -> None:
    received_ms = NOW_MS - int(ago_s * 1_000)
    control_id = Header.of(body).control_id if content is Content.HL7 else b"x"
    row = Row(spool.next_id(), channel, "10.1.1.1:5000", b"", control_id, b"", received_ms, body, content=content)
    spool.put(row)


def message(number: int, patient: str, *segments: str, trigger: str = "A01") -> bytes:
    head = f"MSH|^~\\&|A|B|C|D|||ADT^{trigger}|{number}|P|2.5"
    return "\r".join([head, f"PID|1||{patient}", *segments, ""]).encode()


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A minute of `adt` with 40 patients, then a merge, and an old message; large ones of one patient at `lab`; and an
    analyser."""

    async def fill() -> None:
        async with spool_at(tmp_path) as spool:
            came(spool, message(0, "OLDPATIENT"), "adt", ago_s=10 * 86_400)
            for number in range(400):
                came(spool, message(number, f"P{number % PATIENTS:05}^^^HOSP"), "adt", ago_s=600)
            came(spool, message(900, "P00001^^^HOSP", "MRG|P00002^^^HOSP", trigger="A40"), "adt", ago_s=300)
            for number in range(5):
                came(spool, message(number, "LABPATIENT", "OBX|1|ED|||" + "x" * 50_000, trigger="A08"), "lab")
            came(spool, b"H|\\^&\r", "analyser", content=Content.ASTM)

    asyncio.run(fill())
    return tmp_path


def analyze(host: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    channel_key.register(parser.add_subparsers())
    args = parser.parse_args(["analyze-key", *words, "--data-dir", str(host)])
    status: int = args.act(args)
    return status


def facts(host: Path, capsys: Screen, *words: str) -> Sequence[dict[str, object]]:
    assert analyze(host, *words, "--json") == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)["channels"]
    return found


def test_each_channel_with_hl7_is_judged_for_itself_the_busiest_first(host: Path, capsys: Screen) -> None:
    adt, lab = facts(host, capsys, "PID-3.1")

    assert (adt["channel"], adt["messages"], adt["keys"], adt["emptyShare"]) == ("adt", 402, PATIENTS + 1, 0)
    assert (adt["barriers"], adt["crossing"], adt["busiestMinute"]) == (1, 1, 400)
    assert (lab["channel"], lab["keys"], lab["largestShare"]) == ("lab", 1, 1)
    assert lab["speedUp"] == {"1": 1, "2": 1, "4": 1, "8": 1, "16": 1}
    gains = adt["speedUp"]
    assert isinstance(gains, dict)
    assert gains["1"] == 1
    assert 1.9 < gains["2"] <= 2
    assert gains["8"] > 7


def test_a_channel_and_a_time_can_be_asked_for(host: Path, capsys: Screen) -> None:
    (adt,) = facts(host, capsys, "PID-3.1", "--channel", "adt", "--since", "7d", "--workers", "3,1")

    assert (adt["messages"], adt["keys"]) == (401, PATIENTS)
    assert list(adt["speedUp"]) == ["1", "3"]  # type: ignore[call-overload]


def test_a_key_that_stands_behind_much_else_is_found(host: Path, capsys: Screen) -> None:
    async def add() -> None:
        async with spool_at(host) as spool:
            for number in range(4):
                late = message(number, "", "NTE|1||" + "x" * 70_000, f"PV1|1||{number % 2}")
                came(spool, late, "late")

    asyncio.run(add())

    (late,) = facts(host, capsys, "PV1-3", "--channel", "late")

    assert (late["messages"], late["keys"], late["emptyShare"]) == (4, 2, 0)


def test_a_field_that_messages_lack_is_advised_against(host: Path, capsys: Screen) -> None:
    adt, _ = facts(host, capsys, "PV1-19")

    assert adt["emptyShare"] == 1
    assert "Take another key: 100% of the messages have no PV1-19" in str(adt["advice"])


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_patient_is_shown_and_the_same_key_looks_the_same_twice(host: Path, form: list[str], capsys: Screen) -> None:
    assert analyze(host, "PID-3.1", *form) == 0
    first = capsys.readouterr()
    assert analyze(host, "PID-3.1", *form) == 0

    assert capsys.readouterr() == first
    for patient in ("P000", "LABPATIENT", "OLDPATIENT"):
        assert patient not in first.out + first.err


def test_another_host_shows_the_same_key_differently(host: Path, tmp_path: Path, capsys: Screen) -> None:
    other = tmp_path / "other"
    other.mkdir()

    async def fill() -> None:
        async with spool_at(other) as spool:
            came(spool, message(1, "LABPATIENT"), "lab")

    asyncio.run(fill())

    (here,) = facts(host, capsys, "PID-3.1", "--channel", "lab")
    (there,) = facts(other, capsys, "PID-3.1")
    assert here["largest"][0]["key"] != there["largest"][0]["key"]  # type: ignore[index]


def test_who_asks_for_the_keys_sees_them(host: Path, capsys: Screen) -> None:
    assert analyze(host, "PID-3.1", "--show-keys", "--channel", "lab") == 0

    assert "LABPATIENT 5" in capsys.readouterr().out


def test_a_key_cannot_steer_the_terminal(host: Path, capsys: Screen) -> None:
    async def add() -> None:
        async with spool_at(host) as spool:
            came(spool, message(1, "\x1b[31mred"), "odd\x1b[2J")

    asyncio.run(add())

    assert analyze(host, "PID-3.1", "--show-keys") == 0
    assert "\x1b" not in capsys.readouterr().out


def test_the_screen_says_it_in_words(host: Path, capsys: Screen) -> None:
    assert analyze(host, "PID-3.1", "--channel", "adt") == 0

    shown = capsys.readouterr().out
    assert "adt: 402 messages" in shown
    assert "1, of which 1 tie different keys" in shown
    assert "logicalChannelKey=PID-3.1 with maxWorkers=16 empties a queue about" in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["PID3"], "is no field path"),
        (["PID-3.1", "--workers", "0"], "no whole number"),
        (["PID-3.1", "--workers", "1,501"], "goes up to 500"),
        (["PID-3.1", "--since", "soon"], "is no time"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(host: Path, words: list[str], told: str, capsys: Screen) -> None:
    with pytest.raises(SystemExit) as left:
        analyze(host, *words)

    assert left.value.code == 2
    assert told in capsys.readouterr().err


def test_a_channel_that_is_not_there_is_named_with_those_that_are(host: Path) -> None:
    with pytest.raises(NoSuchChannel) as refused:
        analyze(host, "PID-3.1", "--channel", "atd")

    assert "adt" in refused.value.hint


def test_nothing_since_then_is_no_trouble(host: Path, capsys: Screen) -> None:
    assert analyze(host, "PID-3.1", "--since", "2037-01-01") == 0

    assert "no HL7 message that came in since then" in capsys.readouterr().out


def test_a_host_without_a_spool_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no spool"):
        analyze(tmp_path, "PID-3.1")
