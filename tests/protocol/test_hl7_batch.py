"""Batches: the messages come out as they went in, and the answers go back in the same shape."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import PeerError
from agent.protocol.batch import MOST_SEGMENTS, BadBatch, Batch, EmptyBatch, Group, build_batch_ack, is_batch, split
from agent.protocol.charset import read
from agent.protocol.hl7 import Header, NotHl7, build_ack, read_ack
from agent.protocol.mllp import Framer, wrap

FHS = b"FHS|^~\\&|LAB|WARD|HIS|HQ|20260101||file.hl7||F1"
BHS = b"BHS|^~\\&|LAB|WARD|HIS|HQ|20260101||ORU||B1"


def msh(number: int, *, delimiters: bytes = b"|^~\\&") -> bytes:
    return delimiters[:1].join((b"MSH", delimiters[1:], b"LAB", b"", b"", b"", b"", b"", b"ORU", b"%d" % number))


def message(number: int, *, end: bytes = b"\r") -> bytes:
    return msh(number) + end + b"OBX|1|TX|||text" + end


def lines(*segments: bytes, end: bytes = b"\r") -> bytes:
    return b"".join(segment + end for segment in segments)


def answered(batch: Batch, answers: list[bytes] | None = None, **options: str) -> bytes:
    if answers is None:
        answers = [
            build_ack(Header.of(m), "AA", control_id=b"A%d" % n, when="2026") for n, m in enumerate(batch.messages)
        ]
    return build_batch_ack(batch, answers, control_id=b"17", when="20260102", **options)


class TestIsBatch:
    @pytest.mark.parametrize("body", [FHS, BHS, b"BHS$", b"FHS|^~\\&\rMSH|^~\\&|"])
    def test_it_begins_with_a_batch_header(self, body: bytes) -> None:
        assert is_batch(body)

    @pytest.mark.parametrize("body", [b"", b"BHS", b"FHSello", b"BHS ", b"MSH|^~\\&|", b"\rBHS|", b"BTS|1", b"FTS|1"])
    def test_what_is_none(self, body: bytes) -> None:
        assert not is_batch(body)
        with pytest.raises(NotHl7) as caught:
            split(body)
        assert "FHS or BHS" in caught.value.hint


class TestSplit:
    @pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
    def test_a_file_of_two_batches(self, end: bytes) -> None:
        first, second, third = (message(number, end=end) for number in (1, 2, 3))
        body = lines(FHS, BHS, end=end) + first + second + lines(b"BTS|2|end", BHS, end=end) + third
        body += lines(b"BTS|1", b"FTS|2", end=end)

        batch = split(body)

        assert batch == Batch(FHS, (Group(BHS, (first, second), b"BTS|2|end"), Group(BHS, (third,), b"BTS|1")))
        assert batch.messages == (first, second, third)

    @pytest.mark.parametrize(
        ("body", "batch"),
        [
            (lines(BHS) + message(1) + b"BTS|1", Batch(None, (Group(BHS, (message(1),), b"BTS|1"),))),
            (lines(BHS) + message(1), Batch(None, (Group(BHS, (message(1),), None),))),
            (lines(BHS) + message(1) + b"BTS", Batch(None, (Group(BHS, (message(1),), b"BTS"),))),
            (lines(BHS) + message(1) + b"BTS|\r", Batch(None, (Group(BHS, (message(1),), b"BTS|"),))),
            (lines(FHS) + message(1) + b"FTS|1\r", Batch(FHS, (Group(None, (message(1),), None),))),
            (lines(FHS) + message(1) + b"FTS|0\r", Batch(FHS, (Group(None, (message(1),), None),))),
            (
                lines(FHS) + message(1) + message(2) + b"FTS\r",
                Batch(FHS, (Group(None, (message(1), message(2)), None),)),
            ),
            (lines(FHS) + message(1), Batch(FHS, (Group(None, (message(1),), None),))),
            (
                lines(BHS) + message(1) + lines(BHS) + message(2),
                Batch(None, (Group(BHS, (message(1),), None), Group(BHS, (message(2),), None))),
            ),
            (
                lines(BHS, b"BTS|0", BHS) + message(1) + lines(b"BTS|1"),
                Batch(None, (Group(BHS, (), b"BTS|0"), Group(BHS, (message(1),), b"BTS|1"))),
            ),
            (
                lines(BHS) + message(1) + lines(b"BTS|1") + message(2),
                Batch(None, (Group(BHS, (message(1),), b"BTS|1"), Group(None, (message(2),), None))),
            ),
        ],
        ids=[
            *("BHS alone", "no BTS", "BTS alone", "BTS without a count", "FHS alone", "FTS counts no BHS", "FTS alone"),
            *("no FTS", "BHS ends a group", "one group is empty", "a message behind BTS"),
        ],
    )
    def test_headers_and_trailers_may_be_missing(self, body: bytes, batch: Batch) -> None:
        assert split(body) == batch

    @pytest.mark.parametrize("count", [b"1", b" 1 ", b"+1", b"001", b"1.0", b"1."])
    def test_a_count_may_be_written_as_any_number(self, count: bytes) -> None:
        assert split(lines(BHS) + message(1) + b"BTS|" + count + b"\r").messages == (message(1),)

    def test_messages_need_not_share_the_delimiters_of_their_batch(self) -> None:
        own = msh(1, delimiters=b"!@#$%") + b"\rOBX!1\r"
        body = b"BHS*^~\\&*LAB\r" + own + message(2) + b"BTS*2\r"
        assert split(body).messages == (own, message(2))

    def test_trailers_have_the_delimiters_of_their_headers(self) -> None:
        body = b"FHS!^~\\&!LAB\rBHS$@#%&$LAB\r" + message(1) + b"BTS$1\rFTS!1\r"
        assert split(body).groups == (Group(b"BHS$@#%&$LAB", (message(1),), b"BTS$1"),)

    def test_blank_lines_stay_with_the_message_before_them(self) -> None:
        body = lines(BHS, b"", b"") + message(1) + b"\r\n" + message(2) + b"\nBTS|2\r\n\r\n"
        assert split(body).messages == (message(1) + b"\r\n", message(2) + b"\n")

    def test_software_and_credentials_may_follow_a_header(self) -> None:
        header = BHS + b"\rSFT|Vendor|1\rUAC|KERB"
        batch = split(header + b"\r" + message(1) + b"BTS|1\r")
        assert batch.groups[0].header == header
        assert answered(batch).startswith(b"BHS|^~\\&|HIS|HQ|LAB|WARD|20260102||||17|B1\rMSH|")

    @pytest.mark.parametrize("text", [b"MSH-3 is empty", b"BTS-1: 5", b"FHS_", b"MSHello|x", b"BHS", b"xBTS|9", b"MSH"])
    def test_free_text_in_a_field_is_no_segment(self, text: bytes) -> None:
        note = msh(1) + b"\rNTE|1||first line\n" + text + b"\rPV1|1\r"
        assert split(lines(BHS) + note + lines(b"BTS|1")).messages == (note,)

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            (lines(BHS) + message(1) + b"BTS|2\r", "BTS-1 of batch 1 says 2 messages, but 1 came"),
            (
                lines(BHS) + message(1) + lines(b"BTS|1", BHS) + message(2) + lines(b"BTS|0"),
                "BTS-1 of batch 2 says 0 messages, but 1 came",
            ),
            (lines(BHS) + message(1) + b"BTS|one\r", "BTS-1 of batch 1 is no number"),
            (lines(BHS) + message(1) + b"BTS|" + b"9" * 5000, "BTS-1 of batch 1 is no number"),
            (lines(FHS, BHS) + message(1) + b"BTS|1\rFTS|2\r", "FTS-1 says 2 batches, but 1 came"),
            (lines(FHS) + message(1) + b"FTS|7\r", "FTS-1 says 7 batches, but 1 came"),
            (lines(FHS) + message(1) + b"BTS|1\r", "BTS segment without BHS"),
            (lines(BHS) + message(1) + b"BTS|1\rBTS|1\r", "BTS segment without BHS"),
            (lines(BHS) + message(1) + b"FTS|1\r", "FTS segment without FHS"),
            (lines(FHS, BHS) + message(1) + lines(b"BTS|1", FHS), "FHS segment stands in the middle"),
            (lines(FHS, FHS) + message(1), "FHS segment stands in the middle"),
            (lines(BHS, FHS) + message(1), "FHS segment stands in the middle"),
            (lines(FHS) + message(1) + b"FTS|1\r" + message(2), "goes on behind its FTS"),
            (lines(FHS) + message(1) + lines(b"FTS|1", b"FTS|1"), "goes on behind its FTS"),
            (lines(BHS, b"EVERYMAN") + message(1), "no message stands behind BHS"),
            (lines(FHS, b"EVERYMAN", BHS) + message(1), "no message stands behind FHS"),
            (lines(BHS) + message(1) + b"BTS|1\rEVERYMAN\r", "no message stands behind BTS"),
            (lines(FHS) + message(1) + b"FTS|1\rEVERYMAN", "no message stands behind FTS"),
            (lines(BHS, b"PID|1"), "no message stands behind BHS"),
        ],
    )
    def test_what_does_not_add_up_is_refused_by_name(self, body: bytes, says: str) -> None:
        with pytest.raises(BadBatch, match=says) as caught:
            split(body)
        assert isinstance(caught.value, PeerError)
        assert caught.value.hint.startswith("let the sender")
        assert "EVERYMAN" not in str(caught.value) + caught.value.hint

    @pytest.mark.parametrize("body", [BHS, lines(BHS), lines(FHS, BHS, b"BTS|0", b"FTS|1"), lines(FHS, b"FTS|0"), FHS])
    def test_a_batch_that_holds_nothing_is_told_from_a_bad_one(self, body: bytes) -> None:
        with pytest.raises(EmptyBatch) as caught:
            split(body)
        assert caught.value.said == (b"BTS" in body or b"FTS" in body)

    @pytest.mark.parametrize(
        ("body", "named"),
        [
            (b"BHS|", "BHS names no"),
            (b"BHS||LAB\r" + message(1), "BHS names no"),
            (b"FHS|\r" + message(1), "FHS names no"),
            (lines(BHS) + message(1) + b"MSH|\rPID|1\r", "message 2 of the batch names no"),
            (lines(BHS) + message(1) + b"MSH||LAB\r", "message 2 of the batch names no"),
        ],
    )
    def test_a_header_without_encoding_characters_is_no_hl7(self, body: bytes, named: str) -> None:
        with pytest.raises(NotHl7, match=named) as caught:
            split(body)
        assert "MSH-2" in caught.value.hint

    def test_a_large_batch_is_taken_apart_whole(self) -> None:
        messages = [msh(number) + b"\rOBX|1|ED|||" + b"MSHBTSFHS" * 90 + b"\r" for number in range(20_000)]
        batch = split(lines(BHS) + b"".join(messages) + b"BTS|20000\r")
        assert batch.messages == tuple(messages)

    @pytest.mark.parametrize("segment", [b"MSH|^~\\&\r", b"BHS|^~\\&\r"])
    def test_a_flood_of_tiny_messages_is_refused(self, segment: bytes) -> None:
        assert len(split(lines(BHS) + segment * (MOST_SEGMENTS - 1) + message(1)).messages) > 0
        with pytest.raises(BadBatch, match="more than 100000 messages") as caught:
            split(lines(BHS) + segment * MOST_SEGMENTS + message(1))
        assert "several batches" in caught.value.hint

    @pytest.mark.parametrize("body", [lines(BHS) + b"\r\n" * 4_000_000, lines(BHS) + b"BTS|" + b"0" * 8_000_000])
    def test_no_bytes_cost_more_than_linear_time(self, body: bytes) -> None:
        with pytest.raises(BadBatch):
            split(body)


# Structures as senders build them: (file header, groups, whether the trailers are written).
ENDS = st.sampled_from([b"\r", b"\n", b"\r\n"])
SEPARATORS = st.sampled_from([b"|", b"$", b"!"])
CONTENT = st.sampled_from(
    [b"PID|1||4711", b"NTE|1||MSH", b"OBX|1|TX|||x\x0by", b"ZZZ|BHS|^", b"OBX|MSH|^~\\&", b"free text"]
)


@st.composite
def structures(draw: st.DrawFn) -> tuple[Batch, bytes]:
    """A batch and how it is sent."""
    end, separator = draw(ENDS), draw(SEPARATORS)

    def header(name: bytes) -> bytes:
        return separator.join(
            (name, b"^~\\&", b"LAB", b"WARD", b"HIS", b"HQ", b"", b"", b"", b"", draw(st.sampled_from([b"", b"7"])))
        )

    def one_message() -> bytes:
        content = [separator.join((b"MSH", b"^~\\&", b"LAB", b"1")), *draw(st.lists(CONTENT, max_size=3))]
        return lines(*content, end=end) + draw(st.sampled_from([b"", end]))

    in_file = draw(st.booleans())
    if in_file and draw(st.booleans()):
        groups = [Group(None, tuple(one_message() for _ in range(draw(st.integers(1, 3)))), None)]
    else:
        groups = []
        for _ in range(draw(st.integers(1, 3))):
            messages = tuple(one_message() for _ in range(draw(st.integers(0, 3))))
            count = separator + b"%d" % len(messages) if draw(st.booleans()) else b""
            groups.append(Group(header(b"BHS"), messages, b"BTS" + count if draw(st.booleans()) else None))
    batch = Batch(header(b"FHS") if in_file else None, tuple(groups))
    sent = batch.file_header + end if batch.file_header is not None else b""
    for group in groups:
        sent += b"" if group.header is None else group.header + end
        sent += b"".join(group.messages)
        sent += b"" if group.trailer is None else group.trailer + end
    if in_file and draw(st.booleans()):
        sent += b"FTS" + separator + b"%d" % len(groups) + end
    return batch, sent


class TestAnyBatch:
    @given(structures())
    def test_what_was_put_together_comes_apart_the_same(self, structure: tuple[Batch, bytes]) -> None:
        batch, sent = structure
        assert is_batch(sent)
        if batch.messages:
            assert split(sent) == batch
        else:
            with pytest.raises(EmptyBatch):
                split(sent)

    @given(
        st.binary(max_size=80).map(b"BHS|^~\\&".__add__)
        | st.lists(
            st.sampled_from(
                [
                    b"MSH|^~\\&|",
                    b"MSH|",
                    b"BHS|^~\\&",
                    b"BTS",
                    b"|1",
                    b"FHS|^~\\&",
                    b"FTS|1",
                    b"\r",
                    b"\n",
                    b"x",
                    b"!",
                    b"SFT|",
                ]
            )
        ).map(lambda pieces: b"FHS|^~\\&\r" + b"".join(pieces))
    )
    def test_any_bytes_are_a_batch_or_a_named_refusal(self, body: bytes) -> None:
        try:
            batch = split(body)
        except (BadBatch, NotHl7):
            return
        assert batch.messages
        assert all(Header.of(message) for message in batch.messages)
        end = 0
        for message in batch.messages:
            end = body.index(message, end) + len(message)

    @given(structures(), st.data())
    def test_the_answer_has_the_shape_of_the_batch(self, structure: tuple[Batch, bytes], data: st.DataObject) -> None:
        batch, _ = structure
        answers = [
            build_ack(Header.of(message), "AA", control_id=b"A%d" % number, when="2026") * data.draw(st.integers(0, 1))
            for number, message in enumerate(batch.messages)
        ]

        built = build_batch_ack(batch, answers, control_id=b"17", when="20260102")

        assert Framer().feed(wrap(built)) == [built]
        if not any(answers):
            with pytest.raises(EmptyBatch):
                split(built)
            return
        back = split(built)
        owed = iter(answers)
        expected = [[answer for answer in (next(owed) for _ in group.messages) if answer] for group in batch.groups]
        assert (back.file_header is None) == (batch.file_header is None)
        assert [list(group.messages) for group in back.groups] == [
            some for some in expected if some or back.groups[0].header
        ]
        assert [group.header is None for group in back.groups] == [group.header is None for group in batch.groups]


class TestBuildBatchAck:
    def test_a_file_is_answered_by_a_file(self) -> None:
        batch = split(lines(FHS, BHS) + message(1) + message(2) + lines(b"BTS|2", b"FTS|1"))
        assert answered(batch, [b"MSH|^~\\&|1\rMSA|AA|1|\r", b"MSH|^~\\&|2\rMSA|AE|2|\r"]) == lines(
            b"FHS|^~\\&|HIS|HQ|LAB|WARD|20260102||||17|F1",
            b"BHS|^~\\&|HIS|HQ|LAB|WARD|20260102||||17|B1",
            b"MSH|^~\\&|1",
            b"MSA|AA|1|",
            b"MSH|^~\\&|2",
            b"MSA|AE|2|",
            b"BTS|2",
            b"FTS|1",
        )

    def test_each_header_is_answered_in_its_own_delimiters(self) -> None:
        batch = split(b"FHS!^~\\&!LAB\rBHS$@#%&$LAB$WARD\r" + message(1) + b"BTS$1\rFTS!1\r")
        built = answered(batch, [message(9)])
        assert built == lines(b"FHS!^~\\&!!!LAB!!20260102!!!!17!", b"BHS$@#%&$$$LAB$WARD$20260102$$$$17$") + message(
            9
        ) + lines(b"BTS$1", b"FTS!1")

    def test_several_batches_have_several_ids(self) -> None:
        batch = split(lines(BHS) + message(1) + lines(BHS) + message(2))
        ids = [group.header.split(b"|")[10] for group in split(answered(batch)).groups if group.header is not None]
        assert ids == [b"170001", b"170002"]

    def test_messages_without_a_batch_header_are_answered_without_one(self) -> None:
        assert answered(split(lines(FHS) + message(1)), [message(9)]) == (
            b"FHS|^~\\&|HIS|HQ|LAB|WARD|20260102||||17|F1\r" + message(9) + b"FTS|1\r"
        )

    def test_an_answer_that_is_not_owed_is_left_out_and_not_counted(self) -> None:
        batch = split(lines(BHS) + message(1) + message(2) + message(3))
        assert answered(batch, [b"", message(9), b""]).endswith(b"B1\r" + message(9) + b"BTS|1\r")

    def test_no_answer_at_all_is_a_batch_of_none(self) -> None:
        # §2.10.3.3: that accepts every message of the batch it answers.
        batch = split(lines(BHS) + message(1))
        assert answered(batch, [b""]) == b"BHS|^~\\&|HIS|HQ|LAB|WARD|20260102||||17|B1\rBTS|0\r"

    def test_an_answer_without_its_last_line_end_gets_one(self) -> None:
        batch = split(lines(BHS) + message(1))
        assert answered(batch, [b"MSH|^~\\&|\rMSA|AA|1"]).endswith(b"MSA|AA|1\rBTS|1\r")

    def test_each_answer_can_be_read_by_its_sender(self) -> None:
        batch = split(lines(BHS) + message(1) + message(2) + lines(b"BTS|2"))
        acks = [read_ack(answer) for answer in split(answered(batch)).messages]
        assert [(ack.code, ack.control_id) for ack in acks if ack is not None] == [("AA", b"1"), ("AA", b"2")]

    @pytest.mark.parametrize(
        ("codec", "name"), [("shift_jis", "ソ表ポ"), ("big5", "功育許"), ("iso2022_jp_ext", "集楫飾")]
    )
    def test_names_are_swapped_between_characters(self, codec: str, name: str) -> None:
        header = f"BHS|^~\\&|{name}|WARD|HIS|HQ|||||B{name}".encode(codec)
        batch = split(header + b"\r" + message(1))
        built = answered(batch, [message(9)], codec=codec)
        assert read(built, codec).startswith(f"BHS|^~\\&|HIS|HQ|{name}|WARD|20260102||||17|B{name}\rMSH|")

    def test_a_header_that_is_not_valid_in_its_codec_is_answered_all_the_same(self) -> None:
        batch = split(b"BHS|^~\\&|\xff\xff|WARD|HIS|HQ|||||B1\r" + message(1))
        assert answered(batch, [message(9)], codec="shift_jis").startswith(b"BHS|^~\\&|HIS|HQ|??|WARD|")

    def test_a_field_that_ends_in_0x1c_does_not_end_the_frame(self) -> None:
        batch = split(b"BHS|^~\\&|LAB|WARD|HIS|HQ|||||B1\x1c\n" + message(1))
        built = answered(batch, [message(9)])
        assert Framer().feed(wrap(built)) == [built]
