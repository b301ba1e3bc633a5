"""History is let go when it is due, and at once when the disk gets full; what is not delivered stays."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.housekeeping import Housekeeping
from agent.plan import AgentSettings
from agent.settings import SpoolSettings
from agent.store.row import AckState, Row, State
from agent.store.spool import Spool, SpoolEvents


class Told:
    """What the spool reported, as far as these tests ask."""

    def __init__(self) -> None:
        self.durable: asyncio.Queue[list[Row]] = asyncio.Queue()
        self.events = SpoolEvents(
            on_durable=self.durable.put_nowait,
            on_claimed=lambda _: None,
            on_refused=lambda rows, trouble: None,
            on_unclaimed=lambda _: None,
            on_health=lambda _: None,
        )


async def stored(spool: Spool, told: Told, count: int, state: State) -> None:
    """So many messages of 20 KB, on disk and then in this state."""
    rows = [Row(spool.next_id(), "adt", "10.0.0.1:1", b"", b"", b"ADT^A01", 0, bytes(20_000)) for _ in range(count)]
    for row in rows:
        spool.put(row)
    heard = 0
    while heard < count:
        heard += len(await told.durable.get())
    for row in rows:
        row.state, row.ack = state, AckState.DELIVERED
        spool.settle(row)
    await spool.perform(lambda _: None)  # returns when what came before it is on disk


async def test_a_disk_that_gets_full_makes_history_go_at_once_and_keeps_what_is_not_delivered(tmp_path: Path) -> None:
    told = Told()
    async with asyncio.timeout(20), Spool.open(tmp_path / "spool.db", told.events) as spool:
        # given a long history and a few messages that wait for the server
        await stored(spool, told, 200, State.PROCESSED)
        await stored(spool, told, 20, State.QUEUED)
        house = Housekeeping(spool, local=SpoolSettings, remote=AgentSettings)
        # when the disk gets full, long before the first sweep is due
        house.hurry()
        async with asyncio.TaskGroup() as work:
            sweeping = work.create_task(house.sweep())
            while house.swept is None:
                await asyncio.sleep(0.01)
            sweeping.cancel()
        # then about half of the history has gone, and nothing else
        assert house.swept.error == ""
        assert 60 <= house.swept.deleted < 200
        assert len(spool.shelf.queued("adt", 0, limit=100, limit_bytes=1 << 30)) == 20


async def test_the_local_limits_win_over_the_servers(tmp_path: Path) -> None:
    told = Told()
    async with asyncio.timeout(20), Spool.open(tmp_path / "spool.db", told.events) as spool:
        await stored(spool, told, 100, State.PROCESSED)  # 2 MB
        house = Housekeeping(
            spool,
            local=lambda: SpoolSettings(retention_max_mb=1),
            remote=lambda: AgentSettings(queue_retention_max_mb=512, queue_sweep_interval_s=3600),
        )
        policy = house._retention(hurry=False)
        assert (policy.max_mb, policy.days, policy.sweep_interval_s) == (1, 7.0, 3600)


async def test_the_counters_are_logged_only_while_the_server_asks_for_it(tmp_path: Path) -> None:
    told = Told()
    asked: list[None] = []

    def stats() -> dict[str, object]:
        asked.append(None)
        return {}

    async with asyncio.timeout(20), Spool.open(tmp_path / "spool.db", told.events) as spool:
        every = 0.001
        house = Housekeeping(spool, local=SpoolSettings, remote=lambda: AgentSettings(log_stats_freq_s=every))  # type: ignore[arg-type]
        async with asyncio.TaskGroup() as work:
            logging = work.create_task(house.log_stats(stats))
            while len(asked) < 3:
                await asyncio.sleep(0.001)
            logging.cancel()
    assert len(asked) >= 3
