"""A damaged spool is set aside whole, and what can be read of it goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import apsw
import pytest
from store_disk import (
    EARLIER,
    REMOTE,
    Told,
    conclude,
    message,
    of_version,
    on_disk,
    outbound,
    running,
    settled,
    store,
    until_durable,
)

from agent.store.row import AckState, Content, Direction, Row, State, Trouble
from agent.store.salvage import finish_swap, open_spool, sound
from agent.store.shelf import Shelf
from agent.store.sqlite import SCHEMA_VERSION, SpoolTrouble, fetch, open_sound

PAGE = 4096
ROWS = 600


@pytest.fixture
async def filled(path: Path, told: Told) -> list[int]:
    """Ids of undelivered messages in a closed spool of about 300 pages; as many others were delivered."""
    waiting: list[int] = []
    async with running(path, told) as spool:
        for number in range(ROWS):
            row = message(spool, seq=spool.next_sequence("adt"), body=b"MSH|^~\\&|" + b"x" * 900 + b"%d" % number)
            spool.put(row)
            if number % 2:
                waiting.append(row.id)
            else:
                await until_durable(told, [row])
                conclude(spool, row)
        await told.until(lambda: len(told.durable) == ROWS)
    return waiting


def ruin(path: Path, *pages: int) -> None:
    """Overwrite these pages (from 1) as a failing disk would."""
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(b"\xa5" * PAGE)


def root_of(path: Path, table: str) -> int:
    connection = apsw.Connection(str(path))
    try:
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name=?", (table,)).fetchall()
        return int(str(page))
    finally:
        connection.close()


def leaf_of(path: Path, table: str) -> int:
    """Some page in the middle of a table, below its root."""
    connection = apsw.Connection(str(path))
    try:
        found = connection.execute(
            "SELECT pageno FROM dbstat WHERE name=? AND pagetype='leaf' ORDER BY pageno", (table,)
        ).fetchall()
        return int(str(found[len(found) // 2][0]))
    finally:
        connection.close()


def open_waiting(path: Path) -> set[int]:
    return {row_id for row_id, state in on_disk(path).items() if state < State.PROCESSED}


def test_a_sound_file_stays_where_it_is(path: Path, filled: list[int]) -> None:
    connection, aside = open_spool(path, suspect=True)
    connection.close()
    assert aside is None
    assert open_waiting(path) == set(filled)
    assert [p.name for p in path.parent.glob("*.db")] == ["spool.db"]


def test_a_lost_page_costs_the_messages_on_it_and_no_other(path: Path, filled: list[int]) -> None:
    ruin(path, leaf_of(path, "message"))
    before = path.read_bytes()
    connection, aside = open_spool(path, suspect=True)
    connection.close()

    assert aside is not None
    assert aside.path.read_bytes() == before
    assert not aside.complete
    kept = open_waiting(path)
    assert kept < set(filled)
    assert len(filled) - len(kept) <= 4
    assert aside.rescued == len(kept)


def test_messages_whose_state_is_lost_are_held_for_a_person(path: Path, filled: list[int]) -> None:
    ruin(path, leaf_of(path, "delivery"))
    connection, aside = open_spool(path, suspect=True)
    connection.close()

    assert aside is not None
    found = on_disk(path)
    assert set(filled) <= found.keys()
    held = [row_id for row_id, state in found.items() if state is State.HELD]
    assert held
    assert all(state in (State.QUEUED, State.HELD) for state in found.values())


@pytest.mark.parametrize("index", ["open_delivery", "message_by_control"])
def test_a_lost_index_costs_nothing(path: Path, filled: list[int], index: str) -> None:
    ruin(path, root_of(path, index))
    connection, aside = open_spool(path, suspect=True)
    connection.close()
    assert aside is not None
    assert open_waiting(path) == set(filled)


def test_a_lost_first_page_costs_nothing(path: Path, filled: list[int]) -> None:
    ruin(path, 1)
    connection, aside = open_spool(path)
    connection.close()
    assert aside is not None
    assert (aside.rescued, aside.complete) == (len(filled), True)
    assert sorted(p.name for p in path.parent.iterdir()) == ["spool.damaged-1.db", "spool.db"]
    assert open_waiting(path) == set(filled)


# ---- what goes out is carried over like what came in


@pytest.fixture
async def with_outbound(path: Path, told: Told) -> list[Row]:
    """Undelivered messages to a remote in a closed spool of about 300 pages; the server waits for every second one."""
    async with running(path, told) as spool:
        rows = [
            outbound(
                spool,
                callback="" if number % 2 else f"callback-{number}",
                body=b"MSH|^~\\&|" + b"x" * 900,
                content=Content(number % len(Content)),
            )
            for number in range(ROWS // 2)
        ]
        await store(spool, told, *rows)
        rows[0].state, rows[0].attempts = State.INFLIGHT, 3
        rows[0].reason = "the remote could not be reached"
        spool.settle(rows[0])
        await settled(spool)
    return rows


def carried_over(path: Path) -> dict[int, Row]:
    shelf = Shelf(path)
    try:
        found = [shelf.get(row_id, Direction.OUT) for row_id in on_disk(path)]
    finally:
        shelf.close()
    return {row.id: row for row in found if row is not None}


def told_of(row: Row) -> tuple[object, ...]:
    return (
        *(row.channel, row.remote, row.order_key, row.control_id, row.message_type, row.received_ms, row.body, row.seq),
        *(row.repeat, row.direction, row.callback, row.state, row.ack, row.attempts, row.ambiguous, row.due_ms),
        *(row.status, row.ack_code, row.reason, row.answer, row.content),
    )


def test_what_goes_out_is_carried_over_with_all_that_is_known_of_it(path: Path, with_outbound: list[Row]) -> None:
    ruin(path, root_of(path, "open_delivery"))
    connection, aside = open_spool(path, suspect=True)
    by_delivery = fetch(connection, "SELECT DISTINCT direction, channel FROM delivery")
    connection.close()
    assert aside is not None
    assert {row_id: told_of(row) for row_id, row in carried_over(path).items()} == {
        row.id: told_of(row) for row in with_outbound
    }
    assert by_delivery == [(Direction.OUT, REMOTE)]


def test_what_goes_out_and_whose_state_is_lost_is_held_for_a_person(path: Path, with_outbound: list[Row]) -> None:
    ruin(path, leaf_of(path, "delivery"))
    connection, aside = open_spool(path, suspect=True)
    connection.close()
    assert aside is not None
    found = carried_over(path)
    assert found.keys() == {row.id for row in with_outbound}
    held = [row for row in found.values() if row.state is State.HELD]
    assert held
    assert all(row.ambiguous and row.reason for row in held)
    assert {row.ack for row in held if row.callback} == {AckState.UNDELIVERED}
    assert {row.ack for row in held if not row.callback} == {AckState.NOT_OWED}


async def test_what_goes_out_and_is_in_memory_reaches_the_new_file(path: Path, told: Told, filled: list[int]) -> None:
    async with running(path, told) as spool:
        twice = [outbound(spool, b"SAME"), outbound(spool, b"SAME", callback=""), message(spool, b"SAME")]
        set_aside = outbound(spool, b"ASIDE")
        await store(spool, told, *twice, set_aside)
        spool.forget(set_aside)  # it waits in the file alone
        await spool.perform(_lose_the_newest)
        ruin_live(path)
        spool.queued("adt", 0, limit=ROWS, limit_bytes=1 << 30)
        await told.until(lambda: told.health and told.health[-1] is None)

        found = carried_over(path)
        assert {row_id: told_of(row) for row_id, row in found.items()} == {row.id: told_of(row) for row in twice[:2]}
        assert on_disk(path)[twice[2].id] is State.QUEUED
        assert spool.tally.open_to == {REMOTE: 2}
        page = spool.queued(REMOTE, 0, limit=9, limit_bytes=1 << 20, direction=Direction.OUT)
        assert [row.id for row in page] == [row.id for row in twice[:2]]


# ---- a file of an earlier version


@pytest.mark.parametrize("earlier", EARLIER)
@pytest.mark.parametrize("damage", ["first page", "index", "message"])
def test_a_damaged_file_of_an_earlier_version_is_carried_over_too(path: Path, damage: str, earlier: int) -> None:
    of_version(earlier, path, [State.QUEUED, State.PROCESSED, State.INFLIGHT] * 200, body=b"x" * 900)
    open_index = "delivery_open" if earlier == 1 else "open_delivery"
    page = {"first page": 1, "index": root_of(path, open_index), "message": leaf_of(path, "message")}[damage]
    waiting = open_waiting(path)
    ruin(path, page)
    before = path.read_bytes()
    connection, aside = open_spool(path, suspect=damage != "first page")
    version = connection.pragma("user_version")
    contents = fetch(connection, "SELECT DISTINCT content FROM message")
    connection.close()

    assert aside is not None
    assert aside.path.read_bytes() == before
    assert (version, contents) == (SCHEMA_VERSION, [(Content.HL7,)])
    lost = waiting - open_waiting(path)
    assert len(lost) <= 4 if damage == "message" else not lost
    outbound = carried_over(path)
    assert outbound.keys() == ({one for one in waiting - lost if one > 1_000} if earlier == 2 else set())
    assert all((row.channel, row.callback) == (REMOTE, f"c{row.id}") for row in outbound.values())


@pytest.mark.parametrize("earlier", EARLIER)
def test_a_sound_file_of_an_earlier_version_is_not_suspected_for_its_age(path: Path, earlier: int) -> None:
    of_version(earlier, path, [State.QUEUED] * 20)
    connection, aside = open_spool(path, suspect=True)
    connection.close()
    assert aside is None
    assert len(open_waiting(path)) == 20 * earlier


def test_a_file_that_is_no_database_is_set_aside(path: Path) -> None:
    path.write_bytes(b"this was never a spool" * 4000)
    connection, aside = open_spool(path)
    connection.close()
    assert aside is not None
    assert (aside.rescued, aside.complete) == (0, False)
    assert aside.path.read_bytes().startswith(b"this was never")


async def test_ids_sequences_and_the_instance_go_on_in_the_new_file(path: Path, told: Told, filled: list[int]) -> None:
    async with running(path, told) as spool:
        instance = spool.instance
    ruin(path, leaf_of(path, "message"))
    open_spool(path, suspect=True)[0].close()
    async with running(path, Told()) as spool:
        assert spool.instance == instance
        assert spool.next_id() > ROWS
        assert spool.next_sequence("adt") == ROWS


def test_a_second_damaged_file_gets_a_name_of_its_own(path: Path) -> None:
    for number in (1, 2):
        path.write_bytes(b"rubbish" * 999)
        connection, aside = open_spool(path)
        connection.close()
        assert aside is not None
        assert aside.path.name == f"spool.damaged-{number}.db"


async def test_damage_that_a_start_meets_is_set_aside_before_anything_is_accepted(
    path: Path, told: Told, filled: list[int]
) -> None:
    ruin(path, root_of(path, "open_delivery"))
    async with running(path, told) as spool:
        assert spool.set_aside is not None
        assert spool.trouble is None
        assert spool.tally.open_of["adt"] == len(filled)


async def test_damage_that_is_met_at_work_is_set_aside_and_work_goes_on(
    path: Path, told: Told, filled: list[int]
) -> None:
    ruin(path, leaf_of(path, "message"))
    async with running(path, told) as spool:
        assert not told.health
        page = spool.queued("adt", 0, limit=ROWS, limit_bytes=1 << 30)
        assert page == []
        assert spool.stuck
        await told.until(lambda: told.health and told.health[-1] is None)

        assert spool.set_aside is not None
        page = spool.queued("adt", 0, limit=ROWS, limit_bytes=1 << 30)
        assert len(page) == spool.set_aside.rescued
        await store(spool, told, message(spool))
        assert spool.tally.open_of["adt"] == len(page) + 1
        for row in page:
            conclude(spool, row)
        await settled(spool)
        assert spool.tally.open_of["adt"] == 1
    assert [trouble and trouble.trouble for trouble in told.health] == [Trouble.DAMAGED, None]


def _lose_the_newest(connection: apsw.Connection) -> None:
    connection.execute("DELETE FROM delivery WHERE id>?", (ROWS,))
    connection.execute("DELETE FROM message WHERE id>?", (ROWS,))


async def test_memory_knows_better_than_the_damaged_file(path: Path, told: Told, filled: list[int]) -> None:
    """Rows in memory reach the new file even where the page with them is lost."""
    async with running(path, told) as spool:
        with_id, without = message(spool, b"INMEM"), message(spool, b"", state=State.INFLIGHT)
        await store(spool, told, with_id, without)
        await spool.perform(_lose_the_newest)
        ruin_live(path)
        spool.queued("adt", 0, limit=ROWS, limit_bytes=1 << 30)
        await told.until(lambda: told.health and told.health[-1] is None)

        assert on_disk(path)[with_id.id] is State.QUEUED
        conclude(spool, without)
        await settled(spool)
        assert on_disk(path)[without.id] is State.PROCESSED
        assert spool.tally.open_of["adt"] == len(open_waiting(path))


def ruin_live(path: Path) -> None:
    """Ruin a page of an open spool, in the file and for every connection."""
    leaf = leaf_of(path, "message")
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    ruin(path, leaf)


def test_a_stop_between_the_renames_is_completed_by_the_next_start(path: Path, filled: list[int]) -> None:
    """The new file is there and says whom it has to rescue; the damaged one has moved, its log has not."""
    fresh = path.with_name("spool.fresh.db")
    connection = open_sound(fresh)
    connection.execute("INSERT INTO meta VALUES('rescue', 'spool.damaged-1.db')")
    connection.close()
    path.replace(path.with_name("spool.damaged-1.db"))
    path.with_name("spool.db-wal").write_bytes(b"the log of the damaged file")

    connection, aside = open_spool(path)
    connection.close()
    assert aside is not None
    assert open_waiting(path) == set(filled)
    assert not fresh.exists()
    assert path.with_name("spool.damaged-1.db-wal").read_bytes() == b"the log of the damaged file"


def test_a_rescue_that_was_interrupted_goes_on_at_the_next_start(path: Path, filled: list[int]) -> None:
    shutil.copy(path, path.with_name("spool.damaged-1.db"))
    path.unlink()
    connection = open_sound(path)
    connection.execute("INSERT INTO meta VALUES('rescue', 'spool.damaged-1.db')")
    connection.close()

    connection, aside = open_spool(path)
    connection.close()
    assert aside is not None
    assert (aside.rescued, aside.complete) == (len(filled), True)
    connection, aside = open_spool(path)
    connection.close()
    assert aside is None


def test_a_change_that_never_began_leaves_the_file_alone(path: Path, filled: list[int]) -> None:
    open_sound(path.with_name("spool.fresh.db")).close()
    finish_swap(path, None)
    assert open_waiting(path) == set(filled)
    assert not path.with_name("spool.fresh.db").exists()


def test_values_that_make_no_sense_are_damage(path: Path, filled: list[int]) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE delivery SET ack=77 WHERE id=?", (filled[3],))
    connection.close()
    assert not sound(path, None)


def test_a_file_that_is_only_locked_is_not_called_damaged(path: Path, filled: list[int]) -> None:
    owner = apsw.Connection(str(path))
    owner.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
    owner.execute("BEGIN IMMEDIATE")
    with pytest.raises(SpoolTrouble) as caught:
        sound(path, None)
    owner.close()
    assert caught.value.trouble is Trouble.UNAVAILABLE
