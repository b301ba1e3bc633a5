"""`agent quickstart` as a new user meets it: one command, three processes, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

import pytest

ADMISSION = "MSH|^~\\&|ADT|WARD|LAB|WARD|20260101120000||ADT^A01|{id}|P|2.5\rPID|1||4711^^^MR||TEST^ANNA\r"


async def started(tmp_path: Path, *words: str) -> Process:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TEMP": str(tmp_path), "HOME": str(tmp_path)}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", "quickstart", *words, stdout=PIPE, stderr=STDOUT, env=environment, cwd=tmp_path
    )


async def finished(process: Process) -> tuple[int, str]:
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_a_simulated_hospital_is_carried_to_the_server_and_nothing_stays(tmp_path: Path) -> None:
    status, printed = await finished(await started(tmp_path, "--count", "60"))
    assert status == 0, printed
    assert "feed       60 messages" in printed
    assert "AA 60;" in printed
    assert "60 of 60 are on the server" in printed
    assert "The agent is live and well." in printed
    assert "Try next:" in printed
    assert list(tmp_path.glob("onprem-agent-*")) == []


async def test_ones_own_files_are_sent_instead_whatever_their_form(tmp_path: Path) -> None:
    # given one message a file, several a file, other line ends, and MLLP frames
    feed = tmp_path / "feed"
    feed.mkdir()
    (feed / "one.hl7").write_text(ADMISSION.format(id="A1"), newline="")
    (feed / "two.hl7").write_text(
        (ADMISSION.format(id="B1") + ADMISSION.format(id="B2")).replace("\r", "\r\n"), newline=""
    )
    (feed / "framed.hl7").write_bytes(b"\x0b" + ADMISSION.format(id="C1").encode() + b"\x1c\r")
    status, printed = await finished(await started(tmp_path, "--feed", str(feed)))
    assert status == 0, printed
    assert "ADT^A01 4" in printed
    assert "4 of 4 are on the server" in printed


async def test_a_feed_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    status, printed = await finished(await started(tmp_path, "--feed", "nowhere"))
    assert (status, printed) == (2, "agent quickstart: there is no nowhere; check the spelling and the folder\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
async def test_with_keep_it_stays_up_until_ctrl_c_and_says_where(tmp_path: Path) -> None:
    process = await started(tmp_path, "--count", "20", "--keep")
    assert process.stdout is not None
    printed = ""
    async with asyncio.timeout(60):
        while "agentId=" not in printed:
            printed += (await process.stdout.readline()).decode()
    # then what it prints can be used as it stands
    [folder] = re.findall(r"agent status --watch --data-dir (\S+)", printed)
    further = re.findall(r"^  agent ((?:messages|doctor) .*)$", printed, re.MULTILINE)
    assert len(further) == 3
    for words in (f"status --data-dir {folder}", *further):
        asked = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent", *words.split(), stdout=PIPE, stderr=STDOUT
        )
        status, screen = await finished(asked)
        assert status == 0, screen
        assert {"status": "live and well", "messages": "PROCESSED", "doctor": "20 messages"}[
            words.split()[0]
        ].lower() in (screen.lower())
    # and Ctrl-C ends all three
    process.send_signal(signal.SIGINT)
    status, _ = await finished(process)
    assert status == 130
    assert list(tmp_path.glob("onprem-agent-*")) == []
