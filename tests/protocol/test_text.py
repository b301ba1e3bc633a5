"""A message becomes text whole, in the set that it declares, or is refused with the place and the remedy."""

from __future__ import annotations

import re

import pytest
from character_sets import CODECS
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import PeerError
from agent.protocol.charset import UnknownCharset, read, write, write_exactly
from agent.protocol.hl7 import Header
from agent.protocol.text import InvalidBytes, Text, decode, legible, without_mark

MSH = b"MSH|^~\\&|A|B|C|D|2026||ADT^A01|1|P|2.5||||||"
MARK = b"\xef\xbb\xbf"


def message(charset: str, content: bytes, *, end: bytes = b"\r") -> bytes:
    return MSH + charset.encode() + end + content


def decoded(body: bytes, encoding: str | None = None, fallback: str | None = None, *, marked: bool = False) -> Text:
    return decode(body, Header.of(body), encoding, fallback, marked=marked)


def refused(
    body: bytes, encoding: str | None = None, fallback: str | None = None, *, marked: bool = False
) -> InvalidBytes:
    with pytest.raises(InvalidBytes) as caught:
        decoded(body, encoding, fallback, marked=marked)
    return caught.value


class TestWithoutMark:
    @pytest.mark.parametrize("beginning", [b"MSH|^~\\&|", b"FHS|^~\\&|", b"BHS|^~\\&|"])
    def test_a_byte_order_mark_before_a_header_is_dropped(self, beginning: bytes) -> None:
        assert without_mark(MARK + beginning) == beginning

    @pytest.mark.parametrize(
        "body", [b"", MSH, MARK, MARK + b"hello", MARK + MARK + MSH, b"M" + MARK, MARK + b"\rMSH|"]
    )
    def test_everything_else_is_the_same_object(self, body: bytes) -> None:
        assert without_mark(body) is body


class TestDecode:
    def test_without_a_declaration_it_is_utf_8(self) -> None:
        assert decoded(message("", "PID|1||é\r".encode())) == Text(
            MSH.decode() + "\rPID|1||é\r", codec="utf-8", fell_back=False
        )

    def test_msh_18_decides_and_the_channel_wins_over_it(self) -> None:
        body = message("8859/15", b"PID|1||\xa4\r")
        assert decoded(body).text.endswith("|€\r")
        assert decoded(body, "8859/1") == Text(body.decode("latin-1"), codec="iso8859-1", fell_back=False)

    @pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b"\r\r\n"])
    def test_lines_end_in_one_carriage_return(self, end: bytes) -> None:
        body = message("", end.join((b"PID|1", b"PV1|1", b"")), end=end)
        assert decoded(body).text == MSH.decode() + "\rPID|1\rPV1|1\r"

    @pytest.mark.parametrize(
        "content",
        [
            *(
                "\\F\\ \\S\\ \\T\\ \\R\\ \\E\\ \\X0D\\ \\H\\x\\N\\ \\.br\\ \\Zx\\",
                "\\C2842\\ \\M242842\\",
                "\\unknown\\",
            ),
            *("a\x00b", "a\x1bb\x1b$B", "a\x1cb\x1c", "a\x0bb", "\x7f\t\x08"),
        ],
    )
    @pytest.mark.parametrize("charset", ["UNICODE UTF-8", "8859/1", "ASCII", "ISO IR14", "GB 18030-2000"])
    def test_escape_sequences_and_controls_stay_as_they_are(self, charset: str, content: str) -> None:
        assert decoded(message(charset, content.encode())).text == f"{MSH.decode()}{charset}\r{content}"

    def test_hl7_escapes_stay_beside_iso_2022_escapes(self) -> None:
        body = message("~ISO IR87", b"PID|1||\x1b$B;3ED\x1b(B\\T\\\\C2842\\^x\r")
        assert decoded(body) == Text(
            f"{MSH.decode()}~ISO IR87\rPID|1||山田\\T\\\\C2842\\^x\r", codec="iso2022_jp_ext", fell_back=False
        )

    def test_an_unknown_declaration_is_refused_and_no_fallback_helps(self) -> None:
        with pytest.raises(UnknownCharset):
            decoded(message("klingon", b"PID|1\r"), fallback="cp1252")


