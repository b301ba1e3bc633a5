"""The clock of a daemon under test is moved on when that harms nothing, and by no more than was asked for."""

from __future__ import annotations

import os
import selectors
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from golden_clock import SkippingSelector

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a pipe can be waited for together with sockets here")


@dataclass
class Clock:
    """A selector and the end of the pipe at which it is told to skip."""

    selector: SkippingSelector
    told: int

    def skip(self, seconds: float) -> None:
        os.write(self.told, f"{seconds}\n".encode())

    def turns(self, timeout: float) -> list[object]:
        """What two turns of a loop get to see: in the first one it is told."""
        seen = self.selector.select(timeout) + self.selector.select(timeout)
        return [key.fileobj for key, _ in seen]


@pytest.fixture
def clock() -> Iterator[Clock]:
    reads, told = os.pipe()
    selector = SkippingSelector(reads)
    yield Clock(selector, told)
    selector.close()
    os.close(reads)
    os.close(told)


def test_an_idle_loop_has_its_next_timer_at_once(clock: Clock) -> None:
    clock.skip(3600.0)

    assert clock.turns(timeout=3600.0) == []
    assert clock.selector.skipped_s == 3600.0


def test_nothing_is_skipped_unasked(clock: Clock) -> None:
    assert clock.turns(timeout=0.01) == []
    assert clock.selector.skipped_s == 0.0


def test_what_arrives_is_dealt_with_before_time_is_skipped(clock: Clock) -> None:
    here, there = socket.socketpair()
    clock.selector.register(here, selectors.EVENT_READ)
    with here, there:
        clock.skip(10.0)
        there.send(b"an answer that somebody waits for")

        assert here in clock.turns(timeout=10.0)
        assert clock.selector.skipped_s == 0.0

        here.recv(100)
        clock.selector.select(10.0)
        assert clock.selector.skipped_s == 10.0


def test_a_test_that_has_ended_asks_for_nothing(clock: Clock) -> None:
    reads, told = os.pipe()
    orphan = SkippingSelector(reads)
    os.close(told)

    assert orphan.select(10.0) == []
    assert orphan.select(0.0) == []
    assert orphan.get_map().get(reads) is None

    orphan.close()
    os.close(reads)
