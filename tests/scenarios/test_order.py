"""Promise 3: order holds per ordering key, also across second tries; and who waits holds up nobody else."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

import pytest
from ward_building import Ward
from ward_messages import adt
from ward_servers import Asked, ScriptedServer, accept

SEED = 7


def patient_of(control_id: str) -> str:
    return control_id.split("-")[0]


class Observer:
    """A server's script that notes when each message came and when it was answered."""

    def __init__(self, *, refuse: float = 0.0) -> None:
        self.open: set[str] = set()
        self.together: list[set[str]] = []
        self.answered: list[str] = []
        self._refuse = refuse
        self._chance = random.Random(SEED)

    async def __call__(self, asked: Asked) -> None:
        self.open.add(asked.control_id)
        self.together.append(set(self.open))
        await asyncio.sleep(self._chance.uniform(0, 0.004))  # answers overtake each other
        self.open.discard(asked.control_id)
        if self._chance.random() < self._refuse:
            await asked.answer("busy", 503)
        else:
            self.answered.append(asked.control_id)
            await asked.accept()

    @property
    def by_patient(self) -> dict[str, list[str]]:
        """Control ids in the order of their final answers."""
        order: dict[str, list[str]] = defaultdict(list)
        for control_id in self.answered:
            order[patient_of(control_id)].append(control_id)
        return order


async def all_answered(server: ScriptedServer, observer: Observer, number: int) -> None:
    await server.until(lambda: len(observer.answered) >= number, within_s=30)


async def test_per_key_in_order_and_parallel_across_keys_also_when_the_server_refuses_one_in_three(ward: Ward) -> None:
    # given a channel that keeps the messages of a patient in order, with four workers, and a moody server
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, enhanced="aa", logicalChannelKey="PID-3.1", maxWorkers=4, autoRetryBaseDelayMs=20)
    observer = server.script = Observer(refuse=0.33)
    await ward.running_agent(server)

    # when the messages of twelve patients come mixed, over one connection
    device = await ward.device(port)
    patients = [f"P{number:02d}" for number in range(12)]
    chance = random.Random(SEED)
    sequence = [patient for patient in patients for _ in range(15)]
    chance.shuffle(sequence)
    counts: dict[str, int] = defaultdict(int)
    messages = []
    for patient in sequence:
        counts[patient] += 1
        messages.append(adt(f"{patient}-{counts[patient]:03d}", key=patient))
    await device.send(*messages)
    await all_answered(server, observer, len(messages))

    # then each patient's messages went in order, none before the one before it was done with
    assert set(observer.by_patient) == set(patients)
    for patient, order in observer.by_patient.items():
        assert order == [f"{patient}-{number:03d}" for number in range(1, 16)]
    firsts: dict[str, list[str]] = defaultdict(list)
    for control_id in dict.fromkeys(asked.control_id for asked in server.heard):
        firsts[patient_of(control_id)].append(control_id)
    assert all(order == sorted(order) for order in firsts.values())
    assert all(len({patient_of(each) for each in group}) == len(group) for group in observer.together)

    # and several patients at a time, but never more than there are workers
    widths = {len(group) for group in observer.together}
    assert 2 <= max(widths) <= 4


async def test_without_a_key_the_messages_of_a_sender_keep_their_order(ward: Ward) -> None:
    # given a channel in enhanced mode without a key, and a server that refuses one in three
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, enhanced="true", appLevelAck="NE", autoRetryBaseDelayMs=20)
    observer = server.script = Observer(refuse=0.33)
    await ward.running_agent(server)

    # when two senders send at once, on several connections each
    numbers: dict[str, int] = defaultdict(int)
    for _ in range(3):
        for source in ("127.0.0.31", "127.0.0.32"):
            device = await ward.device(port, source=source)
            for _ in range(8):
                numbers[source] += 1
                assert (await device.ask(adt(f"{source}-{numbers[source]:03d}"))).code == "CA"
    await all_answered(server, observer, 48)

    # then the messages of each went in its order
    for source in numbers:
        assert observer.by_patient[source] == [f"{source}-{number:03d}" for number in range(1, 25)]


async def test_a_merge_is_a_barrier_across_keys(ward: Ward) -> None:
    # given a channel ordered by patient, and a server that takes its time for the first message
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, enhanced="aa", logicalChannelKey="PID-3.1", maxWorkers=8)
    go_on = asyncio.Event()

    async def slow_first(asked: Asked) -> None:
        if asked.control_id in ("P1-1", "P3-merge"):
            await go_on.wait()
        await asked.accept()

    server.script = slow_first
    agent = await ward.running_agent(server)
    device = await ward.device(port)

    # when two patients are updated, then merged (A40), then updated again, with a third beside them
    await device.send(
        adt("P1-1", key="P1"),
        adt("P2-1", key="P2"),
        adt("P3-merge", key="P3", trigger="A40"),
        adt("P4-1", key="P4"),
        adt("P2-2", key="P2"),
    )
    await server.until_heard("P1-1", "P2-1")
    await agent.until(lambda status: status["spool"]["countsByState"]["processed"] == 1)

    # then nothing passes the merge, and the merge passes nothing
    assert [asked.control_id for asked in server.heard] == ["P1-1", "P2-1"]
    go_on.set()
    await server.until_heard("P4-1", "P2-2")
    order = [asked.control_id for asked in server.heard]
    assert order[2] == "P3-merge"
    assert set(order[3:]) == {"P4-1", "P2-2"}


