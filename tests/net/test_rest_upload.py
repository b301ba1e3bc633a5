"""Bringing files to the server: what goes out, in which pieces, and what each kind of trouble is called."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest
from aiohttp import web
from net_far_ends import StartHttp

from agent.errors import AgentError, LinkError
from agent.net.rest import Rest, ServerRefused

CREATED = {"resourceType": "Binary", "id": "6257fafc-da22-4176-962d-aafc3a8ddc3a", "contentType": "application/dicom"}
REFERENCE = f"Binary/{CREATED['id']}"


class Tokens:
    """Gives a new token after each refusal."""

    def __init__(self) -> None:
        self.refusals = 0

    async def token(self) -> str:
        return f"token-{self.refusals + 1}"

    def refused(self) -> str:
        self.refusals += 1
        return ""


async def upload(base_url: str, path: Path, *, tokens: Tokens | None = None, stall_s: float = 60.0) -> str:
    async with Rest(base_url, credentials=tokens or Tokens()) as rest:
        return await rest.upload(path, content_type="application/dicom", filename="dicom.dcm", stall_s=stall_s)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "7.dcm"
    path.write_bytes(bytes(range(256)) * 4_000)
    return path


async def test_a_file_becomes_a_binary_as_the_recorded_agent_makes_one(start_http: StartHttp, file: Path) -> None:
    async def binary(request: web.Request) -> web.Response:
        assert (request.method, request.raw_path) == ("POST", "/base/fhir/R4/Binary?_filename=dicom.dcm")
        assert request.headers["Content-Type"] == "application/dicom"
        assert request.headers["Content-Length"] == str(file.stat().st_size)
        assert "Transfer-Encoding" not in request.headers
        assert request.headers["Authorization"] == "Bearer token-1"
        assert request.headers["Accept"] == "application/fhir+json, */*; q=0.1"
        assert b"".join([piece async for piece in request.content.iter_any()]) == file.read_bytes()
        return web.json_response(CREATED, status=201)

    assert await upload(await start_http(binary) + "base", file) == REFERENCE


async def test_an_empty_file_is_a_binary_too(start_http: StartHttp, tmp_path: Path) -> None:
    async def binary(request: web.Request) -> web.Response:
        assert await request.read() == b""
        return web.json_response(CREATED, status=201)

    (tmp_path / "empty").touch()
    assert await upload(await start_http(binary), tmp_path / "empty") == REFERENCE


async def test_fifty_megabytes_pass_without_being_in_memory(start_http: StartHttp, tmp_path: Path) -> None:
    process, large = psutil.Process(), tmp_path / "large.dcm"
    with large.open("wb") as growing:
        growing.truncate(50 * 1024 * 1024)
    before, most = process.memory_info().rss, 0

    async def binary(request: web.Request) -> web.Response:
        nonlocal most
        size = 0
        async for piece in request.content.iter_any():
            size += len(piece)
            most = max(most, process.memory_info().rss - before)
        assert size == 50 * 1024 * 1024
        return web.json_response(CREATED, status=201)

    assert await upload(await start_http(binary), large) == REFERENCE
    assert 0 < most < 24 * 1024 * 1024


async def test_a_401_is_tried_once_more_with_a_new_token_and_the_whole_file(start_http: StartHttp, file: Path) -> None:
    bodies: list[bytes] = []

    async def once(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        if request.headers["Authorization"] == "Bearer token-1":
            return web.Response(status=401)
        return web.json_response(CREATED, status=201)

    assert await upload(await start_http(once), file) == REFERENCE
    assert bodies == [file.read_bytes()] * 2


async def test_a_401_that_stays_is_told_after_two_tries(start_http: StartHttp, file: Path) -> None:
    async def never(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=401)

    tokens = Tokens()
    with pytest.raises(ServerRefused) as refused:
        await upload(await start_http(never), file, tokens=tokens)
    assert (refused.value.status, tokens.refusals) == (401, 1)


@pytest.mark.parametrize("status", [400, 403, 413, 415])
async def test_what_the_server_will_not_have_is_a_refusal(start_http: StartHttp, file: Path, status: int) -> None:
    async def refuse(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"issue": [{"details": {"text": "no"}}]}, status=status)

    with pytest.raises(ServerRefused, match=f"fhir/R4/Binary: the server answered {status}: no") as refused:
        await upload(await start_http(refuse), file)
    assert refused.value.status == status


@pytest.mark.parametrize(("status", "wait", "retry_after_s"), [(429, "7", 7.0), (500, None, None), (503, "30", 30.0)])
async def test_overload_is_a_link_error_with_its_wait(
    start_http: StartHttp, file: Path, status: int, wait: str | None, retry_after_s: float | None
) -> None:
    async def busy(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status, headers={} if wait is None else {"Retry-After": wait})

    with pytest.raises(LinkError, match=str(status)) as late:
        await upload(await start_http(busy), file)
    assert late.value.retry_after_s == retry_after_s


async def test_a_server_that_is_away_or_breaks_off_is_a_link_error(start_http: StartHttp, file: Path) -> None:
    async def breaks_off(request: web.Request) -> web.Response:
        await request.content.readany()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    with pytest.raises(LinkError, match="cannot connect"):
        await upload("http://127.0.0.1:1/", file)
    with pytest.raises(LinkError, match="broke"):
        await upload(await start_http(breaks_off), file)


async def test_a_server_that_takes_no_more_is_given_up(start_http: StartHttp, tmp_path: Path) -> None:
    over = asyncio.Event()
    large = tmp_path / "large.dcm"
    with large.open("wb") as growing:
        growing.truncate(64 * 1024 * 1024)

    async def stands_still(request: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    base_url = await start_http(stands_still)
    with pytest.raises(LinkError, match=r"did not move for 0\.3 s"):
        await upload(base_url, large, stall_s=0.3)
    over.set()


async def test_a_slow_server_is_waited_for_as_long_as_something_moves(start_http: StartHttp, tmp_path: Path) -> None:
    large = tmp_path / "large.dcm"
    with large.open("wb") as growing:
        growing.truncate(32 * 1024 * 1024)
    began = asyncio.get_running_loop().time()

    async def slow(request: web.Request) -> web.Response:
        size = 0
        async for piece in request.content.iter_any():
            size += len(piece)
            while asyncio.get_running_loop().time() - began < 1.5 * size / (32 * 1024 * 1024):
                await asyncio.sleep(0.01)
        return web.json_response(CREATED, status=201)

    assert await upload(await start_http(slow), large, stall_s=1.0) == REFERENCE
    assert asyncio.get_running_loop().time() - began > 1.0, "slower than what it may stand still"


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"resourceType":"Binary"}', '{"id":7}', '{"id":""}'])
async def test_an_answer_that_names_no_binary_is_not_believed(start_http: StartHttp, file: Path, body: str) -> None:
    async def portal(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text=body)

    with pytest.raises(LinkError, match=r"no JSON object|names no Binary"):
        await upload(await start_http(portal), file)


async def test_a_file_that_is_gone_or_no_file_is_named(start_http: StartHttp, tmp_path: Path) -> None:
    for path, why in [(tmp_path / "7.dcm", "No such file"), (tmp_path, "Is a directory")]:
        with pytest.raises(AgentError, match=f"{path} cannot be read: {why}") as gone:
            await upload("http://127.0.0.1:1/", path)
        assert not isinstance(gone.value, LinkError)


async def test_a_file_that_becomes_shorter_meanwhile_is_named(start_http: StartHttp, tmp_path: Path) -> None:
    large = tmp_path / "large.dcm"
    with large.open("wb") as growing:
        growing.truncate(64 * 1024 * 1024)

    async def cuts(request: web.Request) -> web.Response:
        await request.content.readany()
        with large.open("r+b") as shrinking:
            shrinking.truncate(0)
        await request.read()
        return web.json_response(CREATED, status=201)

    with pytest.raises(AgentError, match="it has become shorter") as short:
        await upload(await start_http(cuts), large)
    assert not isinstance(short.value, LinkError)
