"""Character sets: a name gives the codec that reads it, or a sentence; nobody guesses."""

from __future__ import annotations

import codecs
from functools import cache

import pytest
from character_sets import CODECS, DELIMITERS
from hypothesis import example, given
from hypothesis import strategies as st

from agent.errors import PeerError
from agent.protocol.charset import (
    UnknownCharset,
    codec_for,
    codec_of,
    first_flaw,
    name_of,
    read,
    reads_by_bytes,
    write,
    write_exactly,
)
from agent.protocol.hl7 import Header, build_ack

# HL7 v2.8.2 table 0211, every row, then the two rows of other versions. A sentence: refused, and why.
TABLE_0211 = {
    "ASCII": "ascii",
    "8859/1": "iso8859-1",
    "8859/2": "iso8859-2",
    "8859/3": "iso8859-3",
    "8859/4": "iso8859-4",
    "8859/5": "iso8859-5",
    "8859/6": "iso8859-6",
    "8859/7": "iso8859-7",
    "8859/8": "iso8859-8",
    "8859/9": "iso8859-9",
    "8859/15": "iso8859-15",
    "ISO IR6": "ascii",
    "ISO IR14": "shift_jis",
    "ISO IR87": "iso2022_jp_ext",
    "ISO IR159": "iso2022_jp_ext",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "CNS 11643-1992": "numbers characters in planes that no codec here can read",
    "BIG-5": "big5",
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UNICODE UTF-16": "cannot travel in MLLP",
    "UNICODE UTF-32": "cannot travel in MLLP",
    "JAS2020": "iso2022_jp_ext",
    "JIS X 0202": "iso2022_jp_ext",
}


def header(charset: str = "", encoding_characters: str = "^~\\&") -> Header:
    return Header.of(f"MSH|{encoding_characters}|A|B|C|D|2026||ADT^A01|1|P|2.5||||||{charset}\r".encode())


@cache
def characters(codec: str) -> list[tuple[str, bytes]]:
    """Every character that a codec writes and reads, with its bytes."""
    found = []
    for number in (*range(0x80, 0xD800), *range(0xE000, 0x10000), *range(0x20000, 0x2A700)):
        try:
            written = chr(number).encode(codec)
            if written.decode(codec) == chr(number):
                found.append((chr(number), written))
        except UnicodeError:
            continue
    return found


class TestTable0211:
    @pytest.mark.parametrize(("code", "expected"), TABLE_0211.items())
    def test_every_row_has_a_codec_or_is_refused_by_name(self, code: str, expected: str) -> None:
        if expected in CODECS:
            assert codec_for(code) == expected
            return
        with pytest.raises(UnknownCharset, match=expected) as caught:
            codec_for(code)
        assert repr(code) in str(caught.value)
        assert "UNICODE UTF-8" in caught.value.hint
        assert repr(code) not in caught.value.loggable

    def test_a_sender_whose_bytes_are_big5_all_the_same_is_told_what_to_set(self) -> None:
        with pytest.raises(UnknownCharset) as caught:
            codec_for("CNS 11643-1992")
        assert "encoding=big5" in caught.value.hint
        assert codec_of(header("CNS 11643-1992"), "big5") == "big5"

    @pytest.mark.parametrize(
        ("code", "written"),
        [
            ("ISO IR87", b"\x1b$B;3ED\x1b(B"),  # DICOM PS3.5 annex H.3.1
            ("ISO IR87", b"\x1b$@;3ED\x1b(B"),  # the same in the set of 1978
            ("ISO IR14", b"\x8e\x52\x93\x63"),
            ("GB 18030-2000", b"\xc9\xbd\xcc\xef"),
            ("BIG-5", b"\xa4s\xa5\xd0"),
        ],
    )
    def test_the_same_name_in_each_asian_set(self, code: str, written: bytes) -> None:
        assert read(written, codec_for(code)) == "山田"

    def test_the_supplementary_kanji_and_the_katakana_of_half_width(self) -> None:
        assert read(b"\x1b$(D0!\x1b(B", codec_for("ISO IR159")) == "丂"
        assert read(b"\x1b(I\x54\x4f\x40\x5e\x1b(B", codec_for("ISO IR87")) == "ﾔﾏﾀﾞ"
        assert read(b"\xd4\xcf\xc0\xde", codec_for("ISO IR14")) == "ﾔﾏﾀﾞ"


