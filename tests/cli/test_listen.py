"""`agent listen`, as an operator types it, in a process of its own."""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.cli import listen
from agent.errors import ConfigError, LinkError
from agent.protocol.hl7 import Acknowledgement, read_ack
from agent.protocol.mllp import Framer, wrap

ONE = b"MSH|^~\\&|A|B|C|D|20260105||ADT^A01|1|P|2.5.1\rPID|1||MRN1||SECRET\r"
TWO = b"MSH|^~\\&|A|B|C|D|20260105||ADT^A03|2|P|2.5.1\rPID|1||MRN2||SECRET\r"


class Agent:
    """A running `agent listen`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        first = self.line()
        address = json.loads(first)["listening"] if first.startswith("{") else first.split()[2].rstrip(",")
        self.port = int(address.rpartition(":")[2])

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def exchange(self, *bodies: bytes, answers: int = 1) -> list[Acknowledgement | None]:
        """Send on a new connection and read so many answers, or fewer if it is closed."""
        framer = Framer()
        heard: list[bytes] = []
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as device:
            device.sendall(b"".join(wrap(body) for body in bodies))
            while len(heard) < answers and (data := device.recv(65536)):
                heard += framer.feed(data)
        return [read_ack(frame) for frame in heard]


@contextmanager
def agent_listen(*words: str) -> Iterator[Agent]:
    command = f"import sys; from agent.cli import main; sys.exit(main(['listen', '0', *{words!r}]))"
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Agent(process)
        finally:
            process.kill()


def ended(agent: Agent) -> tuple[int, str, str]:
    out, err = agent.process.communicate(timeout=10)
    return agent.process.returncode, out, err


def test_one_line_a_message_without_its_content() -> None:
    with agent_listen("--count", "2") as agent:
        answers = agent.exchange(ONE, TWO, answers=2)
        status, out, err = ended(agent)
    assert [(a.code, a.control_id) for a in answers if a] == [("AA", b"1"), ("AA", b"2")]
    first, second, last = out.splitlines()
    assert f" ADT^A01 1 {len(ONE)} bytes from 127.0.0.1:" in first
    assert first.endswith(": AA")
    assert " ADT^A03 2 " in second
    assert last == "received 2 messages"
    assert (status, err) == (0, "")
    assert "SECRET" not in out


def test_content_only_if_asked_for_and_nothing_that_moves_the_cursor() -> None:
    with agent_listen("--count", "1", "--show") as agent:
        agent.exchange(ONE.replace(b"SECRET", b"SECRET\x1b[2J"))
        _, out, _ = ended(agent)
    assert "    PID|1||MRN1||SECRET?[2J\n" in out


def test_one_json_object_a_line() -> None:
    with agent_listen("--count", "1", "--json", "--answer", "CA", "--then", "AA") as agent:
        answers = agent.exchange(ONE, answers=2)
        _, out, _ = ended(agent)
    assert [a.code for a in answers if a] == ["CA", "AA"]
    fact, last = map(json.loads, out.splitlines())
    assert last == {"received": 1}
    assert {key: fact[key] for key in ("number", "type", "controlId", "sizeBytes", "answer")} == {
        "number": 1,
        "type": "ADT^A01",
        "controlId": "1",
        "sizeBytes": len(ONE),
        "answer": "CA then AA",
    }
    assert "body" not in fact


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (("--answer", "AR"), ["AR", "AR"]),
        (("--fail-every", "2"), ["AA", "AE"]),
        (("--fail-every", "2", "--answer", "CA"), ["CA", "CE"]),
        (("--fail-every", "2", "--hang-up"), ["AA"]),
        (("--hang-up",), []),
        (("--delay", "0.01"), ["AA", "AA"]),
    ],
)
def test_moods(words: tuple[str, ...], codes: list[str]) -> None:
    with agent_listen(*words) as agent:
        assert [a.code for a in agent.exchange(ONE, TWO, answers=2) if a] == codes


def test_a_message_that_is_never_answered_is_reported_so() -> None:
    with agent_listen("--never", "--count", "1") as agent:
        assert agent.exchange(ONE) == []
        _, out, _ = ended(agent)
    assert out.splitlines()[0].endswith(": no answer")


def test_a_wrong_id() -> None:
    with agent_listen("--wrong-id") as agent:
        (answer,) = agent.exchange(ONE)
    assert answer is not None
    assert answer.control_id == b"NOT-1"


def test_messages_are_saved_in_a_folder_that_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "down"
    with agent_listen("--save", str(folder), "--count", "2") as agent:
        agent.exchange(ONE, TWO, answers=2)
        ended(agent)
    assert [file.read_bytes() for file in sorted(folder.iterdir())] == [ONE, TWO]


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C reaches a whole console there, these tests included")
def test_ctrl_c_is_a_good_end() -> None:
    with agent_listen() as agent:
        agent.process.send_signal(signal.SIGINT)
        status, _, err = ended(agent)
    assert (status, err) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe is another error there")
def test_a_reader_that_has_had_enough_ends_it_quietly() -> None:
    with agent_listen("--never") as agent:
        assert agent.process.stdout is not None
        agent.process.stdout.close()
        agent.exchange(ONE, answers=0)
        agent.process.wait(timeout=10)
        assert agent.process.stderr is not None
        assert agent.process.stderr.read() == ""


def agent_listen_here(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="agent")
    listen.register(parser.add_subparsers(dest="verb", required=True))
    return listen.run(parser.parse_args(["listen", *words]))


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(LinkError, match=f"cannot listen on 127.0.0.1 port {port}"):
            agent_listen_here(str(port))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot save messages there"):
        agent_listen_here("0", "--save", str(tmp_path / "file"))


def test_moods_that_exclude_each_other_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        agent_listen_here("0", "--never", "--hang-up")
    assert left.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err
