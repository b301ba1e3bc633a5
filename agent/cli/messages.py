"""`agent messages`: find a message in the spool, and look into it.

Secret: how a search is typed, and what of a stored message goes onto a screen, into a pipe and into a script.
Promise: read-only, with the daemon at work or down; `list` shows no patient data, nor does `show --mask`; what is
shown cannot steer the terminal, and `show --raw` into a pipe is exactly the bytes that were stored.

What a message is made of decides how it is taken apart: HL7 into segments, an analyser's session into records, bytes
into rows, and of a DICOM object what was said about it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, assert_never

import msgspec

from agent.cli.drawing import draw
from agent.cli.lines import Line, Tone, clean
from agent.cli.message_body import Told, body_of, dicom_body, raw_lines
from agent.cli.message_head import head_lines
from agent.cli.message_parts import encoding_of, masked
from agent.cli.message_view import TWICE, facts_of, message_table
from agent.cli.moments import interval, moment
from agent.cli.quantities import whole
from agent.cli.setting_options import add_settings_options, paths_from
from agent.errors import AgentError
from agent.store.ledger import Entry, Filter, Stored, channels, entries, id_span, message
from agent.store.row import Content, Direction, State

if TYPE_CHECKING:
    from pathlib import Path

    from agent.paths import Paths

_STATES: Final[Mapping[str, frozenset[State]]] = {
    **{state.name.lower(): frozenset((state,)) for state in State},
    "open": frozenset(state for state in State if not state.finished),
    "problem": frozenset((State.REJECTED, State.FAILED, State.HELD)),
}
_DIRECTIONS: Final[Mapping[str, Direction | None]] = {"in": Direction.IN, "out": Direction.OUT, "all": None}
_CONTENTS: Final[Mapping[str, Content]] = {content.name.lower(): content for content in Content}
_LIST_EXAMPLE: Final = """\
examples:
  agent messages list
  agent messages list --state problem --since 12h
  agent messages list --channel adt --type ADT^A08 --since 03:00 --until 04:30
  agent messages list --control-id 'MSG0047*'
  agent messages list --direction out --state open
  agent messages list --content dicom --state open
  agent messages list --state open --json | jq '.messages[].id'

in: from a device to the server; out: pushed by the server to a remote with durable=true (other pushes are not kept).
type: MSH-9 of an HL7 message; else what it is: bytes, astm or dicom, and its control id is a name of the agent's own.
state of an out message: queued, it waits for the remote; inflight, written and not answered; processed, the remote
accepted it; rejected, the remote refused it; failed, tried as often as allowed; held, a person decides.
ack of an in message: what its sender was told; of an out message: what the remote said, with "untold" where the server
could not be told, and "owed" while it waits. ACK: an analyser's frames were acknowledged as they came; 0000: a C-STORE
succeeded.
times are local: 03:00 is the last time the clock said so, 2026-11-22T03:00 a moment, 2h, 30min or 7d so long ago.
It shows no patient data. exit status: 0, also when nothing is found; 1 the spool cannot be read; 2 wrong usage.
"""
_SHOW_EXAMPLE: Final = """\
examples:
  agent messages show 4711
  agent messages show 4711 --mask           to send to somebody who must not see the patient
  agent messages show 4711 --raw > a.hl7    the bytes as they came, or as they go out
  agent messages show 4711 --raw --ack      the acknowledgement
  agent messages show 4711 --json | jq -r '.segments[].fields[] | select(.path == "PID-3.1").value'
  agent messages show 4712 --json | jq -r '.records[].fields[] | select(.path == "R-4").value'

