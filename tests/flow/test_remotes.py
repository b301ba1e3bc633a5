"""Remotes and the pushes to them: which spellings are one remote, what a reload touches, and how much may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from analyser_far_ends import CALLED, Analyser
from flow_remotes import MutedLine, no_call, no_channel

from agent.errors import ConfigError, Finding, Severity
from agent.failures import Failure, Kind
from agent.flow.letters import Answered, Letter, Line, LineEvents, NotSent, Unanswered
from agent.flow.outbox import Outbox
from agent.flow.pusher import Pusher, PushLimits
from agent.flow.remotes import RECENT_S, Remotes
from agent.protocol.envelope import Push, PushResponse
from agent.spec import RemoteSpec

MESSAGE = "MSH|^~\\&|ADT|W7|LAB|H|20260131030000||ADT^A01|{}|P|2.5.1\r"


class Site:
    """Remotes that nobody is at: connections open and stay silent. `clients`: what the settings say."""

    def __init__(self) -> None:
        self.clients = 1
        self.now = 0.0
        self.broken = False
        self.lines: list[MutedLine] = []
        self.health: list[Kind | None] = []
        self.remotes = Remotes(
            self._read,
            dial=self._dial,
            call=no_call,
            serving=no_channel,
            waiting_limit=lambda: 100,
            on_health=lambda _, failure: self.health.append(failure.kind if failure else None),
            now=lambda: self.now,
        )

    def _read(self, text: str) -> tuple[RemoteSpec, tuple[Finding, ...]]:
        if self.broken or not text.lower().startswith("mllp://"):
            raise ConfigError([Finding("remote.bad", Severity.ERROR, "it is no address", "mend it", "remote")])
        host, _, port = text.lower().removeprefix("mllp://").partition(":")
        own = 9 if host == "own" else self.clients
        return RemoteSpec(f"mllp://{host}:{port}", host, int(port), max_clients=own), ()

    def _dial(self, spec: RemoteSpec, events: LineEvents) -> Line:
        line = MutedLine(events)
        self.lines.append(line)
        return line


@pytest.fixture
async def site() -> Site:
    return Site()


async def test_two_spellings_are_one_remote_and_two_addresses_are_two(site: Site) -> None:
    assert site.remotes.find("mllp://lab:2575") is site.remotes.find("MLLP://LAB:2575")
    assert site.remotes.find("mllp://lab:2575") is not site.remotes.find("mllp://lab:2576")
    assert list(site.remotes.by_url) == ["mllp://lab:2575", "mllp://lab:2576"]


async def test_a_reload_gives_each_remote_its_new_settings_and_takes_none_away(site: Site) -> None:
    lab, own = site.remotes.find("mllp://lab:2575"), site.remotes.find("mllp://own:2575")
    site.clients = 4
    site.remotes.reconfigure()
    assert (lab.spec.max_clients, own.spec.max_clients) == (4, 9)
    assert site.remotes.find("mllp://lab:2575") is lab
    # when its settings cannot be read any more, then the old ones hold and a finding says why
    site.broken = True
    site.remotes.reconfigure()
    assert lab.spec.max_clients == 4
    assert {finding.code for finding in site.remotes.findings()} == {"remote.bad"}
    site.broken = False
    site.remotes.reconfigure()
    assert list(site.remotes.findings()) == []


async def test_the_health_of_a_remote_is_told_when_it_changes(site: Site) -> None:
    lab = site.remotes.find("mllp://lab:2575")
    away, silent = Failure(Kind.REFUSED, "connection refused"), Failure(Kind.SILENT, "no acknowledgement")
    for outcome in (NotSent(away), NotSent(away), Unanswered(silent), Answered(b"", "AE"), Answered(b"", "AA")):
        site.remotes.note(lab, outcome)
    assert site.health == [Kind.REFUSED, Kind.SILENT, None]


@pytest.mark.parametrize("kind", [Kind.QUEUE_FULL, Kind.WAITED, Kind.STOPPING, Kind.NOT_STORED, Kind.BAD_MESSAGE])
async def test_what_is_our_own_doing_says_nothing_about_a_remote(site: Site, kind: Kind) -> None:
    site.remotes.note(site.remotes.find("mllp://lab:2575"), NotSent(Failure(kind, "ours")))
    assert site.health == []
    assert list(site.remotes.findings()) == []


async def test_a_failure_is_a_finding_until_the_remote_answers_or_it_is_history(site: Site) -> None:
    lab = site.remotes.find("mllp://lab:2575")
    site.remotes.note(lab, NotSent(Failure(Kind.REFUSED, "quotes what it said", "look", loggable="refused")))
    (finding,) = site.remotes.findings()
    assert (finding.code, finding.text, finding.remedy, finding.where) == (
        "remote.refused", "refused", "look", "lab:2575",
    )  # fmt: skip
    site.now = RECENT_S + 1
    assert list(site.remotes.findings()) == []


async def test_an_analyser_has_a_pool_of_its_kind_and_tells_what_a_person_should_know() -> None:
    analyser = Analyser()
    remotes = Remotes(
        lambda text: (CALLED, ()),
        dial=lambda spec, events: pytest.fail("an analyser was taken for a remote that speaks HL7"),
        call=analyser.call,
        serving=analyser.serving,
        waiting_limit=lambda: 100,
        on_health=lambda spec, failure: None,
        now=lambda: 0.0,
    )
    remote = remotes.find(CALLED.url)
    remote.pool.push(Letter(b"H|", b"", None, lambda outcome: None))
    await asyncio.sleep(0)
    (call,) = analyser.calls
    call.rings()
    assert [finding.code for finding in remotes.findings()] == ["remote.analyser-sends"]
    remotes.abort()


@contextmanager
def pusher_of(site: Site, waiting_bytes: int) -> Iterator[tuple[Pusher, list[PushResponse]]]:
    outbox = Outbox(site.remotes, tell=lambda *_: True, allowed=lambda: True, now_ms=lambda: 0)
    yield Pusher(site.remotes, outbox, limits=lambda: PushLimits(60.0, waiting_bytes)), []
    site.remotes.abort()


def request(control_id: str, remote: str = "mllp://lab:2575") -> Push:
    return Push(remote, "x-application/hl7-v2+er7", MESSAGE.format(control_id), control_id)


async def test_what_waits_is_bounded_in_bytes_and_no_remote_has_more_than_half(site: Site) -> None:
    size = len(MESSAGE.format("P-00"))
    with pusher_of(site, 10 * size) as (pusher, said):
        for number in range(8):
            pusher.take(request(f"A-{number:02}"), said.append)
        # five of one remote are taken, which is half, and three hear at once that there is no more room
        assert [response.callback for response in said] == ["A-05", "A-06", "A-07"]
        assert all(response.status_code == 400 and "not answered yet" in str(response.body) for response in said)
        # while another remote has room
        for number in range(5):
            pusher.take(request(f"B-{number:02}", "mllp://other:2575"), said.append)
        assert (len(said), pusher.unanswered_bytes) == (3, 10 * size)
        # and what has ended makes room again
        site.remotes.by_url["mllp://lab:2575"].pool.abort()
        await asyncio.sleep(0)
        assert pusher.unanswered_bytes == 5 * size
        assert len(said) == 8


async def test_a_wish_that_cannot_be_is_refused_in_the_words_of_newer_agents(site: Site) -> None:
    with pusher_of(site, 1 << 20) as (pusher, said):
        pusher.take(Push("mllp://lab:2575", None, MESSAGE.format("P-1"), "cb", return_ack="second"), said.append)
        assert said[0].body == "Invalid value for returnAck; expected: 'first' or 'application', received: second"
        pusher.take(Push("mllp://lab:2575", None, MESSAGE.format("P-1"), "cb", return_ack="FIRST"), said.append)
        assert len(said) == 1