async def test_a_merge_waits_alone_while_the_server_refuses_it(ward: Ward) -> None:
    # given a server that refuses a merge twice
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, enhanced="aa", logicalChannelKey="PID-3.1", maxWorkers=8, autoRetryBaseDelayMs=50)

    async def unwilling(asked: Asked) -> None:
        if asked.control_id == "P1-merge" and asked.attempt < 3:
            await asked.answer("busy", 503)
        else:
            await asked.accept()

    server.script = unwilling
    await ward.running_agent(server)
    device = await ward.device(port)

    # when messages of other patients come behind it
    await device.send(
        adt("P0-1", key="P0"), adt("P1-merge", key="P1", trigger="A34"), adt("P2-1", key="P2"), adt("P1-1", key="P1")
    )
    await server.until_heard("P2-1", "P1-1")

    # then they come behind it
    order = [asked.control_id for asked in server.heard]
    assert order[:4] == ["P0-1", "P1-merge", "P1-merge", "P1-merge"]


async def test_a_key_that_waits_for_its_next_try_delays_no_other_key(ward: Ward) -> None:
    # given a server that refuses one patient's messages, and long pauses between tries
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, enhanced="aa", logicalChannelKey="PID-3.1", maxWorkers=2, autoRetryBaseDelayMs=60_000)

    async def refuses_one(asked: Asked) -> None:
        if asked.control_id == "P1-1":
            await asked.answer("busy", 503)
        else:
            await asked.accept()

    server.script = refuses_one
    await ward.running_agent(server)
    device = await ward.device(port)

    # when that patient's messages come first, and many of others behind them
    others = [f"P{number}-1" for number in range(10, 60)]
    await device.send(adt("P1-1", key="P1"), adt("P1-2", key="P1"))
    await server.until_heard("P1-1")
    await device.send(*(adt(control_id, key=patient_of(control_id)) for control_id in others))

    # then the others are delivered at once, and the patient's next message stays behind the first
    await server.until_heard(*others, within_s=5)
    assert server.attempts("P1-2") == []


async def test_with_a_single_worker_the_channel_is_one_queue(ward: Ward) -> None:
    # given a channel with one worker
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, enhanced="aa", maxWorkers=1)
    observer = server.script = Observer()
    await ward.running_agent(server)

    # when several senders send at once
    devices = [await ward.device(port, source=f"127.0.0.{40 + number}") for number in range(5)]
    order: list[str] = []
    for number in range(20):
        for device in devices:
            control_id = f"D-{len(order):03d}"
            order.append(control_id)
            assert (await device.ask(adt(control_id, key=f"P{number}"))).code == "AA"
    await all_answered(server, observer, len(order))

    # then the server sees one message at a time, in the order of arrival
    assert [asked.control_id for asked in server.heard] == order
    assert {len(group) for group in observer.together} == {1}


STUCK = pytest.mark.parametrize(
    ("number", "size_bytes"),
    [pytest.param(3_000, 0, id="many small messages"), pytest.param(600, 90_000, id="many large messages")],
)


@STUCK
async def test_a_channel_whose_target_is_stuck_delays_no_other_channel(
    ward: Ward, number: int, size_bytes: int
) -> None:
    # given two channels; what the server does with the messages of one never ends
    server = await ward.server()
    stuck, well = ward.port(), ward.port()
    server.channel("stuck", stuck, enhanced="aa", logicalChannelKey="MSH-10", ackTimeoutSecs=60)
    server.channel("well", well, ackTimeoutSecs=60)

    async def half(asked: Asked) -> None:
        if asked.channel == "well":
            await asked.accept()

    server.script = half
    agent = await ward.running_agent(server)

    # when the stuck one gets far more than may be on its way at one time
    device = await ward.device(stuck)
    for first in range(0, number, 50):
        some = range(first, min(first + 50, number))
        await device.send(*(adt(f"S-{index}", size_bytes=size_bytes) for index in some))
        for _ in some:
            assert (await device.hear()).code == "AA"

    # then the other one is answered at once
    await agent.until(lambda status: status["spool"]["countsByState"]["inflight"] > 100)
    other = await ward.device(well)
    for index in range(20):
        assert str(await other.ask(adt(f"W-{index}"), within_s=2)) == f"AA W-{index}"
    server.script = accept


async def test_order_holds_across_a_kill(ward: Ward) -> None:
    # given messages of three patients that wait for a server that is away
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, enhanced="aa", logicalChannelKey="PID-3.1", autoRetryBaseDelayMs=20)
    agent = await ward.running_agent(server)
    device = await ward.device(port)
    observer = server.script = Observer(refuse=0.2)
    assert (await device.ask(adt("P0-000", key="P0"))).code == "AA"
    await server.go()
    numbers = [f"P{index % 3}-{index:03d}" for index in range(1, 700)]
    for first in range(0, len(numbers), 50):
        some = numbers[first : first + 50]
        await device.send(*(adt(control_id, key=patient_of(control_id)) for control_id in some))
        for _ in some:
            assert (await device.hear()).code == "AA"

    # when the agent is killed, and started again, and killed in the middle of delivering
    await agent.kill()
    await agent.start()
    await server.come()
    await server.until(lambda: len(observer.answered) > 150, within_s=20)
    await agent.kill()
    await agent.start()
    await server.until_heard(*numbers, within_s=30)

    # then each patient's messages were first seen in their order
    firsts: dict[str, list[str]] = defaultdict(list)
    for control_id in dict.fromkeys(asked.control_id for asked in server.heard):
        firsts[patient_of(control_id)].append(control_id)
    assert {patient: len(order) for patient, order in firsts.items()} == {"P0": 234, "P1": 233, "P2": 233}
    assert all(order == sorted(order) for order in firsts.values())
