"""What is logged, and what never.

Secret: the form of a log line, which fields may stand in it, and where the two logs are kept.
Promise: the main log holds no patient data, whatever a caller passes; a call to a logger never raises and never
waits for a disk; a call below the level costs about a microsecond.

*main* may be fetched remotely. *channel* holds message content, is readable by its owner only and stays on the host.
Each line is one JSON object with at least `level`, `msg` and `timestamp` (ISO 8601, UTC, milliseconds).
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import msgspec
import structlog

from agent.errors import Finding, Severity
from agent.logfile import LogFiles, LogWriter, Stream, Tap
from agent.loglines import PAGE_BYTES, THRESHOLDS, WITHHELD, read_page, readable
from agent.loglines import Page as Page  # what `read_page` gives
from agent.settings import LogFile, LogSettings

MAIN_STEM = "agent-main"
CHANNEL_STEM = "agent-channels"
REPEAT_S = 60.0
TOLD_AT_MOST = 1_000

# VT and FS frame a message; a name before '|' begins a segment, and so do those of which no acknowledgement and no
# patient is without, before any usual separator (HL7 v2.5.1 §2.5).
_CONTENT = re.compile(r"[\x0b\x1c]|\b(?:MSH|MSA|ERR|PID)[|^~&$#!*@%]|\b[A-Z][A-Z][A-Z0-9]\|")
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


class Sink:
    """The end of one of the two logs; lives as long as the process, so that loggers made early follow every change."""

    __slots__ = ("console", "guarded", "tap", "threshold")

    def __init__(self, *, guarded: bool) -> None:
        self.guarded = guarded
        self.threshold = THRESHOLDS["INFO"]
        self.tap: Tap | None = None
        self.console: tuple[Tap, bool] | None = None

    def write(self, line: Mapping[str, object]) -> None:
        if self.tap is not None:
            self.tap.put(_render(line))
        if self.console is not None:
            tap, colours = self.console
            tap.put(_console_line(line, colours=colours))


class EventLogger(structlog.BoundLoggerBase):
    """`log.info("uplink.lost", code=1009)`: an event name and fields; `bind` makes a logger with fields of its own."""

    _logger: Sink

    def debug(self, event: str, **fields: object) -> None:
        if self._logger.threshold <= 10:
            self._emit("DEBUG", event, fields)

    def info(self, event: str, **fields: object) -> None:
        if self._logger.threshold <= 20:
            self._emit("INFO", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        if self._logger.threshold <= 30:
            self._emit("WARN", event, fields)

    def error(self, event: str, **fields: object) -> None:
        if self._logger.threshold <= 40:
            self._emit("ERROR", event, fields)

    critical = error

    def exception(self, event: str, **fields: object) -> None:
        """An error with the exception that is being handled; for the unexpected only."""
        self.error(event, **{"exc_info": True, **fields})

    def _emit(self, level: str, event: str, fields: dict[str, object]) -> None:
        try:
            _, line = self._process_event(level, event, fields)
        except structlog.DropEvent:
            return
        self._logger.write(line)


_MAIN = Sink(guarded=True)
_CHANNEL = Sink(guarded=False)


def main() -> EventLogger:
    """The log without patient data."""
    return _logger(_MAIN)


def channel() -> EventLogger:
    """The log of messages."""
    return _logger(_CHANNEL)


class _ContentLine(msgspec.Struct, gc=False):
    level: str
    msg: str
    timestamp: str
    channel: str
    remote: str
    ref: int
    content: str


class ContentLog:
    """Messages and answers, for the channel log only; those of one turn of the loop are written together.

    Apart from the event loggers because it is on the way of every message: 1 µs for 1 KB, 0.1 µs when the log is off.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: list[_ContentLine] = []

    def note(self, event: str, channel_name: str, remote: str, ref: int, content: bytes) -> None:
        """One message of a channel, as `content.decode()` shows it; `ref` is its number in the spool."""
        if _CHANNEL.tap is not None and _CHANNEL.threshold <= 20:
            lines = self._lines
            if not lines:
                self._loop.call_soon(self.flush)
            lines.append(
                _ContentLine("INFO", event, _stamp(), channel_name, remote, ref, content.decode("utf-8", "replace"))
            )

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines and _CHANNEL.tap is not None:
            _CHANNEL.tap.put(_encode_lines(lines))


