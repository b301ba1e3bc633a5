"""`agent channel`: the channels of this host: which there are, what a configuration would make of them, whether they
answer.

Secret: which module serves which word, and how the list is laid out.
Promise: `list` answers with the daemon down too, from what it kept; nothing is changed by looking.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.cli import channel_key, channel_plan, channel_trial
from agent.cli.drawing import draw
from agent.cli.lines import Line, Tone, clean
from agent.cli.setting_options import add_settings_options, reading_from
from agent.cli.status_table import Column, heading_of, line_of, number
from agent.errors import StoreError

if TYPE_CHECKING:
    from agent.diagnostics import Host
    from agent.plan import LastGood
    from agent.status import ChannelStatus

_EXAMPLE = """\
examples:
  agent channel list
  agent channel plan new.json                 what would come of this configuration; changes nothing
  agent channel plan --from-server --apply    the same as a reload, with every change told
  agent channel test adt                      connect to a channel as its senders do
  agent channel analyze-key PID-3.1           what an ordering key would bring
"""
_LIST_EXAMPLE = """\
exit status: 0 every channel is well, 1 one is not, 3 the agent is not running
"""
_WELL = ("listening", "connected", "off")


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "channel",
        help="list, plan and test channels; study ordering keys",
        description="The channels of this host.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = parser.add_subparsers(dest="word", metavar="WORD", required=True)
    listing = words.add_parser(
        "list",
        help="every channel with its address, state, connections and queue",
        description="Show every channel; with the agent down, those that it kept, and what the spool holds of each.",
        epilog=_LIST_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    add_settings_options(listing)
    listing.set_defaults(act=_list)
    channel_plan.register(words)
    channel_trial.register(words)
    channel_key.register(words)


def run(args: argparse.Namespace) -> int:
    status: int = args.act(args)
    return status


def _list(args: argparse.Namespace) -> int:
    return asyncio.run(_listed(args))


async def _listed(args: argparse.Namespace) -> int:
    from agent.diagnostics import Host, ask_daemon
    from agent.diagnostics.host import Running
    from agent.plan import LastGood, load_last_good

    reading = reading_from(args)
    host = Host.of(reading, None, os.environ, await ask_daemon(reading.paths))
    found = load_last_good(host.paths.last_good)
    kept = found if isinstance(found, LastGood) else None
    running = isinstance(host.daemon, Running)
    channels = list(host.daemon.report.channels) if isinstance(host.daemon, Running) else _kept_channels(host)
    if args.json:
        facts = {"running": running, "channels": [_facts(each) for each in channels], "configuration": _editions(kept)}
        print(json.dumps(facts, ensure_ascii=False))
    else:
        draw(_screen(channels, kept))
    if not isinstance(host.daemon, Running):
        print(f"agent: {host.daemon.trouble} — {host.daemon.trouble.hint}", file=sys.stderr)
        return 3
    return 0 if all(each.state in _WELL and not each.last_error for each in channels) else 1


def _kept_channels(host: Host) -> list[ChannelStatus]:
    """What would run, and what waits on the disk."""
    from agent.diagnostics.configuration import kept_plan
    from agent.status import ChannelState, ChannelStatus
    from agent.store.peek import read_status

    plan = kept_plan(host)
    specs = {spec.name: spec for spec in plan.channels} if plan is not None else {}
    try:
        stored: Mapping[str, Any] = read_status(host.paths.spool)["channels"]
    except StoreError:
        stored = {}
    channels = []
    for name in [*specs, *(name for name in stored if name not in specs and stored[name]["queued"])]:
        spec, facts = specs.get(name), stored.get(name, {"queued": 0, "oldestQueuedSeconds": None})
        channels.append(
            ChannelStatus(
                name,
                spec.address if spec is not None else "",
                spec.kind if spec is not None else "",
                ChannelState.DOWN.value,
                queued=facts["queued"],
                oldest_queued_seconds=facts["oldestQueuedSeconds"],
            )
        )
    return channels


def _facts(channel: ChannelStatus) -> dict[str, Any]:
    return {
        "name": channel.name,
        "kind": channel.type,
        "address": channel.address,
        "state": channel.state,
        "connections": channel.connections,
        "queued": channel.queued,
        "lastProblem": channel.last_error,
    }


def _editions(kept: LastGood | None) -> dict[str, Any] | None:
    """The configuration that was in force last, with the versions of its resources."""
    if kept is None:
        return None
    versions = {
        reference: {"versionId": version.version_id, "lastUpdated": version.last_updated}
        for reference, version in kept.versions.items()
    }
    return {"savedAt": kept.saved_at.isoformat(), "digest": kept.digest, "versions": versions}


def _screen(channels: list[ChannelStatus], kept: LastGood | None) -> list[Line]:
    if not channels:
        return [(("No channel is configured here yet.", Tone.QUIET),)]
    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 160
    problems = [each for each in channels if each.last_error]
    fixed: list[Column[ChannelStatus]] = [
        Column("kind", lambda c: (c.type or "-", Tone.QUIET), max(5, *(len(c.type) for c in channels)), left=True),
        Column("state", lambda c: (c.state, _tone(c)), max(9, *(len(c.state) for c in channels)), left=True),
        number("conn", lambda c: c.connections),
        number("queue", lambda c: c.queued, 6, tone=Tone.WARNING),
    ]
    name: Column[ChannelStatus] = Column(
        "channel", lambda c: (c.name, Tone.STRONG), max(7, *(min(len(c.name), 28) for c in channels)), left=True
    )
    room = width - name.cells - 1 - sum(column.cells + 1 for column in fixed)
    wanted = max(7, *(len(c.address) for c in channels))
    address: Column[ChannelStatus] = Column(
        "address", lambda c: (c.address or "-", Tone.PLAIN), max(min(room, wanted), 12), left=True
    )
    columns = [name, *fixed, address]
    lines = [heading_of(columns), *(line_of(columns, channel) for channel in channels)]
    lines += [((f"{clean(channel.name)}: {clean(channel.last_error)}", Tone.BAD),) for channel in problems]
    if kept is not None:
        agent = next(iter(kept.versions.values()), None)
        version = f", Agent version {agent.version_id}" if agent is not None and agent.version_id else ""
        lines.append(())
        text = f"configuration {kept.digest}, in force since {kept.saved_at:%Y-%m-%d %H:%M:%S} UTC{version}"
        lines.append(((clean(text), Tone.QUIET),))
    return lines


def _tone(channel: ChannelStatus) -> Tone:
    match channel.state:
        case "listening" | "connected":
            return Tone.GOOD
        case "failed":
            return Tone.BAD
        case "off":
            return Tone.QUIET
        case _:
            return Tone.WARNING
