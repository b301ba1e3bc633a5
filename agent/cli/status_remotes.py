"""The remotes on the status screen: a table, and below a remote what is wrong with it.

Secret: what people call a remote, when one counts as failing, and what gives way in a small window.
Promise: a failing remote comes before the others, with what waits for it and the reason, whole; how many are left out
is said, and how many of these fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from urllib.parse import unquote

from agent.cli.amounts import age, count
from agent.cli.lines import Line, Span, Tone, cells_of, clean, fitted, paragraph
from agent.cli.status_table import (
    Column,
    give_way,
    heading_of,
    left_out_line,
    line_of,
    number,
    round_trips,
    since,
    state,
)
from agent.errors import Finding
from agent.status import ClientStatus

LEAST_NAME_CELLS = 18
LEAST_PARAMETER_CELLS = 5
KINDS_IN_WORDS = {"silent": "timed out", "refused": "connection refused"}  # where the kind itself could mislead


class Health(IntEnum):
    """What the last message to a remote says about it, the worst first."""

    FAILING = 0  # it failed just now, or more of them wait
    FAILED = 1  # it failed, and nobody has wanted anything since
    WELL = 2


@dataclass(frozen=True, slots=True)
class Remote:
    """`name`: as people call it; `remedy`: what helps against its last error, empty where nobody knows."""

    status: ClientStatus
    name: str
    health: Health
    remedy: str = ""

    @property
    def backlog(self) -> int:
        return self.status.waiting + self.status.stored


def remotes_of(clients: Sequence[ClientStatus], findings: Iterable[Finding]) -> list[Remote]:
    """The remotes, those that fail first and of these first the one that most waits for; the others as they came.

    The name is host and port, with mllps:// before them where it speaks TLS, and with the parameters of its URL behind
    them where several have the same.
    """
    shared = Counter(_address(client) for client in clients)
    told = {(finding.where, finding.text): finding.remedy for finding in findings}
    remotes = []
    for client in clients:
        name = _address(client) if shared[_address(client)] == 1 else client.remote.removeprefix("mllp://")
        about = _place_and_error(client)
        health = Health.WELL
        if client.last_error:
            health = Health.FAILING if about in told or client.waiting or client.stored else Health.FAILED
        remotes.append(Remote(client, name, health, told.get(about, "")))
    return sorted(remotes, key=lambda each: (each.health, -each.backlog if each.health < Health.WELL else 0))


def not_told_by(clients: Iterable[ClientStatus], findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that are more than a remote's last error: that one stands below the remote, with the remedy."""
    told = {_place_and_error(client) for client in clients if client.last_error}
    return tuple(finding for finding in findings if (finding.where, finding.text) not in told)


def remote_table(remotes: Sequence[Remote], *, spool_only: bool, width: int, room: int) -> list[Line]:
    """A heading and the lines of each remote, of one at least, in `room` lines where that is possible.

    Where they do not all fit, first particulars give way, then quiet remotes, then the less urgent ones. `spool_only`:
    nothing is known but what the spool holds.
    """
    columns = _columns(remotes, width, spool_only=spool_only)
    shown = list(remotes)
    blocks = [[line_of(columns, each)] if spool_only else _in_full(columns, each, width) for each in shown]
    if 1 + sum(map(len, blocks)) > room:
        shown.sort(key=lambda each: (each.health, -each.backlog))
        blocks = [[line_of(columns, each), *_in_short(each, width, first=each is shown[0])] for each in shown]
    fitting = _fitting([len(lines) for lines in blocks], room - 1)
    table = [heading_of(columns), *(line for lines in blocks[:fitting] for line in lines)]
    if left_out := shown[fitting:]:
        table.append(left_out_line(f"{len(left_out)} more {_kind(left_out)}"))
    return table


def _kind(left_out: Sequence[Remote]) -> str:
    failing = sum(each.health is Health.FAILING for each in left_out)
    if failing == len(left_out):
        return "that fail"
    if failing:
        return f"remotes, {failing} of them failing"
    quiet = all(each.health is Health.WELL and not each.backlog for each in left_out)
    return "quiet ones" if quiet else "remotes"


def _fitting(heights: Sequence[int], room: int) -> int:
    """How many of the first ones fit, at least one; if not all do, with a line left to say so."""
    if sum(heights) <= room:
        return len(heights)
    return max(1, sum(total < room for total in accumulate(heights)))


