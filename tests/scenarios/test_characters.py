"""Whatever a sender writes in, the server reads it right, and the sender is answered in its own words."""

from __future__ import annotations

import pytest
from ward_building import Ward
from ward_devices import Device

NAMES = {
    "UNICODE UTF-8": ("utf-8", "Łukasz Ångström 山田"),
    "8859/1": ("latin-1", "Jürgen Ångström"),
    "8859/2": ("iso8859-2", "Łukasz Dvořák"),
    "8859/5": ("iso8859-5", "Иванов Иван"),
    "8859/15": ("iso8859-15", "Œuvre 10 €"),
    "ISO IR87": ("iso2022_jp_2", "山田^太郎"),
    "GB 18030-2000": ("gb18030", "王小明"),
    "KS X 1001": ("euc_kr", "김철수"),
    "BIG-5": ("big5", "王功蓋"),  # characters whose second byte is a delimiter of HL7
}


def message(control_id: str, charset: str, name: str, *, application: str = "LAB") -> str:
    return (
        f"MSH|^~\\&|{application}|WARD|EHR|HOSPITAL|20260131030000||ADT^A01|{control_id}|P|2.5.1||||||{charset}\r"
        f"PID|1||4711||{name}\r"
    )


@pytest.mark.parametrize("charset", NAMES)
async def test_msh_18_decides(ward: Ward, charset: str) -> None:
    codec, name = NAMES[charset]
    server, port = await ward.server(), ward.port()
    server.keeps_bodies = True
    server.channel("lab", port)
    await ward.running_agent(server)
    stranger = await ward.stranger(port, b"\x0b" + message("C1", charset, name).encode(codec) + b"\x1c\r")
    stranger.half_close()

    answer = (await stranger.hears()).strip(b"\x0b\x1c\r").decode(codec)

    assert "\rMSA|AA|C1" in answer
    assert server.bodies[0] == message("C1", charset, name)


async def test_names_whose_bytes_look_like_delimiters_come_back_in_the_answer(ward: Ward) -> None:
    server, port = await ward.server(), ward.port()
    server.keeps_bodies = True
    server.channel("lab", port, encoding="shift_jis", enhanced="aa")
    await ward.running_agent(server)
    text = message("J1", "", "ソ連表示", application="表計算")
    stranger = await ward.stranger(port, b"\x0b" + text.encode("shift_jis") + b"\x1c\r")
    stranger.half_close()

    answer = (await stranger.hears()).strip(b"\x0b\x1c\r").decode("shift_jis")

    fields = answer.split("\r")[0].split("|")
    assert (fields[4], answer.split("\r")[1].split("|")[1:3]) == ("表計算", ["AA", "J1"])
    await server.until_heard("J1")
    assert server.bodies[0] == text


async def test_bytes_outside_the_charset_are_refused_with_their_place(ward: Ward) -> None:
    server, port = await ward.server(), ward.port()
    server.keeps_bodies = True
    server.channel("lab", port)
    agent = await ward.running_agent(server)
    device: Device = await ward.device(port)

    heard = await device.ask(message("B1", "UNICODE UTF-8", "J?rgen").encode().replace(b"?", b"\xfc"))

    assert heard.code == "AR"
    assert "0xfc" in heard.text
    assert "PID-5" in heard.text
    assert "UTF-8" in heard.text.upper()
    assert server.bodies == []
    assert (await agent.status())["channels"][0]["refused"] == {"charset": 1}


async def test_or_read_by_the_fallback_and_counted(ward: Ward) -> None:
    server, port = await ward.server(), ward.port()
    server.keeps_bodies = True
    server.channel("lab", port, invalidBytes="fallback:windows-1252")
    agent = await ward.running_agent(server)
    device: Device = await ward.device(port)

    for number, byte in enumerate((b"\xfc", b"\x80")):
        raw = message(f"F{number}", "UNICODE UTF-8", "J?rgen").encode().replace(b"?", byte)
        assert (await device.ask(raw)).code == "AA"
    undefined = message("F2", "UNICODE UTF-8", "J?rgen").encode().replace(b"?", b"\x81")  # no character there either
    assert (await device.ask(undefined)).code == "AR"

    assert server.bodies == [
        message("F0", "UNICODE UTF-8", "Jürgen"),
        message("F1", "UNICODE UTF-8", "J€rgen"),
    ]
    assert (await agent.status())["channels"][0]["fallbacks"] == 2


async def test_a_byte_order_mark_is_no_part_of_the_message(ward: Ward) -> None:
    server, port = await ward.server(), ward.port()
    server.keeps_bodies = True
    server.channel("lab", port)
    await ward.running_agent(server)
    device: Device = await ward.device(port)

    assert (await device.ask(b"\xef\xbb\xbf" + message("M1", "", "Jürgen").encode())).code == "AA"
    assert server.bodies[0] == message("M1", "", "Jürgen")
    contradiction = await device.ask(b"\xef\xbb\xbf" + message("M2", "8859/1", "Jürgen").encode())
    assert contradiction.code == "AR"


async def test_escape_sequences_stay_as_they_are(ward: Ward) -> None:
    server, port = await ward.server(), ward.port()
    server.keeps_bodies = True
    server.channel("lab", port)
    await ward.running_agent(server)
    device: Device = await ward.device(port)
    text = message("E1", "", r"A\F\B\S\C\T\D\R\E\E\ \H\x\N\ \X0D0A\ \C2842\ \M2842FF\ \.br\ ")

    assert (await device.ask(text.encode())).code == "AA"

    assert server.bodies[0] == text
