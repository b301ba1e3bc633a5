"""`agent channel test`: ask a channel from the outside, as its senders do.

Secret: how each kind of channel is asked without leaving anything behind in it.
Promise: nothing is delivered to the server unless --message says so; every failure is one sentence with its remedy.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import json
import os
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, assert_never

from agent.cli.drawing import draw
from agent.cli.lines import Line, Tone, clean, paragraph
from agent.cli.quantities import positive
from agent.cli.setting_options import add_settings_options, reading_from, settings_from
from agent.errors import AgentError, ConfigError, Finding, Severity
from agent.protocol.hl7 import read_ack
from agent.protocol.mllp import Framer, wrap
from agent.spec import Astm, ByteStream, ChannelSpec, Dicom, Mllp, TlsSpec

if TYPE_CHECKING:
    from agent.status import ChannelStatus

_CONNECT_WITHIN_S: Final = 5.0
_LOOK_S: Final = 0.4  # a sender that is not wanted is sent away at once
_ENQ: Final = b"\x05"
_EOT: Final = b"\x04"
_EXAMPLE = """\
examples:
  agent channel test adt
  agent channel test adt --message a01.hl7      send this message, for real, and show the answer
  agent channel test analyser --json

MLLP and byte stream: connects, with TLS where the channel has it. ASTM: asks for a session and gives it up. DICOM:
C-ECHO. Channels that dial, and serial ones: whether the agent has its connection.
exit status: 0 it answers, 1 it does not, 2 wrong usage
"""


class Unanswered(AgentError):
    """The channel does not do what a sender needs."""


@dataclass(slots=True)
class _Trial:
    """One channel asked. `done`: what went well, in the order in which it was tried."""

    spec: ChannelSpec
    port: int
    message: bytes | None
    within_s: float
    done: list[str] = field(default_factory=list)
    problem: AgentError | None = None

    @property
    def host(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.spec.host, self.spec.host)

    @property
    def place(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def register(words: Any) -> None:
    parser = words.add_parser(
        "test",
        help="connect to a channel as its senders do",
        description="Ask a channel from the outside, as its senders do.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="of the channel, as agent channel list shows it")
    parser.add_argument("--message", type=Path, metavar="FILE", help="one HL7 message to send; it reaches the server")
    parser.add_argument(
        "--timeout", type=positive, default=30.0, metavar="S", help="seconds to wait for the answer (default: 30)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_settings_options(parser)
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    message = _message(args.message) if args.message is not None else None
    return asyncio.run(_test(args, message))


def _message(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unfit(path, f"it cannot be read: {error.strerror or error}", "correct the path") from error
    messages = Framer().feed(content) or [content]
    message = messages[0].replace(b"\r\n", b"\r").replace(b"\n", b"\r")
    if len(messages) != 1 or not message.startswith(b"MSH"):
        raise _unfit(path, "it is not one HL7 message", "give a file with one message, which begins with MSH")
    return message


def _unfit(path: Path, text: str, remedy: str) -> ConfigError:
    return ConfigError([Finding("test.message", Severity.ERROR, text, remedy, str(path))])


async def _test(args: argparse.Namespace, message: bytes | None) -> int:
    from agent.diagnostics import Host, ask_daemon
    from agent.diagnostics.host import Away, Running

    reading = reading_from(args)
    try:
        settings = settings_from(args)
    except ConfigError:
        settings = None
    host = Host.of(reading, settings, os.environ, await ask_daemon(reading.paths))
    spec = _spec(args.name, host)
    trial = _Trial(spec, spec.port, message, args.timeout)
    match host.daemon:
        case Running(report):
            status = next((channel for channel in report.channels if channel.name == spec.name), None)
            if spec.listens and not spec.port:
                trial.port = await _free_port_of(spec.name, reading.paths.control)
            await _tried(trial, status, report.findings)
        case Away(trouble) if not spec.listens:
            trial.problem = trouble
        case _:
            await _tried(trial, None, ())
    if args.json:
        print(json.dumps(_facts(trial), ensure_ascii=False))
    else:
        draw(_screen(trial))
    return 1 if trial.problem is not None else 0


def _spec(name: str, host: Any) -> ChannelSpec:
    from agent.diagnostics.configuration import kept_plan

    plan = kept_plan(host)
    specs = {spec.name: spec for spec in plan.channels} if plan is not None else {}
    if name in specs:
        return specs[name]
    if plan is not None and name in plan.skipped:
        raise Unanswered(f"the channel {name!r} is switched off", hint="set its Endpoint.status to active, and reload")
    close = difflib.get_close_matches(name, specs, n=1)
    known = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(specs)}" if specs else ""
    raise Unanswered(
        f"there is no channel {clean(name)!r} in force on this host", hint=known or "no configuration is kept here yet"
    )


async def _free_port_of(name: str, control: Path) -> int:
    """The port that a channel was given whose address asks for any."""
    from agent.net.control import ask

    told = await ask(control, "connections", {})
    return next((int(each["port"]) for each in told["channels"] if each["name"] == name), 0)


async def _tried(trial: _Trial, status: ChannelStatus | None, findings: Iterable[Finding]) -> None:
    spec = trial.spec
    try:
        if not spec.listens:
            _from_inside(trial, status, findings)
        elif isinstance(spec.wire, Dicom):
            await asyncio.to_thread(_echo, trial, spec.wire)
        else:
            await _from_outside(trial)
    except AgentError as failed:
        told = status.last_error if status is not None else ""
        trial.problem = Unanswered(f"{failed}; the agent says: {told}", hint=failed.hint) if told else failed


def _from_inside(trial: _Trial, status: ChannelStatus | None, findings: Iterable[Finding]) -> None:
    """Nobody can connect to it: the agent does, or opens the device."""
    spec = trial.spec
    what = f"the serial port {spec.host}" if spec.serial is not None else f"the connection to {trial.place}"
    if trial.message is not None:
        raise Unanswered("no message can be sent to it: it makes its connection itself", hint="leave --message out")
    if status is not None and status.state in ("connected", "listening"):
        trial.done.append(f"the agent has {what}")
        return
    found = next((each for each in findings if each.where == spec.name), None)
    text = found.text if found is not None else "it is not in force"
    raise Unanswered(f"the agent does not have {what}: {text}", hint=found.remedy if found is not None else "reload")


# ---- TCP


async def _from_outside(trial: _Trial) -> None:
    async with _connected(trial) as (reader, writer):
        match trial.spec.wire:
            case Mllp() if trial.message is not None:
                await _deliver(trial, reader, writer)
            case Mllp() | ByteStream():
                if trial.message is not None:
                    raise Unanswered("only MLLP channels take an HL7 message", hint="leave --message out")
                await _stays(trial, reader)
            case Astm():
                await _asks(trial, reader, writer)
            case Dicom():
                raise TypeError("DICOM is asked by C-ECHO")
            case _ as never:
                assert_never(never)


@asynccontextmanager
async def _connected(trial: _Trial) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        async with asyncio.timeout(_CONNECT_WITHIN_S):
            reader, writer = await asyncio.open_connection(trial.host, trial.port)
    except TimeoutError:
        remedy = "look for a firewall on this host, and whether the agent is at work: agent status"
        raise Unanswered(f"nobody answers at {trial.place} within {_CONNECT_WITHIN_S:g} s", hint=remedy) from None
    except OSError as error:
        text = f"cannot connect to {trial.place}: {error.strerror or error}"
        raise Unanswered(text, hint="look at `agent channel list`: does the channel listen?") from error
    trial.done.append(f"connected to {trial.place}")
    try:
        if (tls := trial.spec.line.tls) is not None:
            await _secured(trial, tls, writer)
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await writer.wait_closed()


async def _secured(trial: _Trial, tls: TlsSpec, writer: asyncio.StreamWriter) -> None:
    """TLS as a sender begins it. The certificate is not judged: senders believe authorities of their own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if tls.client_ca is not None and tls.certificate is not None:
        with contextlib.suppress(OSError, ValueError):  # ours may be one that the channel believes
            context.load_cert_chain(tls.certificate, tls.key, lambda: b"")
    try:
        async with asyncio.timeout(_CONNECT_WITHIN_S):
            await writer.start_tls(context)
    except (TimeoutError, OSError) as error:
        why = getattr(error, "reason", None) or "the handshake did not end"
        text = f"no TLS at {trial.place}: {str(why).replace('_', ' ').lower()}"
        raise Unanswered(text, hint="agent doctor --port shows how it looks from inside") from error
    trial.done.append(f"{writer.get_extra_info('ssl_object').version()} handshake")


