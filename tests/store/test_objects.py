"""DICOM objects of stored rows: in their place or not there, and gone when nobody wants them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from agent.store.objects import Objects, undelivered_objects
from agent.store.sqlite import connect, migrate

YESTERDAY = time.time() - 86_400


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[Objects]:
    it = Objects(tmp_path / "objects")
    yield it
    await it.close()


def a_part(objects: Objects, name: str = "x.part", content: bytes = b"DICM") -> Path:
    objects.folder.mkdir(exist_ok=True)
    part = objects.folder / name
    part.write_bytes(content)
    return part


async def adopts(objects: Objects, part: Path, number: int) -> OSError | None:
    heard: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    objects.adopt(part, number, heard.set_result)
    assert not heard.done()
    async with asyncio.timeout(10):
        return await heard


async def nobody(numbers: list[int]) -> set[int]:
    return set()


async def settled(objects: Objects) -> None:
    """Everything that was asked for in the background is done."""
    await objects.sweep(everybody)


async def everybody(numbers: list[int]) -> set[int]:
    return set(numbers)


async def test_a_part_becomes_the_object_of_a_row(objects: Objects) -> None:
    part = a_part(objects, content=b"whole")
    assert await adopts(objects, part, 7) is None
    assert objects.path_of(7).read_bytes() == b"whole"
    assert os.listdir(objects.folder) == ["7.dcm"]


async def test_a_part_that_is_not_there_is_an_answer(objects: Objects) -> None:
    objects.folder.mkdir()
    assert isinstance(await adopts(objects, objects.folder / "gone.part", 7), FileNotFoundError)
    assert os.listdir(objects.folder) == []


async def test_a_folder_that_is_not_there_is_an_answer(objects: Objects) -> None:
    assert isinstance(await adopts(objects, objects.folder / "gone.part", 7), FileNotFoundError)
    assert objects.reference_of(7) is None
    objects.note_reference(7, "Binary/1")
    objects.discard(7)
    await objects.sweep(everybody)


async def test_a_part_that_cannot_be_moved_stays_and_that_is_told(objects: Objects) -> None:
    part = a_part(objects)
    objects.path_of(7).mkdir()
    assert isinstance(await adopts(objects, part, 7), OSError)
    assert part.exists()


async def test_a_reference_is_known_at_once_and_after_a_restart(objects: Objects) -> None:
    await adopts(objects, a_part(objects), 7)
    assert objects.reference_of(7) is None
    objects.note_reference(7, "Binary/abc")
    assert objects.reference_of(7) == "Binary/abc"
    await settled(objects)
    later = Objects(objects.folder)
    assert later.reference_of(7) == "Binary/abc"
    assert later.reference_of(8) is None
    await later.close()


async def test_what_is_discarded_is_gone_with_its_note(objects: Objects) -> None:
    await adopts(objects, a_part(objects), 7)
    objects.note_reference(7, "Binary/abc")
    objects.discard(7)
    assert objects.reference_of(7) is None
    await settled(objects)
    assert os.listdir(objects.folder) == []
    objects.note_reference(7, "Binary/abc")  # late: there is nothing to note it for
    await settled(objects)
    assert os.listdir(objects.folder) == []


async def test_a_note_that_the_disk_refuses_is_known_all_the_same(objects: Objects) -> None:
    await adopts(objects, a_part(objects), 7)
    (objects.folder / "7.ref.part").mkdir()
    objects.note_reference(7, "Binary/abc")
    await settled(objects)
    assert objects.reference_of(7) == "Binary/abc"
    assert not (objects.folder / "7.ref").exists()


# Sweeping


async def test_parts_of_earlier_processes_are_swept_and_those_of_this_one_stay(objects: Objects) -> None:
    os.utime(a_part(objects, "old.part"), (YESTERDAY, YESTERDAY))
    os.utime(a_part(objects, "7.ref.part"), (YESTERDAY, YESTERDAY))
    a_part(objects, "new.part")
    await objects.sweep(everybody)
    assert os.listdir(objects.folder) == ["new.part"]


async def test_objects_without_a_row_are_swept_and_never_one_that_has_one(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    for name in ("1.dcm", "1.ref", "2.dcm", "3.dcm", "3.ref", "4.ref", "README", "x.dcm", "5.txt"):
        (folder / name).write_bytes(b"x")
    objects = Objects(folder)
    asked: list[int] = []

    async def wanted(numbers: list[int]) -> set[int]:
        asked.extend(numbers)
        return {1, 2}

    await objects.sweep(wanted)
    await objects.close()
    assert asked == [1, 2, 3, 4]
    assert sorted(os.listdir(folder)) == ["1.dcm", "1.ref", "2.dcm", "5.txt", "README", "x.dcm"]


async def test_what_was_adopted_lately_is_not_swept_for_its_row_may_not_be_committed_yet(objects: Objects) -> None:
    await adopts(objects, a_part(objects), 7)
    await objects.sweep(nobody)
    assert objects.path_of(7).exists()


async def test_what_is_adopted_while_the_sweep_asks_is_not_swept(objects: Objects) -> None:
    a_part(objects, "7.dcm")

    async def slow(numbers: list[int]) -> set[int]:
        await adopts(objects, a_part(objects, "y.part", b"new"), 7)
        return set()

    await objects.sweep(slow)
    assert objects.path_of(7).read_bytes() == b"new"


async def test_many_objects_are_asked_for_in_portions(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    for number in range(1_100):
        (folder / f"{number}.dcm").touch()
    objects = Objects(folder)
    portions: list[int] = []

    async def odd(numbers: list[int]) -> set[int]:
        portions.append(len(numbers))
        return {number for number in numbers if number % 2}

    await objects.sweep(odd)
    await objects.close()
    assert max(portions) <= 500
    assert {int(name.removesuffix(".dcm")) for name in os.listdir(folder)} == {n for n in range(1_100) if n % 2}


async def test_an_adopted_object_survives_a_process_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio, pathlib, os
from agent.store.objects import Objects
async def main():
    objects = Objects(pathlib.Path({str(tmp_path)!r}))
    for name in ("a.part", "b.part"):
        (objects.folder / name).write_bytes(b"whole")
    adopted = asyncio.Event()
    objects.adopt(objects.folder / "a.part", 1, lambda error: adopted.set())
    await adopted.wait()
    print("adopted", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"adopted\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    os.utime(tmp_path / "b.part", (YESTERDAY, YESTERDAY))
    later = Objects(tmp_path)
    await later.sweep(everybody)
    await later.close()
    assert os.listdir(tmp_path) == ["1.dcm"]


# Which objects are wanted


async def test_a_folder_that_cannot_be_read_is_swept_another_time(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file, where the folder should be")
    objects = Objects(tmp_path / "objects")

    async def wanted(numbers: list[int]) -> set[int]:
        raise AssertionError("there is nothing to ask for")

    await objects.sweep(wanted)
    await objects.close()


async def test_a_disk_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    objects, answers = Objects(tmp_path / "objects"), threading.Event()
    objects._disk.submit(answers.wait, lambda *_: None)
    await objects.close(within_s=0.05)
    answers.set()


def test_objects_are_wanted_until_the_server_has_their_message(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    writer = connect(path)
    migrate(writer, path)
    rows = [
        (1, "ct", 100, 3, 0),
        (2, "ct", 101, 3, 1),
        (3, "mr", 102, 3, 10),
        (4, "mr", 103, 3, 11),
        (5, "hl7", 104, 0, 0),
    ]
    for id_, channel, number, content, state in rows:
        writer.execute(
            "INSERT INTO message(id, channel, remote, order_key, control_id, message_type, received_ms, repeat, body,"
            " content) VALUES(?,?,'',x'',?,x'',0,0,x'',?)",
            (id_, channel, b"%d" % number, content),
        )
        writer.execute(
            "INSERT INTO delivery(id, state, ack, attempts, ambiguous, due_ms, ack_code, reason, channel)"
            " VALUES(?,?,0,0,0,0,'','',?)",
            (id_, state, channel),
        )
    assert partial(undelivered_objects, numbers=[100, 101, 102, 103, 104, 999])(writer) == {100, 101, 103}
    assert undelivered_objects(writer, numbers=[]) == set()
    writer.close()