def _columns(remotes: Sequence[Remote], width: int, *, spool_only: bool) -> list[Column[Remote]]:
    longest = max(len("remote"), *(cells_of(clean(each.name)) for each in remotes))

    def name(cells: int) -> Column[Remote]:
        cells = min(longest, cells)
        return Column("remote", lambda each: (_cut(clean(each.name), cells), Tone.STRONG), cells, left=True)

    if spool_only:
        return [
            name(width - 14),
            number("stored", lambda each: each.status.stored, 6, tone=Tone.WARNING),
            since("oldest", lambda each: each.status.oldest_stored_seconds),
        ]
    columns: list[Column[Remote]] = [
        state(_state, remotes),
        number("wait", lambda each: each.status.waiting, tone=Tone.WARNING),
        number("unack", lambda each: each.status.in_flight, 5),
        number("out", lambda each: each.status.pushed),
        number("ack", lambda each: each.status.acknowledged),
        number("nak", lambda each: each.status.refused, tone=Tone.WARNING),
        number("fail", lambda each: sum(each.status.failed.values()), tone=Tone.WARNING),
        *round_trips(lambda each: each.status.rtt),
    ]
    return [name(give_way(columns, width, LEAST_NAME_CELLS)), *columns]


def _cut(name: str, cells: int) -> str:
    """A name that is too long loses of its parameters before it loses of its host and port."""
    address, mark, parameters = name.partition("?")
    left = cells - cells_of(address)
    if cells_of(name) <= cells or left < LEAST_PARAMETER_CELLS:
        return name
    return address + fitted(mark + parameters, left, left=True)


def _state(remote: Remote) -> Span:
    match remote.health:
        case Health.FAILING:
            return "FAILING", Tone.BAD
        case Health.FAILED:
            return "failed", Tone.WARNING
        case Health.WELL if remote.status.connections:
            return _open(remote.status), Tone.GOOD
        case Health.WELL:
            return ("connecting", Tone.PLAIN) if remote.status.waiting else ("idle", Tone.QUIET)


def _open(status: ClientStatus) -> str:
    return f"open {status.connections}" + (f"/{status.max_clients}" if status.max_clients else "")


def _in_full(columns: Sequence[Column[Remote]], remote: Remote, width: int) -> list[Line]:
    """Its row, its particulars beside or below it, its last error and what helps."""
    row = line_of(columns, remote)
    particulars = [*_stored(remote), *_particulars(remote)]
    beside = tuple(span for each in particulars for span in (("  ", Tone.PLAIN), each))
    if sum(cells_of(text) for text, _ in (*row, *beside)) <= width:
        return [(*row, *beside), *_last_error(remote, width), *_fix(remote, width)]
    return [row, *paragraph("", particulars, width), *_last_error(remote, width), *_fix(remote, width)]


def _in_short(remote: Remote, width: int, *, first: bool) -> list[Line]:
    """Of a failing remote what waits for it and why, of the first what helps, too; of any other nothing."""
    if remote.health is not Health.FAILING:
        return []
    return [
        *paragraph("", _stored(remote), width),
        *_last_error(remote, width),
        *(_fix(remote, width) if first else ()),
    ]


def _stored(remote: Remote) -> list[Span]:
    if not remote.status.stored:
        return []
    age_s = remote.status.oldest_stored_seconds
    oldest = "" if age_s is None else f", oldest {age(age_s, short=True)}"
    tone = Tone.WARNING if remote.health is Health.FAILING else Tone.PLAIN
    return [(f"{count(remote.status.stored)} stored{oldest}", tone)]


def _particulars(remote: Remote) -> list[Span]:
    """What most remotes have nothing to say about."""
    status = remote.status
    told = []
    if status.failed:
        kinds = sorted(status.failed.items(), key=lambda item: (-item[1], item[0]))
        told.append("failed: " + ", ".join(f"{count(n)} {KINDS_IN_WORDS.get(kind, kind)}" for kind, n in kinds))
    if status.connections and remote.health is not Health.WELL:
        told.append(_open(status))
    counters = (
        (status.reconnects, f"reconnect{'s' * (status.reconnects != 1)}"),
        (status.retried, "retried"),
        (status.late, f"late answer{'s' * (status.late != 1)}"),
    )
    told += [f"{count(many)} {what}" for many, what in counters if many]
    return [(text, Tone.QUIET) for text in told]


def _last_error(remote: Remote, width: int) -> list[Line]:
    if not remote.status.last_error:
        return []
    tone = Tone.BAD if remote.health is Health.FAILING else Tone.WARNING
    return paragraph("", [(f"last error: {remote.status.last_error}", tone)], width)


def _fix(remote: Remote, width: int) -> list[Line]:
    return paragraph("", [(f"fix: {remote.remedy}", Tone.PLAIN)], width) if remote.remedy else []


def _address(client: ClientStatus) -> str:
    return client.remote.partition("?")[0].removeprefix("mllp://")


def _place_and_error(client: ClientStatus) -> tuple[str, str]:
    """What a finding about its last error says: host and port, or the channel whose line it uses, and the error."""
    address = _address(client).removeprefix("mllps://")
    if address.startswith("astm://"):
        name = unquote(address.removeprefix("astm://"))
        address = name if ":" in name else f"channel {name}"
    return address, client.last_error