async def _stays(trial: _Trial, reader: asyncio.StreamReader) -> None:
    """Whether the connection is wanted: others are closed at once."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_S):
            if not await _read(reader, 1):
                raise _sent_away(trial)
    trial.done.append("the connection stays open")


def _sent_away(trial: _Trial) -> Unanswered:
    line = trial.spec.line
    if line.tls is not None and line.tls.client_ca is not None:
        text = f"{trial.place} closed the connection after TLS: it asks senders for a certificate"
        return Unanswered(text, hint="test it from a sender that has one, or with openssl s_client -cert")
    remedy = "agent doctor --port tells why; allow and maxConnections of the channel's address limit who may come"
    return Unanswered(f"{trial.place} closed the connection at once", hint=remedy)


async def _read(reader: asyncio.StreamReader, most: int) -> bytes:
    """Empty: the connection is over."""
    try:
        return await reader.read(most)
    except OSError:
        return b""


async def _deliver(trial: _Trial, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert trial.message is not None
    framer = Framer()
    answers: list[bytes] = []
    writer.write(wrap(trial.message))
    try:
        async with asyncio.timeout(trial.within_s):
            while not answers:
                if not (data := await _read(reader, 65_536)):
                    raise _sent_away(trial)
                answers += framer.feed(data)
    except TimeoutError:
        remedy = "look at `agent status` and `agent messages list`: is the server away?"
        raise Unanswered(f"no answer to the message within {trial.within_s:g} s", hint=remedy) from None
    ack = read_ack(answers[0])
    if ack is None:
        raise Unanswered("the answer is no acknowledgement", hint="look at the bot that answers this channel")
    said = f"{ack.code} {ack.text.decode('utf-8', 'replace')}".strip()
    if ack.code not in ("AA", "CA"):
        raise Unanswered(f"the message was answered {said}", hint="agent messages list shows what became of it")
    trial.done.append(f"the message was answered {said}")


async def _asks(trial: _Trial, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """ENQ, and EOT as soon as we may send: a session without a record (E1381 §6.3)."""
    if trial.message is not None:
        raise Unanswered("only MLLP channels take an HL7 message", hint="leave --message out")
    writer.write(_ENQ)
    try:
        async with asyncio.timeout(_CONNECT_WITHIN_S):
            answer = await _read(reader, 1)
    except TimeoutError:
        remedy = "look at the main log; another session may be under way"
        raise Unanswered(f"no answer to ENQ within {_CONNECT_WITHIN_S:g} s", hint=remedy) from None
    match answer:
        case b"\x06":
            writer.write(_EOT)
            await writer.drain()
            trial.done.append("ENQ was answered ACK")
        case b"":
            raise _sent_away(trial)
        case b"\x15":
            raise Unanswered("ENQ was answered NAK: the channel cannot take a session now", hint="look at agent status")
        case other:
            raise Unanswered(f"ENQ was answered 0x{other.hex()}", hint="look at the main log")


# ---- DICOM


def _echo(trial: _Trial, wire: Dicom) -> None:
    """C-ECHO (PS3.4 annex A), in a thread of its own."""
    if trial.message is not None:
        raise Unanswered("only MLLP channels take an HL7 message", hint="leave --message out")
    try:
        from pynetdicom import AE
    except ImportError:
        remedy = "pip install onprem-agent[dicom]"
        raise Unanswered("C-ECHO needs the pynetdicom library, which is not installed", hint=remedy) from None
    entity = AE(ae_title=wire.calling[0] if wire.calling else "ONPREM-AGENT")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = _CONNECT_WITHIN_S
    entity.add_requested_context("1.2.840.10008.1.1")  # Verification SOP Class
    association = entity.associate(trial.host, trial.port, ae_title=wire.ae_title or "ANY-SCP")
    if not association.is_established:
        why = "the association was rejected" if association.is_rejected else "no association came about"
        raise Unanswered(
            f"{why} at {trial.place}", hint="look at `agent channel list`, and at aeTitle and callingAeTitles"
        )
    try:
        status = association.send_c_echo()
        code = status.Status if "Status" in status else None
    finally:
        association.release()
    if code != 0:
        text = "C-ECHO was not answered" if code is None else f"C-ECHO was answered 0x{code:04X}"
        raise Unanswered(text, hint="look at the main log")
    trial.done += [f"associated with {trial.place}", "C-ECHO was answered with success"]


# ---- what is printed


def _facts(trial: _Trial) -> dict[str, Any]:
    problem = trial.problem
    return {
        "channel": trial.spec.name,
        "kind": trial.spec.family,
        "address": trial.spec.address,
        "ok": problem is None,
        "steps": trial.done,
        "problem": None if problem is None else {"text": str(problem), "remedy": problem.hint},
    }


def _screen(trial: _Trial) -> list[Line]:
    lines: list[Line] = [((clean(f"{trial.spec.name}  {trial.spec.address}"), Tone.STRONG),)]
    for step in trial.done:
        lines += paragraph("ok", [(clean(step), Tone.PLAIN)], 100, label_tone=Tone.GOOD)
    if trial.problem is not None:
        lines += paragraph("FAILED", [(clean(str(trial.problem)), Tone.PLAIN)], 100, label_tone=Tone.BAD)
        if trial.problem.hint:
            lines += paragraph("", [(f"-> {clean(trial.problem.hint)}", Tone.QUIET)], 100)
    return lines