class TestCodecFor:
    @pytest.mark.parametrize(
        ("label", "codec"),
        [
            ("utf-8", "utf-8"),
            ("UTF8", "utf-8"),
            ("UNICODE UTF-8", "utf-8"),
            ("UNICODE", "utf-8"),
            ("iso-8859-1", "iso8859-1"),
            ("ISO_8859-1", "iso8859-1"),
            ("8859/1", "iso8859-1"),
            ("8859/15", "iso8859-15"),
            ("latin1", "iso8859-1"),
            ("ISO_IR 100", "iso8859-1"),
            ("windows-1252", "cp1252"),
            ("CP1251", "cp1251"),
            ("ASCII", "ascii"),
            ("us-ascii", "ascii"),
            ("ISO_IR 192", "utf-8"),
            ("ISO_IR 13", "shift_jis"),
            ("ISO_IR 203", "iso8859-15"),
            ("ISO 2022 IR 87", "iso2022_jp_ext"),
            ("GB18030", "gb18030"),
            ("GBK", "gbk"),
            ("ISO-2022-JP", "iso2022_jp"),
            ("IBM850", "cp850"),
            (" utf-8 ", "utf-8"),
        ],
    )
    def test_the_names_people_use(self, label: str, codec: str) -> None:
        assert codec_for(label) == codec

    @pytest.mark.parametrize("part", [1, 2, 3, 4, 5, 6, 7, 8, 9, 15])
    def test_each_part_of_iso_8859_by_both_names(self, part: int) -> None:
        assert codec_for(f"8859/{part}") == codec_for(f"ISO-8859-{part}") == f"iso8859-{part}"

    @pytest.mark.parametrize("label", ["klingon", "", "8859/99", "hex", "rot13", "zlib", "cp037", "CNS 11643-1992"])
    def test_a_name_that_is_no_character_set_is_refused_with_a_remedy(self, label: str) -> None:
        with pytest.raises(UnknownCharset) as caught:
            codec_for(label)
        assert isinstance(caught.value, PeerError)
        assert repr(label) in str(caught.value)
        assert "UNICODE UTF-8" in caught.value.hint

    @pytest.mark.parametrize("label", ["UNICODE UTF-16", "utf-16le", "UTF-32", "UNICODE UTF-32"])
    def test_a_wide_character_set_is_refused_because_of_the_framing(self, label: str) -> None:
        with pytest.raises(UnknownCharset, match="cannot travel in MLLP") as caught:
            codec_for(label)
        assert "UTF-8" in caught.value.hint

    def test_a_name_of_absurd_length_is_no_name(self) -> None:
        with pytest.raises(UnknownCharset):
            codec_for("utf" + "-" * 1000 + "8")

    def test_the_error_stays_short_and_printable(self) -> None:
        with pytest.raises(UnknownCharset) as caught:
            codec_for("\x1b[31m\n" + "é" * 500)
        assert str(caught.value).isascii()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize("codec", CODECS)
    def test_every_codec_leaves_ascii_alone(self, codec: str) -> None:
        printable = bytes(range(0x20, 0x7F))
        assert read(printable, codec).encode() == printable

    @pytest.mark.parametrize("codec", CODECS)
    def test_a_codec_has_a_name_for_people_that_leads_back_to_it(self, codec: str) -> None:
        assert codec_for(codec) == codec_for(name_of(codec)) == codec

    def test_people_say_it_differently(self) -> None:
        assert [name_of(codec) for codec in ("utf-8", "cp1252", "iso8859-15", "shift_jis", "iso2022_jp_ext")] == [
            "UTF-8",
            "windows-1252",
            "ISO-8859-15",
            "SHIFT-JIS",
            "ISO-2022-JP-EXT",
        ]

    @given(st.text(max_size=12))
    def test_any_name_is_a_codec_or_unknown(self, label: str) -> None:
        try:
            codec = codec_for(label)
        except UnknownCharset:
            return
        assert codecs.lookup(codec).name == codec


