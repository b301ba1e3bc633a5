"""An analyser's session taken apart: every value with its place and name, and masked for those who must not know."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.cli.lines import plain
from agent.cli.message_parts import Segment, masked
from agent.cli.message_records import records_of, text_of_session
from agent.cli.message_view import segment_lines

HEADER = "H|\\^&|||cobas^Roche|||||host||P|LIS2-A2|20261122093012"
PATIENT = "P|1||PAT-4711||NEMO^ANNA||19610504|F"
ORDER = "O|1|S-77||^^^GLU\\^^^CREA|R||20261122091500"
RESULT = "R|1|^^^GLU|5.4|mmol/L|3.9^5.6|N||F||op1||20261122092500|c501"
SESSION = f"{HEADER}\r{PATIENT}\r{ORDER}\r{RESULT}\rC|1|I|seen|G\rQ|1|4711^S-78||ALL\rM|1|CALIB\rS|1\rL|1|N\r"


def values_of(records: list[Segment]) -> dict[str, tuple[str, str]]:
    return {value.path: (value.name, value.value) for record in records for value in record.fields}


def test_every_value_has_its_place_and_its_name() -> None:
    records = records_of(SESSION)

    assert [(record.name, record.title) for record in records] == [
        ("H", "Message Header"), ("P", "Patient"), ("O", "Order"), ("R", "Result"), ("C", "Comment"), ("Q", "Query"),
        ("M", "Manufacturer's Own"), ("S", "Scientific"), ("L", "Terminator"),
    ]  # fmt: skip
    found = values_of(records)
    assert found["H-2"] == ("Delimiters", "\\^&")
    assert (found["H-5.2"], found["H-13"]) == (("Sender", "Roche"), ("Version", "LIS2-A2"))
    assert found["H-14"] == ("Message Date/Time", "20261122093012")
    assert (found["P-2"], found["P-4"]) == (("Sequence Number", "1"), ("Patient ID, Laboratory", "PAT-4711"))
    assert found["P-6.1"] == ("Patient Name / Family Name", "NEMO")
    assert (found["P-8"], found["P-9"]) == (("Date of Birth", "19610504"), ("Sex", "F"))
    assert found["O-3"] == ("Sample ID", "S-77")
    assert (found["O-5(1).4"], found["O-5(2).4"]) == (
        ("Test / Manufacturer's Code", "GLU"), ("Test / Manufacturer's Code", "CREA"),
    )  # fmt: skip
    assert (found["O-6"], found["O-8"]) == (("Priority", "R"), ("Collection Date/Time", "20261122091500"))
    assert (found["R-4"], found["R-5"]) == (("Value", "5.4"), ("Units", "mmol/L"))
    assert (found["R-7"], found["R-9"]) == (("Abnormal Flag", "N"), ("Result Status", "F"))
    assert (found["R-11"], found["R-13"]) == (("Operator", "op1"), ("Test Completed Date/Time", "20261122092500"))
    assert found["R-14"] == ("Instrument", "c501")
    assert (found["C-4"], found["C-5"]) == (("Text", "seen"), ("Type", "G"))
    assert (found["Q-3.2"], found["Q-5"]) == (("First ID / Sample ID", "S-78"), ("Test", "ALL"))
    assert found["M-3"] == ("", "CALIB")
    assert found["L-3"] == ("Termination Code", "N")


@pytest.mark.parametrize(
    ("record", "fields"), [("H", 14), ("P", 35), ("O", 31), ("R", 14), ("C", 5), ("Q", 13), ("L", 3)]
)
def test_the_last_field_of_the_standard_has_a_name_and_the_one_behind_it_has_none(record: str, fields: int) -> None:
    line = record + "".join(f"|{number}" for number in range(2, fields + 2))

    found = values_of(records_of(f"{HEADER}\r{line}\r")[1:])

    assert found[f"{record}-{fields}"][0] != ""
    assert found[f"{record}-{fields + 1}"] == ("", str(fields + 1))


def test_the_header_says_which_delimiters_hold() -> None:
    found = values_of(records_of("H!~*%!!!cobas\rR!1!**GLU~**CREA!5|4\r"))

    assert found["H-2"][1] == "~*%"
    assert (found["R-3(1).3"][1], found["R-3(2).3"][1], found["R-4"][1]) == ("GLU", "CREA", "5|4")


@pytest.mark.parametrize("ends", ["\r", "\n", "\r\n"])
def test_records_end_as_analysers_end_them(ends: str) -> None:
    assert [record.name for record in records_of(f"{HEADER}{ends}P|1{ends}L|1")] == ["H", "P", "L"]


def test_what_is_no_record_is_shown_as_it_is() -> None:
    for text in ("PID|1||4711\r", "4711 NEMO\r", "\x02garbage\r", "H\r", "P|1\r"):
        (line,) = records_of(text)
        assert (line.name, line.title, line.fields[0].value) == ("", "not a record", text.rstrip("\r"))
    (_, unknown) = records_of(f"{HEADER}\rX|1|2\r")
    assert unknown.fields[0].value == "X|1|2"


@pytest.mark.parametrize(
    ("body", "encoding", "text", "read_as"),
    [
        ("Größe".encode(), None, "Größe", "UTF-8"),
        ("Größe".encode("latin-1"), None, "Größe", "ISO-8859-1, for it is no UTF-8"),
        ("Größe".encode("cp1252"), "windows-1252", "Größe", "windows-1252, as the remote's URL says"),
        (b"a\xff", "utf-8", "a\\xff", "UTF-8, as the remote's URL says"),
        (b"plain", "klingon", "plain", "UTF-8, as the remote's URL names no character set that is known"),
    ],
)
def test_the_text_is_read_as_the_remote_s_url_says_or_as_it_can_be(
    body: bytes, encoding: str | None, text: str, read_as: str
) -> None:
    assert text_of_session(body, encoding) == (text, read_as)


# ---- what a stranger may see


def test_a_masked_session_shows_what_it_is_and_nothing_of_the_patient() -> None:
    found = values_of(records_of(SESSION, mask=True))

    assert (found["H-5.1"][1], found["H-13"][1], found["H-14"][1]) == ("cobas", "LIS2-A2", "20261122093012")
    assert (found["P-2"][1], found["P-4"][1], found["P-6.1"][1]) == ("1", "XXX-9999", "XXXX")
    assert (found["O-3"][1], found["R-4"][1], found["R-9"][1]) == ("X-99", "9.9", "X")
    assert (found["Q-3.1"][1], found["C-4"][1], found["M-3"][1]) == ("9999", "xxxx", "XXXXX")
    assert found["L-3"][1] == "N"


def test_a_number_of_a_record_is_seen_only_where_it_can_be_one() -> None:
    found = values_of(records_of(f"{HEADER}\rP|1\rP|4711\rR|NEMO\r", mask=True)[1:])

    assert (found["P-2"][1], found["R-2"][1]) == ("9999", "XXXX")


@pytest.mark.parametrize(
    "header",
    [
        "H|\\^&|||cobasP|1||4711||NEMO",
        "H|\\^&|||4711",
        "H|\\^&||NEMO|cobas|NEMO|4711|4711|NEMO|host|NEMO|P|LIS2-A2|20261122093012",
        "H|\\^&|||cobas|||||host||P|LIS2-A2|20261122093012P|1||4711||NEMO",
        "H|\\^&|||cobasP|1||4711||NEMO||P|1|20260101|R|5",
        "H|NEMO4711|",
    ],
)
def test_of_a_header_into_which_others_have_run_nothing_is_seen(header: str) -> None:
    shown = json.dumps([[value.value for value in record.fields] for record in records_of(f"{header}\r", mask=True)])

    assert "NEMO" not in shown
    assert "4711" not in shown


PEOPLE = st.text(alphabet="QZJKqzjk1234ÑßøЖж漢٣'- ", min_size=5, max_size=30).filter(
    lambda name: sum(map(str.isalnum, name)) >= 4 and masked(name) != name and name == name.strip()
)


@given(PEOPLE, st.data())
def test_a_patient_is_nowhere_in_what_is_masked_wherever_an_analyser_has_put_them(
    person: str, data: st.DataObject
) -> None:
    lines = [line.split("|") for line in SESSION.rstrip("\r").split("\r")]
    line = data.draw(st.sampled_from(lines[1:]))
    at = data.draw(st.integers(1, len(line)))
    line[at:at] = [person]
    text = "\r".join("|".join(fields) for fields in lines)

    assert person in plain(segment_lines(records_of(text), None))
    assert person not in plain(segment_lines(records_of(text, mask=True), None))


@example("H:", False)
@given(st.text() | st.text(alphabet="HPORCQSML|\\^&1\r\n"), st.booleans())
def test_any_text_at_all_can_be_looked_at_and_nothing_is_left_out(text: str, mask: bool) -> None:
    shown = records_of(text, mask=mask)

    lines = plain(segment_lines(shown, None))
    assert lines.replace("\n", "").isprintable()
    if not mask:
        everything = "".join(value.value for record in shown for value in record.fields)
        headers = [line for line in re.split(r"[\r\n]+", text) if line[:1] in ("H", "h")]
        delimiters = {char for line in headers for char in line[1:5]}  # each header names its own
        kept = set(text) - set("\r\n|\\^&") - delimiters
        assert {char for char in kept if char not in "HPORCQSMLhporcqsml"} <= set(everything)
