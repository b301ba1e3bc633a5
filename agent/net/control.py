"""The local door: how a person's command reaches the running daemon.

Secret: what stands between this host's users and the daemon (a Unix socket of mode 0600, or a loopback port whose
token only administrators and the service may read) and how a question and its answer are spelt.
Promise: only who may, gets in; every question gets one answer; a caller that hangs, floods or babbles harms nobody; and
two daemons never share a door.

One JSON object a line: {"verb", "args"} asks, {"ok": …} or {"error": {"text", "hint"}} answers.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent.errors import AgentError, ConfigError, Finding, Severity
from agent.net.doors import DOOR, PID_UNKNOWN, Door, Nobody

Handle = Callable[[str, dict[str, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one caller may take. Sizes in bytes, times in seconds."""

    question_bytes: int = 4 * 1024 * 1024  # a whole configuration may be in a question
    callers: int = 16
    ask_within_s: float = 10.0
    answer_within_s: float = 120.0
    take_within_s: float = 10.0


LIMITS = Limits()
LONGEST_ANSWER_BYTES = 16 * 1024 * 1024


class NotRunning(AgentError):
    """Nobody answers at the door: the daemon does not run, or runs with another data directory."""

    hint = "start it with 'agent run' or as a service, or name its data directory with --data-dir"


class NoAnswer(AgentError):
    """The daemon is there and does not answer in time."""

    hint = "look at its main log; if it stays like this, restart it: no accepted message is lost"


class Refused(AgentError):
    """The daemon's own words for why it did not do what was asked."""


class _Question(msgspec.Struct, omit_defaults=True):
    verb: str
    args: dict[str, Any] = {}
    token: str = ""


class _Problem(msgspec.Struct):
    text: str
    hint: str = ""


class _Answer(msgspec.Struct, omit_defaults=True):
    ok: Any = msgspec.UNSET
    error: _Problem | msgspec.UnsetType = msgspec.UNSET


def open_control(path: Path, handle: Handle, *, door: Door = DOOR, limits: Limits = LIMITS) -> Control:
    """Answer at `path` while the context lasts: `handle(verb, args)` returns what JSON can hold or raises AgentError.

    Entering raises ConfigError if another daemon has this door or if it cannot be made; what a dead one left is
    replaced.
    """
    return Control(path, handle, door, limits)


class Control:
    """The open door and its callers. What goes wrong inside the context leaves it as it is, not in a group."""

    def __init__(self, path: Path, handle: Handle, door: Door, limits: Limits) -> None:
        self._path = path
        self._handle = handle
        self._door = door
        self._limits = limits
        self._token = door.new_token()
        self._conversations = asyncio.TaskGroup()
        self._callers: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> None:
        try:
            if (pid := self._door.owner(self._path)) is not None:
                raise ConfigError([_taken(self._path, pid)])
            size_bytes = self._limits.question_bytes
            self._hold = await self._door.open(self._path, self._called, token=self._token, limit_bytes=size_bytes)
        except OSError as failed:
            raise ConfigError([_not_opened(self._path, failed)]) from failed
        await self._conversations.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._hold.close()
        for caller in self._callers:
            caller.cancel()
        # only a cancellation is the group's business: it may be the group's own, after a caller's task failed
        cancelled = error if isinstance(error, asyncio.CancelledError) else None
        await self._conversations.__aexit__(type(cancelled) if cancelled else None, cancelled, None)

    def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._callers) >= self._limits.callers:
            writer.write(_problem("too many callers at once", hint="close the other commands, then try again"))
            writer.close()
            return
        talk = _converse(reader, writer, self._handle, token=self._token, limits=self._limits)
        caller = self._conversations.create_task(talk, name="control")
        self._callers.add(caller)
        caller.add_done_callback(self._callers.discard)


async def ask(
    path: Path,
    verb: str,
    args: Mapping[str, Any] | None = None,
    *,
    timeout_s: float = 5.0,
    door: Door = DOOR,
) -> Any:
    """What the daemon at `path` answers. Raises NotRunning, NoAnswer, Refused (its words) or AgentError (no access)."""
    try:
        async with asyncio.timeout(timeout_s):
            line = await _exchange(path, _Question(verb, dict(args or {})), door)
    except TimeoutError:
        raise NoAnswer(f"the agent did not answer within {timeout_s:g} s") from None
    except PermissionError as denied:
        who = "its service's user or as an administrator"
        raise AgentError(f"you may not talk to the agent at {path}", hint=f"run this as {who}") from denied
    except ConnectionError as broken:
        raise NoAnswer("the agent hung up before it answered") from broken
    try:
        answer = msgspec.json.decode(line, type=_Answer)
    except msgspec.DecodeError as odd:
        raise NoAnswer("the agent's answer cannot be read") from odd
    if isinstance(answer.error, _Problem):
        raise Refused(answer.error.text, hint=answer.error.hint)
    return answer.ok


async def _exchange(path: Path, question: _Question, door: Door) -> bytes:
    try:
        reader, writer, question.token = await door.connect(path, limit_bytes=LONGEST_ANSWER_BYTES)
    except Nobody as nobody:
        raise NotRunning("the agent is not running") from nobody
    try:
        writer.write(msgspec.json.encode(question) + b"\n")
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as cut:
        raise ConnectionResetError from cut
    except asyncio.LimitOverrunError as endless:
        raise NoAnswer("the agent's answer is too long to read") from endless
    finally:
        writer.transport.abort()


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handle, *, token: str, limits: Limits
) -> None:
    """One caller, question after question, until it leaves, lingers or breaks a limit."""
    writer.transport.set_write_buffer_limits(high=0)  # drain waits for the last byte
    try:
        while True:
            async with asyncio.timeout(limits.ask_within_s):
                line = await reader.readuntil(b"\n")
            writer.write(await _answer(line, handle, token=token, limits=limits))
            async with asyncio.timeout(limits.take_within_s):
                await writer.drain()
    except asyncio.LimitOverrunError:
        writer.write(_problem(f"a question is at most {limits.question_bytes} bytes long"))
    except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
        writer.transport.abort()
    finally:
        writer.close()


async def _answer(line: bytes, handle: Handle, *, token: str, limits: Limits) -> bytes:
    try:
        question = msgspec.json.decode(line, type=_Question)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _problem("a question is a JSON object with a verb and its args on one line")
    if not hmac.compare_digest(question.token.encode(), token.encode()):
        return _problem("the token is wrong", hint="the agent was restarted; ask again")
    try:
        async with asyncio.timeout(limits.answer_within_s) as deadline:
            return msgspec.json.encode(_Answer(ok=await handle(question.verb, question.args))) + b"\n"
    except AgentError as refused:
        return _problem(str(refused), hint=refused.hint)
    except TimeoutError:
        if not deadline.expired():
            raise
        return _problem(f"not done within {limits.answer_within_s:g} s", hint="look at the main log")


def _taken(path: Path, pid: int) -> Finding:
    return Finding(
        "control.taken",
        Severity.ERROR,
        "another agent runs with this data directory" + (f" (process {pid})" if pid != PID_UNKNOWN else ""),
        "stop it, or give this one a data directory of its own with --data-dir",
        str(path),
    )


def _not_opened(path: Path, failed: OSError) -> Finding:
    return Finding(
        "control.not-opened",
        Severity.ERROR,
        f"the door for local commands cannot be opened: {failed.strerror or failed}",
        "let the agent's user write its data directory, and keep that directory's path short",
        str(path),
    )


def _problem(text: str, *, hint: str = "") -> bytes:
    return msgspec.json.encode(_Answer(error=_Problem(text, hint))) + b"\n"
