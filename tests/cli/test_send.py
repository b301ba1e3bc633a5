"""`agent send`, as an operator types it, against a receiver in a thread of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.cli import send
from agent.protocol.hl7 import FieldPath, Header
from agent.ward.receiver import Behaviour, Received, Reply, Silence, open_receiver

ONE = "MSH|^~\\&|A|B|C|D|20260105||ADT^A01|1|P|2.5.1\rPID|1||MRN1||MÜLLER\r"
TWO = "MSH|^~\\&|A|B|C|D|20260105||ADT^A03|2|P|2.5.1\rPID|1||MRN2||MÜLLER\r"


class Hospital:
    """The far end: where it listens and what it received."""

    def __init__(self) -> None:
        self.address = ""
        self.received: list[Received] = []
        self.heard = threading.Event()

    def report(self, received: Received) -> None:
        self.received.append(received)
        self.heard.set()

    @property
    def bodies(self) -> list[bytes]:
        return [one.body for one in self.received]


@contextmanager
def receiving(behaviour: Behaviour | None = None) -> Iterator[Hospital]:
    """A receiver that runs while `agent send` runs its own event loop."""
    hospital = Hospital()
    ready = threading.Event()
    stop: list[Any] = []

    async def receive() -> None:
        async with open_receiver("127.0.0.1", 0, behaviour or Behaviour(), report=hospital.report) as receiver:
            over = asyncio.Event()
            loop = asyncio.get_running_loop()
            stop.append(lambda: loop.call_soon_threadsafe(over.set))
            hospital.address = f"mllp://127.0.0.1:{receiver.port}"
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(receive()), name="hospital")
    thread.start()
    try:
        assert ready.wait(5)
        yield hospital
    finally:
        stop[0]()
        thread.join(5)


def agent_send(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="agent")
    send.register(parser.add_subparsers(dest="verb", required=True))
    return send.run(parser.parse_args(["send", *words]))


def test_files_arrive_and_everything_is_acknowledged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.hl7").write_bytes(ONE.replace("\r", "\r\n").encode())
    (tmp_path / "b.hl7").write_bytes(b"\x0b" + TWO.encode() + b"\x1c\r")
    with receiving() as hospital:
        assert agent_send(str(tmp_path), "--to", hospital.address) == 0
    assert hospital.bodies == [ONE.encode(), TWO.encode()]
    told = capsys.readouterr()
    assert told.out.startswith(f"sent 2 messages ({len((ONE + TWO).encode())} bytes) to {hospital.address} in ")
    assert "answers      AA 2\n" in told.out
    assert told.err == ""


def test_a_negative_answer_is_exit_1_and_told_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.hl7").write_text(ONE + TWO, newline="")
    with receiving(Behaviour(every=2)) as hospital:
        assert agent_send(str(tmp_path / "a.hl7"), "--to", hospital.address) == 1
    told = capsys.readouterr().out
    assert "answers      AA 1, AE 1\n" in told
    assert "  2: AE this receiver was told to answer so" in told


def test_a_problem_in_a_file_is_exit_1_and_the_rest_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("no message\n")
    (tmp_path / "b.hl7").write_text(ONE, newline="")
    with receiving() as hospital:
        assert agent_send(str(tmp_path), "--to", hospital.address) == 1
    assert hospital.bodies == [ONE.encode()]
    told = capsys.readouterr()
    assert "a.txt at byte 0: text that belongs to no message; left out" in told.err
    assert "trouble      1 problem in files" in told.out


def test_files_are_sent_again_until_the_count_is_reached_with_new_ids_if_so_asked(tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_text(ONE + TWO, newline="")
    with receiving() as hospital:
        assert agent_send(str(tmp_path), "--to", hospital.address, "--count", "5") == 0
        assert agent_send(str(tmp_path), "--to", hospital.address, "--count", "5", "--new-ids") == 0
    ids = [Header.of(body).control_id for body in hospital.bodies]
    assert ids[:5] == [b"1", b"2", b"1", b"2", b"1"]
    assert len(set(ids[5:])) == 5
    assert [FieldPath.parse("PID-3").read(body) for body in hospital.bodies[5:8]] == [b"MRN1", b"MRN2", b"MRN1"]


def test_files_are_recoded_if_so_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.hl7").write_text(ONE + TWO.replace("Ü", "Ш"), newline="", encoding="utf-8")
    with receiving() as hospital:
        assert agent_send(str(tmp_path), "--to", hospital.address, "--encoding", "8859/1") == 1
    assert hospital.bodies == [ONE.encode("latin-1")]
    assert "does not fit into iso8859-1; left out" in capsys.readouterr().err


def test_the_simulated_hospital_speaks_on_several_connections() -> None:
    with receiving() as hospital:
        words = ("--generate", "--to", hospital.address, "--connections", "4", "--count", "80", "--seed", "1")
        assert agent_send(*words) == 0
    assert len(hospital.received) == 80
    assert {Header.of(body).sending_application for body in hospital.bodies} == {
        b"ADTSYS", b"LABSYS", b"SCHEDSYS", b"DOCSYS",
    }  # fmt: skip


def test_a_seed_repeats_the_messages_and_without_one_they_are_new() -> None:
    def sent(*words: str) -> set[bytes]:
        with receiving() as hospital:
            assert agent_send("--generate", "--to", hospital.address, "--count", "10", *words) == 0
        return set(hospital.bodies)

    assert sent("--seed", "5") == sent("--seed", "5")
    assert not sent() & sent()


def test_load_of_a_fixed_size() -> None:
    with receiving() as hospital:
        assert agent_send("--generate", "--size", "1024", "--to", hospital.address, "--count", "20") == 0
    assert [len(body) for body in hospital.bodies] == [1024] * 20


def test_the_summary_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.hl7").write_text(ONE + TWO, newline="")
    with receiving(Behaviour(Silence(), every=2, otherwise=Reply("AR"))) as hospital:
        assert agent_send(str(tmp_path), "--to", hospital.address, "--timeout", "0.1", "--json") == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["sent"], facts["positive"], facts["answers"], facts["timedOut"]) == (2, 0, {"AR": 1}, 1)
    assert facts["failures"] == [
        {"controlId": "1", "reason": "no answer within 0.1 s"},
        {"controlId": "2", "reason": "AR this receiver was told to answer so"},
    ]
    assert facts["latencyMs"]["count"] == 1
    assert facts["connections"] == {"opened": 1, "lost": 0}
    assert facts["stopped"] == ""


def test_a_receiver_that_is_not_there_is_exit_1_and_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with receiving() as gone:
        pass
    assert agent_send("--generate", "--count", "3", "--to", gone.address) == 1
    assert f"stopped: cannot connect to {gone.address}: refused; check the port" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--to", "localhost:1"), "name files or folders to send, or say --generate"),
        (("x.hl7", "--generate", "--to", "localhost:1"), "but not both"),
        (("nowhere.hl7", "--to", "localhost:1"), "there is no nowhere.hl7"),
        (("--generate", "--to", "localhost"), "lacks a host or a port"),
        (("--generate", "--to", "localhost:1", "--size", "20"), "20 bytes are too few"),
        ((__file__, "--seed", "1", "--to", "localhost:1"), "--seed and --size are for --generate"),
        (("--generate", "--to", "localhost:1", "--encoding", "klingon"), "klingon"),
        (("--generate", "--to", "localhost:1", "--encoding", "ascii"), "the simulated hospital cannot write ascii"),
        (("--generate", "--to", "mllps://localhost:1", "--ca-file", "nowhere.pem"), "nowhere.pem: No such file"),
    ],
)
def test_what_makes_no_sense_is_exit_2_and_a_sentence(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert agent_send(*words) == 2
    told = capsys.readouterr()
    assert sentence in told.err
    assert told.out == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C reaches a whole console there, these tests included")
def test_ctrl_c_prints_the_summary_of_what_happened(tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_text(ONE + TWO, newline="")
    with receiving(Behaviour(Silence())) as hospital:
        command = (
            "import sys; from agent.cli import main; "
            f"sys.exit(main(['send', {str(tmp_path)!r}, '--to', '{hospital.address}', '--json']))"
        )
        with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as agent:
            assert hospital.heard.wait(20)
            agent.send_signal(signal.SIGINT)
            out, err = agent.communicate(timeout=10)
    assert agent.returncode == 1
    assert err == b""
    facts = json.loads(out)
    assert (facts["sent"], facts["failed"], facts["interrupted"]) == (1, 1, True)
