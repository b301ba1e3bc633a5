"""Binary resources of the hub: any content, of any size that FHIR clients send, and the resource on demand."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from hub_strangers import Api

from agent.hub.binaries import MAX_BYTES, Binaries
from agent.hub.outcomes import Refused

DICOM = {"Content-Type": "application/dicom"}


async def test_a_binary_is_created_as_the_recorded_server_creates_one(api: Api) -> None:
    created = await api.call("POST", "fhir/R4/Binary?_filename=dicom.dcm", data=b"DICM", headers=DICOM)
    assert created.status == 201
    binary = created.json
    assert binary["resourceType"] == "Binary"
    assert binary["contentType"] == "application/dicom"
    assert created.headers["Location"] == f"{api.hub.base_url}fhir/R4/Binary/{binary['id']}"
    assert created.headers["ETag"] == f'W/"{binary["meta"]["versionId"]}"'
    assert binary["url"].startswith(f"{api.hub.base_url}storage/{binary['id']}/")


async def test_its_content_is_read_back_in_its_own_type(api: Api) -> None:
    created = await api.call("POST", "fhir/R4/Binary", data=b"DICM\0\xff", headers=DICOM)
    for accept in ("*/*", "application/dicom", "application/fhir+json, */*; q=0.1"):
        read = await api.get(f"Binary/{created.json['id']}", headers={"Accept": accept})
        assert (read.status, read.raw, read.headers["Content-Type"]) == (200, b"DICM\0\xff", "application/dicom")


async def test_whoever_asks_for_fhir_alone_gets_the_resource(api: Api) -> None:
    created = await api.call("POST", "fhir/R4/Binary", data=b"DICM", headers=DICOM)
    for accept in ("application/fhir+json", "application/fhir+json; charset=utf-8"):
        read = await api.get(f"Binary/{created.json['id']}", headers={"Accept": accept})
        assert read.headers["Content-Type"] == "application/fhir+json; charset=utf-8"
        assert {**read.json, "url": 0} == {**created.json, "url": 0}
        assert (await api.call("GET", read.json["url"].removeprefix(api.hub.base_url), token="")).raw == b"DICM"


async def test_content_that_came_as_json_has_its_type_too(api: Api) -> None:
    sent = {"resourceType": "Binary", "contentType": "text/plain", "data": base64.b64encode(b"hello").decode()}
    created = await api.post("Binary", sent, headers={"Content-Type": "application/fhir+json"})
    read = await api.get(f"Binary/{created.json['id']}")
    assert (read.raw, read.headers["Content-Type"]) == (b"hello", "text/plain")


async def test_an_unknown_binary_is_not_found_in_either_form(api: Api) -> None:
    for accept in ("*/*", "application/fhir+json"):
        read = await api.get("Binary/00000000-0000-4000-8000-000000000000", headers={"Accept": accept})
        assert read.status == 404


async def test_eighty_megabytes_pass_without_being_in_memory(api: Api, tmp_path: Path) -> None:
    large = tmp_path / "large.dcm"
    with large.open("wb") as growing:
        growing.truncate(80 * 1024 * 1024)
    process, most = psutil.Process(), 0
    before = process.memory_info().rss

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal most
        with large.open("rb") as file:
            while piece := file.read(262_144):
                most = max(most, process.memory_info().rss - before)
                yield piece

    created = await api.call("POST", "fhir/R4/Binary", data=pieces(), headers=DICOM)
    assert created.status == 201
    kept = next(tmp_path.rglob(f"{created.json['id']}.bin"))
    assert kept.stat().st_size == 80 * 1024 * 1024
    assert 0 < most < 40 * 1024 * 1024


async def test_what_is_too_large_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    binaries = Binaries(tmp_path)

    class Huge(bytes):
        """Two gigabytes, without having them."""

        def __len__(self) -> int:
            return MAX_BYTES + 1

    async def pieces() -> AsyncIterator[bytes]:
        yield Huge(b"x")

    with pytest.raises(Refused) as refused:
        await binaries.receive("1", pieces())
    assert refused.value.outcome.status == 413
    assert list(tmp_path.iterdir()) == []


async def test_two_gigabytes_are_allowed() -> None:
    assert MAX_BYTES == 2 * 1024**3
