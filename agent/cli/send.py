"""`agent send`: be a device that sends HL7 messages.

Secret: how a person describes a feed and reads what became of it.
Promise: exit 0 means that every message was positively acknowledged; Ctrl-C still tells what happened so far.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.progress import REDRAW_S, ProgressLine
from agent.cli.quantities import positive, seconds, whole

if TYPE_CHECKING:
    from agent.ward.feed import Message
    from agent.ward.sender import Sender
    from agent.ward.tally import Tally

EXAMPLES = """\
examples:
  agent send admissions.hl7 --to mllp://127.0.0.1:2575
  agent send recorded/ --to 10.0.0.5:2575 --rate 20 --connections 4
  agent send --generate --count 1000 --to mllp://127.0.0.1:2575
  agent send --generate --size 1024 --count 50000 --connections 100 --to mllp://127.0.0.1:2575
"""
KEPT_PROBLEMS = 100


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "send",
        help="send HL7 messages from files, or simulated ones, to an MLLP address",
        description="Send HL7 messages over MLLP and account for every acknowledgement. Files may hold one message or "
        "many, with any line ends, in MLLP frames or not; folders are read recursively.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("files", nargs="*", type=Path, metavar="FILE", help="files or folders with HL7 messages")
    add("--to", required=True, metavar="ADDRESS", help="mllp://host:port, mllps://host:port or host:port")
    add("--generate", action="store_true", help="send a simulated hospital's traffic (until Ctrl-C, or --count)")
    add("--seed", type=int, metavar="N", help="the same seed makes the same simulated messages (default: a new one)")
    add("--size", type=whole, metavar="BYTES", help="simulated admissions of exactly this size instead, for load")
    add("--count", type=whole, metavar="N", help="stop after N messages; files are sent again until then")
    add("--new-ids", action="store_true", help="give each message of the files a new control id (MSH-10)")
    add("--encoding", metavar="CHARSET", help="send in this character set (default: files as they are)")
    add("--rate", type=positive, metavar="R", help="messages a second over all connections (default: as answers come)")
    add("--connections", type=whole, default=1, metavar="C", help="connections to open (default: 1)")
    add("--pipeline", type=whole, default=1, metavar="P", help="unanswered messages to a connection (default: 1)")
    add("--timeout", type=positive, default=30.0, metavar="S", help="seconds to wait for an answer (default: 30)")
    add("--linger", type=seconds, default=2.0, metavar="S",
        help="seconds to wait at the end for the application's answers after CAs (default: 2)")  # fmt: skip
    add("--reconnect", action="store_true", help="go on after a lost or refused connection")
    add("--ca-file", type=Path, metavar="FILE", help="trust these authorities for mllps:// (PEM)")
    add("--cert", type=Path, metavar="FILE", help="show this certificate to an mllps:// receiver (PEM, with its key)")
    add("--insecure", action="store_true", help="do not verify the receiver's certificate")
    add("--json", action="store_true", help="print the summary as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Send and print the summary: 0 if everything was positively acknowledged, 1 if not, 2 for senseless arguments."""
    from agent.ward.destination import Destination, client_tls
    from agent.ward.sender import Pace, Sender

    with ProgressLine(sys.stderr) as progress:
        reading = _Reading(progress)
        try:
            to = Destination.parse(args.to)
            feeds = _feeds(args, reading)
            tls = client_tls(ca_file=args.ca_file, cert_file=args.cert, insecure=args.insecure) if to.tls else None
        except ValueError as error:
            return _refuse(str(error))
        except OSError as error:
            files = " or ".join(str(file) for file in (args.ca_file, args.cert) if file is not None)
            return _refuse(f"{files}: {error.strerror or error}")
        pace = Pace(args.connections, args.pipeline, args.rate, args.count, args.timeout, args.reconnect, args.linger)
        sender = Sender(to, feeds, pace, tls=tls)
        interrupted = False
        try:
            asyncio.run(_send(sender, progress, args.count))
        except KeyboardInterrupt:
            interrupted = True
    tally = sender.tally()
    if args.json:
        print(json.dumps(_facts(tally, str(to), reading, interrupted)))
    else:
        print(_summary(tally, str(to), reading, interrupted))
    return 0 if tally.all_positive and not reading.count else 1


