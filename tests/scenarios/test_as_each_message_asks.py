"""`enhanced=auto`: MSH-15 and MSH-16 of each message decide what its sender hears."""

from __future__ import annotations

import pytest
from ward_building import Ward
from ward_messages import ack_text, adt
from ward_servers import Asked


def asking(control_id: str, accept: str, application: str) -> bytes:
    """A message with these MSH-15 and MSH-16."""
    return adt(control_id).replace(b"|P|2.5.1\r", f"|P|2.5.1|||{accept}|{application}\r".encode(), 1)


async def by_its_name(asked: Asked) -> None:
    """AA, but AE for a message whose name says so."""
    await asked.answer(ack_text(asked.control_id, "AE" if asked.control_id.startswith("BAD") else "AA"))


@pytest.mark.parametrize(
    ("accept", "application", "good", "bad"),
    [
        ("", "", ["AA GOOD"], ["AE BAD"]),
        ("AL", "AL", ["CA GOOD", "AA GOOD"], ["CA BAD", "AE BAD"]),
        ("AL", "NE", ["CA GOOD"], ["CA BAD"]),
        ("NE", "AL", ["AA GOOD"], ["AE BAD"]),
        ("ER", "ER", [], ["AE BAD"]),
        ("SU", "SU", ["CA GOOD", "AA GOOD"], ["CA BAD"]),
        ("NE", "NE", [], []),
    ],
)
async def test_the_sender_hears_what_it_asked_for_and_the_server_has_every_message(
    ward: Ward, accept: str, application: str, good: list[str], bad: list[str]
) -> None:
    # given a channel that leaves it to its senders
    server, port = await ward.server(), ward.port()
    server.script = by_its_name
    server.channel("adt", port, enhanced="auto")
    await ward.running_agent(server)
    device = await ward.device(port)

    # when one good and one bad message come, and then one in original mode, whose answer is the last to come
    await device.send(asking("GOOD", accept, application), asking("BAD", accept, application), asking("LAST", "", ""))
    heard = await device.hear_until("LAST")

    # then it hears of each what it wanted, and the server has all of them, in order
    assert sorted(heard) == sorted([*good, *bad, "AA LAST"])
    assert [asked.control_id for asked in server.heard] == ["GOOD", "BAD", "LAST"]
