"""Life of a message in the spool, and the promise that durable means durable."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import apsw
import pytest
from store_disk import (
    REMOTE,
    SWIFT,
    Disk,
    Told,
    conclude,
    message,
    on_disk,
    outbound,
    running,
    settled,
    store,
    until_durable,
)

from agent.store.row import Direction, State, Trouble
from agent.store.sqlite import SpoolTrouble


def _job(connection: apsw.Connection) -> None:
    connection.execute("INSERT INTO meta VALUES('job', 1)")


async def test_nothing_is_durable_before_the_disk_has_synced(path: Path, disk: Disk, told: Told) -> None:
    async with running(path, told, disk=disk) as spool:
        disk.stall(on="-wal")
        row = message(spool)
        spool.put(row)
        await disk.until_syncing()

        assert not told.durable
        assert not row.durable
        disk.resume()
        await told.until(lambda: told.durable == [row])
        assert row.durable


async def test_what_arrives_during_a_commit_shares_the_next_one(path: Path, disk: Disk, told: Told) -> None:
    async with running(path, told, disk=disk) as spool:
        disk.stall(on="-wal")
        spool.put(message(spool))
        await disk.until_syncing()
        commits, syncs = spool.commits, disk.syncs
        for _ in range(200):
            spool.put(message(spool))
        disk.resume()
        await told.until(lambda: len(told.durable) == 201)

        assert told.batches == [1, 200]
        assert spool.commits == commits + 2
        assert disk.syncs == syncs + 2


async def test_rows_are_told_in_the_order_in_which_they_were_put(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        rows = [message(spool) for _ in range(300)]
        for row in rows:
            spool.put(row)
            if row.id % 7 == 0:
                await asyncio.sleep(0)
        await told.until(lambda: len(told.durable) == len(rows))
        assert told.durable == rows


async def test_a_row_lives_from_put_through_claim_to_settle(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        row = message(spool)
        await store(spool, told, row)
        assert on_disk(path) == {row.id: State.QUEUED}

        row.state, row.attempts = State.INFLIGHT, 1
        spool.claim(row)
        await told.until(lambda: told.claimed == [row])
        assert on_disk(path) == {row.id: State.INFLIGHT}

        conclude(spool, row)
        await settled(spool)
        assert on_disk(path) == {row.id: State.PROCESSED}
        found = spool.shelf.get(row.id)
        assert found is not None
        assert (found.body, found.answer, found.status, found.attempts) == (row.body, row.answer, 200, 1)


async def test_a_finished_message_alone_is_recorded_without_further_cause(path: Path, disk: Disk, told: Told) -> None:
    async with running(path, told, disk=disk) as spool:
        row = message(spool, state=State.INFLIGHT)
        await store(spool, told, row)
        disk.stall(on="-wal")
        conclude(spool, row)
        await disk.until_syncing()
        disk.resume()


async def test_what_was_settled_is_on_disk_when_the_spool_has_closed(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        row = message(spool, state=State.INFLIGHT)
        await store(spool, told, row)
        conclude(spool, row)
    assert on_disk(path) == {row.id: State.PROCESSED}


async def test_a_start_finds_unsent_and_interrupted_rows_apart(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        unsent, interrupted, done = message(spool), message(spool, state=State.INFLIGHT), message(spool)
        await store(spool, told, unsent, interrupted, done)
        conclude(spool, done)
    async with running(path, Told()) as spool:
        assert [row.id for row in spool.queued("adt", 0, limit=10, limit_bytes=1 << 20)] == [unsent.id]
        assert [row.id for row in spool.shelf.interrupted("adt")] == [interrupted.id]
        assert spool.shelf.open_channels() == ["adt"]
        assert spool.tally.open_of["adt"] == 2


async def test_a_row_is_known_in_memory_on_disk_and_after_a_restart(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        row = message(spool, b"SAME")
        spool.put(row)
        assert spool.known("adt", b"SAME") is row
        await store(spool, told)
        await told.until(lambda: row.durable)
        conclude(spool, row)
        await settled(spool)
        on_file = spool.known("adt", b"SAME")
        assert on_file is not row
        assert on_file is not None
        assert on_file.answer == row.answer
        assert spool.known("lab", b"SAME") is None
    async with running(path, Told()) as spool:
        again = spool.known("adt", b"SAME")
        assert again is not None
        assert again.body == row.body


async def test_a_message_to_a_remote_lives_as_one_to_the_server(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        sent, waiting, nobody_waits = outbound(spool), outbound(spool), outbound(spool, callback="")
        await store(spool, told, sent, waiting, nobody_waits)
        sent.state, sent.attempts = State.INFLIGHT, 1
        spool.claim(sent)
        await told.until(lambda: told.claimed == [sent])
        assert on_disk(path)[sent.id] is State.INFLIGHT
    async with running(path, Told()) as spool:
        assert spool.shelf.open_channels(Direction.OUT) == [REMOTE]
        assert (spool.tally.open_to[REMOTE], spool.tally.open_of[REMOTE]) == (3, 0)
        (interrupted,) = spool.shelf.interrupted(REMOTE, Direction.OUT)
        conclude(spool, interrupted)
        await settled(spool)
        page = spool.queued(REMOTE, sent.id, limit=10, limit_bytes=1 << 20, direction=Direction.OUT)
        assert [(row.id, row.callback) for row in page] == [(waiting.id, waiting.callback), (nobody_waits.id, "")]
        assert spool.queued(REMOTE, 0, limit=10, limit_bytes=1 << 20) == []
        found = spool.shelf.get(sent.id, Direction.OUT)
        assert found is not None
        assert (found.body, found.answer, found.remote) == (sent.body, interrupted.answer, sent.remote)


async def test_what_goes_out_is_nobody_s_duplicate_in_memory_on_disk_and_after_a_restart(
    path: Path, told: Told
) -> None:
    """Though the channel has the name of the remote's URL."""
    async with running(path, told) as spool:
        row, inbound = outbound(spool, b"OUT"), message(spool, b"SAME", channel=REMOTE)
        spool.put(row)
        spool.put(inbound)
        spool.put(outbound(spool, b"SAME"))
        assert spool.known(REMOTE, b"OUT") is None
        assert spool.known(REMOTE, b"SAME") is inbound
        await until_durable(told, [row])
        conclude(spool, row)
        await settled(spool)
        assert spool.known(REMOTE, b"OUT") is None
    async with running(path, Told()) as spool:
        assert len(spool.queued(REMOTE, 0, limit=10, limit_bytes=1 << 20, direction=Direction.OUT)) == 1
        again = spool.known(REMOTE, b"SAME")
        assert spool.known(REMOTE, b"OUT") is None
        assert again is not None
        assert again.id == inbound.id


