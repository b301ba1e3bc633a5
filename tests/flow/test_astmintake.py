"""Sessions of an analyser: every frame on disk before its ACK, one message when the session is over."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from pathlib import Path

import pytest
from flow_far_ends import SPEC, WITHIN_S, Desk, Device, SickDisk, at_the_desk

from agent.flow.astmintake import UNFINISHED, AstmIntake
from agent.spec import Astm
from agent.store.drafts import Drafts
from agent.store.row import AckState, Content, State

LAB = dataclasses.replace(SPEC, name="lab", address="astm://127.0.0.1:2577", wire=Astm())
HEADER, RESULT, END = b"H|\\^&|||analyser\r", b"R|1|^^^GLU|5.4|mmol/L\r", b"L|1|N\r"
WHOLE = HEADER + RESULT + END


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "drafts"


def the_intake(desk: Desk) -> AstmIntake:
    intake = desk.intakes["lab"]
    assert isinstance(intake, AstmIntake)
    return intake


async def keeps(desk: Desk, device: Device, *pieces: bytes) -> list[bool]:
    """The analyser sends frames one by one, each after the ACK of the one before."""
    said: list[bool] = []
    for piece in pieces:
        answered = asyncio.Event()
        the_intake(desk).keep(device, piece, lambda ok, ring=answered: (said.append(ok), ring.set()))  # type: ignore[misc]
        async with asyncio.timeout(WITHIN_S):
            await answered.wait()
    return said


async def test_a_session_becomes_one_message_of_records(desk: Desk) -> None:
    desk.open(LAB)
    analyser = desk.device(channel="lab")

    assert await keeps(desk, analyser, HEADER, RESULT, END) == [True, True, True]
    the_intake(desk).receive(analyser, [WHOLE])

    (frame,) = await desk.hears(1)
    assert (frame.content_type, frame.body) == ("x-application/astm-e1394", WHOLE.decode())
    assert (frame.channel, frame.remote) == ("lab", "10.0.0.1:40001")


async def test_what_is_stored_as_a_message_is_no_draft_any_more(desk: Desk) -> None:
    desk.open(LAB)
    analyser = desk.device(channel="lab")
    await keeps(desk, analyser, HEADER, END)
    the_intake(desk).receive(analyser, [HEADER + END])

    await desk.hears(1)
    await desk.drafts.close()

    assert Drafts(desk.path.parent / "drafts").leftovers() == []


async def test_a_host_query_is_answered_on_the_line_that_asked(desk: Desk) -> None:
    desk.open(LAB)
    analyser = desk.device(channel="lab")
    await keeps(desk, analyser, HEADER, b"Q|1|^S1||ALL\r", END)
    the_intake(desk).receive(analyser, [HEADER + b"Q|1|^S1||ALL\r" + END])
    (frame,) = await desk.hears(1)

    desk.server.answer(frame, body="H|\\^&\nP|1\nO|1|S1||^^^GLU\nL|1|N")

    assert analyser.told == [b"H|\\^&\rP|1\rO|1|S1||^^^GLU\rL|1|N\r"]


async def test_an_answer_that_is_no_records_is_for_nobody(desk: Desk) -> None:
    desk.open(LAB)
    analyser = desk.device(channel="lab")
    await keeps(desk, analyser, HEADER, END)
    the_intake(desk).receive(analyser, [HEADER + END])
    (frame,) = await desk.hears(1)

    desk.server.answer(frame, body="Bot execution logs:")

    await desk.stored()
    row = desk.spool.shelf.get(1)
    assert row is not None
    assert (row.state, row.ack, row.content, analyser.told) == (State.PROCESSED, AckState.NOT_OWED, Content.ASTM, [])


async def test_what_was_acknowledged_of_a_session_without_an_end_is_a_message_too(desk: Desk) -> None:
    desk.open(LAB)
    analyser = desk.device(channel="lab")
    await keeps(desk, analyser, HEADER, RESULT)

    the_intake(desk).remains(analyser, HEADER + RESULT)

    (frame,) = await desk.hears(1)
    assert frame.body == (HEADER + RESULT).decode()
    desk.server.answer(frame, body="")
    await desk.stored()
    row = desk.spool.shelf.get(1)
    assert row is not None
    assert row.reason == UNFINISHED


async def test_an_empty_session_says_nothing(desk: Desk) -> None:
    desk.open(LAB)
    analyser = desk.device(channel="lab")

    the_intake(desk).remains(analyser, b"")

    await desk.hears(0)


async def test_a_session_of_which_nothing_could_be_kept_leaves_no_draft(desk: Desk, folder: Path) -> None:
    def out_of_space(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    desk.drafts = Drafts(folder, sync=out_of_space)
    desk.open(LAB)
    analyser = desk.device(channel="lab")
    assert await keeps(desk, analyser, HEADER) == [False]

    the_intake(desk).closed(analyser)

    await desk.drafts.close()
    desk.drafts = Drafts(folder)
    assert desk.drafts.leftovers() == []
    await desk.hears(0)


async def test_who_has_gone_is_forgotten_and_what_was_kept_is_there_at_the_next_start(desk: Desk, folder: Path) -> None:
    desk.open(LAB)
    analyser = desk.device(channel="lab")
    await keeps(desk, analyser, HEADER)

    the_intake(desk).closed(analyser)
    the_intake(desk).receive(analyser, [HEADER])

    await desk.hears(0)
    await desk.drafts.close()
    desk.drafts = Drafts(folder)
    assert [left.message for left in desk.drafts.leftovers()] == [HEADER]


async def test_with_ignore_response_the_analyser_hears_nothing(desk: Desk) -> None:
    desk.open(dataclasses.replace(LAB, wire=Astm(ignore_response=True)))
    analyser = desk.device(channel="lab")
    await keeps(desk, analyser, HEADER, END)
    the_intake(desk).receive(analyser, [HEADER + END])
    (frame,) = await desk.hears(1)

    desk.server.answer(frame, body=WHOLE.decode())

    assert analyser.told == []


async def test_drafts_of_a_process_that_was_killed_become_messages_once(tmp_path: Path, folder: Path) -> None:
    # given frames that were acknowledged, and then the power went
    drafts = Drafts(folder)
    left = drafts.begin("lab", "10.0.0.9:4000")
    for piece in (HEADER, RESULT):
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        left.add(piece, kept.set_result)
        assert await kept
    await drafts.close()

    for start in range(2):
        async with at_the_desk(tmp_path / "spool.db") as desk:
            desk.open(LAB)
            the_intake(desk).recover(desk.drafts.leftovers())
            await desk.hears(1 - start)
            if not start:
                assert desk.server.heard[0].body == (HEADER + RESULT).decode()
                assert desk.server.heard[0].remote == "10.0.0.9:4000"
                desk.server.answer(desk.server.heard[0], body="")


async def test_a_draft_whose_message_is_stored_already_is_not_sent_again(tmp_path: Path, folder: Path) -> None:
    # given a message that is stored, and a crash before its draft could be deleted
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.open(LAB)
        analyser = desk.device(channel="lab")
        await keeps(desk, analyser, HEADER)
        (draft,) = folder.iterdir()
        copy = draft.read_bytes()
        the_intake(desk).receive(analyser, [HEADER])
        desk.server.answer((await desk.hears(1))[0], body="")
        await desk.stored()
    draft.write_bytes(copy)

    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.open(LAB)
        the_intake(desk).recover(desk.drafts.leftovers())

        await desk.hears(0)
    assert Drafts(folder).leftovers() == []


async def test_a_session_that_a_full_disk_does_not_take_is_stored_when_there_is_room(tmp_path: Path) -> None:
    disk = SickDisk("full-for-astm")
    async with at_the_desk(tmp_path / "spool.db", vfs=disk.name) as desk:
        desk.open(LAB)
        analyser = desk.device(channel="lab")
        await keeps(desk, analyser, HEADER, END)
        disk.full = True
        the_intake(desk).receive(analyser, [HEADER + END])
        await desk.bell.until(lambda: desk.spool.trouble is not None)
        assert desk.server.heard == []

        disk.full = False
        async with asyncio.TaskGroup() as tasks:
            life = tasks.create_task(desk.spool.run())
            await desk.bell.until(lambda: desk.spool.trouble is None)
            the_intake(desk).mended()
            (frame,) = await desk.hears(1)
            life.cancel()
        assert frame.body == (HEADER + END).decode()


async def test_records_that_the_charset_cannot_read_are_kept_for_a_person(desk: Desk) -> None:
    desk.open(dataclasses.replace(LAB, wire=Astm(codec="ascii")))
    analyser = desk.device(channel="lab")
    await keeps(desk, analyser, b"H|\xfc\r")

    the_intake(desk).receive(analyser, [b"H|\xfc\r"])

    await desk.stored()
    await desk.stored()
    row = desk.spool.shelf.get(1)
    assert row is not None
    assert row.state is State.HELD
    assert [refusal[0] for refusal in desk.refusals] == ["lab"]
    await desk.hears(0)