An HL7 message is shown by segments and fields, an analyser's session by records, bytes by number and character, a DICOM
object by its elements and the place of its file.
exit status: 0; 1 there is no such message, or the spool cannot be read; 2 wrong usage.
"""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "messages",
        help="find messages in the spool, and look into one",
        description="Find messages in the spool, and look into one. Works with the agent running or not.",
        epilog="examples:\n  agent messages list --state problem\n  agent messages show 4711\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _register_list(actions)
    _register_show(actions)


def _register_list(actions: Any) -> None:
    parser = actions.add_parser(
        "list",
        help="the newest messages, or those that you describe",
        description="List messages, newest first. What is asked for must all be true of a message.",
        epilog=_LIST_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--channel", metavar="NAME", help="of this channel, or to the remote with this URL")
    parser.add_argument(
        "--state",
        type=_states,
        metavar="STATES",
        help="queued, inflight, processed, rejected, failed, held; open: the first two; problem: the last three",
    )
    parser.add_argument("--direction", choices=list(_DIRECTIONS), default="all", help="in: from devices; out: to them")
    parser.add_argument("--since", type=moment, metavar="TIME", help="received then or later")
    parser.add_argument("--until", type=moment, metavar="TIME", help="received before")
    parser.add_argument("--control-id", type=_given, metavar="ID", help="MSH-10; ABC* for what begins so")
    parser.add_argument("--type", type=_given, metavar="TYPE", help="MSH-9, as ADT or ADT^A01 (or ADT-A01)")
    parser.add_argument("--content", choices=list(_CONTENTS), help="what it is made of")
    parser.add_argument("--limit", type=whole, default=50, metavar="N", help="at most so many (default 50)")
    parser.add_argument("--before", type=whole, metavar="ID", help="older than this one: the next page")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_settings_options(parser)


def _register_show(actions: Any) -> None:
    parser = actions.add_parser(
        "show",
        help="one message with the names of its segments and fields, its fate and its acknowledgement",
        description="Show one message: what became of it, what it says, and how it was acknowledged.",
        epilog=_SHOW_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("id", type=whole, metavar="ID", help="its number in `agent messages list`")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="the bytes as they were stored, nothing else")
    form.add_argument("--json", action="store_true", help="print one JSON object")
    second = parser.add_mutually_exclusive_group()
    second.add_argument("--mask", action="store_true", help="hide patient data: letters become x, digits 9")
    second.add_argument("--ack", action="store_true", help="with --raw: the acknowledgement instead of the message")
    add_settings_options(parser)


class NoSuchMessage(AgentError):
    """The spool does not hold what was asked for."""


def run(args: argparse.Namespace) -> int:
    paths = paths_from(args)
    return _list(args, paths.spool) if args.action == "list" else _show(args, paths)


# ---- list


def _list(args: argparse.Namespace, path: Path) -> int:
    now = datetime.now().astimezone()
    since_ms, until_ms = interval(args.since, args.until, now)
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        print("agent: --until is not later than --since — give a later --until or an earlier --since", file=sys.stderr)
        return 2
    wanted = Filter(
        channel=args.channel,
        states=args.state,
        direction=_DIRECTIONS[args.direction],
        since_ms=since_ms,
        until_ms=until_ms,
        control_id=args.control_id or "",
        message_type=args.type or "",
        content=_CONTENTS.get(args.content),
        before_id=args.before,
        limit=args.limit + 1,
    )
    found = entries(path, wanted)
    shown, more = found[: args.limit], len(found) > args.limit
    if args.json:
        _print_json({"messages": [facts_of(entry) for entry in shown], "more": more})
    elif shown:
        draw([*message_table(shown, now, _width()), ((_closing(shown, more=more), Tone.QUIET),)])
    else:
        print(_nothing(args, wanted, path))
    return 0


def _closing(shown: list[Entry], *, more: bool) -> str:
    number = f"{len(shown)} message{'' if len(shown) == 1 else 's'}"
    closing = f"{number}. For older ones add --before {shown[-1].id}" if more else f"{number}, and no older ones."
    return f"{closing}  {TWICE} may have arrived twice" if any(entry.ambiguous for entry in shown) else closing


def _nothing(args: argparse.Namespace, wanted: Filter, path: Path) -> str:
    if id_span(path) is None:
        return "No messages: the spool is empty."
    if wanted.channel is not None and not entries(path, Filter(channel=wanted.channel, limit=1)):
        known = clean(", ".join(channels(path)))
        return f"No messages: there are none of a channel {clean(wanted.channel)!r}, but of {known}."
    if wanted.direction is Direction.OUT:
        return "No messages that fit: of what goes out, only that to remotes with durable=true is kept here."
    return "No messages that fit: change an option, or leave one out."


# ---- show


def _show(args: argparse.Namespace, paths: Paths) -> int:
    if args.ack and not args.raw:
        print("agent: --ack goes with --raw — without --raw the acknowledgement is shown anyway", file=sys.stderr)
        return 2
    if args.mask and args.raw:
        print("agent: --raw is the bytes as they are stored, which --mask cannot hide — leave one out", file=sys.stderr)
        return 2
    stored = message(paths.spool, args.id)
    if stored is None:
        span = id_span(paths.spool)
        holds = f"it holds {span[0]} to {span[1]}, see `agent messages list`" if span else "it is empty"
        raise NoSuchMessage(
            f"the spool holds no message {args.id}", hint=f"{holds}; finished ones are let go by age and size"
        )
    if args.raw:
        _print_raw(stored, acknowledgement=args.ack)
    elif args.json:
        _print_json(_whole(stored, paths, mask=args.mask))
    else:
        draw(_screen(stored, paths, mask=args.mask, width=_width()))
    return 0


def _screen(stored: Stored, paths: Paths, *, mask: bool, width: int | None) -> list[Line]:
    entry = stored.entry
    body = _body(stored, paths, mask=mask)
    lines = [*head_lines(entry, body.head, mask=mask, width=width), (), *body.lines(width)]
    if stored.answer is not None:
        title = _answer_title(entry)
        lines += [(), ((f"{title}:", Tone.STRONG),), *_answer(entry, stored.answer, mask=mask).lines(width)]
    return lines


def _body(stored: Stored, paths: Paths, *, mask: bool) -> Told:
    entry = stored.entry
    if entry.content is Content.DICOM:
        return dicom_body(stored.body, paths.data_dir / "objects", entry, mask=mask)
    return body_of(entry.content, stored.body, _encoding(entry), mask=mask)


def _answer(entry: Entry, answer: bytes, *, mask: bool) -> Told:
    return body_of(entry.content, answer, _encoding(entry), mask=mask)


def _answer_title(entry: Entry) -> str:
    if entry.direction is Direction.OUT:
        return "The remote's acknowledgement"
    match entry.content:
        case Content.HL7 | Content.DICOM:
            return "The acknowledgement"
        case Content.BYTES:
            return "Written back to the device"
        case Content.ASTM:
            return "Sent to the analyser"
        case _ as never:
            assert_never(never)


def _encoding(entry: Entry) -> str | None:
    return encoding_of(entry.channel) if entry.direction is Direction.OUT else None


def _whole(stored: Stored, paths: Paths, *, mask: bool) -> dict[str, Any]:
    """The object of `show --json`."""
    veil = masked if mask else str
    entry = stored.entry
    return {
        **facts_of(entry),
        "orderKey": veil(entry.order_key.decode("utf-8", "backslashreplace")),
        "reason": veil(entry.reason),
        **_body(stored, paths, mask=mask).facts,
        "answer": None if stored.answer is None else _answer(entry, stored.answer, mask=mask).facts,
    }


def _print_raw(stored: Stored, *, acknowledgement: bool) -> None:
    content = stored.answer if acknowledgement else stored.body
    if content is None:
        raise NoSuchMessage(
            f"message {stored.entry.id} has no acknowledgement", hint="`agent messages show` tells its state"
        )
    if sys.stdout.isatty():
        lines = raw_lines(stored.entry.content, content, _encoding(stored.entry))
        if lines is None:  # a terminal would obey some of them
            draw(_answer(stored.entry, content, mask=False).lines(_width()))
        else:
            print("\n".join(map(clean, lines)))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


# ---- onto the screen


def _print_json(facts: dict[str, Any]) -> None:
    text = msgspec.json.encode(facts).decode()
    # JSON escapes the ASCII controls only; a terminal obeys others too (ECMA-48 §5.3), and so does bidirectional text
    print("".join(char if char.isprintable() else _escaped(char) for char in text))


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


# ---- what was typed


def _states(word: str) -> frozenset[State]:
    wanted: frozenset[State] = frozenset()
    for name in word.lower().split(","):
        states = _STATES.get(name.strip())
        if states is None:
            raise argparse.ArgumentTypeError(f"{name!r} is no state: give {', '.join(_STATES)}; several with commas")
        wanted |= states
    return wanted


def _given(word: str) -> str:
    if not word.strip():
        raise argparse.ArgumentTypeError("it is empty: leave the option out to find all")
    return word.strip()
