"""Look for bytes that break a promise of `agent.protocol`: framing, MSH, acknowledgements, forensics.

Secret: how libFuzzer is driven from Python, and which promises hold for any bytes at all.
Promise: one line at the end says what was tried and found; status 0 nothing found, 1 a finding, 2 it could not run.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 60
LONGEST_BYTES = 2048
CUTS = 48
WORKER = "--worker"

ADT = b"MSH|^~\\&|A|B|C|D|20260101||ADT^A01|1|P|2.5|||AL|NE||UNICODE UTF-8\rPID|1||4711^^^X&Y~2\r"
SEEDS = (
    ADT,
    b"\x0b" + ADT + b"\x1c\r",
    b"\x0b" + ADT + b"\x1c\r\x0bMSH|^~\\&|half\x0b" + ADT + b"\x1c\r\r\n",
    b"\x0bMSH$%~\\&$A$$$$$$ACK%A01$2$P$2.3\rMSA$AA$1$fine\rERR$%%%207\r\x1c\r",
    b"\x0bFHS|^~\\&|A\rBHS|^~\\&|A\r" + ADT + b"BTS|1\rFTS|1\r\x1c\r",
    b"\x0b\x06\x1c\r\x0b\x15\x1c\r",
    b"\x0b" + ADT.replace(b"\r", b"\n") + b"\x1c\n",
    b"\xef\xbb\xbf" + ADT,
    ADT.decode().encode("utf-16"),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"SSH-2.0-x\r\n",
    b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n\x0b" + ADT + b"\x1c\r",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12),
    bytes.fromhex("1603010200010001fc0303") + bytes(range(64)),
    bytes.fromhex("802e0103010015000000100000040000"),
)
WORDS = (
    "\\x0b",
    "\\x1c\\x0d",
    "\\x0bMSH|^~\\\\&|",
    "MSA|AA|",
    "|ADT^A01|",
    "FHS|^~\\\\&",
    "BTS|",
    "GET /",
    " HTTP/1.1",
)


if WORKER in sys.argv:
    import atheris

    sys.path.insert(0, str(ROOT))
    with atheris.instrument_imports(include=["agent.protocol"]):
        from agent.protocol.batch import BadBatch, is_batch, split
        from agent.protocol.explanations import EXPLANATIONS
        from agent.protocol.forensics import FIRST_BYTES, Evidence, Oddity, examine, frame_oddity, shape
        from agent.protocol.hl7 import FieldPath, Header, NotHl7, build_ack, normalize, read_ack
        from agent.protocol.mllp import Framer, wrap

    PATHS = tuple(map(FieldPath.parse, ("MSH-10", "MSH-9.2", "PID-3.1", "PID-3.4.2", "MSA-2", "OBX-5", "MSH-2")))
    VOCABULARY = re.compile(
        r"MSH|FHS|BHS|GET|HEAD|POST|PUT|DELETE|OPTIONS|CONNECT|TRACE|PATCH|PRI|HTTP/(?:1\.[01]|2\.0)"
        r"|SSH-(?:2\.0|1\.99|1\.5)|PROXY|(?<![^ ])(?:[0-9A-F]{2}|XX)(?![^ ])"
    )


def read_in(packets: Iterator[bytes], max_bytes: int) -> tuple[list[bytes], Framer]:
    framer = Framer(max_bytes)
    return [message for packet in packets for message in framer.feed(packet)], framer


def cuts(stream: bytes, sizes: bytes) -> Iterator[bytes]:
    """The stream in packets of these sizes, over and over, and after so many of them the rest at once."""
    at = 0
    for turn in range(CUTS):
        size = 1 + (sizes[turn % len(sizes)] if sizes else 0)
        yield stream[at : at + size]
        at += size
    yield stream[at:]


def promise_the_packets_do_not_matter(stream: bytes, sizes: bytes, max_bytes: int) -> list[bytes]:
    whole, at_once = read_in(iter((stream,)), max_bytes)
    cut, in_pieces = read_in(cuts(stream, sizes), max_bytes)

    assert cut == whole
    assert (in_pieces.oversized is None) == (at_once.oversized is None)
    if at_once.oversized is None:
        assert in_pieces.skipped == at_once.skipped
        assert in_pieces.truncated == at_once.truncated
        assert in_pieces.buffered == at_once.buffered <= max_bytes + 3  # 0x0B MS may yet become a start
        assert sum(map(len, whole)) + at_once.skipped + at_once.buffered <= len(stream)
    for message in whole:
        assert b"\x1c\r" not in message
        assert b"\x0bMSH" not in message
        assert len(message) <= max_bytes
        assert Framer().feed(wrap(message)) == [message]
    return whole


def promise_an_answer_cannot_break_anything(message: bytes, text: str) -> None:
    header = None
    with suppress(NotHl7):
        header = Header.of(message)
    for code, error in (("AA", ""), ("CR", "101")):
        ack = build_ack(header, code, text=text, control_id=b"77", when="20260101", error=error)

        assert Framer().feed(wrap(ack)) == [ack]
        assert ack.count(b"\r") == (3 if error else 2)
        assert ack.endswith(b"\r")
        assert b"\n" not in ack
        read = read_ack(ack)
        assert read is not None
        assert read.code == code
        assert read.control_id == (header.control_id if header else b"")
        assert Header.of(ack).message_type.startswith(b"ACK")


def promise_reading_takes_nothing_else(message: bytes) -> None:
    separator = message[3:4]
    for path in PATHS:
        value = path.read(message)
        assert value in message
        assert b"\r" not in value
        assert (path.segment, path.field) == (b"MSH", 1) or not value or separator not in value
    read = read_ack(message)
    assert read is None or read.code in {"AA", "AE", "AR", "CA", "CE", "CR"}


def promise_line_ends_become_one_kind(message: bytes) -> None:
    normal = normalize(message)
    assert b"\n" not in normal
    assert b"\r\r" not in normal
    assert normalize(normal) is normal
    assert normal.split(b"\r") == re.split(rb"[\r\n]+", message)


def promise_a_batch_comes_apart_in_order(body: bytes) -> None:
    if not is_batch(body):
        return
    with suppress(BadBatch, NotHl7):
        at = 0
        for message in split(body).messages:
            assert message.startswith(b"MSH")
            at = body.index(message, at) + len(message)


def promise_a_verdict_for_anything(stream: bytes, tls: bool, over: bool, silent_s: float) -> None:
    framer = Framer()
    frames = framer.feed(stream)
    held = framer.head(framer.buffered)
    seen = Evidence(
        first=stream[:FIRST_BYTES],
        bytes_in=len(stream),
        frames=len(frames),
        skipped=framer.skipped,
        open_bytes=len(held),
        open_head=held[:FIRST_BYTES],
        open_tail=held[-2:],
        age_s=silent_s,
        silent_s=silent_s,
        over=over,
        tls=tls,
    )
    verdict = examine(seen)
    assert verdict is None or verdict in EXPLANATIONS
    if frames and not seen.skipped and not seen.open_bytes:
        assert verdict is None
    if verdict is Oddity.PROBE:
        assert over
        assert not frames
    if verdict in (Oddity.NO_END, Oddity.END_WITHOUT_CR, Oddity.NO_MSH):
        assert b"\x0b" in stream
        assert over or silent_s >= 1
    for body in frames:
        told = frame_oddity(body)
        assert told is None or told in EXPLANATIONS
        assert told is None or told is Oddity.LF_LINES or not body.startswith(b"MSH|")


def promise_a_shape_says_nothing(first: bytes) -> None:
    shown = shape(first)
    assert len(shown) <= 80
    assert shown.isprintable()
    assert set(filter(str.isalnum, VOCABULARY.sub(" ", shown))) <= {"a", "9"}


def try_one(data: bytes) -> None:
    """One input: three bytes of choices, a length, the cuts, and the stream."""
    options, room, cut_bytes = (*data[:3], 0, 0, 0)[:3]
    sizes, stream = data[3 : 3 + cut_bytes % 16], data[3 + cut_bytes % 16 :]
    max_bytes = room if options & 1 else 1 << 20

    messages = promise_the_packets_do_not_matter(stream, sizes, max_bytes)

    for message in (*messages[:4], stream):
        if Framer().feed(wrap(message)) == [message]:  # no other can ever have come out of a frame
            promise_an_answer_cannot_break_anything(message, sizes.decode("latin-1"))
        promise_reading_takes_nothing_else(message)
        promise_line_ends_become_one_kind(message)
        promise_a_batch_comes_apart_in_order(message)
    promise_a_verdict_for_anything(stream, bool(options & 2), bool(options & 4), 2.0 if options & 8 else 0.0)
    promise_a_shape_says_nothing(stream[:64])


def write_corpus(folder: Path) -> None:
    """One file for each seed, its choices before it: plain, and with cuts."""
    seeds = list(SEEDS)
    for corpus in sorted((ROOT / "tests" / "data" / "foreign").glob("*.json")):
        seeds += [b"\x0b%b\x1c\r" % text.encode() for text in json.loads(corpus.read_text(encoding="utf-8")).values()]
    for number, seed in enumerate(seeds):
        (folder / f"seed-{number}").write_bytes(b"\x08\0\0" + seed[:LONGEST_BYTES])
        (folder / f"seed-{number}-cut").write_bytes(b"\x0c\x40\x03\x01\x07\x1f" + seed[:LONGEST_BYTES])


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or not all(argument.isdecimal() for argument in arguments):
        sys.stderr.write("usage: python tests/fuzz/fuzz_framing.py [SECONDS]\n")
        return 2
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("atheris is not installed: pip install atheris (Linux, Python 3.11 or newer)\n")
        return 2
    seconds = int(arguments[0]) if arguments else SECONDS
    findings = Path(tempfile.mkdtemp(prefix="fuzz-framing-"))
    with tempfile.TemporaryDirectory() as scratch:
        folder, words = Path(scratch, "corpus"), Path(scratch, "words")
        folder.mkdir()
        write_corpus(folder)
        words.write_text("".join(f'"{word}"\n' for word in WORDS), encoding="ascii")
        limits = (f"-max_total_time={seconds}", f"-max_len={LONGEST_BYTES}", "-timeout=10", "-rss_limit_mb=1024")
        options = (*limits, f"-dict={words}", f"-artifact_prefix={findings}/", "-print_final_stats=1", str(folder))
        # libFuzzer ends its process with its own hand, so it gets one of its own
        fuzzer = subprocess.run(
            [sys.executable, __file__, WORKER, *options], capture_output=True, text=True, errors="replace", check=False
        )
        executions = re.search(r"number_of_executed_units:\s*(\d+)", fuzzer.stderr)
        corpus_size = sum(1 for _ in folder.iterdir())
    if fuzzer.returncode:
        sys.stderr.write(fuzzer.stderr[-1000:] + fuzzer.stdout)  # the traceback is in the latter
    found = f"a finding in {findings}" if fuzzer.returncode else "no finding"
    count = executions[1] if executions else "no count of"
    sys.stdout.write(f"fuzz_framing: {count} executions in {seconds} s, {corpus_size} inputs in the corpus, {found}\n")
    if not fuzzer.returncode:
        findings.rmdir()
    return int(fuzzer.returncode != 0)


if __name__ == "__main__":
    if WORKER in sys.argv:
        sys.argv.remove(WORKER)
        atheris.Setup(sys.argv, try_one)
        atheris.Fuzz()
    else:
        sys.exit(main(sys.argv[1:]))
