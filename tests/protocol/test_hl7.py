"""MSH, acknowledgements and field paths, judged by recordings, by two other HL7 libraries and by slow rules."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import hl7
import pytest
from character_sets import CODECS
from hl7apy.parser import parse_message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.errors import PeerError
from agent.protocol.charset import read, reads_by_bytes, write, write_exactly
from agent.protocol.hl7 import (
    Acknowledgement,
    FieldPath,
    Header,
    KeySpec,
    NotHl7,
    build_ack,
    is_link_or_merge,
    normalize,
    read_ack,
    with_sequence_number,
)
from agent.protocol.mllp import Framer, wrap

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "recorded_hl7.json").read_text(encoding="utf-8")
)
ADT = (
    b"MSH|^~\\&|ADT1|WARD 3|LAB&X|HQ^1.2.3^ISO|20260101120000||ADT^A01^ADT_A01|MSG00001|T|2.4|42||AL|NE||8859/1~ASCII\r"
    b"EVN||20260101\r"
    b"PID|1||4711^5&6^M11~0815^^^X||EVERYMAN^ADAM|PV1|\r"
    b"PV1|1|I|2000^2012^01\r"
    b"OBX|1|TX|||first\rOBX|2|TX|||second\r"
)
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

# A sender that divides by a full stop could not write its version.
delimiters = st.lists(st.sampled_from(PUNCTUATION.replace(".", "")), min_size=5, max_size=5, unique=True).map("".join)
words = st.text("abcXYZ0189 é", max_size=6)


def message_in(dialect: str, *, sender: str = "", code: str = "ADT", trigger: str = "A01", control: str = "") -> bytes:
    separator, component = dialect[0], dialect[1]
    msh = ["MSH", dialect[1:], sender, "F1", "RCV", "F2", "20260101", "", f"{code}{component}{trigger}"]
    msh += [control, "P", "2.5"]
    return (separator.join(msh) + "\r").encode()


def ack(message: bytes, code: str = "AA", **options: Any) -> bytes:
    return build_ack(Header.of(message), code, control_id=b"A1", when="20260102030405", **options)


class TestHeader:
    def test_every_field_is_read_from_its_place(self) -> None:
        header = Header.of(ADT)
        assert header.separator == b"|"
        assert header.encoding_characters == b"^~\\&"
        assert header.sending_application == b"ADT1"
        assert header.sending_facility == b"WARD 3"
        assert header.receiving_application == b"LAB&X"
        assert header.receiving_facility == b"HQ^1.2.3^ISO"
        assert header.message_type == b"ADT^A01^ADT_A01"
        assert (header.code, header.trigger) == (b"ADT", b"A01")
        assert header.control_id == b"MSG00001"
        assert (header.processing_id, header.version) == (b"T", b"2.4")
        assert header.sequence_number == b"42"
        assert (header.accept_ack, header.application_ack) == (b"AL", b"NE")
        assert header.charset == b"8859/1~ASCII"

    def test_missing_fields_are_empty(self) -> None:
        header = Header.of(b"MSH|^~\\&|ADT1|FAC")
        assert header.sending_facility == b"FAC"
        assert header.message_type == header.code == header.trigger == header.control_id == header.version == b""
        assert header.charset == b""

    @pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b""])
    def test_the_segment_ends_at_the_first_line_end_of_any_kind(self, end: bytes) -> None:
        header = Header.of(b"MSH|^~\\&|||||||ACK|7|P|2.5" + end + b"MSA|AA" * bool(end) + b"\r" * bool(end))
        assert header.version == b"2.5"
        assert header.charset == b""

    @given(st.binary(max_size=60) | st.binary(max_size=40).map(b"MSH|^~\\&|".__add__))
    def test_any_bytes_are_a_header_or_not_hl7(self, message: bytes) -> None:
        try:
            header = Header.of(message)
        except NotHl7:
            assert read_ack(message) is None
        else:
            assert message.startswith(b"MSH" + header.separator + header.encoding_characters)
            assert b"\r" not in header.charset + header.version

    @pytest.mark.parametrize(
        ("message", "named"),
        [
            (b"", "empty"),
            (b"hello world", "begin each message with MSH"),
            (b"MS", "begin each message with MSH"),
            (b"MSH", "field separator"),
            (b"MSHello world", "field separator"),
            (b"MSH |x", "field separator"),
            (b"MSH|", "MSH-2"),
            (b"MSH|\rPID|1", "MSH-2"),
            (b"MSH||ADT1|", "MSH-2"),
            (b"\xef\xbb\xbfMSH|^~\\&|", "byte order mark"),
            ("MSH|^~\\&|".encode("utf-16"), "UTF-16"),
            ("MSH|^~\\&|".encode("utf-16-le"), "UTF-16"),
            (b"\r\nMSH|^~\\&|", "line ends before MSH"),
            (b"FHS|^~\\&|", "batch"),
        ],
    )
    def test_what_is_no_hl7_is_told_what_to_change(self, message: bytes, named: str) -> None:
        with pytest.raises(NotHl7) as caught:
            Header.of(message)
        assert named in caught.value.hint
        assert isinstance(caught.value, PeerError)

    def test_no_content_in_the_error(self) -> None:
        with pytest.raises(NotHl7) as caught:
            Header.of(b"EVERYMAN|ADAM")
        assert "EVERY" not in str(caught.value) + caught.value.hint


# In these sets a part of these characters looks like | or \\.
DECEPTIVE = [
    ("shift_jis", "ソ表ポ"),
    ("cp932", "ソ表ポ"),
    ("big5", "功育許"),
    ("cp950", "功育許"),
    ("big5hkscs", "功育許"),
]
DECEPTIVE += [("gbk", "倈俓"), ("gb18030", "倈俓"), ("iso2022_jp_ext", "万像復")]


class TestHeaderOfText:
    @pytest.mark.parametrize(("codec", "name"), DECEPTIVE)
    def test_fields_are_split_between_characters(self, codec: str, name: str) -> None:
        text = f"MSH|^~\\&|{name}|WARD|LAB|HQ|2026||ADT^A01|{name}7|P|2.4\rPID|1|{name}\r"
        assert b"|" in name.encode(codec)
        assert Header.of(text.encode(codec)).control_id != f"{name}7".encode(codec)

        header = Header.of_text(text, codec)

        assert header.transcoded == codec
        assert header.sending_application == name.encode()
        assert header.sending_facility == b"WARD"
        assert header.control_id == f"{name}7".encode()
        assert (header.code, header.trigger, header.version) == (b"ADT", b"A01", b"2.4")

    def test_a_header_read_by_bytes_is_not_transcoded(self) -> None:
        assert Header.of(ADT).transcoded == ""

    @pytest.mark.parametrize("end", ["\r", "\n", "\r\n", ""])
    def test_only_the_first_segment_is_read(self, end: str) -> None:
        assert Header.of_text(f"MSH|^~\\&|ソ|||||||7|P|2.5{end}PID"[: None if end else -3], "cp932").version == b"2.5"

    @pytest.mark.parametrize("text", ["", "MSH", "hello", "\rMSH|^~\\&|", "MSH||ソ", "ソ"])
    def test_what_is_no_hl7_is_refused_as_by_bytes(self, text: str) -> None:
        with pytest.raises(NotHl7) as caught:
            Header.of_text(text, "shift_jis")
        with pytest.raises(NotHl7) as by_bytes:
            Header.of(text.encode())
        assert caught.value.hint == by_bytes.value.hint


class TestBuildAck:
    def test_the_answer_goes_back_to_where_the_message_came_from(self) -> None:
        assert ack(ADT, "AE", text="try later") == (
            b"MSH|^~\\&|LAB&X|HQ^1.2.3^ISO|ADT1|WARD 3|20260102030405||ACK^A01^ACK|A1|T|2.4||||||8859/1~ASCII\r"
            b"MSA|AE|MSG00001|try later\r"
        )

    @pytest.mark.parametrize("case", RECORDED["answered"], ids=lambda case: case["acknowledgement"][:30])
    def test_it_equals_the_recorded_server(self, case: dict[str, str]) -> None:
        recorded = case["acknowledgement"].encode()
        theirs = Header.of(recorded)
        when = FieldPath.parse("MSH-7").read(recorded).decode()
        header = Header.of(case["message"].encode())
        built = build_ack(header, "AA", text="OK", control_id=theirs.control_id, when=when)
        assert built == recorded + b"\r"

    def test_a_message_without_a_trigger_gets_a_plain_ack(self) -> None:
        assert Header.of(ack(b"MSH|^~\\&|A|B|C|D|||ORU|9|P|2.3\r")).message_type == b"ACK"

    def test_processing_id_and_version_have_defaults(self) -> None:
        header = Header.of(ack(b"MSH|^~\\&|A"))
        assert (header.processing_id, header.version) == (b"P", b"2.5.1")

    def test_without_a_readable_header_it_goes_to_nobody_by_name(self) -> None:
        built = build_ack(None, "AR", text="no MSH", control_id=b"A1", when="2026")
        assert built == b"MSH|^~\\&|||||2026||ACK|A1|P|2.5.1\rMSA|AR||no MSH\r"

    @given(delimiters, words, words, st.text(max_size=30))
    def test_our_reader_gets_back_what_was_written(self, dialect: str, sender: str, control: str, text: str) -> None:
        built = ack(message_in(dialect, sender=sender, control=control), "CR", text=text)
        read = read_ack(built)
        assert read is not None
        assert (read.code, read.control_id) == ("CR", control.encode())
        assert built[:8] == b"MSH" + dialect.encode()
        assert Header.of(built).receiving_application == sender.encode()
        assert built.count(b"\r") == 2, "no text adds a segment"

    @settings(deadline=None)
    @given(delimiters, words, words, st.text(PUNCTUATION + "aZé \r\n\x0b\x1c\t", max_size=30))
    def test_python_hl7_reads_the_same(self, dialect: str, sender: str, control: str, text: str) -> None:
        built = ack(message_in(dialect, sender=sender, control=control), "AE", text=text)
        judge = hl7.parse(built.decode())
        assert [str(segment[0]) for segment in judge] == ["MSH", "MSA"]
        assert str(judge["MSH.F9.R1.C2"]) == "A01"
        assert str(judge["MSH"][0][5]) == sender
        assert str(judge["MSA"][0][2]) == control
        # The judge strips the end of the message before it reads.
        assert judge.unescape(str(judge["MSA"][0][3])) == re.sub(r"[\x00-\x1f]", " ", text).rstrip()

    @settings(max_examples=25, deadline=None)
    @given(delimiters, words, st.text(PUNCTUATION + "aZé ", max_size=30))
    def test_hl7apy_reads_the_same(self, dialect: str, control: str, text: str) -> None:
        built = ack(message_in(dialect, control=control.strip()), "AE", text=text)
        judge = parse_message(built.decode())
        assert judge.name == "ACK"
        assert judge.msh.msh_9.msh_9_2.value == "A01"
        assert (judge.msa.msa_1.value, judge.msa.msa_2.value) == ("AE", control.strip())
        assert len(judge.msa.children) <= 3, "the text stays one field without parts"
        assert not judge.msa.msa_3 or len(judge.msa.msa_3.children) <= 1

    @pytest.mark.parametrize("error", ["", "101", "207"])
    def test_hl7apy_finds_it_valid(self, error: str) -> None:
        built = ack(message_in("|^~\\&", control="7"), "AE", text="a|b", error=error)
        assert parse_message(built.decode()).validate()

    def test_an_error_is_coded_for_the_version_that_asked(self) -> None:
        current = ack(message_in("|^~\\&"), "AE", text="a|b", error="207")
        assert current.endswith(b"\rERR|||207^Application internal error^HL70357|E||||a\\F\\b\r")
        old = ack(message_in("|^~\\&").replace(b"2.5", b"2.3"), "AE", error="101")
        assert old.endswith(b"\rERR|^^^101&Required field missing&HL70357\r")

    def test_without_an_escape_character_of_its_own_delimiters_become_blanks(self) -> None:
        assert ack(b"MSH|^~|A|B|C|D\r", text="a|b^c~d\\e&f").endswith(b"MSA|AA||a b c d\\e&f\r")
        assert ack(b"MSH|^~^&|A|B|C|D\r", text="a|b^c~d\\e&f").endswith(b"MSA|AA||a b c d\\e f\r")

    def test_the_truncation_character_is_escaped_too(self) -> None:
        assert ack(b"MSH|^~\\&#|A|B|C|D\r", text="#1").endswith(b"MSA|AA||\\P\\1\r")

    @example([""] * 9 + ["2.5\x1c"], "", "utf-8")
    @given(
        st.lists(st.text("\x0b\x1c^~\\&MSH1\xe9", max_size=5), max_size=18),
        st.text() | st.text("|^~\\&\r\n\x0b\x1cMSH山王日功"),
        st.sampled_from(["utf-8", "cp1252", "ascii", "big5", "shift_jis", "gb18030", "iso2022_jp_ext"]),
    )
    def test_nothing_in_a_message_or_a_text_breaks_the_frame(self, fields: list[str], text: str, codec: str) -> None:
        # Before an LF, 0x1C may stand last in a segment without ending the frame that it came in.
        message = "\n".join(("|".join(("MSH", "^~\\&", *fields)), "PID|")).encode()
        if b"\x0bMSH" not in message:
            built = ack(message, text=text, encoding=codec)
            assert Framer().feed(wrap(built)) == [built]
            assert built.count(b"\r") == 2

    @pytest.mark.parametrize(
        ("codec", "text", "written"),
        [
            ("cp1252", "für", "für".encode("cp1252")),
            ("ascii", "für", b"f?r"),
            ("big5", "王功", b"\xa4\xfd?"),  # the second byte of the second character is a vertical bar or a backslash
            ("shift_jis", "ソ国", b"?\x8d\x91"),
            ("iso2022_jp_ext", "山x", b"?x"),  # an escape sequence that the sender may not expect here
            ("utf-8", "\ud800x", b"?x"),
        ],
    )
    def test_a_text_is_written_in_the_codec_of_the_sender(self, codec: str, text: str, written: bytes) -> None:
        assert ack(ADT, text=text, encoding=codec).endswith(b"|" + written + b"\r")

    @pytest.mark.parametrize(("codec", "name"), DECEPTIVE)
    def test_an_answer_to_deceptive_characters_has_the_right_fields(self, codec: str, name: str) -> None:
        text = f"MSH|^~\\&|{name}|WARD|LAB|HQ|2026||ADT^A01^ADT_A01|{name}7|P|2.4||||||BIG-5\rPID|1\r"

        header = Header.of_text(text, codec)
        built = build_ack(header, "AE", text=f"{name}|é", control_id=b"A1", when="20260102", encoding=codec)

        assert read(built, codec) == (
            f"MSH|^~\\&|LAB|HQ|{name}|WARD|20260102||ACK^A01^ACK|A1|P|2.4||||||BIG-5\r"
            f"MSA|AE|{name}7|{name}\\F\\{read(write('é', codec), codec)}\r"
        )

    def test_an_echoed_field_has_the_bytes_of_its_sender(self) -> None:
        name = "ソ表ポ".encode("shift_jis")
        message = b"MSH|^~\\&|" + name + b"|WARD|LAB|HQ|2026||ADT^A01|" + name + b"|P|2.4\r"

        built = build_ack(Header.of_text(message.decode("shift_jis"), "shift_jis"), "AA", control_id=b"A1", when="2026")

        assert built == (b"MSH|^~\\&|LAB|HQ|" + name + b"|WARD|2026||ACK^A01^ACK|A1|P|2.4\rMSA|AA|" + name + b"|\r")

    def test_a_yen_sign_does_not_break_the_delimiters(self) -> None:
        header = Header.of_text("MSH|^~\\&|ポ|||||||7|P|2.4\r", "shift_jis")
        built = build_ack(header, "AE", text="¥5 ‾", control_id=b"A1", when="2026", error="207")
        assert read(built, "shift_jis").split("\r")[1] == "MSA|AE|7|?5 ?"

    @given(
        st.sampled_from([codec for codec in CODECS if not reads_by_bytes(codec)]),
        st.lists(st.text(max_size=6) | st.text("山ソ表ポ功育集楫¥ﾔé\x1c\x0b", max_size=6), min_size=6, max_size=6),
        st.text(max_size=20) | st.text("|^~\\&\r\n\x0b\x1c山ソ表ポ功育¥"),
        st.sampled_from(["", "207"]),
    )
    def test_an_answer_quoting_any_text_reads_in_the_senders_codec(
        self, codec: str, values: list[str], text: str, error: str
    ) -> None:
        # given a message that a sender of this set can write
        no_field = dict.fromkeys(map(ord, "|^~\\&\r\n\x1b"))
        names = [read(write(value.translate(no_field), codec), codec) for value in values]
        sent = "|".join(("MSH", "^~\\&", *names[:4], "2026", "", "ADT^A01", names[4], names[5], "2.4")) + "\r"
        body = write_exactly(sent, codec)
        if b"\x0bMSH" in body:
            return

        built = build_ack(Header.of_text(sent, codec), "AE", text=text, control_id=b"A1", when="2026", error=error)

        assert Framer().feed(wrap(built)) == [built]
        msh, msa, *rest = (line.split("|") for line in read(built, codec).split("\r"))
        assert msh[2:6] == [names[2], names[3], names[0], names[1]]
        assert msh[8:12] == ["ACK^A01^ACK", "A1", names[5] or "P", "2.4"]
        assert msa[:3] == ["MSA", "AE", names[4]]
        assert len(msa) == 4
        assert len(rest) == (2 if error else 1)
        assert not {"^", "~", "&"} & set(msa[3])


class TestReadAck:
    @pytest.mark.parametrize("text", RECORDED["acknowledgements"])
    def test_recorded_acknowledgements(self, text: str) -> None:
        msa = text.split("\r")[1].split("|")
        expected = Acknowledgement(msa[1], msa[2].encode(), msa[3].encode())
        assert read_ack(text.encode()) == expected
        assert read_ack(text.replace("\r", "\n").encode()) == expected
        assert read_ack(text.replace("\r", "\r\n").encode() + b"\r\n") == expected

    @pytest.mark.parametrize("code", ["AA", "AE", "AR", "CA", "CE", "CR"])
    def test_each_code_of_table_0008(self, code: str) -> None:
        message = b"MSH|^~\\&|A\rMSA|" + code.encode()
        assert read_ack(message) == Acknowledgement(code, b"", b"")

    @pytest.mark.parametrize(
        "message",
        [
            b"",
            b"MSH",
            b"MSH|",
            b"Bot execution logs: done",
            b"MSA|AA|1",
            b"MSH|^~\\&|A\rMSA",
            b"MSH|^~\\&|A\rMSA|",
            b"MSH|^~\\&|A\rMSA|OK|1",
            b"MSH|^~\\&|A\rMSA|aa|1",
            b"MSH|^~\\&|A\rPID|MSA|AA|1",
            b"MSHxMSAxAA",
            ADT,
        ],
    )
    def test_what_is_no_acknowledgement(self, message: bytes) -> None:
        assert read_ack(message) is None

    @given(st.binary(max_size=80) | st.binary(max_size=40).map(b"MSH|^~\\&|\rMSA|".__add__))
    def test_no_bytes_make_it_raise(self, message: bytes) -> None:
        read = read_ack(message)
        assert read is None or read.code.encode() in message


class TestNormalize:
    @pytest.mark.parametrize("case", RECORDED["line-endings"], ids=["LF", "CRLF", "trailing CR", "empty lines"])
    def test_it_equals_the_recorded_agent(self, case: dict[str, str]) -> None:
        assert normalize(case["received"].encode()) == case["forwarded"].encode()

    def test_what_is_well_formed_is_not_copied(self) -> None:
        assert normalize(ADT) is ADT

    @given(st.lists(st.sampled_from([b"\r", b"\n", b"a", b"\x85", b"\x0b", b"\r\n"])).map(b"".join))
    def test_every_run_of_line_ends_is_one_carriage_return(self, message: bytes) -> None:
        assert normalize(message) == re.sub(rb"[\r\n]+", b"\r", message)


class TestSequenceNumber:
    @pytest.mark.parametrize("number", range(4))
    def test_it_equals_the_recorded_agent(self, number: int) -> None:
        case = RECORDED["sequence-numbers"][number]
        assert with_sequence_number(case["received"].encode(), number) == case["forwarded"].encode()

    def test_everything_else_is_untouched(self) -> None:
        assert with_sequence_number(ADT, 43) == ADT.replace(b"|42|", b"|43|")

    def test_a_short_header_is_padded(self) -> None:
        numbered = with_sequence_number(b"MSH$*|A\nPID$1\n", 5)
        assert numbered == b"MSH$*|A$$$$$$$$$$$5\nPID$1\n"
        assert Header.of(numbered).sequence_number == b"5"

    def test_no_number_for_what_is_no_hl7(self) -> None:
        with pytest.raises(NotHl7):
            with_sequence_number(b"hello", 1)


def read_slowly(message: bytes, segment: bytes, field: int, component: int = 0, subcomponent: int = 0) -> bytes:
    """A field path by parsing everything: segments, fields, repetitions, components, subcomponents."""
    segments = [line.split(message[3:4]) for line in re.split(rb"[\r\n]+", message)]
    msh2 = segments[0][1]
    first = next((fields for fields in segments if fields[0] == segment and len(fields) > 1), [])
    if segment == b"MSH":
        first = [b"MSH", message[3:4], *first[1:]]
    value = first[field] if field < len(first) else b""
    if segment == b"MSH" and field < 3:
        return value
    value = value.split(msh2[1:2])[0] if msh2[1:2] else value
    for number, delimiter in ((component, msh2[:1]), (subcomponent, msh2[3:4])):
        if number:
            pieces = value.split(delimiter) if delimiter else [value]
            value = pieces[number - 1] if number <= len(pieces) else b""
    return value


class TestFieldPath:
    @pytest.mark.parametrize(
        ("spec", "value"),
        [
            ("PID-3", b"4711^5&6^M11"),
            ("PID-3.1", b"4711"),
            ("PID-3.2", b"5&6"),
            ("PID-3.2.2", b"6"),
            ("PID-3.1.1", b"4711"),
            ("PID-3.1.2", b""),
            ("PID-3.9", b""),
            ("PID-99", b""),
            ("PID-5.2", b"ADAM"),
            ("PV1-3.2", b"2012"),
            ("OBX-5", b"first"),
            ("ZZZ-1", b""),
            ("MSH-1", b"|"),
            ("MSH-2", b"^~\\&"),
            ("MSH-3", b"ADT1"),
            ("MSH-5.1.2", b"X"),
            ("MSH-9.2", b"A01"),
            ("MSH-18", b"8859/1"),
            ("MSH-40", b""),
        ],
    )
    def test_places(self, spec: str, value: bytes) -> None:
        path = FieldPath.parse(spec)
        assert path.read(ADT) == value
        assert path.read(ADT.replace(b"\r", b"\n")) == value
        assert path.read(ADT.replace(b"\r", b"\r\n")) == value

    @pytest.mark.parametrize(
        "spec",
        [
            *("", "PID", "PID-", "PID-0", "PID-3.0", "PID-3.1.0", "PID-3.1.1.1", "PID-3.", "pid-3", "PI-3", "PIDX-3"),
            *("PID 3", "PID-1000", "PID-٣", " PID-3", "PID-3\n", "MSH-1.1", "MSH-2.2"),
        ],
    )
    def test_a_malformed_path_is_refused_with_a_sentence(self, spec: str) -> None:
        with pytest.raises(ValueError, match=r"no field path: write|no parts, as") as caught:
            FieldPath.parse(spec)
        assert repr(spec) in str(caught.value)

    def test_messages_without_delimiters_have_no_fields(self) -> None:
        assert FieldPath.parse("PID-3").read(b"") == b""
        assert FieldPath.parse("MSH-1").read(b"MSHello") == b""
        assert FieldPath.parse("PID-3").read(b"PID|1||4711") == b""

    @given(
        st.lists(st.sampled_from(["PID", "PV1", "\r", "\n", "|", "^", "~", "&", "a", "|x^y&z~w"])).map("".join),
        st.sampled_from([b"MSH", b"PID", b"PV1", b"ZZ1"]),
        st.integers(1, 6),
        st.integers(0, 3),
        st.integers(0, 3),
        st.sampled_from([b"^~\\&", b"^~\\", b"^~", b"^", b""]),
    )
    def test_any_message_reads_as_a_whole_parse_would(
        self, rest: str, segment: bytes, field: int, component: int, subcomponent: int, msh2: bytes
    ) -> None:
        message = b"MSH|" + msh2 + b"|" + rest.encode()
        if segment == b"MSH" and field < 3:
            component = 0
        if not component:
            subcomponent = 0
        path = FieldPath(segment, field, component, subcomponent)
        assert path.read(message) == read_slowly(message, segment, field, component, subcomponent)

    @given(st.binary(max_size=60).map(b"MSH".__add__), st.sampled_from(["MSH-1", "MSH-2", "MSH-9.2", "PID-3.1.1"]))
    def test_no_bytes_make_it_raise(self, message: bytes, spec: str) -> None:
        assert FieldPath.parse(spec).read(message) in message


class TestKeySpec:
    def test_one_place_is_its_value(self) -> None:
        assert KeySpec.parse("PID-3.1").read(ADT) == b"4711"

    def test_several_places_are_joined(self) -> None:
        assert KeySpec.parse("MSH-4, MSH-9.2").read(ADT) == b"WARD 3\x1fA01"

    def test_a_message_without_the_places_has_the_empty_key(self) -> None:
        assert KeySpec.parse("PID-3.1").read(b"MSH|^~\\&|A\r") == b""
        assert KeySpec.parse("ZPI-1,ZPI-2").read(ADT) == b""

    def test_equal_specs_are_equal_and_can_be_keys(self) -> None:
        assert len({KeySpec.parse("MSH-4,MSH-9.2"), KeySpec.parse("MSH-4,MSH-9.2"), KeySpec.parse("MSH-4")}) == 2
        assert KeySpec.parse("MSH-4,MSH-9.2").text == "MSH-4,MSH-9.2"

    @pytest.mark.parametrize("spec", ["", ",", "PID-3.1,", "PID-3.1,,MSH-4", "PID-3.1;MSH-4", "PID-3.1,nonsense"])
    def test_a_malformed_spec_is_refused_whole(self, spec: str) -> None:
        with pytest.raises(ValueError, match="no field path"):
            KeySpec.parse(spec)

    @example(("\x1f", ""), ("\x1e1", ""))
    @given(*[st.tuples(*[st.text("a\x1e\x1f01", max_size=4)] * 2)] * 2)
    def test_different_values_never_share_a_key(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        spec = KeySpec.parse("ZID-1,ZID-2")
        keys = {spec.read(f"MSH|^~\\&|\rZID|{first}|{second}\r".encode()) for first, second in (one, other)}
        assert len(keys) == (1 if one == other else 2)


class TestLinkOrMerge:
    def test_exactly_the_triggers_that_tie_identities(self) -> None:
        named = {f"A{n:02}" for n in (18, 24, 30, 34, 35, 36, 37, *range(39, 48), 49, 50, 51)}
        every = [f"A{n:02}" for n in range(1, 63)]
        found = {trigger for trigger in every if is_link_or_merge(Header.of(message_in("|^~\\&", trigger=trigger)))}
        assert found == named

    def test_only_in_adt_and_in_any_delimiters(self) -> None:
        assert not is_link_or_merge(Header.of(message_in("|^~\\&", code="ORU", trigger="A40")))
        assert not is_link_or_merge(Header.of(b"MSH|^~\\&|A"))
        assert is_link_or_merge(Header.of(message_in("!$%*@", trigger="A40")))