class Repeated:
    """Warnings that may come a thousand times a second: the first at once, then one a minute with how often it came."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, ...], tuple[float, int]] = {}

    def warning(self, event: str, *what: str) -> None:
        now_s = time.monotonic()
        told_at, unsaid = self._told.get((event, *what), (now_s - REPEAT_S, 0))
        if now_s - told_at < REPEAT_S:
            self._told[event, *what] = (told_at, unsaid + 1)
            return
        if len(self._told) >= TOLD_AT_MOST:
            self._told.clear()
        self._told[event, *what] = (now_s, 0)
        main().warning(event, reason=": ".join(what), repeated=unsaid)


class Logbook:
    """Both logs while they are open."""

    def __init__(self, settings: LogSettings, writer: LogWriter) -> None:
        self._settings = settings
        self._writer = writer
        self._taps = [_MAIN.tap, _CHANNEL.tap]

    @property
    def dropped(self) -> int:
        """Lines lost so far because the disk took none."""
        return sum(tap.dropped for tap in self._taps if tap is not None)

    def trouble(self) -> Finding | None:
        """What keeps lines from the disk at the moment."""
        reasons = [tap.failing for tap in self._taps if tap is not None and tap.failing]
        if not reasons:
            return None
        return Finding(
            "logbook.not-written",
            Severity.WARNING,
            f"log lines cannot be written: {reasons[0]}; {self.dropped} dropped so far",
            "free space or correct the permissions; messages are not affected, logging goes on by itself",
            str(self._settings.main.dir),
        )

    def set_levels(self, main_level: str, channel_level: str) -> None:
        """Change what is kept from now on; the files stay."""
        _MAIN.threshold = THRESHOLDS[main_level]
        _CHANNEL.threshold = THRESHOLDS[channel_level] if _CHANNEL.tap is not None else THRESHOLDS["NONE"]

    def read_page(self, limit: int, before: str | None = None, *, max_bytes: int = PAGE_BYTES) -> Page:
        """Lines of the main log as `agent.loglines.read_page` gives them, all that was logged so far among them.

        Reads files, so a coroutine calls it in a thread.
        """
        self._writer.flush()
        return read_page(self._settings.main.dir, MAIN_STEM, limit, before, max_bytes=max_bytes)


@contextmanager
def opened(settings: LogSettings, *, stderr: TextIO | None = None, colours: bool | None = None) -> Iterator[Logbook]:
    """Write both logs as told until the block is left; what is pending then is written.

    A folder that cannot be written is `Logbook.trouble`, not an error. `colours` None: on a terminal only.
    """
    stream = stderr if stderr is not None else sys.stderr
    terminal = stream is not None and stream.isatty()  # None: a Windows program without a console
    before = [(sink, sink.threshold, sink.tap, sink.console) for sink in (_MAIN, _CHANNEL)]
    foreign = _FromLibraries(logging.WARNING)
    try:
        with LogWriter() as writer:
            _MAIN.tap = writer.tap(_files(settings.main, MAIN_STEM, 0o640), _notice)
            _CHANNEL.tap = None
            if settings.channel is not None:
                _CHANNEL.tap = writer.tap(_files(settings.channel, CHANNEL_STEM, 0o600), _notice)
            if stream is not None and (settings.console == "always" or (settings.console == "auto" and terminal)):
                wanted = colours if colours is not None else terminal and sys.platform != "win32"
                _MAIN.console = (writer.tap(Stream(stream), lambda _: b""), wanted)
            book = Logbook(settings, writer)
            book.set_levels(settings.main.level, settings.channel.level if settings.channel is not None else "NONE")
            structlog.configure(
                processors=_PROCESSORS,
                wrapper_class=EventLogger,
                logger_factory=lambda *names: _CHANNEL if names[:1] == ("channel",) else _MAIN,
                cache_logger_on_first_use=True,
            )
            logging.getLogger().addHandler(foreign)
            yield book
    finally:
        logging.getLogger().removeHandler(foreign)
        for sink, threshold, tap, console in before:
            sink.threshold, sink.tap, sink.console = threshold, tap, console


class _FromLibraries(logging.Handler):
    """Warnings of asyncio, websockets and aiohttp belong in the main log, under the same guard as ours."""

    def emit(self, record: logging.LogRecord) -> None:
        method = main().error if record.levelno >= logging.ERROR else main().warning
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        method("library.warning", library=record.name, text=text, exc_info=record.exc_info)


def _logger(sink: Sink) -> EventLogger:
    return cast(EventLogger, structlog.wrap_logger(sink, processors=_PROCESSORS, wrapper_class=EventLogger).bind())


def _files(log: LogFile, stem: str, mode: int) -> LogFiles:
    return LogFiles(log.dir, stem, max_bytes=log.max_file_size_mb * 1_000_000, keep=log.files_to_keep, mode=mode)


def _notice(count: int) -> bytes:
    return _render({"level": "WARN", "msg": "logbook.dropped", "timestamp": _now(), "lines": count})


_second = (0, "")


def _stamp() -> str:
    """As `_now`, with the part that changes once a second kept."""
    global _second
    now_ms = time.time_ns() // 1_000_000
    second, ms = divmod(now_ms, 1000)
    if second != _second[0]:
        _second = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
    return f"{_second[1]}.{ms:03d}Z"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _compose(sink: Sink, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor that makes a line of an event: plain values only, and in the main log no content."""
    line: dict[str, Any] = {"level": level, "msg": _plain(event.pop("event", ""), sink.guarded), "timestamp": _now()}
    exc_info = event.pop("exc_info", None)
    for name, value in event.items():
        line[f"{name}_" if name in line else name] = _plain(value, sink.guarded)
    if exc_info:
        line["exception"] = _traceback(exc_info, sink.guarded)
    return line


