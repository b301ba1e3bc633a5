"""From the server's push to the analyser's last acknowledgement, over real connections: ours, or those of a channel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from astm_instrument import ACK, ENQ, EOT, RESULT, Instrument
from astmcall_far_ends import calling
from net_far_ends import WITHIN_S

from agent.errors import Finding
from agent.flow.letters import AstmLine, Served
from agent.flow.outbox import Outbox
from agent.flow.pusher import TAKEN_IN_WORDS, Pusher, PushLimits
from agent.flow.remotes import Remotes
from agent.net.astmline import AstmConnection
from agent.net.binding import bind
from agent.net.dialer import Dialer
from agent.net.inlet import Conversation, Inlet, InletEvents, Room
from agent.net.listener import Listener
from agent.protocol.envelope import Push, PushResponse
from agent.spec import Astm, LineSpec, RemoteSpec

ORDER = "H|\\^&|||LIS\r\nP|1\r\nO|1|S7||^^^GLU\r\nL|1|N\r\n"
RECORDS = [b"H|\\^&|||LIS", b"P|1", b"O|1|S7||^^^GLU", b"L|1|N"]


class Channel:
    """A channel of ours that takes all that analysers send. `sessions`: what came."""

    def __init__(self) -> None:
        self.sessions: list[bytes] = []
        self._changed = asyncio.Event()
        self.inlet: Inlet

    def events(self) -> InletEvents:
        def anything(*what: object) -> None:
            self._changed.set()

        def take(line: Conversation, messages: list[bytes]) -> None:
            self.sessions += messages
            self._changed.set()

        def keep(line: Conversation, piece: bytes, kept: Callable[[bool], None]) -> None:
            asyncio.get_running_loop().call_soon(kept, True)

        return InletEvents(
            take, anything, anything, anything, lambda: False, anything, anything, keep=keep, remains=anything
        )

    async def until(self, so: Callable[[], object]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not so():
                self._changed.clear()
                await self._changed.wait()


class Site:
    """A pusher in front of everything that it needs to reach analysers."""

    def __init__(self, remotes: Remotes, channel: Channel | None) -> None:
        self.remotes = remotes
        self.channel = channel
        self.said: list[PushResponse] = []
        self._changed = asyncio.Event()
        outbox = Outbox(remotes, tell=lambda *_: True, allowed=lambda: True, now_ms=lambda: 0)
        self.pusher = Pusher(remotes, outbox, limits=PushLimits)

    def push(self, url: str, body: str = ORDER) -> None:
        self.pusher.take(Push(url, "text/plain", body, f"cb-{len(self.said)}"), self._hear)

    def _hear(self, said: PushResponse) -> None:
        self.said.append(said)
        self._changed.set()

    async def answer(self) -> tuple[int | None, str]:
        """Status and body of the next answer."""
        async with asyncio.timeout(WITHIN_S):
            while not self.said:
                self._changed.clear()
                await self._changed.wait()
        said = self.said.pop(0)
        return said.status_code, str(said.body)


def read(text: str) -> tuple[RemoteSpec, tuple[Finding, ...]]:
    host, _, port = text.removeprefix("astm://").partition(":")
    if not port:
        return RemoteSpec(text, "", 0, wire=Astm(), line=host), ()
    return RemoteSpec(text, host, int(port), wire=Astm()), ()


@asynccontextmanager
async def site(channel: Channel | None = None, *, serves: str = "HAEM") -> AsyncIterator[Site]:
    def serving(spec: RemoteSpec) -> Served | None:
        if channel is None or (spec.line and spec.line != serves):
            return None
        lines: list[AstmLine] = [
            line for line in channel.inlet.connections if isinstance(line, AstmConnection) and line.ready
        ]
        return Served(serves, tuple(lines))

    def no_mllp(*_: object) -> None:
        raise AssertionError("an analyser was taken for a remote that speaks HL7")

    async with calling() as calls:
        remotes = Remotes(
            read,
            dial=no_mllp,  # type: ignore[arg-type]
            call=calls.call,
            serving=serving,
            waiting_limit=lambda: 100,
            on_health=lambda spec, failure: None,
            now=time.monotonic,
        )
        try:
            yield Site(remotes, channel)
        finally:
            remotes.abort()


@asynccontextmanager
async def listening() -> AsyncIterator[Channel]:
    channel = Channel()
    sockets = await bind("127.0.0.1", 0, "HAEM")
    channel.inlet = Listener(sockets, line=LineSpec(), identity=None, room=Room(0), wire=Astm())
    channel.inlet.events = channel.events()
    await channel.inlet.start()
    try:
        yield channel
    finally:
        await channel.inlet.close()


@asynccontextmanager
async def dialling(port: int) -> AsyncIterator[Channel]:
    channel = Channel()
    channel.inlet = Dialer("127.0.0.1", port, line=LineSpec(), identity=None, room=Room(0), wire=Astm())
    channel.inlet.events = channel.events()
    running = asyncio.ensure_future(channel.inlet.run())  # noqa: TID251  the test is its parent, and ends it
    try:
        yield channel
    finally:
        await channel.inlet.close()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_an_analyser_that_listens_is_called_and_what_it_took_is_told_in_words() -> None:
    async with await Instrument.listen() as analyser, site() as ours:
        url = f"astm://127.0.0.1:{analyser.port}"
        ours.push(url)
        ours.push(url)
        await analyser.called()
        assert await analyser.expect_session() == RECORDS
        assert await ours.answer() == (200, TAKEN_IN_WORDS)
        # the second one goes over the same connection
        assert await analyser.expect_session() == RECORDS
        assert await ours.answer() == (200, TAKEN_IN_WORDS)


async def test_an_analyser_that_breaks_off_may_have_some_of_it_and_that_is_told() -> None:
    async with await Instrument.listen() as analyser, site() as ours:
        ours.push(f"astm://127.0.0.1:{analyser.port}")
        await analyser.called()
        await analyser.hears(ENQ)
        analyser.write(ACK)
        await analyser.hears(b"\x021H")
        analyser.hang_up()
        status, words = await ours.answer()
        assert status == 400
        assert f"127.0.0.1:{analyser.port}" in words


async def test_a_push_goes_over_the_connection_that_the_analyser_made_to_a_channel() -> None:
    async with listening() as channel, site(channel) as ours:
        ours.push("astm://HAEM")
        status, words = await ours.answer()
        assert (status, "channel HAEM has no connection to its analyser now" in words) == (400, True)
        async with await Instrument.connect("127.0.0.1", channel.inlet.port) as analyser:
            await channel.until(lambda: channel.inlet.connections)
            ours.push("astm://HAEM")
            assert await analyser.expect_session() == RECORDS
            assert await ours.answer() == (200, TAKEN_IN_WORDS)
            # and it sends on the same line what it has to say
            await analyser.send_session(RESULT)
            await channel.until(lambda: channel.sessions)
            assert channel.sessions == [b"".join(record + b"\r" for record in RESULT)]


async def test_a_push_waits_for_the_analysers_own_session_on_that_line() -> None:
    async with (
        listening() as channel,
        site(channel) as ours,
        await Instrument.connect("127.0.0.1", channel.inlet.port) as analyser,
    ):
        await channel.until(lambda: channel.inlet.connections)
        analyser.write(ENQ)
        await analyser.hears(ACK)
        ours.push("astm://HAEM")
        analyser.write(EOT)
        assert await analyser.expect_session() == RECORDS
        assert await ours.answer() == (200, TAKEN_IN_WORDS)


async def test_a_channel_that_dials_the_analyser_lends_its_connection_and_no_second_one_is_made() -> None:
    async with await Instrument.listen() as analyser, dialling(analyser.port) as channel, site(channel) as ours:
        await analyser.called()
        await channel.until(lambda: channel.inlet.listening)
        ours.push(f"astm://127.0.0.1:{analyser.port}")
        assert await analyser.expect_session() == RECORDS
        assert await ours.answer() == (200, TAKEN_IN_WORDS)
        assert len(channel.inlet.connections) == 1


@pytest.mark.parametrize("busy_with", ["a session of ours", "nothing"])
async def test_an_analyser_that_hangs_up_leaves_no_push_without_an_answer(busy_with: str) -> None:
    async with listening() as channel, site(channel) as ours:
        async with await Instrument.connect("127.0.0.1", channel.inlet.port) as analyser:
            await channel.until(lambda: channel.inlet.connections)
            for _ in range(3):
                ours.push("astm://HAEM")
            await analyser.hears(ENQ)
            if busy_with == "a session of ours":
                analyser.write(ACK)
                await analyser.hears(b"\x02")
        for _ in range(3):
            status, _ = await ours.answer()
            assert status == 400


async def test_a_channel_of_that_name_that_is_not_there_is_named() -> None:
    async with site() as ours:
        ours.push("astm://HAEM")
        status, words = await ours.answer()
        assert (status, "no channel named HAEM" in words) == (400, True)
