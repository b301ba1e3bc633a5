"""`agent channel analyze-key`: whether an ordering key is worth setting, judged by messages that came.

Secret: how a study of keys is laid out for a person and for a script.
Promise: read-only, with the daemon at work or down. Keys are patient data: without --show-keys each is shown as a
short digest that only this host's spool can make.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import textwrap
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent.cli.lines import clean
from agent.cli.moments import interval, moment
from agent.cli.progress import ProgressLine
from agent.cli.quantities import whole
from agent.cli.setting_options import add_settings_options, paths_from
from agent.errors import AgentError
from agent.keystudy import KeyStudy, Result, advice, can_tell, message_of
from agent.protocol.hl7 import KeySpec
from agent.store.ledger import Filter, channels, entries
from agent.store.traffic import open_traffic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_WORKERS = (1, 2, 4, 8, 16)
_MOST_WORKERS = 500
_WIDTH = 100
_EXAMPLE = """\
examples:
  agent channel analyze-key PID-3.1
  agent channel analyze-key PID-3.1 --channel adt --since 7d
  agent channel analyze-key MSH-4,PID-3.1 --workers 1,2,4,8,16,32
  agent channel analyze-key PID-3.1 --json | jq '.channels[] | {channel, speedUp}'

The speed-up is of emptying a queue of all these messages, one after the other for each key, with every message taking
the same time. A merge or link message (ADT^A40 and others) waits for all before it, and all after it wait for it.
It shows no patient data without --show-keys. exit status: 0; 1 the spool cannot be read; 2 wrong usage.
"""


class NoSuchChannel(AgentError):
    """The spool holds nothing of the channel that was named."""


def register(subparsers: Any) -> None:
    """Add the parser of `analyze-key` to those of `agent channel`; `run` is its default `act`."""
    parser = subparsers.add_parser(
        "analyze-key",
        help="what a logicalChannelKey would bring, from stored messages",
        description="Judge an ordering key by the messages in the spool: how many keys, how even, how much faster.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("key", type=_key, metavar="KEY", help="as in logicalChannelKey: PID-3.1, or MSH-4,PID-3.1")
    parser.add_argument("--channel", metavar="NAME", help="of this channel only")
    parser.add_argument("--since", type=moment, metavar="TIME", help="received then or later: 7d, 03:00, 2026-11-22")
    parser.add_argument(
        "--workers", type=_workers, default=_WORKERS, metavar="N,N,…", help="maxWorkers to compare (1,2,4,8,16)"
    )
    parser.add_argument("--show-keys", action="store_true", help="show the commonest keys, which are patient data")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_settings_options(parser)
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    path = paths_from(args).spool
    spec: KeySpec = args.key
    since_ms = interval(args.since, None, datetime.now().astimezone())[0] or 0
    before = entries(path, Filter(until_ms=since_ms, limit=1)) if since_ms else []
    studies: dict[str, KeyStudy] = {}
    with open_traffic(path) as traffic, ProgressLine(sys.stderr) as progress:
        passing = traffic.messages(args.channel, before[0].id if before else 0, since_ms)
        for number, passed in enumerate(passing, start=1):
            study = studies.get(passed.channel)
            if study is None:
                study = studies[passed.channel] = KeyStudy(args.workers)
            body = passed.head if passed.whole or can_tell(spec, passed.head) else traffic.body(passed.id)
            study.add(message_of(spec, passed.received_ms, body))
            if not number % 1_000:
                progress.show(f"{number:,} messages")
        veil = _Veil("" if args.show_keys else traffic.instance, show=args.show_keys)
    results = {name: study.result() for name, study in studies.items()}
    if args.channel is not None and not results:
        _refuse(args.channel, path)
    ordered = sorted(results, key=lambda name: (-results[name].messages, name))
    if args.json:
        facts = {"key": spec.text, "channels": [_facts(name, results[name], spec, veil) for name in ordered]}
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        for name in ordered:
            _print(name, results[name], spec, veil)
        if not ordered:
            print("The spool holds no HL7 message that came in" + (" since then." if since_ms else "."))
    return 0


def _refuse(channel: str, path: Path) -> None:
    known = channels(path)
    hint = f"it holds some of {clean(', '.join(known))}" if known else "it holds none at all"
    raise NoSuchChannel(f"the spool holds no HL7 message of a channel {clean(channel)!r} in that time", hint=hint)


class _Veil:
    """Shows a key, or stands for it with a digest: the same key looks the same in every study on this host."""

    def __init__(self, salt: str, *, show: bool) -> None:
        self._salt = salt.encode()
        self._show = show

    def __call__(self, key: bytes) -> str:
        if self._show:
            return clean(key.decode("utf-8", "backslashreplace").replace("\x1f", ","))
        return "#" + hashlib.blake2b(key, key=self._salt[:64], digest_size=4).hexdigest()


def _facts(name: str, result: Result, spec: KeySpec, veil: _Veil) -> Mapping[str, Any]:
    return {
        "channel": name,
        "messages": result.messages,
        "keys": result.keys,
        "emptyShare": round(result.empty_share, 4),
        "largestShare": round(result.largest_share, 4),
        "largest": [{"key": veil(key), "messages": count} for key, count in result.largest],
        "barriers": result.barriers,
        "crossing": result.crossing,
        "busiestMinute": result.busiest_minute,
        "firstMs": result.first_ms,
        "lastMs": result.last_ms,
        "speedUp": {str(workers): round(gain, 2) for workers, gain in result.speed_up.items()},
        "advice": advice(result, spec.text),
    }


def _print(name: str, result: Result, spec: KeySpec, veil: _Veil) -> None:
    print(f"{clean(name)}: {_count(result.messages, 'message')}, {_day(result.first_ms)} to {_day(result.last_ms)}")
    rows = [
        ("different keys", f"{result.keys:,}"),
        (f"without {spec.text}", f"{result.empty_share:.1%}  ({result.empty:,})"),
        ("largest key", f"{result.largest_share:.1%}  of the messages"),
        ("busiest minute", _count(result.busiest_minute, "message")),
        ("merges and links", _barriers(result)),
        ("commonest keys", ", ".join(f"{veil(key)} {count:,}" for key, count in result.largest) or "none"),
    ]
    for label, words in rows:
        print(f"  {label:<20}{words}")
    print(f"\n  {'workers':<20}" + "".join(f"{workers:>7}" for workers in result.speed_up))
    print(f"  {'times as fast':<20}" + "".join(f"{gain:>7.1f}" for gain in result.speed_up.values()))
    print()
    print(textwrap.fill(advice(result, spec.text), _WIDTH, initial_indent="  ", subsequent_indent="  "))
    print()


def _barriers(result: Result) -> str:
    if not result.barriers:
        return "none"
    return f"{result.barriers:,}, of which {result.crossing:,} tie different keys; each waits for all before it"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _day(moment_ms: int) -> str:
    return f"{datetime.fromtimestamp(moment_ms / 1_000).astimezone():%Y-%m-%d %H:%M}"


def _key(word: str) -> KeySpec:
    try:
        return KeySpec.parse(word)
    except ValueError as malformed:
        raise argparse.ArgumentTypeError(str(malformed)) from None


def _workers(word: str) -> tuple[int, ...]:
    numbers = {whole(part.strip()) for part in word.split(",")}
    if max(numbers) > _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"maxWorkers goes up to {_MOST_WORKERS}")
    return tuple(sorted(numbers))