class TestInvalidBytes:
    def test_it_says_where_and_what_to_do(self) -> None:
        error = refused(message("UNICODE UTF-8", b"PID|1||4711||M\xfcller\r"))
        assert isinstance(error, PeerError)
        assert str(error) == "byte 73 (0xfc, in PID-5) is not valid UTF-8"
        assert (error.position, error.charset, error.place) == (73, "UTF-8", "PID-5")
        assert "MSH-18" in error.hint
        assert "invalidBytes=fallback:" in error.hint

    def test_the_log_learns_the_place_but_not_the_byte(self) -> None:
        error = refused(message("UNICODE UTF-8", b"PID|1||4711||M\xfcller\r"))
        assert error.loggable == "byte 73 (in PID-5) is not valid UTF-8"

    @pytest.mark.parametrize(
        ("content", "place"),
        [
            (b"PID|1||4711^\xff", "PID-3"),
            (b"PID|\xff", "PID-1"),
            (b"PID|1\rOBX|1\rOBX|2|TX|||\xff|||", "OBX-5"),
            (b"PID|1\nZ1B||\xff\n", "Z1B-2"),
            (b"PID|1\r\nNTE|\xff\r\n", "NTE-1"),
            (b"\xff", ""),
            (b"PI\xff|1", ""),
            (b"PID\xff|1", ""),
            (b"PID^1|\xff", ""),
            (b"pid|\xff", ""),
            (b"continued text|\xff", ""),
        ],
    )
    def test_the_field_is_named_where_it_can_be_told(self, content: bytes, place: str) -> None:
        error = refused(message("", content))
        assert error.place == place
        assert f"(0xff, in {place})" in str(error) if place else "(0xff)" in str(error)

    @pytest.mark.parametrize(("before", "place"), [(b"MSH|^~\\&|", "MSH-3"), (b"MSH|^~\\&||||", "MSH-6")])
    def test_the_fields_of_msh_are_counted_from_its_separator(self, before: bytes, place: str) -> None:
        assert refused(before + b"\xff|X\r").place == place

    def test_the_senders_own_separator_counts(self) -> None:
        assert refused(b"MSH$^~\\&$A\rPID$1$|$\xff\r").place == "PID-3"

    def test_fields_are_counted_by_character_where_bytes_deceive(self) -> None:
        body = b"MSH|^~\\&|A\rPID|1||" + "ポポ|".encode("shift_jis") + b"\xff\r"
        assert refused(body, "shift_jis").place == "PID-4"

    @pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r\r\n\n"])
    def test_the_position_is_that_of_the_byte_as_it_was_sent(self, end: bytes) -> None:
        body = message("", b"PID|1" + end + b"PV1|\xff" + end, end=end)
        assert body[refused(body).position - 1] == 0xFF

    def test_a_byte_order_mark_before_the_message_counts(self) -> None:
        frame = MARK + message("", b"PID|\xff\r")
        assert frame[refused(without_mark(frame), marked=True).position - 1] == 0xFF

    def test_a_flaw_behind_an_iso_2022_escape_is_found(self) -> None:
        body = message("~ISO IR87", b"PID|1\rPV1|\x1b$B;3ED\x1b(B\r\nOBX|1|\x1b$B;3\x7f\x7f\x1b(B\r")
        error = refused(body)
        assert (body[error.position - 1], error.place) == (0x7F, "OBX-2")

    @pytest.mark.parametrize(
        ("charset", "content"),
        [
            ("UNICODE UTF-8", b"\xed\xa0\x80"),  # a surrogate
            ("UNICODE UTF-8", b"\xc0\x80"),  # an overlong NUL
            ("UNICODE UTF-8", b"\xf4\x90\x80\x80"),  # above U+10FFFF
            ("UNICODE UTF-8", b"\xc3"),  # half a character
            ("ASCII", b"\x80"),
            ("windows-1252", b"\x81"),  # one of the five that are not assigned
            ("ISO IR14", b"\x81"),
            ("ISO IR14", b"\x87\x40"),  # an NEC circled digit, which only cp932 has
            ("ISO IR87", b"\x1b$)C"),  # a set that is not Japanese
            ("ISO IR87", b"\x1b"),
            ("ISO IR87", b"\xb1"),
            ("GB 18030-2000", b"\x81\x30\x81"),
            ("BIG-5", b"\xa1\x01"),
            ("KS X 1001", b"\xb0"),
        ],
    )
    def test_strict_means_strict(self, charset: str, content: bytes) -> None:
        body = message(charset, b"PID|1||" + content)
        assert refused(body).position == len(body) - len(content) + 1


class TestFallback:
    def test_what_the_declared_set_cannot_read_is_read_by_the_fallback_whole(self) -> None:
        body = message("UNICODE UTF-8", "PID|1||Müller^é\r".encode("cp1252"))
        assert decoded(body, fallback="cp1252") == Text(body.decode("cp1252"), codec="cp1252", fell_back=True)

    def test_what_the_declared_set_can_read_does_not_need_it(self) -> None:
        assert not decoded(message("UNICODE UTF-8", "PID|é".encode()), fallback="cp1252").fell_back

    def test_what_neither_can_read_is_refused_by_both_names(self) -> None:
        error = refused(message("UNICODE UTF-8", b"PID|\xe9|\x81\r"), fallback="cp1252")
        assert str(error) == "byte 63 (0xe9, in PID-1) is not valid UTF-8, and byte 65 is not valid windows-1252"
        assert error.loggable == "byte 63 (in PID-1) is not valid UTF-8, and byte 65 is not valid windows-1252"
        assert (error.position, error.charset) == (63, "UTF-8")
        assert "invalidBytes=fallback:" in error.hint

    def test_a_fallback_may_be_a_set_that_is_not_read_by_bytes(self) -> None:
        body = message("ISO IR14", "PID|1||①髙^ポ\r".encode("cp932"))
        assert decoded(body, fallback="cp932").text.endswith("|①髙^ポ\r")