class TestCodecOf:
    def test_without_any_word_it_is_utf_8(self) -> None:
        assert codec_of(header(), None) == "utf-8"
        assert codec_of(Header.of(b"MSH|^~\\&|A"), None) == "utf-8"

    @pytest.mark.parametrize("channel", [None, "", "auto", "AUTO"])
    def test_the_message_decides_when_the_channel_does_not(self, channel: str | None) -> None:
        assert codec_of(header("8859/15"), channel) == "iso8859-15"

    def test_the_channel_wins(self) -> None:
        assert codec_of(header("8859/15"), "windows-1252") == "cp1252"
        assert codec_of(header("klingon"), "windows-1252") == "cp1252"

    def test_the_first_repetition_is_the_messages_own_set(self) -> None:
        assert codec_of(header("8859/1~UNICODE UTF-8"), None) == "iso8859-1"
        assert codec_of(header("8859/1*ASCII", "^*\\&"), None) == "iso8859-1"

    @pytest.mark.parametrize("charset", ["~ISO IR87", "ASCII~ISO IR87", "~ISO IR87~ISO IR159", "ISO IR14~ISO IR87"])
    def test_sets_reached_by_escapes_decide_for_the_whole(self, charset: str) -> None:
        # A Japanese sender: ASCII first, kanji behind ESC $ B. As ASCII that would decode, to nonsense.
        assert "山田^太郎".encode("iso2022_jp").decode(codec_of(header(charset), None)) == "山田^太郎"

    @pytest.mark.parametrize("charset", ["~", " ", "~~"])
    def test_a_field_of_nothing_is_no_word(self, charset: str) -> None:
        assert codec_of(header(charset), None) == "utf-8"

    @pytest.mark.parametrize("charset", ["klingon", "~klingon", "ASCII~klingon", "UNICODE UTF-16", "日本"])
    def test_an_unknown_declaration_is_refused(self, charset: str) -> None:
        with pytest.raises(UnknownCharset):
            codec_of(header(charset), None)

    @pytest.mark.parametrize(
        ("codec", "code"),
        [
            *(("shift_jis", "ISO IR14"), ("cp932", "CP932"), ("big5", "BIG-5"), ("gb18030", "GB 18030-2000")),
            *(("iso2022_jp_ext", "~ISO IR87"), ("iso2022_jp_ext", "ISO IR14~ISO IR87~ISO IR159")),
        ],
    )
    @pytest.mark.parametrize("rest", ["", "|JPN", "|TWN|X"])
    def test_a_declaration_is_found_where_characters_hold_separators(self, codec: str, code: str, rest: str) -> None:
        sender = next(char for char, written in characters(codec) if b"|" in written)
        message = f"MSH|^~\\&|{sender}|B|C|D|2026||ADT^A01|1|P|2.5||||||{code}{rest}\r".encode(codec)
        assert Header.of(message).charset != code.encode(), "by bytes, MSH-18 stands further right"

        assert codec_of(Header.of(message), None) == codec

    @given(st.text("|BIG-5 8859/1~éソ表", max_size=80))
    def test_what_only_looks_like_a_declaration_is_none(self, rest: str) -> None:
        # MSH-18 is there and is read by bytes: nothing behind it can overrule it.
        message = f"MSH|^~\\&|A|B|C|D|2026||ADT^A01|1|P|2.5||||||8859/1|{rest}\r".encode()
        assert codec_of(Header.of(message), None) == "iso8859-1"

    def test_a_field_behind_an_empty_one_is_not_taken_for_it(self) -> None:
        assert codec_of(Header.of(b"MSH|^~\\&|A|B|C|D|2026||ADT^A01|1|P|2.5|||||||BIG-5\r"), None) == "utf-8"

    def test_a_declaration_is_searched_so_far_and_no_further(self) -> None:
        def pushed(fields: int) -> Header:
            message = f"MSH|^~\\&|{'ポ' * fields}|B|C|D|2026||ADT^A01|1|P|2.5||||||ISO IR14\r"
            return Header.of(message.encode("shift_jis"))

        assert codec_of(pushed(64), None) == "shift_jis"
        with pytest.raises(UnknownCharset):
            codec_of(pushed(65), None)

    def test_a_transcoded_header_knows_its_codec(self) -> None:
        transcoded = Header.of_text("MSH|^~\\&|ソ|||||||1|P|2.5||||||8859/1\r", "shift_jis")
        assert codec_of(transcoded, None) == codec_of(transcoded, "utf-8") == "shift_jis"

    def test_ascii_means_ascii(self) -> None:
        with pytest.raises(UnicodeDecodeError):
            "Müller".encode("cp1252").decode(codec_of(header("ASCII"), None))

    @pytest.mark.parametrize("charset", ["8859/1", "UNICODE UTF-8", "", "windows-1252"])
    def test_an_acknowledgement_is_readable_in_the_senders_own_set(self, charset: str) -> None:
        message = header(charset)
        codec = codec_of(message, None)
        built = build_ack(message, "AE", text="für später", control_id=b"1", when="2026", encoding=codec)
        assert built.decode(codec).endswith("|für später\r")
        assert Header.of(built).charset == message.charset