def _refuse(sentence: str) -> int:
    print(f"agent send: {sentence}", file=sys.stderr)
    return 2


class _Reading:
    """What was wrong with the files: told at once, counted, the first hundred kept for the summary."""

    def __init__(self, progress: ProgressLine) -> None:
        self._progress = progress
        self.count = 0
        self.texts: list[str] = []

    def problem(self, text: str) -> None:
        self.count += 1
        if len(self.texts) < KEPT_PROBLEMS:
            self.texts.append(text)
            self._progress.note(f"agent send: {text}")


@dataclass(frozen=True, slots=True)
class _Files:
    """Which messages of files to send, and how they are changed on the way."""

    paths: list[Path]
    again: bool
    new_ids: bool
    codec: str | None


def _feeds(args: argparse.Namespace, reading: _Reading) -> list[Iterator[bytes]]:
    """The messages for each connection. Raises ValueError where the arguments contradict each other."""
    from agent.protocol.charset import UnknownCharset, codec_for

    if bool(args.files) == args.generate:
        raise ValueError("name files or folders to send, or say --generate, but not both")
    try:
        codec = codec_for(args.encoding) if args.encoding else None
    except UnknownCharset as error:
        raise ValueError(f"{error}; {error.hint}") from error
    if args.files:
        if args.size or args.seed is not None:
            raise ValueError("--seed and --size are for --generate; files are sent as they are")
        missing = [str(path) for path in args.files if not path.exists()]
        if missing:
            raise ValueError(f"there is no {' and no '.join(missing)}; check the spelling and the folder")
        return [_from_files(_Files(args.files, args.count is not None, args.new_ids, codec), reading)]
    return _simulated(args, codec)


def _simulated(args: argparse.Namespace, codec: str | None) -> list[Iterator[bytes]]:
    from agent.ward.feed import CHARSETS, feeds, load

    # A seed used twice repeats its control ids, and a receiver may rightly take the messages for duplicates.
    seed = secrets.randbits(32) if args.seed is None else args.seed
    if args.size:
        return [_bodies(load(seed, args.size))]
    codec = codec or "utf-8"
    if codec not in CHARSETS:
        raise ValueError(f"the simulated hospital cannot write {args.encoding}; it knows {', '.join(CHARSETS)}")
    return [_bodies(feed) for feed in feeds(seed, args.connections, codec=codec)]


def _bodies(messages: Iterator[Message]) -> Iterator[bytes]:
    return (message.body for message in messages)


def _from_files(files: _Files, reading: _Reading) -> Iterator[bytes]:
    """The messages of the files, again and again if so asked and if there are any."""
    from agent.ward.files import Found, read_messages, recode, with_control_id

    run_id = secrets.token_hex(4).upper()
    number = 0
    first = True
    while True:
        sent_before = number
        for item in read_messages(files.paths):
            if not isinstance(item, Found):
                if first:
                    reading.problem(str(item))
                continue
            body = item.body
            if files.codec:
                try:
                    body = recode(body, files.codec)
                except UnicodeEncodeError:
                    if first:
                        reading.problem(f"{item.path} at byte {item.offset}: does not fit into {files.codec}; left out")
                    continue
            number += 1
            yield with_control_id(body, f"{run_id}{number:010d}".encode()) if files.new_ids else body
        if not files.again or number == sent_before:
            return
        first = False


async def _send(sender: Sender, progress: ProgressLine, count: int | None) -> None:
    async with asyncio.TaskGroup() as work:
        ticker = work.create_task(_tell(sender, progress, count), name="progress")
        try:
            await sender.run()
        finally:
            ticker.cancel()