class TestMarked:
    @pytest.mark.parametrize(("charset", "encoding"), [("", None), ("UNICODE UTF-8", None), ("8859/1", "utf-8")])
    def test_a_mark_agrees_with_utf_8(self, charset: str, encoding: str | None) -> None:
        assert decoded(message(charset, "PID|é\r".encode()), encoding, marked=True).text.endswith("PID|é\r")

    @pytest.mark.parametrize(("charset", "encoding"), [("8859/1", None), ("ASCII", None), ("", "windows-1252")])
    @pytest.mark.parametrize("fallback", [None, "cp1252"])
    def test_a_mark_and_another_set_contradict_each_other(
        self, charset: str, encoding: str | None, fallback: str | None
    ) -> None:
        error = refused(message(charset, b"PID|1\r"), encoding, fallback, marked=True)
        assert "byte order mark" in str(error)
        assert error.charset in str(error)
        assert error.position == 1
        assert "MSH-18" in error.hint
        assert "encoding" in error.hint


class TestEmptyLines:
    @pytest.mark.parametrize("content", [b"\x1b(B\r", b"\x1b$B\r\x1b(B\r", b"\x1b$B\n\r\n"])
    def test_a_line_of_an_iso_2022_escape_alone_is_none(self, content: bytes) -> None:
        body = message("~ISO IR87", content + b"PID|1\r")
        assert decoded(body).text == MSH.decode() + "~ISO IR87\rPID|1\r"


class TestLegible:
    def test_what_can_be_read_is_read_and_the_rest_is_marked(self) -> None:
        assert legible(b"PID|1\n\xff\xc3\xa9\r\n", "utf-8") == "PID|1\r\ufffdé\r"
        assert legible(b"PID|\x1b$B;3ED\rPV1|1", "iso2022_jp_ext") == "PID|山田\rPV1|1"


ESCAPED = {"|": "\\F\\", "^": "\\S\\", "~": "\\R\\", "\\": "\\E\\", "&": "\\T\\", "\r": "\\X0D\\", "\n": "\\X0A\\"}


PIECES = [
    b"\x1b$B",
    b"\x1b(J",
    b"\x1b(B",
    b"\r",
    b"\n",
    b"|",
    b"PID|",
    b"\xe9",
    b"\x83|",
    b"0!",
    b"\xa4\xd4",
    b"\x81\x30",
]


class TestEveryCharset:
    @given(
        st.sampled_from(CODECS),
        st.lists(st.text(max_size=15) | st.text("|^~\\&\r\n山ソ表ポ功é¥ﾔ", max_size=15), max_size=4),
    )
    def test_any_text_of_the_set_goes_through_and_back(self, codec: str, values: list[str]) -> None:
        # what the set does not have, no sender of that set can send
        values = [read(write(value, codec), codec) for value in values]
        fields = ["".join(ESCAPED.get(char, char) for char in value) for value in values]
        body = write_exactly("\r".join(("MSH|^~\\&|A", "|".join(("PID", *fields)), "PV1|1", "")), codec)

        text = decode(body, Header.of(body), codec, None)

        segments = [segment.split("|") for segment in text.text.split("\r")]
        assert segments == [["MSH", "^~\\&", "A"], ["PID", *fields], ["PV1", "1"], [""]]
        assert write_exactly(text.text, codec) == body

    @given(
        st.sampled_from(CODECS),
        st.sampled_from([None, "cp1252", "iso8859-1", "cp932", "iso2022_jp_ext"]),
        st.binary(max_size=40) | st.lists(st.sampled_from(PIECES)).map(b"".join),
    )
    def test_any_bytes_are_a_text_or_a_named_refusal(self, codec: str, fallback: str | None, content: bytes) -> None:
        body = MSH + b"\r" + content
        outcome: Text | InvalidBytes
        try:
            outcome = decode(body, Header.of(body), codec, fallback)
        except InvalidBytes as error:
            outcome = error

        if isinstance(outcome, InvalidBytes):
            for refuser in (codec, fallback or codec):
                with pytest.raises(UnicodeDecodeError):
                    read(body, refuser)
            good = body[: outcome.position - 1]
            assert read(good, codec).encode(), "the first flaw is where the good part ends"
            assert outcome.hint
        else:
            assert re.sub(r"[\r\n]+", "\r", read(body, outcome.codec)) == outcome.text
            assert outcome.codec == (fallback if outcome.fell_back else codec)

    @given(st.binary(max_size=60), st.sampled_from(CODECS))
    def test_any_bytes_are_legible(self, body: bytes, codec: str) -> None:
        assert "\n" not in legible(body, codec)
