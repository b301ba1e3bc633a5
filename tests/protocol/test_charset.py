"""Character sets: a name gives the codec that reads it, or a sentence; nobody guesses."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import PeerError
from agent.protocol.charset import UnknownCharset, codec_for, codec_of
from agent.protocol.hl7 import Header, build_ack


def header(charset: str = "", encoding_characters: str = "^~\\&") -> Header:
    return Header.of(f"MSH|{encoding_characters}|A|B|C|D|2026||ADT^A01|1|P|2.5||||||{charset}\r".encode())


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
            ("ISO IR6", "ascii"),
            ("ISO IR14", "shift_jis"),
            ("ISO IR87", "iso2022_jp_2"),
            ("ISO IR159", "iso2022_jp_2"),
            ("GB 18030-2000", "gb18030"),
            ("KS X 1001", "euc_kr"),
            ("BIG-5", "big5"),
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

    @pytest.mark.parametrize("label", ["8859/5", "cp1252", "koi8-r", "big5", "gbk", "euc-kr", "sjis", "ISO IR87"])
    def test_every_codec_leaves_ascii_alone(self, label: str) -> None:
        printable = bytes(range(0x20, 0x7F))
        assert printable.decode(codec_for(label)).encode() == printable

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
