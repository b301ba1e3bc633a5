"""Speak FHIR R4 over HTTP: `/fhir/R4/…`.

Secret: how paths, methods, headers and Bundles map to resources and operations (FHIR R4 §3.1).
Promise: what a client reads back is what it wrote; every refusal is an OperationOutcome; nothing is cached by
anybody.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import msgspec
from aiohttp import web

from agent import __version__
from agent.hub.access import Access
from agent.hub.agents import Query
from agent.hub.binaries import Binaries
from agent.hub.clock import http_date
from agent.hub.jobs import ACCEPTED, Jobs, output_of
from agent.hub.jsonpatch import BadPatch, apply_patch
from agent.hub.jsontext import BadJson, read_json
from agent.hub.operations import Operations
from agent.hub.outcomes import ALL_OK, NOT_FOUND, UNAUTHORIZED, Outcome, Refused, accepted, bad_request
from agent.hub.parameters import Parameters, pairs_of, text_of
from agent.hub.push import Order, Pushes, Said
from agent.hub.resources import Resource, Resources, public
from agent.hub.search import Search, read_search
from agent.hub.shapes import TYPE_NAME

FHIR_JSON = "application/fhir+json"
MAX_JSON_BYTES = 1_048_576
PIECE_BYTES = 1_048_576
LINK_LIFE_S = 3_600
SERVED_TYPES = ("Agent", "Binary", "Bot", "ClientApplication", "Device", "Endpoint", "Project")


class Rest:
    """The FHIR side of a hub."""

    def __init__(
        self,
        resources: Resources,
        access: Access,
        operations: Operations,
        pushes: Pushes,
        jobs: Jobs,
        binaries: Binaries,
    ) -> None:
        self._resources = resources
        self._access = access
        self._operations = operations
        self._pushes = pushes
        self._jobs = jobs
        self._binaries = binaries
        self.base_url = ""  # once it listens

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request below `/fhir/R4/`."""
        parts = [part for part in request.match_info["tail"].split("/") if part]
        if request.method == "GET" and parts == ["metadata"]:
            return answer(self._capabilities())
        client = self._access.client_of(request.headers.get("Authorization"))
        if client is None:
            raise Refused(UNAUTHORIZED)
        match request.method, parts:
            case "POST", ["Agent", "$push"]:
                return await self._push(request, None)
            case "POST", ["Agent", id_, "$push"]:
                return await self._push(request, id_)
            case "GET", ["job", id_, "status"]:
                return self._job(id_)
            case ("GET" | "POST", ["Agent", name]) if name.startswith("$"):
                return answer(await self._operations.many(name, await _query(request)))
            case ("GET" | "POST", ["Agent", id_, name]) if name.startswith("$"):
                return answer(await self._operations.one(name, id_, await _query(request)))
            case "POST", [resource_type, "_search"]:
                return self._search(request, resource_type, await _query(request))
            case "GET", [resource_type] if TYPE_NAME.match(resource_type):
                return self._search(request, resource_type, list(request.query.items()))
            case "POST", ["Binary"]:
                return await self._put_binary(request, client, str(uuid4()), created=True)
            case "POST", [resource_type]:
                resource = await _body(request)
                if resource.get("resourceType") != resource_type:
                    raise Refused(bad_request("Incorrect resource type"))
                created = await self._resources.create(resource, self._access.author_of(client))
                return self._resource(request, created, status=201)
            case "GET", ["Binary", id_] if wants_resource(request.headers.get("Accept", "")):
                return self._resource(request, self._with_link(self._resources.get("Binary", id_)))
            case "GET", ["Binary", id_]:
                return self.content(id_)
            case "PUT", ["Binary", id_]:
                self._resources.get("Binary", id_)
                return await self._put_binary(request, client, id_, created=False)
            case "GET", [resource_type, id_]:
                return self._resource(request, self._resources.get(resource_type, id_))
            case "PUT", [resource_type, id_]:
                return await self._update(request, client, resource_type, id_, await _body(request))
            case "PATCH", [resource_type, id_]:
                old = public(self._resources.get(resource_type, id_), extended=False)
                try:
                    new = apply_patch(old, await _json(request))
                except BadPatch as bad:
                    raise Refused(bad_request(str(bad))) from None
                return await self._update(request, client, resource_type, id_, new)
            case "DELETE", [resource_type, id_]:
                await self._resources.delete(resource_type, id_)
                if resource_type == "Binary":
                    self._binaries.forget(id_)
                return answer(ALL_OK.traced())
            case _:
                raise Refused(NOT_FOUND)

    def content(self, binary_id: str) -> web.FileResponse:
        """What a Binary holds, in its own content type."""
        binary = self._resources.get("Binary", binary_id)
        path = self._binaries.path(binary_id)
        if not path.exists():
            raise Refused(NOT_FOUND)
        headers = {"Content-Type": binary.get("contentType", "application/octet-stream")}
        headers["ETag"] = f'W/"{binary["meta"]["versionId"]}"'
        return web.FileResponse(path, headers=headers)

    async def _push(self, request: web.Request, agent_id: str | None) -> web.Response:
        parameters = Parameters(pairs_of(await _body(request)))
        order = self._pushes.order(agent_id, list(request.query.items()), parameters)
        if _is_asynchronous(request):
            job_id = await self._jobs.begin(self.base_url + request.path_qs[1:], lambda: self._push_for_job(order))
            status_url = f"{self.base_url}fhir/R4/job/{job_id}/status"
            response = answer(accepted(status_url).traced(), 202)
            response.headers["Content-Location"] = status_url
            return response
        match await self._pushes.carry(order):
            case Said(content_type, body):
                return _response(body.encode(), content_type)
            case Outcome() as outcome:
                return answer(outcome.traced())

    async def _push_for_job(self, order: Order) -> Resource:
        match await self._pushes.carry(order):
            case Said(_, body):
                return output_of(ALL_OK, body)
            case Outcome() as outcome:
                return output_of(outcome)

    def _job(self, job_id: str) -> web.Response:
        job = self._jobs.read(job_id)
        return _versioned(answer(job, 202 if job["status"] == ACCEPTED else 200), job)

    async def _update(
        self, request: web.Request, client: Resource, resource_type: str, id_: str, resource: Any
    ) -> web.Response:
        if not isinstance(resource, dict) or resource.get("resourceType") != resource_type:
            raise Refused(bad_request("Incorrect resource type"))
        if resource.get("id") != id_:
            raise Refused(bad_request("Incorrect ID"))
        if_match = request.headers.get("If-Match")
        version = if_match.removeprefix("W/").strip('"') if if_match else None
        updated = await self._resources.update(resource, self._access.author_of(client), version)
        return self._resource(request, updated)

    async def _put_binary(
        self, request: web.Request, client: Resource, binary_id: str, *, created: bool
    ) -> web.Response:
        content_type = request.headers.get("Content-Type", "application/octet-stream")
        resource: Resource = {"resourceType": "Binary", "id": binary_id, "contentType": content_type}
        pieces: AsyncIterator[bytes] = request.content.iter_chunked(PIECE_BYTES)
        if request.content_type == FHIR_JSON:
            described = await _body(request)
            data, resource = _split_binary(described, binary_id)
            pieces = _one(data)
        await self._binaries.receive(binary_id, pieces)
        kept = await self._resources.put(resource, self._access.author_of(client))
        return self._resource(request, self._with_link(kept), status=201 if created else 200)

    def _with_link(self, binary: Resource) -> Resource:
        path = f"storage/{binary['id']}/{binary['meta']['versionId']}"
        expires = int(time.time()) + LINK_LIFE_S
        query = urlencode({"Expires": expires, "Signature": self._access.sign_path(path, expires)})
        return {**binary, "url": f"{self.base_url}{path}?{query}"}

    def _resource(self, request: web.Request, resource: Resource, status: int = 200) -> web.Response:
        shown = public(resource, extended=request.headers.get("X-Medplum") == "extended")
        response = _versioned(answer(shown, status), resource)
        if status == 201:
            response.headers["Location"] = self._url(resource)
        return response

    def _url(self, resource: Resource) -> str:
        return f"{self.base_url}fhir/R4/{resource['resourceType']}/{resource['id']}"

    def _search(self, request: web.Request, resource_type: str, query: Query) -> web.Response:
        search = read_search(resource_type, query)
        page = self._resources.find(search)
        extended = request.headers.get("X-Medplum") == "extended"
        entries = [
            {"fullUrl": self._url(found), "search": {"mode": "match"}, "resource": public(found, extended=extended)}
            for found in page.resources
        ]
        bundle: Resource = {"resourceType": "Bundle", "type": "searchset"}
        if entries:
            bundle["entry"] = entries
        bundle["total"] = page.total
        bundle["link"] = [
            {"relation": relation, "url": f"{self.base_url}fhir/R4/{resource_type}?{urlencode(pairs)}"}
            for relation, pairs in _links(query, search, page.total)
        ]
        return answer(bundle)

    def _capabilities(self) -> Resource:
        interactions = [{"code": code} for code in ("create", "read", "update", "patch", "delete", "search-type")]
        types = [{"type": name, "interaction": interactions} for name in SERVED_TYPES]
        return {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": "2026-01-01",
            "kind": "instance",
            "software": {"name": "onprem-agent hub", "version": __version__},
            "implementation": {"description": "Embedded server", "url": f"{self.base_url}fhir/R4"},
            "fhirVersion": "4.0.1",
            "format": ["json"],
            "rest": [{"mode": "server", "resource": types}],
        }


