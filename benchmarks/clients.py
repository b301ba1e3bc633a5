"""Clients that send messages to one remote from a process of their own: the daemon's pool by itself, and python-hl7's.

usage: python benchmarks/clients.py pool|python-hl7|python-hl7-threads --port PORT [--clients N] [--warm S]
                                    [--seconds S] [--no-uvloop]      the message on stdin, with a control id to replace

Secret: how each library is asked to send, in the way its own documentation does.
Promise: as many connections as there are clients, each with one message unanswered all the time; an answer counts only
if it is an AA to the message that it answers. Prints `measuring` when the warm-up is over and one JSON object at the
end, as the C programs do; times in microseconds, `cpu_us` per message.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable

ID_CHARACTERS = 18
LEAD = 4  # messages for each connection of our pool: so that one always waits, as behind a busy server


class Messages:
    """The message, each time with another control id."""

    def __init__(self, text: bytes) -> None:
        fields = text.split(b"|", 10)
        assert len(fields[9]) == ID_CHARACTERS, "the control id is not where it should be"
        self._before, self._after = b"|".join(fields[:9]) + b"|", b"|" + fields[10]
        self._numbers = itertools.count()

    def next(self) -> tuple[bytes, bytes]:
        """(control id, message)."""
        control_id = b"%0*d" % (ID_CHARACTERS, next(self._numbers))
        return control_id, self._before + control_id + self._after


class Count:
    """What was answered, and after how long, from the end of the warm-up on."""

    def __init__(self, warm_s: float, seconds: float) -> None:
        self._measure_at = time.perf_counter() + warm_s
        self._end_at = self._measure_at + seconds
        self._seconds = seconds
        self._took_s: list[float] = []
        self._errors = 0
        self._cpu_s: float | None = None  # at the end of the warm-up

    def add(self, began: float, *, right: bool) -> bool:
        """One answer has come; whether to go on."""
        now = time.perf_counter()
        if now >= self._end_at:
            return False
        self._errors += not right
        if now >= self._measure_at:
            if self._cpu_s is None:
                self._cpu_s = time.process_time()
                print("measuring", flush=True)
            self._took_s.append(now - began)
        return True

    def report(self) -> None:
        """Print what was counted."""
        cpu_s = time.process_time() - (self._cpu_s or 0.0)
        took_s = sorted(self._took_s)
        answered = len(took_s)
        found = {"answered": answered, "elapsed_s": self._seconds, "rate": answered / self._seconds}
        for share in (50, 95, 99):
            found[f"p{share}_us"] = round(took_s[answered * share // 100] * 1e6) if took_s else 0
        found |= {"errors": self._errors, "cpu_us": cpu_s / answered * 1e6 if answered else 0.0}
        print(json.dumps(found))


async def pool(port: int, clients: int, messages: Messages, count: Count) -> None:
    """Pool and connections as the daemon has them, with nothing around them."""
    from agent.flow.letters import Answered, Letter, Outcome
    from agent.flow.pool import Pool
    from agent.metrics import RemoteMetrics
    from agent.net.outbound import Outbound
    from agent.spec import RemoteSpec

    over = asyncio.Event()
    async with Outbound() as outbound:
        spec = RemoteSpec(f"mllp://127.0.0.1:{port}", "127.0.0.1", port, max_clients=clients)
        remote = Pool(spec, dial=outbound.dial, metrics=RemoteMetrics(), waiting_limit=1_000)

        def push() -> None:
            control_id, message = messages.next()
            began = time.perf_counter()

            def done(outcome: Outcome) -> None:
                right = isinstance(outcome, Answered) and outcome.code == "AA" and control_id in outcome.ack
                if count.add(began, right=right):
                    push()
                else:
                    over.set()

            remote.push(Letter(message, control_id, None, done))

        for _ in range(LEAD * clients):
            push()
        await over.wait()
        remote.abort()


async def python_hl7(port: int, clients: int, messages: Messages, count: Count) -> None:
    """Its asyncio streams: messages are parsed before they are written and after they are read."""
    import hl7
    from hl7.mllp import open_hl7_connection

    async def converse() -> None:
        reader, writer = await open_hl7_connection("127.0.0.1", port)
        going = True
        while going:
            control_id, message = messages.next()
            began = time.perf_counter()
            writer.writemessage(hl7.parse(message.decode()))
            await writer.drain()
            answer = await reader.readmessage()
            going = count.add(began, right=str(answer["MSA.F2"]) == control_id.decode())
        writer.close()

    async with asyncio.TaskGroup() as conversations:
        for _ in range(clients):
            conversations.create_task(converse())


def python_hl7_threads(port: int, clients: int, messages: Messages, count: Count) -> None:
    """Its blocking client, which parses nothing; a thread for each connection."""
    from hl7.client import MLLPClient

    def converse() -> None:
        with MLLPClient("127.0.0.1", port) as client:
            going = True
            while going:
                control_id, message = messages.next()
                began = time.perf_counter()
                answer = client.send_message(message)
                going = count.add(began, right=b"MSA|AA|" + control_id in answer)

    threads = [threading.Thread(target=converse) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _runner(uvloop: bool) -> Callable[..., None]:
    if uvloop:
        with contextlib.suppress(ImportError):
            from uvloop import run

            return run
    return asyncio.run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("pool", "python-hl7", "python-hl7-threads"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--warm", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--no-uvloop", action="store_true")
    args = parser.parse_args()
    messages, count = Messages(sys.stdin.buffer.read()), Count(args.warm, args.seconds)
    work = (args.port, args.clients, messages, count)
    match args.name:
        case "pool":
            _runner(not args.no_uvloop)(pool(*work))
        case "python-hl7":
            asyncio.run(python_hl7(*work))
        case _:
            python_hl7_threads(*work)
    count.report()


if __name__ == "__main__":
    main()
