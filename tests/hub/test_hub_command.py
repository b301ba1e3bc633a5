"""`agent hub` as a process: what it prints, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

STARTER = (
    "import argparse, sys; from agent.cli import hub; words = argparse.ArgumentParser();"
    " hub.register(words.add_subparsers()); args = words.parse_args(); sys.exit(hub.run(args))"
)
ROOT = Path(__file__).parents[2]
WITHIN_S = 20.0


@asynccontextmanager
async def hub_process(*arguments: str) -> AsyncIterator[Process]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        STARTER,
        "hub",
        *arguments,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_of(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send SIGTERM or SIGINT to one process")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_prints_four_values_and_the_same_again(tmp_path: Path, number: signal.Signals) -> None:
    async with hub_process("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "hub")) as first:
        values = dict([(await line_of(first)).split("=", 1) for _ in range(4)])
        assert list(values) == ["baseUrl", "clientId", "clientSecret", "agentId"]
        answer = await asyncio.to_thread(urlopen, values["baseUrl"] + "healthcheck")
        assert json.loads(answer.read())["ok"] is True
        first.send_signal(number)
        assert await first.wait() == 0
        assert first.stderr is not None
        assert b"Traceback" not in await first.stderr.read()

    async with hub_process("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "hub"), "--json") as second:
        again = json.loads(await line_of(second))
        assert {**again, "baseUrl": ""} == {**values, "baseUrl": ""}
        second.send_signal(number)
        assert await second.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--listen", "nonsense"], 2, "is no HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], 2, "is no HOST:PORT"),
        (["--heartbeat-seconds", "0"], 2, "above 0"),
        (["--no-such-option"], 2, "usage"),
        (["--listen", "203.0.113.1:1"], 1, "cannot listen on 203.0.113.1:1"),
    ],
)
async def test_what_cannot_be_is_one_sentence(tmp_path: Path, arguments: list[str], status: int, text: str) -> None:
    async with hub_process("--data-dir", str(tmp_path), *arguments) as process:
        out, err = await process.communicate()
    assert (process.returncode, out) == (status, b"")
    assert text in err.decode()
    assert "Traceback" not in err.decode()


async def test_help_shows_an_example_and_the_targets(tmp_path: Path) -> None:
    async with hub_process("--help") as process:
        out, _ = await process.communicate()
    for text in ("example:", "--listen", "--json", "webhook https://", "python package.module:function"):
        assert text in out.decode()