async def _tell(sender: Sender, progress: ProgressLine, count: int | None) -> None:
    """Keep the progress line up to date, if there is anybody to look at it."""
    while progress.live:
        tally = sender.tally()
        of = f"/{count:,}" if count else ""
        other = tally.timed_out + tally.failed + tally.answered - tally.positive
        away = "" if tally.connections_open or not tally.obstacle else f"{tally.obstacle} | "
        progress.show(
            f"{away}sent {tally.sent:,}{of} | {tally.rate_per_s:,.0f} msg/s | positive {tally.positive:,} | "
            f"other {other:,} | p95 {tally.latency.p95_ms:.1f} ms | {_many(tally.connections_open, 'connection')}"
        )
        await asyncio.sleep(REDRAW_S)


def _facts(tally: Tally, to: str, reading: _Reading, interrupted: bool) -> dict[str, Any]:
    latency = tally.latency
    return {
        "to": to,
        "sent": tally.sent,
        "sentBytes": tally.sent_bytes,
        "positive": tally.positive,
        "answers": dict(tally.answers),
        "applicationAnswers": dict(tally.application_answers),
        "timedOut": tally.timed_out,
        "failed": tally.failed,
        "late": tally.late,
        "unmatched": tally.unmatched,
        "connections": {"opened": tally.connections_opened, "lost": tally.connections_lost},
        "seconds": round(tally.elapsed_s, 3),
        "ratePerSecond": round(tally.rate_per_s, 1),
        "latencyMs": {
            "count": latency.count,
            "p50": round(latency.p50_ms, 3),
            "p95": round(latency.p95_ms, 3),
            "p99": round(latency.p99_ms, 3),
            "max": round(latency.max_ms, 3),
        },
        "failures": [{"controlId": failure.control_id, "reason": failure.reason} for failure in tally.failures],
        "problems": reading.texts,
        "problemCount": reading.count,
        "interrupted": interrupted,
        "obstacle": tally.obstacle,
        "stopped": tally.stopped,
    }


def _summary(tally: Tally, to: str, reading: _Reading, interrupted: bool) -> str:
    latency = tally.latency
    size = f"{_many(tally.sent, 'message')} ({tally.sent_bytes:,} bytes)"
    lines = [f"sent {size} to {to} in {tally.elapsed_s:.1f} s, {tally.rate_per_s:,.0f} answered a second"]
    if tally.answers:
        lines.append(f"answers      {_by_code(tally.answers)}")
        lines.append(
            f"latency      p50 {latency.p50_ms:.1f} ms, p95 {latency.p95_ms:.1f} ms, p99 {latency.p99_ms:.1f} ms, "
            f"max {latency.max_ms:.1f} ms"
        )
    if tally.application_answers:
        lines.append(f"application  {_by_code(tally.application_answers)} (after a CA)")
    troubles = [
        (tally.timed_out, f"{tally.timed_out:,} timed out"),
        (tally.failed, f"{tally.failed:,} failed"),
        (tally.late, _many(tally.late, "late answer")),
        (tally.unmatched, f"{_many(tally.unmatched, 'answer')} to nothing that was sent"),
        (tally.connections_lost, f"{_many(tally.connections_lost, 'connection')} closed by the peer or lost"),
        (reading.count, f"{_many(reading.count, 'problem')} in files"),
    ]
    if any(count for count, _ in troubles):
        lines.append("trouble      " + ", ".join(text for count, text in troubles if count))
    if tally.failures:
        lines.append("first failures")
        lines += [f"  {failure.control_id or '(no control id)'}: {failure.reason}" for failure in tally.failures]
    if tally.obstacle and not tally.stopped:
        lines.append(f"last trouble with a connection: {tally.obstacle}")
    if tally.stopped or interrupted:
        lines.append(f"stopped: {tally.stopped or 'interrupted'}")
    return "\n".join(lines)


def _by_code(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in sorted(counts.items()))


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
