"""A message taken apart: every value with its place and name, and masked for those who must not know the patient."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.lines import plain
from agent.cli.message_parts import Segment, encoding_of, masked, segments_of, text_of
from agent.cli.message_view import segment_lines

MSH = "MSH|^~\\&|ADT|WARD|LAB|HOSP|20260101120000||ADT^A01^ADT_A01|MSG1|P|2.5.1"


def values_of(segments: list[Segment]) -> dict[str, str]:
    return {value.path: value.value for segment in segments for value in segment.fields}


def names_of(segments: list[Segment]) -> dict[str, str]:
    return {value.path: value.name for segment in segments for value in segment.fields}


class TestTakingApart:
    def test_every_value_has_its_place_and_its_name(self) -> None:
        shown = segments_of(f"{MSH}\rPID|1||12345^^^HOSP^MR~678^^^&1.2.3&ISO||NEMO&VAN^ANNA||19700101|F\r")

        assert [(segment.name, segment.title) for segment in shown] == [
            ("MSH", "Message Header"),
            ("PID", "Patient Identification"),
        ]
        assert values_of(shown[1:]) == {
            "PID-1": "1",
            "PID-3(1).1": "12345",
            "PID-3(1).4": "HOSP",
            "PID-3(1).5": "MR",
            "PID-3(2).1": "678",
            "PID-3(2).4.2": "1.2.3",
            "PID-3(2).4.3": "ISO",
            "PID-5.1.1": "NEMO",
            "PID-5.1.2": "VAN",
            "PID-5.2": "ANNA",
            "PID-7": "19700101",
            "PID-8": "F",
        }
        names = names_of(shown)
        assert names["PID-3(1).1"] == "Patient Identifier List / ID Number"
        assert names["PID-5.1.1"] == "Patient Name / Family Name / Surname"
        assert names["PID-7"] == "Date/Time of Birth"

    def test_the_fields_of_msh_are_counted_from_its_separator(self) -> None:
        shown = values_of(segments_of(MSH))

        assert (shown["MSH-1"], shown["MSH-2"], shown["MSH-3"]) == ("|", "^~\\&", "ADT")
        assert (shown["MSH-9.2"], shown["MSH-10"], shown["MSH-12"]) == ("A01", "MSG1", "2.5.1")

    def test_the_delimiters_are_the_messages_own(self) -> None:
        shown = values_of(segments_of("MSH#$*!@#A#B#C#D#2026##ADT$A01#1#P#2.5\rPID#1##1|2^3$X*4@5\r"))

        assert shown["MSH-9.1"] == "ADT"
        assert shown["PID-3(1).1"] == "1|2^3"
        assert shown["PID-3(1).2"] == "X"
        assert shown["PID-3(2).1.2"] == "5"

    def test_a_delimiter_that_the_message_does_not_have_divides_nothing(self) -> None:
        assert values_of(segments_of("MSH|^|A\rPID|1||a^b~c&d\r"))["PID-3.2"] == "b~c&d"

    def test_escape_sequences_stay_as_they_are(self) -> None:
        assert values_of(segments_of(f"{MSH}\rNTE|1||A\\T\\B\\X0D\\\\.br\\C\r"))["NTE-3"] == "A\\T\\B\\X0D\\\\.br\\C"

    def test_a_segment_of_the_sites_own_has_numbers_alone(self) -> None:
        (_, z) = segments_of(f"{MSH}\rZPI|1|a^b\r")

        assert (z.name, z.title) == ("ZPI", "")
        assert [(value.path, value.name, value.value) for value in z.fields] == [
            ("ZPI-1", "", "1"),
            ("ZPI-2.1", "", "a"),
            ("ZPI-2.2", "", "b"),
        ]

    def test_a_line_that_is_no_segment_is_shown_whole(self) -> None:
        (_, note, torn) = segments_of(f"{MSH}\rNTE|1||first line\nsecond line, by a sender that breaks lines\r")

        assert note.name == "NTE"
        assert (torn.name, torn.fields[0].value) == ("", "second line, by a sender that breaks lines")

    def test_the_parts_of_an_observation_are_named_by_its_data_type(self) -> None:
        assert (
            names_of(segments_of(f"{MSH}\rOBX|1|ED|||A^B^C^Base64^AAAA\r"))["OBX-5.4"] == "Observation Value / Encoding"
        )

    def test_what_is_no_hl7_at_all_is_shown_line_by_line(self) -> None:
        assert [value.value for segment in segments_of("H|\\^&|||\rP|1\r") for value in segment.fields] == [
            "H|\\^&|||",
            "P|1",
        ]

    @given(st.text())
    def test_any_text_can_be_looked_at(self, text: str) -> None:
        for mask in (False, True):
            segment_lines(segments_of(text, mask=mask), 80)
            segment_lines(segments_of(f"{MSH}\r{text}", mask=mask), None)

    @given(st.lists(st.text(alphabet="AZ1|^~&\\ é"), max_size=5))
    def test_no_character_of_a_segment_is_left_out(self, lines: list[str]) -> None:
        kept = [line for line in lines if line]
        shown = "".join(value.value for segment in segments_of("\r".join([MSH, *kept]))[1:] for value in segment.fields)

        for line in kept:
            name = line.split("|")[0]
            content = line[len(name) :] if re.fullmatch("[A-Z][A-Z0-9]{2}", name) else ""
            for word in re.split(r"[|^~&]", content):
                assert word in shown


class TestText:
    @pytest.mark.parametrize(
        ("msh18", "written", "read_as"),
        [
            ("", "utf-8", "UTF-8, as MSH-18 says nothing"),
            ("UNICODE UTF-8", "utf-8", "UTF-8, as MSH-18 says"),
            ("8859/1", "latin-1", "iso-8859-1"),
        ],
    )
    def test_the_message_says_what_it_is_written_in(self, msh18: str, written: str, read_as: str) -> None:
        text, how = text_of(f"{MSH}||||||{msh18}\rPID|||||GRÜN\r".encode(written))

        assert "GRÜN" in text
        assert read_as.lower() in how.lower()

    def test_bytes_that_are_none_of_the_character_set_are_shown_as_numbers(self) -> None:
        assert "GR\\xdcN" in text_of(f"{MSH}\rPID|||||GRÜN\r".encode("latin-1"))[0]

    def test_a_character_set_that_nobody_knows_is_said_to_be_so(self) -> None:
        text, how = text_of(f"{MSH}||||||KLINGON\rPID|||||ÉÉ\r".encode())

        assert "ÉÉ" in text
        assert "no character set that is known" in how

    @pytest.mark.parametrize(
        ("encoding", "written", "read_as"),
        [
            ("iso-8859-1", "latin-1", "ISO-8859-1, as the remote's URL says"),
            ("Shift_JIS", "utf-8", "SHIFT-JIS, as the remote's URL says"),
            ("auto", "utf-8", "UTF-8, as MSH-18 says"),
            (None, "utf-8", "UTF-8, as MSH-18 says"),
            ("klingon", "utf-8", "UTF-8, as the remote's URL names no character set that is known"),
        ],
    )
    def test_for_a_remote_its_url_goes_before_the_message(
        self, encoding: str | None, written: str, read_as: str
    ) -> None:
        text, how = text_of(f"{MSH}||||||UNICODE UTF-8\rPID|||||GRÜN\r".encode(written), encoding)

        assert how == read_as
        assert ("GRÜN" in text) is (encoding != "Shift_JIS")

    @pytest.mark.parametrize(
        ("url", "encoding"),
        [
            ("mllp://lab:2575?durable=true&encoding=iso-8859-1", "iso-8859-1"),
            ("mllp://lab:2575?encoding=ISO_IR%20100&encoding=utf-8", "ISO_IR 100"),
            ("mllp://lab:2575?durable=true", None),
            ("mllp://[fe80::1]:2575", None),
            ("encoding=utf-8", None),
            ("", None),
        ],
    )
    def test_the_character_set_of_a_remote_stands_in_its_url(self, url: str, encoding: str | None) -> None:
        assert encoding_of(url) == encoding

    @given(st.text())
    def test_any_url_has_one_or_none(self, url: str) -> None:
        encoding_of(url)
        encoding_of(f"mllp://lab:2575?encoding={url}")

    @given(st.binary(), st.none() | st.text())
    def test_any_bytes_can_be_read(self, body: bytes, encoding: str | None) -> None:
        text_of(body, encoding)
        text_of(MSH.encode() + b"\r" + body, encoding)


PEOPLE = st.text(alphabet="QZJKqzjk1234ÑßøЖж漢٣'- ", min_size=5, max_size=30).filter(
    lambda name: sum(map(str.isalnum, name)) >= 4 and masked(name) != name and name == name.strip()
)
PLACES = st.sampled_from(
    [
        (segment, field, depth)
        for segment in ("PID", "NK1", "OBX", "NTE", "ZPI", "PV1", "ERR", "IN1", "DOE")
        for field in (1, 2, 3, 5, 7, 8, 13, 40)
        for depth in ("{}", "A^{}", "A~{}", "A^B&{}", "{}^X", "\\X{}\\")
    ]
)


class TestMask:
    def test_letters_and_digits_go_and_their_number_stays(self) -> None:
        assert masked("O'Leary-Šimůnek, 4711") == "X'Xxxxx-Xxxxxxx, 9999"
        assert masked("漢字 ٣½") == "xx 99"

    def test_what_a_vendor_needs_to_see_stays(self) -> None:
        shown = segments_of(
            f"{MSH}||||||UNICODE UTF-8\rPID|1||12345^^^HOSP\rOBX|1|NM|718-7^Hb||13.5|g/dl\rOBX|2|ED|||^^^Base64^JVBE\r",
            mask=True,
        )

        values = values_of(shown)
        assert (values["MSH-3"], values["MSH-7"], values["MSH-10"], values["MSH-18"]) == (
            "ADT", "20260101120000", "MSG1", "UNICODE UTF-8"
        )  # fmt: skip
        assert (values["PID-1"], values["PID-3.1"], values["PID-3.4"]) == ("1", "99999", "XXXX")
        assert [segment.fields[1].value for segment in shown[2:]] == ["NM", "ED"]
        assert values["OBX-5.4"] == "Xxxx99"
        assert names_of(shown)["PID-3.1"] == "Patient Identifier List / ID Number"

    def test_the_security_field_of_msh_goes(self) -> None:
        assert values_of(segments_of(MSH.replace("||ADT", "|secret|ADT"), mask=True))["MSH-8"] == "xxxxxx"

    @pytest.mark.parametrize("line", ["PID|4711||", "PID|2||", "ZPI|1||", "PID|0||", "NTE|12345||", "EVN|1||"])
    def test_a_number_in_the_first_field_that_cannot_be_its_count_goes(self, line: str) -> None:
        (value, *_) = segments_of(f"{MSH}\r{line}", mask=True)[1].fields
        assert set(value.value) == {"9"}

    def test_an_acknowledgement_keeps_its_codes_and_loses_its_words(self) -> None:
        shown = values_of(
            segments_of(
                f"{MSH}\rMSA|AE|MSG1|no patient NEMO 4711\r"
                "ERR||PID^1^3|204^Unknown NEMO^HL70357|E|||NEMO 4711|NEMO 4711\rERR|NEMO is unknown\r",
                mask=True,
            )
        )

        assert (shown["MSA-1"], shown["MSA-2"], shown["MSA-3"]) == ("AE", "MSG1", "xx xxxxxxx XXXX 9999")
        assert (shown["ERR-2.1"], shown["ERR-2.3"], shown["ERR-3.1"], shown["ERR-4"]) == ("PID", "3", "204", "E")
        assert shown["ERR-3.2"] == "Xxxxxxx XXXX"
        assert (shown["ERR-7"], shown["ERR-8"]) == ("XXXX 9999", "XXXX 9999")
        assert shown["ERR-1"] == "XXXX xx xxxxxxx"

    def test_segments_that_have_run_into_msh_go(self) -> None:
        run_together = f"{MSH}PID|1||4711^^^HOSP||NEMO^ANNA"

        text = json.dumps([value.value for value in segments_of(run_together, mask=True)[0].fields])

        assert "NEMO" not in text
        assert "4711" not in text

    def test_a_name_at_the_beginning_of_a_torn_line_goes(self) -> None:
        shown = segments_of(f"{MSH}\rNTE|1||seen with\nDOE|JANE\nNEMO was here\n", mask=True)

        text = plain(segment_lines(shown, 80))
        assert not re.search("DOE|JANE|NEMO", text)

    @given(st.lists(st.tuples(PLACES, PEOPLE), min_size=1, max_size=4), st.sampled_from(["2.1", "2.3", "2.5.1", "2.8"]))
    def test_a_patient_is_nowhere_in_it_wherever_a_sender_puts_him(
        self, told: list[tuple[tuple[str, int, str], str]], version: str
    ) -> None:
        lines = [MSH.replace("2.5.1", version)]
        for (segment, field, depth), person in told:
            lines.append(f"{segment}{'|' * field}{depth.format(person)}|")
        body = "\r".join(lines).encode()

        segments = segments_of(text_of(body)[0], mask=True)

        as_text = plain(segment_lines(segments, None))
        as_values = "\n".join(value.value for segment in segments for value in segment.fields)
        for _, person in told:
            assert person not in as_text
            assert person not in as_values
