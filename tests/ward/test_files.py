"""HL7 files in every form in which they are met."""

from __future__ import annotations

import codecs
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.protocol.hl7 import Header
from agent.ward.files import Found, Problem, read_messages, recode, with_control_id

CR, LF, CRLF = b"\r", b"\n", b"\r\n"
ONE = b"MSH|^~\\&|A|B|C|D|20260105||ADT^A01|1|P|2.5.1\rPID|1||MRN1\r"
TWO = b"MSH|^~\\&|A|B|C|D|20260105||ADT^A03|2|P|2.5.1\rPID|1||MRN2\r"

fields = st.lists(st.binary(max_size=8).map(lambda b: b.translate(None, b"\r\n\x0b\x1c")), max_size=4).map(b"|".join)
names = st.from_regex(rb"\A[A-Z][A-Z0-9]{2}\Z").filter(lambda n: n not in (b"MSH", b"FHS", b"BHS", b"BTS", b"FTS"))
segments = st.tuples(names, fields).map(b"|".join)
bodies = st.builds(
    lambda separator, head, rest: b"".join(s + CR for s in (b"MSH" + separator + head, *rest)),
    st.sampled_from([b"|", b"#", b"$"]),
    fields,
    st.lists(segments, max_size=4),
)
contents = st.binary(min_size=1).map(lambda b: b.translate(None, b"\x0b\x1c")).filter(bool)
separate = [b"MSH|", b"MSH", b"M", b"\r", b"\n", b"\x0b", b"\x1c", b"\x0bMSH|a\x1c\r", b"BTS|1", b"x", b"OBX|1"]


def found(path: Path, **options: int) -> list[bytes]:
    items = list(read_messages([path], **options))
    assert [str(item) for item in items if isinstance(item, Problem)] == []
    return [item.body for item in items if isinstance(item, Found)]


def problems(path: Path, **options: int) -> list[tuple[int, str]]:
    return [(item.offset, item.text) for item in read_messages([path], **options) if isinstance(item, Problem)]


def enveloped(text: bytes, end: bytes) -> bytes:
    return end.join((b"FHS|^~\\&|A", b"BHS|^~\\&|A", text + b"BTS|2", b"FTS|1", b""))


@given(
    messages=st.lists(bodies, min_size=1, max_size=5),
    end=st.sampled_from([CR, LF, CRLF]),
    blank_lines=st.integers(0, 2),
    envelope=st.booleans(),
    mark=st.booleans(),
    last_end=st.booleans(),
    chunk_bytes=st.integers(1, 300),
)
def test_unframed_messages_read_back_whatever_the_line_ends_envelopes_and_marks(
    tmp_path_factory: pytest.TempPathFactory,
    messages: list[bytes],
    end: bytes,
    blank_lines: int,
    envelope: bool,
    mark: bool,
    last_end: bool,
    chunk_bytes: int,
) -> None:
    text = (end * blank_lines).join(body.replace(CR, end) for body in messages)
    if envelope:
        text = enveloped(text, end)
    if not last_end:
        text = text.removesuffix(end)
    path = tmp_path_factory.getbasetemp() / "plain.hl7"
    path.write_bytes(codecs.BOM_UTF8 * mark + text)
    assert found(path, chunk_bytes=chunk_bytes) == messages


@given(
    messages=st.lists(bodies | contents, min_size=1, max_size=5),
    trailer=st.sampled_from([b"\x1c\r", b"\x1c\n", b"\x1c\r\n", b"\x1c\r\r\n\n"]),
    envelope=st.booleans(),
    mark=st.booleans(),
    last_end=st.booleans(),
    chunk_bytes=st.integers(1, 300),
)
def test_framed_messages_read_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory,
    messages: list[bytes],
    trailer: bytes,
    envelope: bool,
    mark: bool,
    last_end: bool,
    chunk_bytes: int,
) -> None:
    text = b"".join(b"\x0b" + body + trailer for body in messages)
    if envelope:
        text = enveloped(text, CRLF)
    elif not last_end:
        text = text[: text.rindex(b"\x1c") + 1]
    path = tmp_path_factory.getbasetemp() / "framed.hl7"
    path.write_bytes(codecs.BOM_UTF8 * mark + text)
    assert found(path, chunk_bytes=chunk_bytes) == messages


@given(content=st.binary(max_size=400), chunk_bytes=st.integers(1, 100))
def test_any_file_can_be_read_and_gives_the_same_in_any_chunks(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, chunk_bytes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    items = list(read_messages([path]))
    assert items, "a file gives a message or a problem, never nothing"
    assert list(read_messages([path], chunk_bytes=chunk_bytes)) == items


@given(
    pieces=st.lists(st.sampled_from(separate), max_size=20),
    chunk_bytes=st.integers(1, 12),
)
def test_the_chunks_never_decide_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], chunk_bytes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces"
    path.write_bytes(b"".join(pieces))
    assert list(read_messages([path], chunk_bytes=chunk_bytes)) == list(read_messages([path]))


def test_an_empty_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "empty.hl7").touch()
    assert problems(tmp_path / "empty.hl7") == [(0, "holds no HL7 message (no line begins with MSH)")]


def test_a_file_of_something_else_is_a_problem_that_shows_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear MSH|\nthis is about SECRET\n")
    assert problems(path) == [(0, "text that belongs to no message; left out")]
    assert all("SECRET" not in str(item) for item in read_messages([path]))


def test_text_around_messages_is_named_by_its_place_and_the_messages_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.hl7"
    path.write_bytes(b"exported today\r" + ONE + b"BTS|1\rleft over\r" + TWO)
    items = list(read_messages([path]))
    assert [item.body for item in items if isinstance(item, Found)] == [ONE, TWO]
    assert problems(path) == [
        (0, "text that belongs to no message; left out"),
        (15 + len(ONE) + 6, "text that belongs to no message; left out"),
    ]


