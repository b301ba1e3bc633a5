"""What is logged, and what never."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import re
import sys
import timeit
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from agent import logbook
from agent.logfile import list_files
from agent.settings import LogFile, LogSettings

ACKNOWLEDGEMENT = "MSH|^~\\&|LAB|H|||20260101||ACK^A01^ACK|9|P|2.5.1\rMSA|AE|4711|no bed for DOE^JANE\r"
MESSAGE = "MSH|^~\\&|ADT|H|||20260101||ADT^A01|1|P|2.5.1\rPID|1||123||DOE^JANE\r"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _settings(folder: Path, level: str = "INFO", *, channel: str | None = "INFO") -> LogSettings:
    return LogSettings(LogFile(level, folder), None if channel is None else LogFile(channel, folder))


@pytest.fixture
def book(tmp_path: Path) -> Iterator[logbook.Logbook]:
    with logbook.opened(_settings(tmp_path, "DEBUG", channel="DEBUG"), stderr=io.StringIO()) as opened:
        yield opened


def _lines(folder: Path, stem: str) -> list[dict[str, object]]:
    return [json.loads(line) for path in list_files(folder, stem) for line in path.read_bytes().splitlines()]


def test_a_line_has_level_msg_and_timestamp_like_the_existing_agents(book: logbook.Logbook) -> None:
    logbook.main().warning("uplink.lost", code=1009, retry_in_s=1.5, host="ü", nothing=None)

    (line,) = book.read_page(10).lines

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "WARN",
        "msg": "uplink.lost",
        "code": 1009,
        "retry_in_s": 1.5,
        "host": "ü",
        "nothing": None,
    }


async def test_messages_and_answers_go_to_the_channel_log_alone_in_the_order_they_were_noted(tmp_path: Path) -> None:
    with logbook.opened(_settings(tmp_path), stderr=io.StringIO()):
        log = logbook.ContentLog()
        log.note("message.received", "adt", "10.0.0.1:4711", 7, MESSAGE.encode())
        log.note("message.answered", "adt", "10.0.0.1:4711", 7, b"MSA|AA|1 \xff")
        await asyncio.sleep(0)  # the end of this turn of the loop
        log.note("message.received", "adt", "10.0.0.1:4711", 8, b"")
        await asyncio.sleep(0)

    lines = _lines(tmp_path, "agent-channels")
    assert [(line["msg"], line["ref"]) for line in lines] == [
        ("message.received", 7),
        ("message.answered", 7),
        ("message.received", 8),
    ]
    assert (lines[0]["content"], lines[0]["remote"], lines[1]["content"]) == (
        MESSAGE,
        "10.0.0.1:4711",
        "MSA|AA|1 \ufffd",
    )
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line["timestamp"])) for line in lines)
    assert _lines(tmp_path, "agent-main") == []


def test_a_warning_that_comes_a_thousand_times_is_told_once_a_minute(book: logbook.Logbook) -> None:
    repeated = logbook.Repeated()
    for _ in range(1000):
        repeated.warning("loop.trouble", "accept", "too many open files")
    repeated.warning("loop.trouble", "accept", "something else")

    assert [line["reason"] for line in reversed(book.read_page(10).lines)] == [
        "accept: too many open files",
        "accept: something else",
    ]


async def test_a_channel_log_that_is_off_takes_no_message(tmp_path: Path) -> None:
    with logbook.opened(_settings(tmp_path, channel=None), stderr=io.StringIO()):
        logbook.ContentLog().note("message.received", "adt", "10.0.0.1:4711", 7, MESSAGE.encode())
        await asyncio.sleep(0)

    assert _lines(tmp_path, "agent-channels") == []


def test_the_two_logs_are_two_files_and_the_channel_log_is_for_its_owner_only(tmp_path: Path) -> None:
    with logbook.opened(_settings(tmp_path), stderr=io.StringIO()):
        logbook.main().info("a")
        logbook.channel().info("message.received", body=MESSAGE)

    (main,) = list_files(tmp_path, "agent-main")
    (channel,) = list_files(tmp_path, "agent-channels")
    assert [line["msg"] for line in _lines(tmp_path, "agent-main")] == ["a"]
    assert _lines(tmp_path, "agent-channels")[0]["body"] == MESSAGE
    if sys.platform != "win32":
        assert (main.stat().st_mode & 0o777, channel.stat().st_mode & 0o777) == (0o640, 0o600)


@pytest.mark.parametrize(
    "content",
    [
        MESSAGE, f"\x0b{MESSAGE}\x1c\r", MESSAGE.encode(), bytearray(b"x"), ["a", {"deep": (MESSAGE,)}], {MESSAGE: 1},
        ValueError(f"cannot read {MESSAGE}"), "…PID|1||123", "MSH^~", "OBX|1|ED|",
        ACKNOWLEDGEMENT, f"\x0b{ACKNOWLEDGEMENT}\x1c\r", ACKNOWLEDGEMENT.encode(), "MSA|AE|4711|no bed for DOE^JANE",
        "MSA^AE^4711^no bed for DOE", f"the remote said {ACKNOWLEDGEMENT!r}", {"answer": ["ERR|^^^207&DOE&HL70357"]},
        {"url": f"mllp://10.0.0.9:2575?x={MESSAGE}"}, ConnectionError(f"closed after {ACKNOWLEDGEMENT[:30]}"),
    ],
)  # fmt: skip
def test_message_content_is_withheld_from_the_main_log(book: logbook.Logbook, content: object) -> None:
    logbook.main().error("surprise", value=content)
    logbook.main().error(str(content))
    logbook.main().bind(value=content).error("surprise")

    lines = json.dumps(book.read_page(10).lines)

    assert lines.count("<withheld>") == 3 - isinstance(content, bytearray)
    assert not re.search(r"MSH|PID|OBX|DOE|MSA|ERR\W|4711", lines)


@pytest.mark.parametrize(
    "text",
    [
        "mllp://10.0.0.9:2575?encoding=iso-8859-1&returnAck=first&durable=true",
        "mllps://[fe80::1%25eth0]:2575?tls=lab&maxClients=2",
        "10.0.0.9:2575 acknowledged another message: MSA-2 is not the MSH-10 that was sent",
        "AE", "ACK^A01^ACK", "the answer is no acknowledgement: it has no MSA segment", "ERROR|WARN",
    ],
)  # fmt: skip
def test_what_there_is_to_say_of_a_remote_is_not_taken_for_content(book: logbook.Logbook, text: str) -> None:
    logbook.main().warning("remote.failing", reason=text, ref=47)

    (line,) = book.read_page(1).lines
    assert (line["reason"], line["ref"]) == (text, 47)


def _main_log_calls() -> Iterator[tuple[str, ast.Call]]:
    root = Path(logbook.__file__).parent
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            match call.func:
                case ast.Attribute(value=ast.Name(id="log"), attr="debug" | "info" | "warning" | "error" | "exception"):
                    yield f"{path.relative_to(root)}:{call.lineno}", call


def test_no_call_of_the_main_log_passes_what_a_message_says_or_what_names_it() -> None:
    """The guard knows segments; an identifier alone looks like any word, so callers pass numbers of ours."""
    calls = list(_main_log_calls())
    assert len(calls) > 30
    for place, call in calls:
        names = {keyword.arg for keyword in call.keywords}
        assert not names & {"control_id", "message", "body", "content", "answer", "ack", "patient", "callback"}, place
        assert isinstance(call.args[0], ast.Constant | ast.IfExp), f"{place}: an event is a fixed word"


def test_what_is_no_content_is_kept_as_it_is(book: logbook.Logbook) -> None:
    text = "MSH-10 is missing; see MSA-3, order key PID-3.1"
    logbook.main().info("a", text=text, path=Path("x"), several={"k": [1, True]})

    (line,) = book.read_page(1).lines

    assert (line["text"], line["path"], line["several"]) == (text, "x", {"k": [1, True]})


@given(
    st.recursive(st.none() | st.floats() | st.integers() | st.text() | st.binary(), st.lists, max_leaves=5), st.text()
)
def test_a_log_call_never_raises_and_always_makes_one_line_of_json(value: object, event: str) -> None:
    sink_line = logbook._compose(
        logbook._MAIN, "INFO", {"event": event, "value": value, "level": value, "timestamp": 1}
    )

    rendered = logbook._render(sink_line)

    assert rendered.count(b"\n") == 1
    assert {"level", "msg", "timestamp"} <= set(json.loads(rendered))
    assert logbook._console_line(sink_line, colours=True).endswith(b"\n")


def test_an_exception_keeps_its_frames_and_loses_a_text_with_content(book: logbook.Logbook) -> None:
    for text in ("plain words", MESSAGE):
        try:
            raise ValueError(text)
        except ValueError:
            logbook.main().exception("daemon.failed")

    with_content, plain = [line["exception"] for line in book.read_page(2).lines]
    assert "plain words" in plain
    assert "test_an_exception_keeps" in with_content
    assert with_content.endswith("ValueError: <withheld>")


def test_levels_are_kept_and_can_be_changed_while_loggers_are_in_use(tmp_path: Path) -> None:
    main, by_structlog, channel = logbook.main(), structlog.get_logger("main"), structlog.get_logger("channel")
    with logbook.opened(_settings(tmp_path, "WARN"), stderr=io.StringIO()) as book:
        for log in (main, by_structlog, channel):
            log.info("before")
            log.error("error")
        book.set_levels("DEBUG", "NONE")
        for log in (main, by_structlog, channel):
            log.debug("after")

    assert [line["msg"] for line in _lines(tmp_path, "agent-main")] == ["error", "error", "after", "after"]
    assert [line["msg"] for line in _lines(tmp_path, "agent-channels")] == ["before", "error"]


def test_a_channel_log_that_is_off_writes_nothing(tmp_path: Path) -> None:
    with logbook.opened(_settings(tmp_path, channel=None), stderr=io.StringIO()) as book:
        book.set_levels("INFO", "DEBUG")
        logbook.channel().error("x", body=MESSAGE)

    assert list_files(tmp_path, "agent-channels") == []


def test_a_call_below_the_level_costs_next_to_nothing(tmp_path: Path) -> None:
    log = logbook.main()
    with logbook.opened(_settings(tmp_path), stderr=io.StringIO()):
        best_s = min(timeit.repeat(lambda: log.debug("x", a=1), number=10_000, repeat=5)) / 10_000

    assert best_s < 5e-6, "1 µs on an idle machine; the bound leaves room for a busy one"


def test_a_terminal_shows_one_readable_line_per_event_and_a_pipe_none(tmp_path: Path) -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        with logbook.opened(_settings(tmp_path), stderr=stream, colours=False):
            logbook.main().info("channel.open", name="adt", port=2575, text="two words")
            logbook.channel().info("message.received", body=MESSAGE)

    assert re.fullmatch(
        r'\d\d:\d\d:\d\d\.\d{3} INFO  channel\.open  name=adt port=2575 text="two words"\n', terminal.getvalue()
    )
    assert pipe.getvalue() == ""


def test_colours_are_for_terminals(tmp_path: Path) -> None:
    terminal = Terminal()
    with logbook.opened(_settings(tmp_path), stderr=terminal, colours=True):
        logbook.main().error("x")

    assert "\x1b[1;31mERROR" in terminal.getvalue()


def test_a_closed_terminal_disturbs_nobody(tmp_path: Path) -> None:
    terminal = Terminal()
    with logbook.opened(_settings(tmp_path), stderr=terminal):
        terminal.close()
        logbook.main().info("x")

    assert len(_lines(tmp_path, "agent-main")) == 1


async def test_a_page_holds_everything_that_was_logged_before_it_was_asked_for(book: logbook.Logbook) -> None:
    for number in range(3):
        logbook.main().info("a", number=number)

    page = await asyncio.to_thread(book.read_page, 10)

    assert [line["number"] for line in page.lines] == [2, 1, 0]
    assert page.next_before is None
    assert book.read_page(10, page.lines[-1]["timestamp"]).lines == []


def test_a_disk_that_takes_nothing_is_a_finding_and_messages_go_on(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    with logbook.opened(_settings(tmp_path / "logs"), stderr=io.StringIO()) as book:
        assert book.trouble() is None
        logbook.main().info("x")
        assert book.read_page(1).lines == []
        trouble = book.trouble()
        (tmp_path / "logs").unlink()
        assert [line["msg"] for line in book.read_page(1).lines] == ["x"]
        assert book.trouble() is None

    assert trouble is not None
    assert trouble.code == "logbook.not-written"


async def test_warnings_of_libraries_land_in_the_main_log_under_the_same_guard(book: logbook.Logbook) -> None:
    logging.getLogger("websockets").warning("odd frame %s", MESSAGE)
    logging.getLogger("asyncio").error("plain")
    logging.getLogger("aiohttp").info("not this")

    plain, odd = (await asyncio.to_thread(book.read_page, 10)).lines

    assert (plain["library"], plain["text"], plain["level"]) == ("asyncio", "plain", "ERROR")
    assert (odd["library"], odd["text"]) == ("websockets", "<withheld>")


def test_a_closed_logbook_takes_events_and_writes_none(tmp_path: Path) -> None:
    with logbook.opened(_settings(tmp_path), stderr=io.StringIO()):
        pass
    logbook.main().error("nobody listens")

    assert list_files(tmp_path, "agent-main") == []