class TestReadsByBytes:
    @pytest.mark.parametrize("codec", CODECS)
    def test_it_is_so_exactly_where_no_character_holds_a_delimiter(self, codec: str) -> None:
        assert reads_by_bytes(codec) == all(DELIMITERS.isdisjoint(written) for _, written in characters(codec))

    @pytest.mark.parametrize("codec", CODECS)
    def test_no_character_holds_a_line_end_or_framing(self, codec: str) -> None:
        # so that MLLP, `normalize` and the first segment can be read by bytes whatever the set is
        assert all({0x0A, 0x0B, 0x0D, 0x1C}.isdisjoint(written) for _, written in characters(codec))


class TestReadAndWrite:
    def test_each_segment_begins_in_ascii_whatever_state_the_last_one_left(self) -> None:
        assert read(b"PID|\x1b$B;3ED\rPV1|1\r", "iso2022_jp_ext") == "PID|山田\rPV1|1\r"

    @pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
    @pytest.mark.parametrize(
        "good", [b"", b"PID|1", b"\x1b$B;3", b"\x1b$B;3\x1b(B", b"\x1b$B;3\x1b(J|", b"x\x1b(B\x1b(B"]
    )
    @pytest.mark.parametrize("flaw", [b"\x1b", b"\x1b$", b"\x1b$)C", b"\xb1", b"\x1b$B;"])
    def test_a_flaw_is_found_where_it_stands(self, good: bytes, flaw: bytes, end: bytes) -> None:
        segments = [*[good] * 3, b"OBX|" + flaw, good]
        expected = len(end.join(segments[:3]) + end) + len(b"OBX|") + (3 if flaw == b"\x1b$B;" else 0)
        assert first_flaw(end.join(segments), "iso2022_jp_ext") == expected

    @given(st.sampled_from(CODECS), st.binary(max_size=30))
    def test_what_stands_before_a_flaw_is_readable(self, codec: str, content: bytes) -> None:
        flaw = first_flaw(content, codec)
        read(content[:flaw], codec)
        if flaw < len(content):
            with pytest.raises(UnicodeDecodeError):
                read(content, codec)

    @pytest.mark.parametrize("lone", [b"\x1b", b"\x1b\x1b$B", b"\x1bx\x1b$B", b"\x1b\r"])
    def test_an_escape_that_leads_nowhere_does_not_hide_the_next_one(self, lone: bytes) -> None:
        content = b"\x1b$B;3\x1b(Ba" + lone + b";3"
        assert first_flaw(content, "iso2022_jp_ext") == 9
        with pytest.raises(UnicodeDecodeError):
            read(content, "iso2022_jp_ext")
        assert read(content, "iso2022_jp_ext", "replace").startswith("山a\ufffd")

    def test_half_a_character_at_the_end_of_a_segment_is_refused(self) -> None:
        with pytest.raises(UnicodeDecodeError):
            read(b"PID|\x1b$B;3E\rPV1|1\r", "iso2022_jp_ext")

    def test_delimiters_behind_a_return_to_jis_roman_stay_delimiters(self) -> None:
        # DICOM PS3.5 annex H.3.2 returns so. There, 0x5C and 0x7E would be a yen sign and an overline.
        written = b"\x1b$B;3ED\x1b(J~\x1b$BB@O:\x1b(J\\T\\x"
        assert read(written, "iso2022_jp_ext") == "山田~太郎\\T\\x"

    @pytest.mark.parametrize("codec", ["shift_jis", "euc_jp", "iso2022_jp", "iso2022_jp_ext"])
    def test_a_yen_sign_does_not_become_an_escape_character(self, codec: str) -> None:
        assert read(write("¥100 ‾ 山", codec), codec) == "?100 ? 山"
        with pytest.raises(UnicodeEncodeError):
            write_exactly("¥100", codec)

    def test_what_the_set_does_not_have_is_a_question_mark_and_nothing_else_changes(self) -> None:
        assert write("für 山田", "iso8859-1") == "für ??".encode("iso8859-1")
        assert write("\ud800a", "utf-8") == b"?a"
        assert write("山\x1b(B田", "iso2022_jp_ext").decode("iso2022_jp_ext") == "山?(B田"
        with pytest.raises(UnicodeEncodeError):
            write_exactly("für 山田", "iso8859-1")

    @example(codec="big5hkscs", text="Ê̄")  # two characters, one code
    @example(codec="euc_kr", text="ㅤㄱㅏㄱ")
    @given(codec=st.sampled_from(CODECS), text=st.text(max_size=20) | st.text("山ソ表¥‾é~\\|\r\n\x1b(BJ$ㅤ", max_size=20))
    def test_what_is_written_is_read_again(self, codec: str, text: str) -> None:
        written = read(write(text, codec), codec)
        assert len(written) == len(text)
        assert all(char in (was, "?") for char, was in zip(written, text, strict=True))
        try:
            assert read(write_exactly(text, codec), codec) == text
        except UnicodeEncodeError:
            assert written != text

    @pytest.mark.parametrize("codec", CODECS)
    def test_every_character_that_is_read_can_be_written_back(self, codec: str) -> None:
        # An echoed field must not lose a character: what `read` gives, `write` keeps.
        text = "".join(readable(codec))
        assert read(write(text, codec), codec) == text


def readable(codec: str) -> set[str]:
    """What one byte, two bytes, or the two behind each escape sequence of the codec read as."""
    pairs = [bytes((one, other)) for one in range(0x21, 0x100) for other in range(0x21, 0x100)]
    spellings = [bytes((one,)) for one in range(0x80, 0x100)] + [pair for pair in pairs if pair[0] >= 0x80]
    if codec.startswith("iso2022"):
        shifts = (b"\x1b$@", b"\x1b$B", b"\x1b$(D", b"\x1b$A", b"\x1b$(C", b"\x1b(I", b"\x1b(J")
        spellings = [shift + pair for shift in shifts for pair in pairs if max(pair) < 0x7F]
    found = set()
    for spelling in spellings:
        try:
            found.add(read(spelling, codec))
        except UnicodeDecodeError:
            continue
    return found
