"""The spool as a stranger sees it: with its owner at work, gone, and with a file that cannot be read."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from store_disk import EARLIER, REMOTE, Told, conclude, message, of_version, outbound, running, settled, store

from agent.errors import StoreError
from agent.store.peek import counts_by_direction, read_status
from agent.store.row import Direction, State
from agent.store.sqlite import SCHEMA_VERSION, SpoolTooNew, SpoolTrouble, open_sound


def content(path: Path) -> bytes:
    return path.read_bytes()


async def test_the_file_of_a_live_owner_is_read_without_disturbing_it(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        rows = [message(spool), message(spool, state=State.INFLIGHT), message(spool, channel="lab"), message(spool)]
        await store(spool, told, *rows)
        conclude(spool, rows[3], State.HELD)
        await settled(spool)
        status = read_status(path)
        await store(spool, told, message(spool))
    assert status["countsByState"] == {
        "queued": 2, "inflight": 1, "processed": 0, "rejected": 0, "failed": 0, "held": 1
    }  # fmt: skip
    assert status["channels"]["adt"]["queued"] == 2
    assert status["channels"]["lab"]["queued"] == 1
    assert status["channels"]["adt"]["oldestQueuedSeconds"] > 0
    assert status["path"] == str(path)
    assert status["sizeBytes"] > 0
    assert status["diskFreeBytes"] > 0


async def test_the_file_of_an_owner_that_is_gone_says_the_same(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        await store(spool, told, message(spool))
    before = content(path)
    assert read_status(path)["countsByState"]["queued"] == 1
    assert content(path) == before


async def test_a_channel_with_nothing_to_deliver_has_no_age(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        row = message(spool)
        await store(spool, told, row)
        conclude(spool, row)
    assert read_status(path)["channels"] == {"adt": {"queued": 0, "oldestQueuedSeconds": None}}


async def test_what_goes_out_is_told_by_remote_and_counted_with_the_rest(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        rows = [message(spool), outbound(spool), outbound(spool), message(spool, channel=REMOTE)]
        await store(spool, told, *rows)
        conclude(spool, rows[2], State.FAILED)
        await settled(spool)
        status = read_status(path)
        reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        by_direction = counts_by_direction(reader)
        reader.close()
    assert (status["countsByState"]["queued"], status["countsByState"]["failed"]) == (3, 1)
    assert {name: facts["queued"] for name, facts in status["channels"].items()} == {"adt": 1, REMOTE: 1}
    assert {name: facts["queued"] for name, facts in status["remotes"].items()} == {REMOTE: 1}
    assert status["remotes"][REMOTE]["oldestQueuedSeconds"] > 0
    assert by_direction[Direction.OUT] == {REMOTE: {State.QUEUED: 1, State.FAILED: 1}}


@pytest.mark.parametrize("earlier", EARLIER)
def test_a_file_that_nobody_has_migrated_so_far_is_read_as_it_is(path: Path, earlier: int) -> None:
    of_version(earlier, path, [State.QUEUED, State.HELD])
    before = content(path)
    status = read_status(path)
    assert (status["countsByState"]["queued"], status["countsByState"]["held"]) == (earlier, earlier)
    assert {name: facts["queued"] for name, facts in status["channels"].items()} == {"adt": 1}
    assert {name: facts["queued"] for name, facts in status["remotes"].items()} == ({REMOTE: 1} if earlier == 2 else {})
    assert content(path) == before


def test_a_message_from_the_future_is_not_older_than_nothing(path: Path) -> None:
    connection = open_sound(path)
    connection.execute("INSERT INTO message VALUES(1,'adt','',x'',x'',x'',99999999999999,NULL,0,x'',0,'',0)")
    connection.execute("INSERT INTO delivery VALUES(1,0,0,0,0,0,NULL,NULL,'','',NULL,'adt',0)")
    connection.close()
    assert read_status(path)["channels"]["adt"]["oldestQueuedSeconds"] == 0


def test_without_a_file_it_says_what_to_do(path: Path) -> None:
    with pytest.raises(StoreError, match="no spool") as caught:
        read_status(path)
    assert caught.value.hint
    assert not path.exists()


def test_a_file_that_was_only_just_created_is_empty(path: Path) -> None:
    path.touch()
    assert read_status(path)["channels"] == read_status(path)["remotes"] == {}


@pytest.mark.parametrize("damaged", [b"no database at all" * 500, b"SQLite format 3\0" + b"\xa5" * 9000])
def test_a_damaged_file_is_named_so_and_left_alone(path: Path, damaged: bytes) -> None:
    path.write_bytes(damaged)
    with pytest.raises(SpoolTrouble, match="cannot be read") as caught:
        read_status(path)
    assert caught.value.hint
    assert path.read_bytes() == damaged


def test_a_file_of_a_newer_version_is_not_interpreted(path: Path) -> None:
    connection = open_sound(path)
    connection.pragma("user_version", SCHEMA_VERSION + 1)
    connection.close()
    with pytest.raises(SpoolTooNew):
        read_status(path)


def test_states_that_nobody_knows_are_damage_not_a_crash(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.close()
    path.unlink(missing_ok=True)
    connection = open_sound(path)
    connection.execute("INSERT INTO delivery VALUES(1,77,0,0,0,0,NULL,NULL,'','',NULL,'adt',0)")
    connection.close()
    with pytest.raises(SpoolTrouble):
        read_status(path)