async def test_what_goes_out_is_refused_with_the_rest_when_the_disk_fails(path: Path, disk: Disk, told: Told) -> None:
    async with running(path, told, disk=disk) as spool:
        disk.break_()
        refused = [outbound(spool), message(spool), outbound(spool, callback="")]
        for row in refused:
            spool.put(row)
        await told.until(lambda: told.refused == refused)
        disk.free()
        await told.until(lambda: told.health[-1] is None)
        kept = outbound(spool)
        await store(spool, told, kept)
        assert spool.tally.open_to == {REMOTE: 1}
    assert on_disk(path) == {kept.id: State.QUEUED}


async def test_ids_and_the_instance_go_on_after_a_restart(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        row = message(spool)
        await store(spool, told, row)
        instance = spool.instance
    async with running(path, Told()) as spool:
        assert spool.instance == instance
        assert spool.next_id() > row.id


async def test_sequence_numbers_survive_a_restart_and_are_given_again_when_refused(
    path: Path, disk: Disk, told: Told
) -> None:
    async with running(path, told, disk=disk) as spool:
        await store(spool, told, message(spool, seq=spool.next_sequence("adt")))
        disk.break_()
        refused = [message(spool, seq=spool.next_sequence("adt")) for _ in range(3)]
        for row in refused:
            spool.put(row)
        await told.until(lambda: told.refused == refused)
        disk.free()
        await told.until(lambda: told.health and told.health[-1] is None)

        assert spool.next_sequence("adt") == 1
        await store(spool, told, message(spool, seq=1))
    async with running(path, Told()) as spool:
        assert spool.next_sequence("adt") == 2
        assert spool.next_sequence("lab") == 0


async def test_a_job_shares_the_commit_of_the_rows_around_it(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        commits = spool.commits
        row = message(spool)
        spool.put(row)
        await spool.perform(_job)
        assert row.durable
        assert spool.shelf.meta()["job"] == 1
        assert spool.commits == commits + 1


async def test_a_kill_finds_everything_that_was_durable(path: Path, tmp_path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        for moment in range(12):
            rows = [message(spool) for _ in range(20)]
            for row in rows:
                spool.put(row)
            await asyncio.sleep(0)
            promised = {row.id for row in told.durable}
            killed = tmp_path / f"killed-{moment}" / "spool.db"
            killed.parent.mkdir()
            shutil.copy(path, killed)
            shutil.copy(path.with_name("spool.db-wal"), killed.with_name("spool.db-wal"))
            assert promised <= on_disk(killed).keys()
            await until_durable(told, rows)


# ---- the disk fails


@pytest.mark.parametrize(
    ("order", "expected"),
    [("fill", Trouble.FULL), ("break_", Trouble.UNAVAILABLE), ("protect", Trouble.READ_ONLY)],
)
async def test_a_disk_that_fails_refuses_what_is_new_and_heals_without_a_restart(
    path: Path, disk: Disk, told: Told, order: str, expected: Trouble
) -> None:
    async with running(path, told, disk=disk) as spool:
        kept = message(spool)
        await store(spool, told, kept)
        getattr(disk, order)()
        lost = message(spool)
        spool.put(lost)
        await told.until(lambda: told.refused == [lost])

        assert told.reasons[0].trouble is expected
        assert told.reasons[0].hint
        assert spool.trouble is not None
        assert spool.stuck
        assert spool.known("adt", lost.control_id) is None
        assert spool.uncommitted_bytes == 0
        disk.free()
        await told.until(lambda: told.health[-1] is None)
        after = message(spool)
        await store(spool, told, after)
    assert on_disk(path) == {kept.id: State.QUEUED, after.id: State.QUEUED}


async def test_claims_come_back_and_outcomes_wait_for_the_disk(path: Path, disk: Disk, told: Told) -> None:
    async with running(path, told, disk=disk) as spool:
        sent, waiting = message(spool, state=State.INFLIGHT), message(spool)
        await store(spool, told, sent, waiting)
        disk.break_()
        conclude(spool, sent)
        waiting.state, waiting.attempts = State.INFLIGHT, 1
        spool.claim(waiting)
        await told.until(lambda: told.unclaimed == [waiting])
        waiting.state, waiting.attempts = State.QUEUED, 0

        assert spool.known("adt", sent.control_id) is sent
        disk.free()
        await told.until(lambda: told.health[-1] is None)
        await settled(spool)
        assert on_disk(path) == {sent.id: State.PROCESSED, waiting.id: State.QUEUED}
        assert spool.tally.by_state == {State.PROCESSED: 1, State.QUEUED: 1, State.INFLIGHT: 0}


async def test_a_row_that_was_to_be_sent_at_once_is_refused_when_its_commit_fails(
    path: Path, disk: Disk, told: Told
) -> None:
    async with running(path, told, disk=disk) as spool:
        disk.stall(on="-wal")
        row = message(spool, state=State.INFLIGHT)
        spool.put(row)
        await disk.until_syncing()
        behind = message(spool)
        spool.put(behind)
        disk.break_()
        disk.resume()
        await told.until(lambda: told.refused == [row, behind])
        disk.free()
        await told.until(lambda: told.health[-1] is None)
    assert not told.durable
    assert on_disk(path) == {}


async def test_an_outcome_of_what_was_refused_is_forgotten_with_it(path: Path, disk: Disk, told: Told) -> None:
    async with running(path, told, disk=disk) as spool:
        disk.break_()
        row = message(spool, state=State.INFLIGHT)
        spool.put(row)
        conclude(spool, row)
        await told.until(lambda: told.refused == [row])
        disk.free()
        await told.until(lambda: told.health[-1] is None)
        await settled(spool)
        assert on_disk(path) == {}
        assert not any(spool.tally.by_state.values())


async def test_what_was_refused_does_not_come_to_life_when_the_log_is_read_again(
    path: Path, tmp_path: Path, disk: Disk, told: Told
) -> None:
    """A COMMIT whose sync failed has written its pages: whoever reads the log next would take them for committed."""
    async with running(path, told, disk=disk) as spool:
        await store(spool, told, message(spool))
        disk.stall(on="-wal")
        refused = message(spool)
        spool.put(refused)
        await disk.until_syncing()
        disk.break_()
        disk.resume()
        await told.until(lambda: told.refused == [refused])
        disk.free()
        await told.until(lambda: told.health[-1] is None)
        killed = tmp_path / "killed.db"
        shutil.copy(path, killed)
        shutil.copy(path.with_name("spool.db-wal"), tmp_path / "killed.db-wal")
        assert refused.id not in on_disk(killed)


async def test_jobs_fail_with_the_disk_and_are_not_begun_on_a_sick_one(path: Path, disk: Disk, told: Told) -> None:
    async with running(path, told, disk=disk) as spool:
        disk.break_()
        with pytest.raises(SpoolTrouble):
            await spool.perform(_job)
        with pytest.raises(SpoolTrouble):
            await spool.perform(lambda _: pytest.fail("begun"))


async def test_a_disk_that_does_not_answer_is_trouble_until_it_does(path: Path, disk: Disk, told: Told) -> None:
    async with running(path, told, disk=disk) as spool:
        disk.stall(on="-wal")
        held_up, behind = message(spool), message(spool)
        spool.put(held_up)
        await disk.until_syncing()
        spool.put(behind)
        await told.until(lambda: told.refused == [behind])

        assert told.reasons[0].trouble is Trouble.UNAVAILABLE
        disk.resume()
        await told.until(lambda: held_up.durable and told.health[-1] is None)
        assert on_disk(path) == {held_up.id: State.QUEUED}


async def test_a_stop_does_not_wait_for_a_disk_that_hangs(path: Path, disk: Disk, told: Told) -> None:
    patience = SWIFT.__class__(probe_every_s=10, hung_after_s=60, close_within_s=0.1)
    async with asyncio.timeout(3):
        async with running(path, told, disk=disk, timing=patience) as spool:
            disk.stall(on="-wal")
            spool.put(message(spool))
            await disk.until_syncing()
    assert not told.durable


async def test_low_space_refuses_nothing_that_was_accepted(path: Path, disk: Disk, told: Told) -> None:
    async with running(path, told, disk=disk, min_free_bytes=64 << 20) as spool:
        row = message(spool)
        await store(spool, told, row)
        disk.usage = disk.usage.__class__(total=1 << 40, free=1 << 20)
        await told.until(lambda: told.health)

        assert told.health[0] is not None
        assert told.health[0].trouble is Trouble.LOW
        assert not spool.stuck
        row.state, row.attempts = State.INFLIGHT, 1
        spool.claim(row)
        await told.until(lambda: told.claimed == [row])
        disk.usage = disk.usage.__class__(total=1 << 40, free=70 << 20)
        await asyncio.sleep(SWIFT.probe_every_s * 3)
        assert len(told.health) == 1
        disk.usage = disk.usage.__class__(total=1 << 40, free=100 << 20)
        await told.until(lambda: told.health[-1] is None)


async def test_a_full_disk_that_gets_a_little_room_is_low_before_it_is_well(path: Path, disk: Disk, told: Told) -> None:
    async with running(path, told, disk=disk, min_free_bytes=64 << 20) as spool:
        disk.usage = disk.usage.__class__(total=1 << 40, free=0)
        disk.fill()
        spool.put(message(spool))
        await told.until(lambda: told.refused)
        disk.free()
        await told.until(lambda: told.health[-1] is not None and told.health[-1].trouble is Trouble.LOW)
        disk.usage = disk.usage.__class__(total=1 << 40, free=1 << 39)
        await told.until(lambda: told.health[-1] is None)
        assert None not in told.health[:-1]


async def test_a_lock_held_by_another_process_passes(path: Path, told: Told) -> None:
    import apsw

    async with running(path, told) as spool:
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        refused = message(spool)
        spool.put(refused)
        await told.until(lambda: told.refused == [refused])
        other.execute("ROLLBACK")
        other.close()
        await told.until(lambda: told.health[-1] is None)
        await store(spool, told, message(spool))