_PROCESSORS: Sequence[Any] = [_compose]


def _plain(value: object, guarded: bool) -> object:
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, Mapping):
        return {str(_plain(str(name), guarded)): _plain(item, guarded) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, guarded) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return WITHHELD if guarded else bytes(value).decode("utf-8", "backslashreplace")
    text = str(value)
    if guarded and _CONTENT.search(text):
        return WITHHELD
    return text


def _traceback(exc_info: object, guarded: bool) -> str:
    """Frames and texts; in the main log only frames and the kind when a text looks like content."""
    error = (
        exc_info[1]
        if isinstance(exc_info, tuple)
        else exc_info
        if isinstance(exc_info, BaseException)
        else sys.exc_info()[1]
    )
    if error is None:
        return ""
    text = "".join(traceback.format_exception(error))
    if guarded and _CONTENT.search(text):
        frames = traceback.extract_tb(error.__traceback__)
        places = [f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}' for frame in frames]
        return "\n".join([*places, f"{type(error).__qualname__}: {WITHHELD}"])
    return text


def _render(line: Mapping[str, object]) -> bytes:
    try:
        return _encode(line) + b"\n"
    except (TypeError, ValueError, OverflowError, RecursionError) as unfit:
        kept = {name: line[name] for name in ("level", "timestamp")}
        return _encode({**kept, "msg": "logbook.unfit-line", "reason": type(unfit).__name__}) + b"\n"


def _console_line(line: Mapping[str, object], *, colours: bool) -> bytes:
    clock = datetime.now().astimezone().isoformat(sep=" ", timespec="milliseconds")[11:23]
    return (readable(line, clock, colours=colours) + "\n").encode("utf-8", "replace")
