"""`agent messages` finds what the spool holds and shows what it says, with the daemon at work or gone."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, time, timedelta
from itertools import islice
from pathlib import Path

import pytest

from agent.cli import main
from agent.cli.messages import interval
from agent.protocol.hl7 import Header, build_ack
from agent.store.row import AckState, Direction, Row, State
from agent.store.spool import Spool, SpoolEvents
from agent.ward.feed import Hospital

Screen = pytest.CaptureFixture[str]


@asynccontextmanager
async def spool_at(data_dir: Path) -> AsyncIterator[Spool]:
    """The owner of a spool at work, who tells nobody."""

    def nobody(*_: object) -> None: ...

    events = SpoolEvents(nobody, nobody, nobody, nobody, nobody)
    async with Spool.open(data_dir / "spool.db", events, min_free_bytes=0) as spool, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(spool.run())
        try:
            yield spool
        finally:
            work.cancel()


def came(spool: Spool, body: bytes, *, channel: str = "adt", ago_s: float = 0, to: str = "") -> Row:
    """A message that has come in, or was pushed `to` a remote, `ago_s` ago, and is kept."""
    header = Header.of(body)
    received_ms = int((datetime.now().astimezone() - timedelta(seconds=ago_s)).timestamp() * 1_000)
    remote, direction = ("lab:2575", Direction.OUT) if to else ("10.1.1.1:5000", Direction.IN)
    row = Row(
        spool.next_id(), to or channel, remote, b"" if to else b"WARD", header.control_id, header.message_type,
        received_ms, body, direction=direction, callback="callback-1" if to else "",
    )  # fmt: skip
    spool.put(row)
    return row


async def on_disk(spool: Spool) -> None:
    await spool.perform(lambda _: None)


def settle(spool: Spool, row: Row, state: State, code: str = "AA", text: str = "") -> None:
    row.state = state
    row.attempts = 1
    row.ack = AckState.DELIVERED
    row.ack_code = code
    row.reason = text
    row.answer = build_ack(Header.of(row.body), code, text=text, control_id=b"ACK1", when="20260101120000")
    spool.settle(row)


ADT = b"MSH|^~\\&|ADT|WARD|LAB|HOSP|20260101120000||ADT^A01^ADT_A01|%s|P|2.5.1\rPID|1||4711^^^HOSP^MR||NEMO^ANNA\r"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A host whose spool holds one hospital's day: 30 messages of several channels, one of them refused."""

    async def fill() -> None:
        async with spool_at(tmp_path) as spool:
            rows = [
                came(spool, told.body, channel=told.kind[:3].lower(), ago_s=3_600 * (30 - number))
                for number, told in enumerate(islice(Hospital(7).messages(), 30))
            ]
            await on_disk(spool)
            for row in rows[:-3]:
                settle(spool, row, State.PROCESSED)
            refused = came(spool, ADT % b"REFUSED1")
            await on_disk(spool)
            settle(spool, refused, State.REJECTED, "AE", "no patient NEMO 4711")
            await on_disk(spool)

    asyncio.run(fill())
    return tmp_path


def ask(host: Path, *words: str) -> int:
    return main(["messages", *words, "--data-dir", str(host)])


def listed(host: Path, screen: Screen, *words: str) -> list[dict[str, object]]:
    assert ask(host, "list", "--json", *words) == 0
    found: list[dict[str, object]] = json.loads(screen.readouterr().out)["messages"]
    return found