def test_offsets_count_from_the_start_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "two.hl7"
    path.write_bytes(codecs.BOM_UTF8 + ONE + TWO)
    assert [item.offset for item in read_messages([path])] == [3, 3 + len(ONE)]
    path.write_bytes(b"\x0b" + ONE + b"\x1c\r\x0b" + TWO + b"\x1c\r")
    assert [item.offset for item in read_messages([path])] == [1, len(ONE) + 4]


def test_latin_1_goes_through_untouched_and_utf_16_comes_out_as_utf_8(tmp_path: Path) -> None:
    message = ONE.replace(b"MRN1", "MÜLLER".encode("latin-1"))
    (tmp_path / "latin.hl7").write_bytes(message)
    assert found(tmp_path / "latin.hl7") == [message]
    (tmp_path / "wide.hl7").write_text(message.decode("latin-1"), encoding="utf-16", newline="")
    assert found(tmp_path / "wide.hl7", chunk_bytes=7) == [message.decode("latin-1").encode()]


def test_msh_inside_a_field_begins_no_message(tmp_path: Path) -> None:
    message = ONE + b"NTE|1||see MSH|9\rMSHX|2\r"
    (tmp_path / "one.hl7").write_bytes(message)
    assert found(tmp_path / "one.hl7") == [message]


def test_folders_are_read_in_order_of_name_with_their_subfolders_and_without_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "a.hl7").write_bytes(ONE)
    (tmp_path / "b" / "c.txt").write_bytes(TWO)
    (tmp_path / ".git" / "d").write_bytes(TWO)
    (tmp_path / "b" / ".e").write_bytes(TWO)
    assert found(tmp_path) == [ONE, TWO]


def test_what_cannot_be_read_is_a_problem_and_the_next_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "empty folder").mkdir()
    (tmp_path / "one.hl7").write_bytes(ONE)
    items = list(read_messages([tmp_path / "nowhere.hl7", tmp_path / "empty folder", tmp_path / "one.hl7"]))
    assert [str(item) for item in items if isinstance(item, Problem)] == [
        f"{tmp_path / 'nowhere.hl7'} at byte 0: cannot be read: No such file or directory",
        f"{tmp_path / 'empty folder'} at byte 0: the folder holds no files",
    ]
    assert isinstance(items[-1], Found)


def test_a_frame_without_an_end_is_a_problem_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "cut.hl7"
    path.write_bytes(b"\x0b" + ONE + b"\x0b" + TWO + b"\x1c\r\x0b\x1c\r\x0b" + ONE)
    assert [item.body for item in read_messages([path]) if isinstance(item, Found)] == [TWO]
    assert [text for _, text in problems(path)] == [
        "a frame without an end block (0x1C 0x0D); left out",
        "an empty frame; left out",
        "the last frame has no end block (0x1C 0x0D); left out",
    ]


@pytest.mark.parametrize("framed", [False, True])
def test_a_message_above_the_limit_is_left_out_and_the_next_one_is_read(tmp_path: Path, framed: bool) -> None:
    path = tmp_path / "long.hl7"
    long = ONE + b"OBX|1|" + b"x" * 5000 + b"\r"
    wrapped = [b"\x0b" + m + b"\x1c\r" if framed else m for m in (ONE, long, TWO)]
    path.write_bytes(b"".join(wrapped))
    for chunk_bytes in range(40, 110):
        items = list(read_messages([path], limit_bytes=1000, chunk_bytes=chunk_bytes))
        assert [item.body for item in items if isinstance(item, Found)] == [ONE, TWO]
        assert [item.text.split(" bytes")[0] for item in items if isinstance(item, Problem)] == [
            f"{'a frame of ' if framed else ''}more than 1000"
        ]


@pytest.mark.parametrize("framed", [False, True])
def test_a_big_file_is_read_in_little_memory(tmp_path: Path, framed: bool) -> None:
    path = tmp_path / "big.hl7"
    message = ONE + b"NTE|1||" + b"x" * 2000 + b"\r"
    path.write_bytes((b"\x0b" + message + b"\x1c\r" if framed else message) * 5000)
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_messages([path], chunk_bytes=64 * 1024))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 5000
    assert path.stat().st_size > 10_000_000
    assert peak < 1_000_000


def test_a_message_is_recoded_from_utf_8_or_latin_1() -> None:
    assert recode("MSH|é".encode(), "iso8859-1") == "MSH|é".encode("latin-1")
    assert recode("MSH|é".encode("latin-1"), "utf-8") == "MSH|é".encode()
    with pytest.raises(UnicodeEncodeError):
        recode("MSH|中".encode(), "iso8859-1")


@given(body=bodies, end=st.sampled_from([CR, LF, CRLF]))
def test_a_new_control_id_replaces_the_old_one_and_nothing_else(body: bytes, end: bytes) -> None:
    assume(body[4:5] not in (body[3:4], CR))  # an MSH without MSH-2 is none
    body = body.replace(CR, end)
    changed = with_control_id(body, b"NEW1")
    assert Header.of(changed).control_id == b"NEW1"
    assert changed.split(end, 1)[1] == body.split(end, 1)[1]
    before, after = (m.split(end, 1)[0].split(m[3:4]) for m in (body, changed))
    before += [b""] * (10 - len(before))
    assert before[:9] + before[10:] == after[:9] + after[10:]


def test_what_is_no_hl7_gets_no_control_id() -> None:
    assert with_control_id(b"hello", b"NEW1") == b"hello"
    assert with_control_id(b"MSH", b"NEW1") == b"MSH"
