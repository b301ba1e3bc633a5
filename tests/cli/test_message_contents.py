"""`agent messages` shows what came by every kind of channel: bytes, an analyser's sessions, DICOM objects."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.cli import main
from agent.protocol import dicomjson
from agent.store.row import AckState, Content, Direction, Row, State
from agent.store.spool import Spool, SpoolEvents

Screen = pytest.CaptureFixture[str]

HL7 = b"MSH|^~\\&|ADT|WARD|LAB|HOSP|20260101120000||ADT^A01^ADT_A01|MSG1|P|2.5.1\r"
WEIGHT = b"\x02NEMO 4711 72.5kg\r\x03"
BINARY = b"\x01\x00NEMO\xff\x1b[2J"
SESSION = b"H|\\^&|||cobas|||||host||P|LIS2-A2|20261122093012\rP|1||4711||NEMO^ANNA\rR|1|^^^GLU|5.4\rL|1|N\r"
ORDER = b"H|\\^&|||host\rO|1|S-78||^^^GLU\rL|1|F\r"
REMOTE = "astm://cobas:5000?durable=true"
OBJECT = dicomjson.about(
    "CT_EAST",
    "ARCHIVE",
    b'{"00080060":{"vr":"CS","Value":["CT"]},"00100010":{"vr":"PN","Value":[{"Alphabetic":"NEMO^ANNA"}]}}',
)
SCALE, PUMP, ANALYSER, SCANNER, TAKEN, PUSHED = range(2, 8)  # ids; 1 is an HL7 message


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


def came(spool: Spool, channel: str, content: Content, name: bytes, body: bytes, *, out: bool = False) -> Row:
    row = Row(
        spool.next_id(), channel, "10.1.1.1:5000", b"", name, b"ADT^A01" if content is Content.HL7 else b"",
        1_790_000_000_000, body, content=content,
        direction=Direction.OUT if out else Direction.IN, callback="callback-1" if out else "",
    )  # fmt: skip
    spool.put(row)
    return row


def processed(spool: Spool, row: Row, code: str = "", answer: bytes | None = None) -> None:
    row.state, row.attempts, row.ack = State.PROCESSED, 1, AckState.DELIVERED
    row.ack_code, row.answer = code, answer
    spool.settle(row)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    async def fill() -> None:
        async with spool_at(tmp_path) as spool:
            came(spool, "adt", Content.HL7, b"MSG1", HL7)
            scale = came(spool, "scale", Content.BYTES, b"", WEIGHT)
            came(spool, "pump", Content.BYTES, b"", BINARY)
            analyser = came(spool, "cobas", Content.ASTM, b"1a2056672f67f434ba2", SESSION)
            came(spool, "archive", Content.DICOM, b"4001", OBJECT)
            taken = came(spool, "archive", Content.DICOM, b"4002", OBJECT)
            pushed = came(spool, REMOTE, Content.ASTM, b"ORDER1", ORDER, out=True)
            await spool.perform(lambda _: None)
            processed(spool, scale, answer=b"\x06OK NEMO\r")
            processed(spool, analyser, answer=ORDER)
            processed(spool, taken, "0000")
            processed(spool, pushed, "ACK")
            await spool.perform(lambda _: None)

    asyncio.run(fill())
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "4001.dcm").write_bytes(bytes(12_345))
    return tmp_path


def ask(host: Path, *words: str) -> int:
    return main(["messages", *words, "--data-dir", str(host)])


def shown(host: Path, screen: Screen, *words: str) -> str:
    assert ask(host, "show", *words) == 0
    return screen.readouterr().out


def object_of(host: Path, screen: Screen, *words: str) -> dict[str, object]:
    facts: dict[str, object] = json.loads(shown(host, screen, "--json", *words))
    return facts


# ---- the list


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--content", "hl7"], [1]),
        (["--content", "bytes"], [PUMP, SCALE]),
        (["--content", "astm"], [PUSHED, ANALYSER]),
        (["--content", "astm", "--direction", "in"], [ANALYSER]),
        (["--content", "dicom", "--state", "open"], [SCANNER]),
        (["--content", "dicom", "--control-id", "4002"], [TAKEN]),
        ([], [7, 6, 5, 4, 3, 2, 1]),
    ],
)
def test_what_is_asked_for_is_found(host: Path, capsys: Screen, words: list[str], found: list[int]) -> None:
    assert ask(host, "list", "--json", *words) == 0
    assert [message["id"] for message in json.loads(capsys.readouterr().out)["messages"]] == found


def test_the_list_says_of_what_a_message_is_made_and_names_no_patient(host: Path, capsys: Screen) -> None:
    assert ask(host, "list") == 0
    text = capsys.readouterr().out
    _, *lines, _ = text.splitlines()
    kinds = ["astm", "dicom", "dicom", "astm", "bytes", "bytes", "ADT^A01"]
    assert [kind for line, kind in zip(lines, kinds, strict=True) if kind in line.split()] == kinds
    assert ask(host, "list", "--json") == 0
    text += capsys.readouterr().out
    assert '"content":"dicom"' in text
    assert "NEMO" not in text
    assert "4711" not in text


def test_an_unknown_content_is_wrong_usage(host: Path, capsys: Screen) -> None:
    assert ask(host, "list", "--content", "fax") == 2
    assert "--content" in capsys.readouterr().err


def test_a_channel_whose_messages_have_no_names_is_known_all_the_same(host: Path, capsys: Screen) -> None:
    assert ask(host, "list", "--channel", "scale", "--state", "failed") == 0
    assert "No messages that fit" in capsys.readouterr().out
    assert ask(host, "list", "--channel", "scael") == 0
    assert "none of a channel 'scael', but of adt, archive" in capsys.readouterr().out


# ---- one message


def test_bytes_are_shown_as_text_and_by_number_with_what_was_written_back(host: Path, capsys: Screen) -> None:
    head, text, dump, back, _ = shown(host, capsys, str(SCALE)).split("\n\n")

    assert head.startswith(f"message {SCALE}  bytes of a stream\n")
    assert "bytes   19 bytes  read as ASCII" in head
    assert text == "  <STX>NEMO 4711 72.5kg<CR>\n  <ETX>"
    assert dump.splitlines()[0] == "  000000  02 4e 45 4d 4f 20 34 37  31 31 20 37 32 2e 35 6b  .NEMO 4711 72.5k"
    assert back == "Written back to the device:\n  <ACK>OK NEMO<CR>"


def test_bytes_that_are_no_text_are_shown_by_number_alone(host: Path, capsys: Screen) -> None:
    head, dump = shown(host, capsys, str(PUMP)).split("\n\n")

    assert "read as" not in head
    assert dump == "  000000  01 00 4e 45 4d 4f ff 1b  5b 32 4a                 ..NEMO..[2J\n"
    facts = object_of(host, capsys, str(PUMP))
    assert (facts["content"], facts["hex"], facts["text"]) == ("bytes", BINARY.hex(), None)


def test_a_session_is_shown_by_records_with_what_was_sent_back(host: Path, capsys: Screen) -> None:
    head, records, back = shown(host, capsys, str(ANALYSER)).split("\n\n")

    assert "ASTM session  1a2056672f67f434ba2" in head
    assert "read as UTF-8" in head
    assert "  P-6.1  Patient Name / Family Name  NEMO" in records.splitlines()
    assert back.startswith("Sent to the analyser:\nH  Message Header\n")
    facts = object_of(host, capsys, str(ANALYSER))
    assert [record["name"] for record in facts["records"]] == ["H", "P", "R", "L"]  # type: ignore[attr-defined]
    assert facts["raw"] == SESSION.decode()
    assert facts["answer"]["records"][1]["fields"][1]["value"] == "S-78"  # type: ignore[index]


def test_an_order_that_was_pushed_is_shown_as_it_went_out(host: Path, capsys: Screen) -> None:
    text = shown(host, capsys, str(PUSHED))

    assert f"to      {REMOTE}  pushed by the server" in text
    assert "ack     ACK (every frame), from the remote" in text
    assert "  O-3    Sample ID                   S-78" in text.splitlines()


def test_an_object_is_shown_by_elements_with_the_place_of_its_file(host: Path, capsys: Screen) -> None:
    path = host / "objects" / "4001.dcm"
    text = shown(host, capsys, str(SCANNER))

    assert f"object  12 KiB  {path}  2 elements\n" in text
    (name,) = [line for line in text.splitlines() if line.startswith("  (0010,0010)")]
    assert name.split()[-2:] == ["PN", "NEMO^ANNA"]
    facts = object_of(host, capsys, str(SCANNER))
    assert facts["object"] == {"path": str(path), "sizeBytes": 12_345}
    assert facts["association"] == {"callingAeTitle": "CT_EAST", "calledAeTitle": "ARCHIVE"}
    assert [element["value"] for element in facts["elements"]] == ["CT", "NEMO^ANNA"]  # type: ignore[attr-defined]


def test_of_an_object_that_the_server_has_the_file_is_gone(host: Path, capsys: Screen) -> None:
    assert "object  its file is gone, for the server has the object  2 elements\n" in shown(host, capsys, str(TAKEN))
    assert object_of(host, capsys, str(TAKEN))["object"] is None


def test_an_object_that_waits_and_has_lost_its_file_says_so(host: Path, capsys: Screen) -> None:
    (host / "objects" / "4001.dcm").unlink()
    assert "object  its file is not there  2 elements\n" in shown(host, capsys, str(SCANNER))


@pytest.mark.parametrize("number", [SCALE, PUMP, ANALYSER, SCANNER, TAKEN, PUSHED])
def test_masked_it_may_be_sent_to_a_vendor(host: Path, capsys: Screen, number: int) -> None:
    for words in (["--mask"], ["--mask", "--json"]):
        text = shown(host, capsys, str(number), *words)
        assert "NEMO" not in text
        assert "ANNA" not in text
        assert "4711" not in text
        assert b"NEMO".hex() not in text
        assert '"raw"' not in text


@pytest.mark.parametrize(
    ("number", "body", "answer"),
    [(SCALE, WEIGHT, b"\x06OK NEMO\r"), (PUMP, BINARY, None), (ANALYSER, SESSION, ORDER), (SCANNER, OBJECT, None)],
)
def test_raw_is_exactly_what_was_stored(
    host: Path, capfdbinary: pytest.CaptureFixture[bytes], number: int, body: bytes, answer: bytes | None
) -> None:
    assert ask(host, "show", str(number), "--raw") == 0
    assert capfdbinary.readouterr().out == body
    assert ask(host, "show", str(number), "--raw", "--ack") == (0 if answer is not None else 1)
    assert capfdbinary.readouterr().out == (answer or b"")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (SCALE, "NEMO 4711 72.5kg"),
        (PUMP, "01 00 4e 45 4d 4f ff 1b"),
        (ANALYSER, "P|1||4711||NEMO^ANNA"),
        (SCANNER, '"calledAeTitle":"ARCHIVE"'),
    ],
)
def test_raw_on_a_terminal_cannot_steer_it(host: Path, number: int, words: str) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "agent", "messages", "show", str(number), "--raw", "--data-dir", str(host)]
    subprocess.run(command, stdout=theirs, check=True, timeout=60, env={**os.environ, "NO_COLOR": "1", "TERM": "dumb"})
    os.close(theirs)
    text = os.read(ours, 65_536).decode()
    os.close(ours)
    assert words in text
    assert "\x02" not in text
    assert "\x1b[2J" not in text
