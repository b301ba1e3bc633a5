"""Create, read, change, delete and find FHIR resources.

Secret: how versions, meta and deletion marks are kept, and what a resource must look like to be let in.
Promise: a resource that is read is exactly what was written plus id and meta; an update that changes nothing
makes no new version; nothing is reported as written before it is on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import apsw
import msgspec

from agent.hub.clock import instant
from agent.hub.outcomes import GONE, NOT_FOUND, PRECONDITION_FAILED, Refused, bad_request
from agent.hub.search import Search, terms_of
from agent.hub.shapes import check_shape
from agent.hub.store import Store

Resource = dict[str, Any]

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes: goes into meta.author and meta.project."""

    reference: str
    display: str
    project: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a search: the resources and how many match in all."""

    resources: list[Resource]
    total: int


class Resources:
    """All resources of the one project that a hub has. What is read often is held decoded in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._decoded: dict[tuple[str, str], Resource] = {}
        self.generation = 0  # grows with every write: what others derive from resources is stale then

    def get(self, resource_type: str, id: str) -> Resource:  # noqa: A002 - FHIR's own name
        """The resource; not to be changed by the caller. Raises Refused: 404, or 410 once deleted."""
        if (known := self._decoded.get((resource_type, id))) is not None:
            return known
        row = self._store.read.execute(
            "SELECT deleted, content FROM resource WHERE type = ? AND id = ?", (resource_type, id)
        ).fetchone()
        if row is None:
            raise Refused(NOT_FOUND)
        if row[0]:
            raise Refused(GONE)
        resource: Resource = msgspec.json.decode(row[1])
        if len(self._decoded) > 1_000:
            self._decoded.clear()
        self._decoded[resource_type, id] = resource
        return resource

    def find(self, search: Search) -> Page:
        """One page of what matches."""
        read = self._store.read
        total = read.execute(search.counting, search.args).get
        rows = read.execute(search.page, (*search.args, search.count, search.offset))
        return Page([msgspec.json.decode(content) for (content,) in rows], total)

    async def create(self, resource: Resource, author: Author) -> Resource:
        """Keep a new resource under a new id; an id in it is ignored."""
        check_shape(resource)
        return await self._put({**resource, "id": str(uuid4())}, author, None, must_exist=False)

    async def update(self, resource: Resource, author: Author, if_match: str | None = None) -> Resource:
        """Replace the resource with the same type and id. Raises Refused: 404, 410, 412."""
        check_shape(resource)
        return await self._put(resource, author, if_match, must_exist=True)

    async def put(self, resource: Resource, author: Author) -> Resource:
        """Create or replace, under the id in the resource (a UUID) if it has one: for seeds and tests."""
        check_shape(resource)
        given = resource.get("id")
        try:
            id_ = str(UUID(given)) if given else str(uuid4())
        except (ValueError, AttributeError, TypeError):
            raise Refused(bad_request("Invalid id: must be a UUID", f"{resource['resourceType']}.id")) from None
        return await self._put({**resource, "id": id_}, author, None, must_exist=False)

    async def delete(self, resource_type: str, id: str) -> None:  # noqa: A002
        """Mark as deleted; reading it is 410 from then on. Raises Refused: 404, 410."""

        def job(db: apsw.Connection) -> None:
            number, _ = _current(db, resource_type, id)
            db.execute("UPDATE resource SET deleted = 1, updated = ? WHERE number = ?", (instant(), number))
            db.execute("DELETE FROM term WHERE resource = ?", (number,))

        await self._store.write(job)
        self._forget(resource_type, id)

    async def _put(self, resource: Resource, author: Author, if_match: str | None, *, must_exist: bool) -> Resource:
        resource_type, id_ = resource["resourceType"], resource["id"]

        def job(db: apsw.Connection) -> Resource:
            old = _current(db, resource_type, id_)[1] if must_exist else None
            if if_match and old and if_match != old["meta"]["versionId"]:
                raise Refused(PRECONDITION_FAILED)
            if old is not None and _same(old, resource):
                return old
            stamped = _stamp(resource, author)
            content = encode(stamped).decode()
            meta = stamped["meta"]
            number = db.execute(
                "INSERT INTO resource (type, id, version, updated, deleted, content) VALUES (?, ?, ?, ?, 0, ?)"
                " ON CONFLICT (type, id) DO UPDATE SET version = excluded.version, updated = excluded.updated,"
                " deleted = 0, content = excluded.content RETURNING number",
                (resource_type, id_, meta["versionId"], meta["lastUpdated"], content),
            ).get
            db.execute("DELETE FROM term WHERE resource = ?", (number,))
            rows = [(number, *term) for term in terms_of(stamped)]
            db.executemany("INSERT INTO term (resource, param, system, value) VALUES (?, ?, ?, ?)", rows)
            return stamped

        written = await self._store.write(job)
        self._forget(resource_type, id_)
        return written

    def _forget(self, resource_type: str, id_: str) -> None:
        self._decoded.pop((resource_type, id_), None)
        self.generation += 1


def public(resource: Resource, *, extended: bool) -> Resource:
    """A resource as a client sees it: author, project and compartment only for `X-Medplum: extended`."""
    if extended:
        return resource
    meta = {key: value for key, value in resource["meta"].items() if key not in _EXTENDED_META}
    return {**resource, "meta": meta}


_EXTENDED_META = frozenset({"author", "project", "compartment"})
_KEPT_META = ("profile", "security", "tag")


def _current(db: apsw.Connection, resource_type: str, id_: str) -> tuple[int, Resource]:
    sql = "SELECT number, deleted, content FROM resource WHERE type = ? AND id = ?"
    row = db.execute(sql, (resource_type, id_)).fetchone()
    if row is None:
        raise Refused(NOT_FOUND)
    if row[1]:
        raise Refused(GONE)
    return row[0], msgspec.json.decode(row[2])


def _stamp(resource: Resource, author: Author) -> Resource:
    given = resource.get("meta") or {}
    meta = {
        "versionId": str(uuid4()),
        "lastUpdated": instant(),
        "author": {"reference": author.reference, "display": author.display},
        "project": author.project,
        "compartment": [{"reference": f"Project/{author.project}"}],
        **{key: given[key] for key in _KEPT_META if key in given},
    }
    body = {key: value for key, value in resource.items() if key not in ("meta", "id")}
    return {**body, "id": resource["id"], "meta": meta}


def _same(old: Resource, new: Resource) -> bool:
    def essence(resource: Resource) -> Resource:
        meta = resource.get("meta") or {}
        return {**resource, "meta": {key: meta[key] for key in _KEPT_META if key in meta}}

    return essence(old) == essence(new)
