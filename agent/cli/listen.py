"""`agent listen`: be the system that receives HL7 messages.

Secret: how a person describes its moods and follows what arrives.
Promise: one line a message, without its content unless that was asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.quantities import port, seconds, whole
from agent.errors import ConfigError, Finding, Severity

if TYPE_CHECKING:
    from agent.ward.receiver import Behaviour, Received

CODES = ("AA", "AE", "AR", "CA", "CE", "CR")
EXAMPLES = """\
examples:
  agent listen 2575
  agent listen 2575 --host 0.0.0.0 --save received/
  agent listen 2575 --answer CA --then AA --delay 0.5
  agent listen 2575 --never --fail-every 10        (every tenth message is never answered)
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "listen",
        help="receive HL7 messages over MLLP and answer them as told",
        description="Receive HL7 messages over MLLP and answer them: positively, negatively, late, wrongly or not.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("port", type=port, metavar="PORT", help="TCP port; 0 takes a free one")
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    add("--answer", choices=CODES, default="AA", help="MSA-1 of the answers (default: AA)")
    add("--then", choices=CODES[:3], help="send a second answer, as the application's after a CA")
    add("--delay", type=seconds, default=0.0, metavar="S", help="seconds to wait before each answer")
    bad = parser.add_mutually_exclusive_group()
    bad.add_argument("--never", action="store_true", help="never answer")
    bad.add_argument("--hang-up", action="store_true", help="close the connection instead of answering")
    bad.add_argument("--wrong-id", action="store_true", help="answer with an MSA-2 that nobody sent")
    add("--fail-every", type=whole, default=0, metavar="N",
        help="answer only every N-th message with an error, or as --never, --hang-up or --wrong-id say")  # fmt: skip
    add("--save", type=Path, metavar="DIR", help="keep each message as a file in this folder")
    add("--show", action="store_true", help="print the messages, patient data and all")
    add("--count", type=whole, metavar="N", help="end after N messages")
    add("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Listen until `--count` messages came or Ctrl-C. Raises LinkError if the address, ConfigError if the folder cannot
    be used, BrokenPipeError when nobody reads the output any more."""
    if args.save is not None:
        try:
            args.save.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            text = f"cannot save messages there: {error.strerror or error}"
            raise ConfigError(
                [Finding("listen.save", Severity.ERROR, text, "name another folder", str(args.save))]
            ) from error
    try:
        asyncio.run(_listen(args))
    except KeyboardInterrupt:
        return 0
    return 0


def _behaviour(args: argparse.Namespace) -> Behaviour:
    from agent.ward.receiver import ERROR_OF, Behaviour, HangUp, Manner, Reply, Silence

    usual = Reply(args.answer, args.delay, then=args.then or "")
    bad: Manner
    if args.never:
        bad = Silence()
    elif args.hang_up:
        bad = HangUp()
    elif args.wrong_id:
        bad = Reply(args.answer, args.delay, wrong_id=True)
    elif args.fail_every:
        bad = Reply(ERROR_OF.get(args.answer, args.answer), args.delay)
    else:
        return Behaviour(usual)
    return Behaviour(usual, args.fail_every, bad) if args.fail_every else Behaviour(bad)


async def _listen(args: argparse.Namespace) -> None:
    from agent.ward.receiver import open_receiver

    reader_gone = asyncio.Event()

    def say(fact: dict[str, Any], text: str) -> None:
        print(json.dumps(fact) if args.json else text, flush=True)

    def report(received: Received) -> None:
        try:
            say(_fact(received, args.show), _line(received, args.show))
        except BrokenPipeError:
            # `| head` has read enough. The connection that brought the message is no place to raise it.
            reader_gone.set()

    async with open_receiver(
        args.host, args.port, _behaviour(args), report=report, save_to=args.save, count=args.count
    ) as receiver:
        host = f"[{receiver.host}]" if ":" in receiver.host else receiver.host
        address = f"mllp://{host}:{receiver.port}"
        reach = " (this machine only; --host 0.0.0.0 for all)" if receiver.host in ("127.0.0.1", "::1") else ""
        say({"listening": address}, f"listening on {address}{reach}, Ctrl-C ends")
        await _first(receiver.done, reader_gone)
    if reader_gone.is_set():
        raise BrokenPipeError
    say({"received": receiver.received}, f"received {receiver.received} message{'s' * (receiver.received != 1)}")


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    async with asyncio.TaskGroup() as waiting:
        tasks = [waiting.create_task(event.wait(), name="wait") for event in events]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


def _doing(received: Received) -> str:
    from agent.ward.receiver import HangUp, Reply, Silence

    match received.manner:
        case Reply(code, delay_s, wrong_id, then):
            late = f" after {delay_s:g} s" if delay_s else ""
            return f"{code}{f' then {then}' if then else ''}{late}{' with a wrong id' if wrong_id else ''}"
        case Silence():
            return "no answer"
        case HangUp():
            return "hang up"


def _line(received: Received, show: bool) -> str:
    what = received.kind or "no HL7"
    line = (
        f"{received.at.astimezone():%H:%M:%S} {what} {received.control_id or '-'} {len(received.body)} bytes "
        f"from {received.remote}: {_doing(received)}"
    )
    if received.problem:
        line += f" ({received.problem})"
    if show:
        line += "".join(f"\n    {_readable(segment)}" for segment in _text(received).splitlines() if segment)
    return line


def _fact(received: Received, show: bool) -> dict[str, Any]:
    fact: dict[str, Any] = {
        "number": received.number,
        "at": received.at.isoformat(timespec="milliseconds"),
        "remote": received.remote,
        "type": received.kind,
        "controlId": received.control_id,
        "sizeBytes": len(received.body),
        "answer": _doing(received),
    }
    if received.problem:
        fact["problem"] = received.problem
    if show:
        fact["body"] = _text(received)
    return fact


def _text(received: Received) -> str:
    return received.body.decode("utf-8", "replace")


def _readable(segment: str) -> str:
    """A segment without anything that could move the terminal's cursor."""
    return "".join(char if char.isprintable() else "?" for char in segment)
