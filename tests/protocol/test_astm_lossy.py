"""Two ends of a line that loses, damages, repeats and cuts bytes, in virtual time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.protocol.astm import Link
from agent.protocol.astmevents import Event, Keep, NotSent, Odd, Remains, Say, Sent, Session, State

CONTROLS = b"\x02\x03\x04\x05\x06\x15\x17"


@dataclass(frozen=True)
class Mishap:
    """What becomes of one write. `at`: the byte; `byte`: what it becomes."""

    kind: str
    at: int = 0
    byte: int = 0

    def reads(self, data: bytes) -> list[bytes]:
        """What the other end reads of it."""
        at = self.at % len(data)
        match self.kind:
            case "lost":
                return []
            case "missing":
                return [data[:at] + data[at + 1 :]]
            case "short":
                return [data[:at]]
            case "damaged" if len(data) == 1 and self.byte in CONTROLS:
                return []  # an answer that becomes another one cannot be told from it: E1381 protects frames alone
            case "damaged":
                return [data[:at] + bytes((self.byte,)) + data[at + 1 :]]
            case "twice":
                return [data[: at + 1] + data[at:]]
            case "cut":
                return [data[:at], data[at:]]
            case _:
                return [data]


mishaps = st.builds(
    Mishap,
    st.sampled_from(["none"] * 6 + ["lost", "missing", "short", "damaged", "twice", "cut"]),
    st.integers(0, 300),
    st.integers(0, 255),
)
disks = st.tuples(st.sampled_from([0.0, 0.01, 0.01, 3.0, 13.5, 20.0]), st.sampled_from([True, True, True, False]))


@dataclass
class End:
    link: Link
    to_send: list[bytes]
    results: dict[int, Sent | NotSent] = field(default_factory=dict)
    given: list[Session | Remains] = field(default_factory=list)
    current: int = -1


class Line:
    """Both ends, and all that is on its way between them."""

    def __init__(self, ends: tuple[End, End], wire: list[Mishap], disk: list[tuple[float, bool]]) -> None:
        self.ends = ends
        self.now = 100.0
        self._wire, self._disk = iter(wire), iter(disk)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self) -> None:
        for end in self.ends:
            self._next_message(end)
        for _ in range(20_000):
            alarms = [(end.link.deadline, at) for at, end in enumerate(self.ends) if end.link.deadline is not None]
            alarm = min(alarms, default=None)
            if self._agenda and (alarm is None or self._agenda[0][0] <= alarm[0]):
                self.now, _, act = heapq.heappop(self._agenda)
                act()
            elif alarm is not None:
                self.now = max(self.now, alarm[0])
                self._heed(self.ends[alarm[1]], self.ends[alarm[1]].link.tick(self.now))
            else:
                return
        raise AssertionError("the line never comes to rest")

    def _at(self, in_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + in_s, next(self._order), act))

    def _next_message(self, end: End) -> None:
        if end.current + 1 < len(end.to_send):
            end.current += 1
            self._heed(end, end.link.send(end.to_send[end.current], self.now))

    def _heed(self, end: End, events: list[Event]) -> None:
        other = self.ends[1] if end is self.ends[0] else self.ends[0]
        for event in events:
            match event:
                case Say(data):
                    for number, read in enumerate(next(self._wire, Mishap("none")).reads(data)):
                        if read:
                            self._at(
                                0.02 + number / 100, lambda r=read: self._heed(other, other.link.received(r, self.now))
                            )
                case Keep():
                    in_s, ok = next(self._disk, (0.01, True))
                    self._at(in_s, lambda ok=ok: self._heed(end, end.link.kept(ok, self.now)))
                case Session() | Remains():
                    end.given.append(event)
                case Sent() | NotSent():
                    assert end.current not in end.results, "told twice"
                    end.results[end.current] = event
                    self._at(0.5, lambda: self._next_message(end))
                case Odd():
                    pass


def message(sender: str, number: int, size: int, count: int) -> bytes:
    name = f"{sender}{number}".encode()
    body = b"".join(b"R|%d|%b|%b\r" % (at, name, b"v" * size) for at in range(count))
    return b"H|\\^&|%b\r" % name + body + b"L|1|%b|%b\r" % (name, b"n" * 20)


sizes = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=3)


@settings(max_examples=400, deadline=None)
@given(sizes, sizes, st.lists(mishaps, max_size=120), st.lists(disks, max_size=40), st.booleans())
def test_what_was_sent_came_once_and_whole_however_bad_the_line(
    of_computer: list[tuple[int, int]],
    of_instrument: list[tuple[int, int]],
    wire: list[Mishap],
    disk: list[tuple[float, bool]],
    two_computers: bool,
) -> None:
    computer = End(
        Link(max_bytes=10_000, frame_bytes=20),
        [message("computer", number, *size) for number, size in enumerate(of_computer)],
    )
    instrument = End(
        Link(max_bytes=10_000, frame_bytes=20, instrument=not two_computers),
        [message("instrument", number, *size) for number, size in enumerate(of_instrument)],
    )

    Line((computer, instrument), wire, disk).run()

    for sender, receiver in ((computer, instrument), (instrument, computer)):
        assert receiver.link.state is State.NEUTRAL
        assert receiver.link.buffered == 0
        assert sorted(sender.results) == list(range(len(sender.to_send))), "each was told once"
        sessions = [got.message for got in receiver.given if isinstance(got, Session)]
        for number, sent in enumerate(sender.to_send):
            match sender.results[number]:
                case Sent():
                    assert sessions.count(sent) == 1
                case NotSent(in_doubt=True):
                    assert sessions.count(sent) <= 1
                case NotSent():
                    name = sent.split(b"\r")[0]
                    assert not any(got.message.startswith(name) for got in receiver.given)
        assert all(session in sender.to_send for session in sessions), "a message, and not the beginning of one"
        for got in receiver.given:
            assert any(sent.startswith(got.message) for sent in sender.to_send), "pieces of two, or of none"
        in_order = [sender.to_send.index(got) for got in sessions]
        assert in_order == sorted(in_order)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes)
def test_on_a_good_line_everything_is_sent_whoever_asks_first(
    of_computer: list[tuple[int, int]], of_instrument: list[tuple[int, int]]
) -> None:
    computer = End(
        Link(max_bytes=10_000, frame_bytes=20),
        [message("computer", number, *size) for number, size in enumerate(of_computer)],
    )
    instrument = End(
        Link(max_bytes=10_000, frame_bytes=240, instrument=True),
        [message("instrument", number, *size) for number, size in enumerate(of_instrument)],
    )

    Line((computer, instrument), [], []).run()

    assert instrument.given == [Session(sent) for sent in computer.to_send]
    assert computer.given == [Session(sent) for sent in instrument.to_send]
    assert set(computer.results.values()) | set(instrument.results.values()) <= {Sent()}