def answer(content: Any, status: int = 200, content_type: str = FHIR_JSON) -> web.Response:
    """JSON that nobody may cache."""
    return _response(msgspec.json.encode(content), content_type, status)


def _response(body: bytes, content_type: str, status: int = 200) -> web.Response:
    headers = {
        "Cache-Control": "no-store, no-cache, must-revalidate",
        "X-Content-Type-Options": "nosniff",
        "Content-Type": f"{content_type}; charset=utf-8",
    }
    return web.Response(body=body, status=status, headers=headers)


def _versioned(response: web.Response, resource: Resource) -> web.Response:
    response.headers["ETag"] = f'W/"{resource["meta"]["versionId"]}"'
    response.headers["Last-Modified"] = http_date(resource["meta"]["lastUpdated"])
    return response


def _links(query: Query, search: Search, total: int) -> list[tuple[str, list[tuple[str, str]]]]:
    def at(offset: int) -> list[tuple[str, str]]:
        kept = [pair for pair in query if pair[0] not in ("_count", "_offset")]
        return [*kept, ("_count", str(search.count)), ("_offset", str(offset))]

    links = [("self", list(query)), ("first", at(0))]
    if search.count and search.offset + search.count < total:
        links.append(("next", at(search.offset + search.count)))
    if search.offset > 0:
        links.append(("previous", at(max(0, search.offset - search.count))))
    return links


