"""The open file knows its own: what happens when somebody moves, deletes or replaces it under a running process."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from store_disk import Told, conclude, message, on_disk, running, settled, store

from agent.store.row import State, Trouble
from agent.store.salvage import open_spool
from agent.store.spoolfile import Memory, SpoolFile
from agent.store.sqlite import SpoolTrouble, fetch, open_sound

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an open file can neither be moved nor deleted there")


@pytest.mark.parametrize("whole_folder", [False, True])
async def test_a_deleted_file_is_written_back_from_the_one_that_is_open(
    tmp_path: Path, told: Told, whole_folder: bool
) -> None:
    path = tmp_path / "data" / "spool.db"
    async with running(path, told) as spool:
        kept, sent = message(spool), message(spool, state=State.INFLIGHT)
        await store(spool, told, kept, sent)
        if whole_folder:
            shutil.rmtree(path.parent)
        else:
            path.unlink()
        await told.until(lambda: told.health and told.health[-1] is None)
        after = message(spool)
        await store(spool, told, after)
        conclude(spool, sent)
        await settled(spool)
        assert on_disk(path) == {kept.id: State.QUEUED, sent.id: State.PROCESSED, after.id: State.QUEUED}
    assert [trouble and trouble.trouble for trouble in told.health] == [Trouble.UNAVAILABLE, None]
    assert sorted(part.name for part in path.parent.iterdir() if part.suffix == ".db") == ["spool.db"]


async def test_another_file_in_its_place_is_never_written_to_and_ours_is_kept(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        kept = message(spool)
        await store(spool, told, kept)
        put_another(path)
        await told.until(lambda: told.health)
        refused = message(spool)
        spool.put(refused)
        await told.until(lambda: told.refused == [refused])
        assert "not at" in str(told.reasons[0])
        assert told.reasons[0].hint
    assert on_disk(path) == {}
    assert on_disk(path.with_name("spool.replaced-1.db")) == {kept.id: State.QUEUED}


async def test_a_file_that_is_put_back_in_its_place_goes_on(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        kept = message(spool)
        await store(spool, told, kept)
        second_name = path.with_name("second-name.db")
        os.link(path, second_name)
        put_another(path)
        await told.until(lambda: told.health)
        os.replace(second_name, path)
        await told.until(lambda: told.health[-1] is None)
        after = message(spool)
        await store(spool, told, after)
    assert on_disk(path) == {kept.id: State.QUEUED, after.id: State.QUEUED}


def put_another(path: Path) -> None:
    other = path.with_name("other.db")
    open_sound(other).close()
    other.replace(path)


def test_a_disk_that_was_unmounted_is_waited_for_and_not_replaced(path: Path) -> None:
    path = path.parent / "mounted" / path.name
    file, tally = SpoolFile.open(path, vfs=None)
    tally.close()
    device, number = file._place or (0, 0)
    file._place = (device + 1, number)  # the file was opened on the disk that is not there any more
    shutil.rmtree(path.parent)
    with pytest.raises(SpoolTrouble, match="not at"):
        file.mended(Memory(file.instance, 0, {}, [], []), False, False)
    assert not path.parent.exists()
    file.close()


def test_memory_goes_before_the_file_and_doubtful_rows_go(path: Path) -> None:
    connection, _ = open_spool(path)
    with connection:
        for row_id in (1, 2):
            connection.execute("INSERT INTO message VALUES(?,'adt','',x'',x'',x'',0,NULL,0,x'',0,'',0)", (row_id,))
            connection.execute("INSERT INTO delivery VALUES(?,0,0,0,0,0,NULL,NULL,'','',NULL,'adt',0)", (row_id,))
    instance = str(fetch(connection, "SELECT value FROM meta WHERE name='instance'")[0][0])
    connection.close()
    memory = Memory(instance, last_id=70, sequences={"adt": 5}, doubtful=[2], rows=[])
    file, tally = SpoolFile.open(path, vfs=None, memory=memory)
    tally.close()
    file.close()
    file, tally = SpoolFile.open(path, vfs=None)
    assert (file.last_id, file.sequences, tally.open_of) == (70, {"adt": 5}, {"adt": 1})
    tally.close()
    file.close()


def test_a_process_that_remembers_a_file_does_not_begin_with_an_empty_one(path: Path) -> None:
    memory = Memory("abc", last_id=0, sequences={}, doubtful=[], rows=[])
    with pytest.raises(SpoolTrouble):
        SpoolFile.open(path, vfs=None, memory=memory)
    assert not path.exists()


def test_a_spool_whose_identity_cannot_be_read_is_set_aside(path: Path) -> None:
    connection = open_sound(path)
    connection.execute("DELETE FROM meta")
    connection.close()
    file, tally = SpoolFile.open(path, vfs=None)
    assert file.set_aside is not None
    assert file.instance
    tally.close()
    file.close()


def test_numbers_that_are_none_count_as_nothing(path: Path) -> None:
    connection = open_sound(path)
    connection.execute("INSERT INTO meta VALUES('last_id', 'many'), ('sequence:adt', x'00')")
    connection.close()
    file, tally = SpoolFile.open(path, vfs=None)
    assert (file.last_id, file.sequences) == (0, {"adt": 0})
    tally.close()
    file.close()