class TestList:
    def test_the_newest_come_first_with_the_way_to_older_ones(self, host: Path, capsys: Screen) -> None:
        assert ask(host, "list", "--limit", "3") == 0

        heading, *lines, closing = capsys.readouterr().out.splitlines()
        assert heading.split()[:2] == ["id", "received"]
        assert [line.split()[0] for line in lines] == ["31", "30", "29"]
        assert closing == "3 messages. For older ones add --before 29"

    def test_the_last_page_says_that_it_is_the_last(self, host: Path, capsys: Screen) -> None:
        assert ask(host, "list", "--before", "2") == 0

        assert capsys.readouterr().out.splitlines()[-1] == "1 message, and no older ones."

    def test_pages_give_every_message_once(self, host: Path, capsys: Screen) -> None:
        seen: list[object] = []
        more = True
        while more:
            assert ask(host, "list", "--json", "--limit", "7", *(["--before", str(seen[-1])] if seen else [])) == 0
            page = json.loads(capsys.readouterr().out)
            seen += [message["id"] for message in page["messages"]]
            more = page["more"]

        assert seen == list(range(31, 0, -1))

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            (["--state", "problem"], {31}),
            (["--state", "open"], {28, 29, 30}),
            (["--state", "queued,rejected"], {28, 29, 30, 31}),
            (["--state", "Rejected"], {31}),
            (["--control-id", "REFUSED1"], {31}),
            (["--control-id", "REF*"], {31}),
            (["--since", "10min"], {31}),
            (["--since", "2.5h"], {31, 30, 29}),
            (["--since", "4h", "--until", "90min"], {29, 28}),
            (["--direction", "in", "--before", "3"], {1, 2}),
            (["--channel", "adt", "--state", "problem"], {31}),
            (["--channel", "oru", "--state", "problem"], set()),
            (["--until", "2020-01-01"], set()),
        ],
    )
    def test_what_is_asked_for_is_found(self, host: Path, capsys: Screen, words: list[str], found: set[int]) -> None:
        assert {message["id"] for message in listed(host, capsys, *words)} == found

    def test_a_type_is_found_in_either_spelling(self, host: Path, capsys: Screen) -> None:
        orders = listed(host, capsys, "--type", "ORM")

        assert orders
        assert all(str(order["type"]).startswith("ORM^O01") for order in orders)
        assert listed(host, capsys, "--type", "ORM-O01") == orders
        assert listed(host, capsys, "--type", "orm^o01") == orders

    def test_it_names_no_patient(self, host: Path, capsys: Screen) -> None:
        for words in ([], ["--json"]):
            assert ask(host, "list", "--state", "problem", *words) == 0
            shown = capsys.readouterr().out
            assert "REFUSED1" in shown
            assert "NEMO" not in shown
            assert "4711" not in shown

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--direction", "out"], "of what goes out, only that to remotes with durable=true is kept here"),
            (["--channel", "lba"], "none of a channel 'lba', but of adt,"),
            (["--type", "XYZ"], "No messages that fit"),
        ],
    )
    def test_nothing_found_is_a_sentence_and_no_failure(
        self, host: Path, capsys: Screen, words: list[str], sentence: str
    ) -> None:
        assert ask(host, "list", *words) == 0

        assert sentence in capsys.readouterr().out

    def test_an_empty_spool_says_so(self, tmp_path: Path, capsys: Screen) -> None:
        (tmp_path / "spool.db").touch()

        assert ask(tmp_path, "list") == 0
        assert capsys.readouterr().out == "No messages: the spool is empty.\n"
        assert listed(tmp_path, capsys) == []

    def test_no_spool_is_a_problem_with_its_remedy(self, tmp_path: Path, capsys: Screen) -> None:
        assert ask(tmp_path, "list") == 1

        shown = capsys.readouterr()
        assert shown.out == ""
        assert re.fullmatch(r"agent: there is no spool at .*spool\.db — .*--data-dir\n", shown.err)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--state", "qeued"], "--state: 'qeued' is no state: give queued, inflight"),
            (["--since", "25:00"], "--since: '25:00' is no time: write 2h"),
            (["--since", "soon"], "--since: 'soon' is no time"),
            (["--until", "2026-13-01"], "--until: '2026-13-01' is no time"),
            (["--limit", "0"], "--limit: '0' is no whole number from 1 up"),
            (["--before", "-3"], "--before"),
            (["--control-id", ""], "--control-id: it is empty"),
            (["--direction", "up"], "--direction"),
            (["--since", "1h", "--until", "2h"], "--until is not later than --since — give a later --until"),
        ],
    )
    def test_what_makes_no_sense_is_wrong_usage_and_named(
        self, host: Path, capsys: Screen, words: list[str], said: str
    ) -> None:
        assert ask(host, "list", *words) == 2

        shown = capsys.readouterr()
        assert said in shown.err
        assert shown.out == ""


LATIN = "mllp://lab:2575?durable=true&encoding=iso-8859-1"
PLAIN = "mllp://lab:2575?durable=true"
UMLAUT = "NTE|1||f\xe4llt auf\r"