async def _json(request: web.Request) -> Any:
    raw = await request.read()
    try:
        return read_json(raw)
    except BadJson as error:
        raise Refused(bad_request(f"Content could not be parsed: {error}")) from None


async def _body(request: web.Request) -> Resource:
    content = await _json(request)
    if not isinstance(content, dict):
        raise Refused(bad_request("Resource is not an object"))
    return content


async def _query(request: web.Request) -> Query:
    """The query string, and for POST the form, plain object or Parameters in the body."""
    pairs = list(request.query.items())
    if request.method != "POST" or not request.can_read_body:
        return pairs
    if request.content_type == "application/x-www-form-urlencoded":
        return [*pairs, *((key, value) for key, value in (await request.post()).items() if isinstance(value, str))]
    return [*pairs, *((key, text_of(value)) for key, value in pairs_of(await _body(request)) if value is not None)]


def wants_resource(accept: str) -> bool:
    """Whether a reader of a Binary would rather have the resource than its content (FHIR R4 §2.44.3).

    Only who asks for FHIR and for nothing else does: clients of FHIR name it in every request, and take `*/*` too.
    """
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    return all(kind == FHIR_JSON for kind in kinds)


def _is_asynchronous(request: web.Request) -> bool:
    """Whether the client would rather not wait (RFC 7240 §4.1)."""
    preferences = ",".join(request.headers.getall("Prefer", [])).split(",")
    return any(preference.partition(";")[0].strip().lower() == "respond-async" for preference in preferences)


def _split_binary(binary: Resource, binary_id: str) -> tuple[bytes, Resource]:
    if binary.get("resourceType") != "Binary":
        raise Refused(bad_request("Incorrect resource type"))
    try:
        data = base64.b64decode(binary.get("data", ""), validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Refused(bad_request("Invalid base64", "Binary.data")) from None
    kept = {key: value for key, value in binary.items() if key != "data"}
    return data, {"contentType": "application/octet-stream", **kept, "id": binary_id}


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data