@pytest.fixture
def busy(host: Path) -> Path:
    """The same host, which also pushed four messages to remotes: one waits, one is held, one may be there twice."""

    async def fill() -> None:
        async with spool_at(host) as spool:
            accepted = came(spool, ADT % b"OUT1" + UMLAUT.encode("latin-1"), to=LATIN)
            held, twice = (came(spool, ADT % control_id, to=PLAIN) for control_id in (b"OUT2", b"OUT3"))
            came(spool, ADT % b"OUT4" + UMLAUT.encode(), to=PLAIN)
            await on_disk(spool)
            settle(spool, accepted, State.PROCESSED, text="gepr\xfcft")
            accepted.answer = (accepted.answer or b"").decode().encode("latin-1")
            twice.ambiguous = held.ambiguous = True
            settle(spool, twice, State.PROCESSED)
            held.state, held.attempts, held.ack = State.HELD, 1, AckState.UNDELIVERED
            held.reason = "the remote closed the connection before it answered about NEMO 4711"
            spool.settle(held)
            await on_disk(spool)

    asyncio.run(fill())
    return host


class TestWhatGoesOut:
    def test_both_directions_are_in_one_list_and_the_remote_is_named(self, busy: Path, capsys: Screen) -> None:
        assert ask(busy, "list", "--limit", "5") == 0

        heading, *lines, closing = capsys.readouterr().out.splitlines()
        assert heading.split()[2:4] == ["way", "channel/remote"]
        assert [line.split()[2:4] for line in lines] == [["out", "lab:2575"]] * 4 + [["in", "adt"]]
        assert [line.split()[6] for line in lines] == ["queued", "processed*", "held*", "processed", "rejected"]
        assert closing == "5 messages. For older ones add --before 31  * may have arrived twice"

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            (["--direction", "out"], {32, 33, 34, 35}),
            (["--direction", "in", "--since", "10min"], {31}),
            (["--direction", "all", "--since", "10min"], {31, 32, 33, 34, 35}),
            (["--direction", "out", "--state", "open"], {35}),
            (["--state", "problem"], {31, 33}),
            (["--channel", LATIN], {32}),
            (["--control-id", "OUT*"], {32, 33, 34, 35}),
            (["--control-id", "OUT3", "--direction", "in"], set()),
        ],
    )
    def test_what_is_asked_for_is_found(self, busy: Path, capsys: Screen, words: list[str], found: set[int]) -> None:
        assert {message["id"] for message in listed(busy, capsys, *words)} == found

    def test_pages_give_every_message_once(self, busy: Path, capsys: Screen) -> None:
        seen: list[object] = []
        while page := listed(busy, capsys, "--limit", "4", *(["--before", str(seen[-1])] if seen else [])):
            seen += [message["id"] for message in page]

        assert seen == list(range(35, 0, -1))

    def test_an_unknown_name_is_answered_with_the_known_ones_and_the_remotes(self, busy: Path, capsys: Screen) -> None:
        assert ask(busy, "list", "--channel", "lba") == 0

        assert PLAIN in capsys.readouterr().out

    def test_the_list_names_no_patient(self, busy: Path, capsys: Screen) -> None:
        for words in ([], ["--json"]):
            assert ask(busy, "list", "--direction", "out", *words) == 0
            shown = capsys.readouterr().out
            assert "OUT2" in shown
            assert "NEMO" not in shown
            assert "4711" not in shown

    def test_it_is_shown_as_sent_and_then_as_acknowledged_by_the_remote(self, busy: Path, capsys: Screen) -> None:
        assert ask(busy, "show", "34") == 0

        head, rest = capsys.readouterr().out.split("\n\n", 1)
        message, acknowledgement = rest.split("\n\nThe remote's acknowledgement:\n")
        assert f"to      {PLAIN}  pushed by the server" in head
        assert "processed: the remote accepted it" in head
        assert "the remote may have it twice" in head
        assert re.search(r"^  PID-5\.1 +Patient Name / Family Name +NEMO$", message, re.MULTILINE)
        assert re.search(r"^  MSA-1 +Acknowledgment Code +AA$", acknowledgement, re.MULTILINE)

    def test_its_text_is_read_as_the_remote_s_url_says_else_as_msh_18_does(self, busy: Path, capsys: Screen) -> None:
        assert ask(busy, "show", "32") == 0
        in_latin = capsys.readouterr().out
        assert ask(busy, "show", "35") == 0
        in_utf_8 = capsys.readouterr().out

        assert "read as ISO-8859-1, as the remote's URL says" in in_latin
        assert "f\xe4llt auf" in in_latin
        assert re.search(r"^  MSA-3 .* gepr\xfcft$", in_latin, re.MULTILINE)
        assert "read as UTF-8, as MSH-18 says nothing" in in_utf_8
        assert "f\xe4llt auf" in in_utf_8

    def test_for_a_script_it_is_one_object(self, busy: Path, capsys: Screen) -> None:
        assert ask(busy, "show", "32", "--json") == 0

        facts = json.loads(capsys.readouterr().out)
        assert (facts["direction"], facts["channel"], facts["remote"]) == ("out", LATIN, "lab:2575")
        assert (facts["callback"], facts["ack"]) == ("callback-1", {"code": "AA", "state": "delivered"})
        assert facts["raw"].endswith(UMLAUT)
        assert "gepr\xfcft" in facts["answer"]["raw"]

    @pytest.mark.parametrize("words", [["--mask"], ["--mask", "--json"]])
    def test_masked_it_may_be_sent_to_a_vendor(self, busy: Path, capsys: Screen, words: list[str]) -> None:
        assert ask(busy, "show", "33", *words) == 0

        shown = capsys.readouterr().out
        assert "NEMO" not in shown
        assert "4711" not in shown
        assert "OUT2" in shown
        assert PLAIN in shown

    def test_raw_is_exactly_what_goes_out_and_what_came_back(
        self, busy: Path, capfdbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        assert ask(busy, "show", "32", "--raw") == 0
        assert capfdbinary.readouterr().out == ADT % b"OUT1" + UMLAUT.encode("latin-1")
        assert ask(busy, "show", "32", "--raw", "--ack") == 0
        assert b"|gepr\xfcft" in capfdbinary.readouterr().out

    def test_the_help_says_what_the_states_mean_on_the_way_out(self, capsys: Screen) -> None:
        assert main(["messages", "list", "--help"]) == 0

        shown = capsys.readouterr().out
        assert "queued, it waits for the remote" in shown
        assert "durable=true" in shown


async def test_the_daemon_works_on_while_its_spool_is_looked_at(tmp_path: Path, capsys: Screen) -> None:
    async with spool_at(tmp_path) as spool:
        came(spool, ADT % b"M1")
        await on_disk(spool)
        assert [message["controlId"] for message in listed(tmp_path, capsys)] == ["M1"]

        came(spool, ADT % b"M2")
        await on_disk(spool)
        assert [message["controlId"] for message in listed(tmp_path, capsys)] == ["M2", "M1"]
        assert ask(tmp_path, "show", "2") == 0
        assert spool.trouble is None


class TestShow:
    def test_a_message_is_shown_with_its_fate_its_names_and_its_acknowledgement(
        self, host: Path, capsys: Screen
    ) -> None:
        assert ask(host, "show", "31") == 0

        shown = capsys.readouterr().out
        head, rest = shown.split("\n\n", 1)
        message, acknowledgement = rest.split("\n\nThe acknowledgement:\n")
        assert head.startswith("message 31  ADT^A01^ADT_A01  REFUSED1\n")
        assert "rejected: the server refused it for good" in head
        assert "reason  no patient NEMO 4711" in head
        assert re.search(r"^  PID-3\.1 +Patient Identifier List / ID Number +4711$", message, re.MULTILINE)
        assert re.search(r"^  PID-5\.1 +Patient Name / Family Name +NEMO$", message, re.MULTILINE)
        assert re.search(r"^  MSA-1 +Acknowledgment Code +AE$", acknowledgement, re.MULTILINE)
        assert re.search(r"^  MSA-3 +Text Message +no patient NEMO 4711$", acknowledgement, re.MULTILINE)

    def test_a_message_without_acknowledgement_has_none(self, host: Path, capsys: Screen) -> None:
        assert ask(host, "show", "30") == 0
        assert "The acknowledgement" not in capsys.readouterr().out
        assert ask(host, "show", "30", "--json") == 0
        assert json.loads(capsys.readouterr().out)["answer"] is None

    @pytest.mark.parametrize("words", [["--mask"], ["--mask", "--json"]])
    def test_masked_it_may_be_sent_to_a_vendor(self, host: Path, capsys: Screen, words: list[str]) -> None:
        assert ask(host, "show", "31", *words) == 0

        shown = capsys.readouterr().out
        assert "NEMO" not in shown
        assert "ANNA" not in shown
        assert "4711" not in shown
        assert "REFUSED1" in shown
        assert "Patient Name / Family Name" in shown
        assert "xx xxxxxxx XXXX 9999" in shown

    def test_for_a_script_it_is_one_object(self, host: Path, capsys: Screen) -> None:
        assert ask(host, "show", "31", "--json") == 0

        facts = json.loads(capsys.readouterr().out)
        assert (facts["id"], facts["state"], facts["ack"]) == (31, "rejected", {"code": "AE", "state": "delivered"})
        assert (facts["reason"], facts["orderKey"]) == ("no patient NEMO 4711", "WARD")
        assert facts["raw"].encode() == ADT % b"REFUSED1"
        (_, pid) = facts["segments"]
        assert (pid["name"], pid["title"]) == ("PID", "Patient Identification")
        assert pid["fields"][1] == {
            "path": "PID-3.1",
            "name": "Patient Identifier List / ID Number",
            "value": "4711",
        }
        assert facts["answer"]["segments"][1]["name"] == "MSA"
        assert facts["answer"]["raw"].startswith("MSH|")

    def test_masked_for_a_script_there_is_no_raw_text(self, host: Path, capsys: Screen) -> None:
        assert ask(host, "show", "31", "--json", "--mask") == 0

        facts = json.loads(capsys.readouterr().out)
        assert "raw" not in facts
        assert "raw" not in facts["answer"]

    def test_raw_is_exactly_what_came(self, host: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        assert ask(host, "show", "31", "--raw") == 0
        assert capfdbinary.readouterr().out == ADT % b"REFUSED1"
        assert ask(host, "show", "31", "--raw", "--ack") == 0
        acknowledgement = capfdbinary.readouterr().out
        assert acknowledgement == build_ack(
            Header.of(ADT % b"REFUSED1"), "AE", text="no patient NEMO 4711", control_id=b"ACK1", when="20260101120000"
        )

    async def test_raw_is_exact_whatever_the_bytes(
        self, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        odd = (ADT % b"ODD") + bytes(range(256)) + b"\r\n\n\x1b[2J"
        async with spool_at(tmp_path) as spool:
            came(spool, odd)
            await on_disk(spool)

        assert ask(tmp_path, "show", "1", "--raw") == 0
        assert capfdbinary.readouterr().out == odd

    async def test_nothing_in_a_message_can_steer_a_terminal(self, tmp_path: Path, capsys: Screen) -> None:
        hostile = (ADT % b"BAD\x1b]0;x\x07") + "NTE|1||\x1b[2J\x9b31m\u202e\x08\U000e0001\r".encode()
        async with spool_at(tmp_path) as spool:
            came(spool, hostile, channel="a\x1bb")
            await on_disk(spool)

        for words in (["list"], ["list", "--json"], ["list", "--channel", "\x1b"], ["show", "1"]):
            assert ask(tmp_path, *words) == 0
            assert capsys.readouterr().out.replace("\n", "").isprintable()
        assert ask(tmp_path, "show", "1", "--json") == 0
        shown = capsys.readouterr().out
        assert shown.rstrip("\n").isprintable()
        assert json.loads(shown)["raw"].encode() == hostile  # for a script nothing is lost

    def test_a_message_that_is_not_there_says_what_is(self, host: Path, capsys: Screen) -> None:
        assert ask(host, "show", "99") == 1

        assert capsys.readouterr().err.startswith("agent: the spool holds no message 99 — it holds 1 to 31")

    def test_an_acknowledgement_that_is_not_there_says_so(self, host: Path, capsys: Screen) -> None:
        assert ask(host, "show", "30", "--raw", "--ack") == 1

        assert "message 30 has no acknowledgement" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "words",
        [
            ["x"],
            ["0"],
            [],
            ["1", "--raw", "--json"],
            ["1", "--ack"],
            ["1", "--raw", "--mask"],
            ["1", "--ack", "--mask"],
        ],
    )
    def test_what_does_not_go_together_is_wrong_usage(self, host: Path, capsys: Screen, words: list[str]) -> None:
        assert ask(host, "show", *words) == 2

        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err


@pytest.mark.parametrize("action", [[], ["list"], ["show"]])
def test_the_help_has_examples(action: list[str], capsys: Screen) -> None:
    assert main(["messages", *action, "--help"]) == 0

    assert "examples:\n  agent messages" in capsys.readouterr().out


class TestInterval:
    NOW = datetime(2026, 11, 22, 2, 0).astimezone()

    def ms(self, *moment: int) -> int:
        return int(datetime(*moment).astimezone().timestamp() * 1_000)  # type: ignore[arg-type]

    def test_a_time_of_day_is_the_last_one(self) -> None:
        assert interval(time(1, 30), None, self.NOW) == (self.ms(2026, 11, 22, 1, 30), None)
        assert interval(time(3, 0), None, self.NOW) == (self.ms(2026, 11, 21, 3, 0), None)
        assert interval(None, time(2, 0), self.NOW) == (None, self.ms(2026, 11, 22, 2, 0))

    def test_two_times_of_day_are_one_night(self) -> None:
        night = self.ms(2026, 11, 21, 23, 0), self.ms(2026, 11, 22, 1, 0)
        assert interval(time(23), time(1), self.NOW) == night
        still_to_come = self.ms(2026, 11, 21, 23, 0), self.ms(2026, 11, 22, 4, 0)
        assert interval(time(23), time(4), self.NOW) == still_to_come

    def test_a_span_is_so_long_ago_and_a_moment_is_itself(self) -> None:
        assert interval(timedelta(hours=3), timedelta(minutes=30), self.NOW) == (
            self.ms(2026, 11, 21, 23, 0),
            self.ms(2026, 11, 22, 1, 30),
        )
        moment = datetime(2026, 1, 1).astimezone()
        assert interval(moment, None, self.NOW) == (self.ms(2026, 1, 1), None)

    def test_the_other_way_round_it_stays_so(self) -> None:
        since, until = interval(timedelta(hours=1), timedelta(hours=2), self.NOW)
        assert since is not None
        assert until is not None
        assert until < since


if sys.platform != "win32":
    import fcntl
    import pty
    import struct
    import termios

    def on_a_terminal(host: Path, *words: str, columns: int = 80, **environment: str) -> bytes:
        """What the command writes to a terminal of its own."""
        terminal, near = pty.openpty()
        fcntl.ioctl(near, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
        settled = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", "messages", *words, "--data-dir", str(host)],
            env={**settled, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path), **environment},
            stdin=near,
            stdout=near,
            stderr=near,
        )
        os.close(near)
        seen = b""
        try:
            while chunk := os.read(terminal, 65_536):
                seen += chunk
        except OSError:  # Linux says EIO when the last process has closed the terminal
            pass
        finally:
            os.close(terminal)
        assert process.wait(30) == 0
        return seen

    class TestTerminal:
        def test_a_problem_is_red_and_what_went_well_green(self, host: Path) -> None:
            shown = on_a_terminal(host, "list")

            assert b"\x1b[1;31mrejected " in shown
            assert b"\x1b[32mprocessed" in shown

        def test_no_color_means_no_colours(self, host: Path) -> None:
            assert not re.search(rb"\x1b\[(1;)?3\dm", on_a_terminal(host, "list", NO_COLOR="1"))

        def test_a_message_fits_the_window(self, host: Path) -> None:
            for columns in (80, 120):
                shown = on_a_terminal(host, "show", "27", columns=columns).decode()
                lines = re.sub(r"\x1b\[[\d;]*m", "", shown).split("\r\n")
                assert max(map(len, lines)) <= columns
                assert any(line.startswith("PID  Patient Identification") for line in lines)

        def test_raw_shows_a_segment_a_line(self, host: Path) -> None:
            lines = on_a_terminal(host, "show", "31", "--raw").split(b"\r\n")

            assert [line[:4] for line in lines] == [b"MSH|", b"PID|", b""]

        async def test_raw_cannot_steer_it(self, tmp_path: Path) -> None:
            async with spool_at(tmp_path) as spool:
                came(spool, ADT % b"BAD" + b"NTE|1||\x1b[2J\x9b31m\x07\r")
                await on_disk(spool)

            shown = await asyncio.to_thread(on_a_terminal, tmp_path, "show", "1", "--raw")

            assert b"NTE|1||?[2J" in shown
            assert shown.decode().replace("\r\n", "").isprintable()

        def test_raw_of_what_goes_out_is_readable_in_the_remote_s_character_set(self, busy: Path) -> None:
            assert UMLAUT.rstrip("\r").encode() in on_a_terminal(busy, "show", "32", "--raw")

        def test_both_directions_fit_the_window(self, busy: Path) -> None:
            for columns in (80, 120):
                for words in (("list",), ("show", "33")):
                    shown = on_a_terminal(busy, *words, columns=columns).decode()
                    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).split("\r\n")
                    assert max(map(len, lines)) <= columns
