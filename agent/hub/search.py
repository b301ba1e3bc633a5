"""Read a FHIR search and answer it from the term index.

Secret: which parameters exist, how each is spelt, and how each becomes SQL.
Promise: a parameter that is not known is refused by name, never ignored; a page is stable under paging.

Parameters (FHIR R4 §3.1.1): `name` (prefix, any case; `:exact`, `:contains`), `identifier`, `status`, `_tag`
and the like (token: `value`, `system|value`, `|value`, `system|`; several with commas; `:not`), `_id` (comma
list), `_lastUpdated` (eq ne gt ge lt le sa eb), `_count` (0–1000), `_offset`, `_sort` (`name`, `_id`,
`_lastUpdated`, `-` for descending). `_total`, `_summary`, `_fields`, `_elements`, `_format`, `_pretty` are
accepted and change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.hub.outcomes import Refused, bad_request

DEFAULT_COUNT = 20
MAX_COUNT = 1000
TEXT_PARAMS = frozenset({"name", "device-name"})
TOKEN_PARAMS = frozenset({"identifier", "status", "_tag", "type", "code", "active", "subject", "url"})
IGNORED_PARAMS = frozenset({"_total", "_summary", "_fields", "_elements", "_format", "_pretty"})
TEXT_MATCHES = {
    "": "instr(t.value, ?) = 1",
    "exact": "t.value = ?",
    "contains": "instr(t.value, ?) > 0",
}
MODIFIERS = {**dict.fromkeys(TEXT_PARAMS, TEXT_MATCHES), **dict.fromkeys(TOKEN_PARAMS, ("", "not"))}
MAX_VALUES = 1_000
SORTABLE = {"name": "name", "_lastUpdated": "r.updated", "_id": "r.id"}
COMPARISONS = {"eq": "=", "ne": "<>", "gt": ">", "sa": ">", "ge": ">=", "lt": "<", "eb": "<", "le": "<="}


@dataclass(frozen=True, slots=True)
class Search:
    """A search of one resource type, read and checked. `where` is SQL over `resource r`, `args` its values."""

    type: str
    where: str
    args: tuple[Any, ...]
    order: str
    count: int = DEFAULT_COUNT
    offset: int = 0

    @property
    def counting(self) -> str:
        """SQL for the number of matches; takes `args`."""
        return f"SELECT count(*) FROM resource r WHERE {self.where}"

    @property
    def page(self) -> str:
        """SQL for one page of `content`; takes `args`, then count and offset."""
        return f"SELECT r.content FROM resource r WHERE {self.where} ORDER BY {self.order} LIMIT ? OFFSET ?"


def read_search(resource_type: str, query: Iterable[tuple[str, str]]) -> Search:
    """A query string's pairs as a Search. Raises Refused (400) on anything that is not understood."""
    where, args = ["r.type = ?", "r.deleted = 0"], [resource_type]
    order, count, offset = "r.number", DEFAULT_COUNT, 0
    for key, value in query:
        name, _, modifier = key.partition(":")
        if modifier not in MODIFIERS.get(name, ("",)):
            raise Refused(bad_request(f"Unsupported search modifier: {key}"))
        if name in IGNORED_PARAMS:
            continue
        if name == "_count":
            count = _number(name, value)
            if count > MAX_COUNT:
                raise Refused(bad_request(f"Search _count of {count} is greater than max of {MAX_COUNT}"))
        elif name == "_offset":
            offset = _number(name, value)
        elif name == "_sort":
            order = _order(value)
        else:
            clause, values = _clause(name, modifier, value)
            where.append(clause)
            args.extend(values)
    return Search(resource_type, " AND ".join(where), tuple(args), order, count, offset)


def terms_of(resource: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What a resource can be found by: (parameter, system, value), texts in lower case."""
    terms = [("name", "", text.casefold()) for text in _texts(resource.get("name"))]
    for device_name in _objects(resource.get("deviceName")):
        terms += [("device-name", "", text.casefold()) for text in _texts(device_name.get("name"))]
    for identifier in _objects(resource.get("identifier")):
        terms.append(("identifier", str(identifier.get("system", "")), str(identifier.get("value", ""))))
    for tag in _objects(_object(resource.get("meta")).get("tag")):
        terms.append(("_tag", str(tag.get("system", "")), str(tag.get("code", ""))))
    for param in ("status", "code", "active", "url"):
        if isinstance(value := resource.get(param), str | bool):
            terms.append((param, "", str(value).lower() if isinstance(value, bool) else value))
    for param in ("type", "code"):
        for concept in _objects(resource.get(param)):
            for coding in _objects(concept.get("coding")):
                terms.append((param, str(coding.get("system", "")), str(coding.get("code", ""))))
    if isinstance(reference := _object(resource.get("subject")).get("reference"), str):
        terms.append(("subject", "", reference))
    return terms


def _clause(name: str, modifier: str, value: str) -> tuple[str, Sequence[Any]]:
    if value.count(",") > MAX_VALUES:
        raise Refused(bad_request(f"Too many values for {name}: {MAX_VALUES} at most"))
    if name == "_id":
        ids = value.split(",")
        return f"r.id IN ({','.join('?' * len(ids))})", ids
    if name == "_lastUpdated":
        return _updated(value)
    if name in TEXT_PARAMS:
        texts = [text.casefold() for text in value.split(",")]
        matches = " OR ".join([TEXT_MATCHES[modifier]] * len(texts))
        return _exists(f"t.param = ? AND ({matches})"), [name, *texts]
    if name in TOKEN_PARAMS:
        clauses, args = [], [name]
        for token in value.split(","):
            system, bar, code = token.rpartition("|")
            wanted = {"t.system = ?": system} if bar else {}
            if code or not bar:
                wanted["t.value = ?"] = code
            clauses.append(f"({' AND '.join(wanted)})")
            args += wanted.values()
        negation = "NOT " if modifier == "not" else ""
        return negation + _exists(f"t.param = ? AND ({' OR '.join(clauses)})"), args
    raise Refused(bad_request(f"Unknown search parameter: {name}"))


def _exists(condition: str) -> str:
    return f"EXISTS (SELECT 1 FROM term t WHERE t.resource = r.number AND {condition})"


def _updated(value: str) -> tuple[str, Sequence[Any]]:
    prefix = value[:2] if value[:2] in COMPARISONS else "eq"
    text = value[2:] if value[:2] in COMPARISONS else value
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(bad_request(f"Invalid date value: {text[:40]}")) from None
    start = start.replace(tzinfo=start.tzinfo or UTC)
    width = timedelta(days=1) if len(text) == 10 else timedelta(milliseconds=1)
    first, after = (
        moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        for moment in (start, start + width)
    )
    match prefix:
        case "eq":
            return "(r.updated >= ? AND r.updated < ?)", (first, after)
        case "ne":
            return "(r.updated < ? OR r.updated >= ?)", (first, after)
        case "gt" | "sa":
            return "r.updated >= ?", (after,)
        case "le":
            return "r.updated < ?", (after,)
        case _:
            return f"r.updated {COMPARISONS[prefix]} ?", (first,)


def _order(value: str) -> str:
    columns = []
    for part in value.split(","):
        name = part.removeprefix("-")
        if name not in SORTABLE:
            raise Refused(bad_request(f"Unknown search parameter: {name}"))
        column = SORTABLE[name]
        if column == "name":
            column = "(SELECT min(t.value) FROM term t WHERE t.resource = r.number AND t.param = 'name')"
        columns.append(f"{column} DESC" if part.startswith("-") else column)
    return ", ".join([*columns, "r.number"])


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise Refused(bad_request(f"Invalid value for {name}: expected a whole number"))
    return int(value)


def _texts(value: Any) -> Iterable[str]:
    """A plain name, or the parts of HumanNames."""
    if isinstance(value, str):
        yield value
    for human in _objects(value):
        given = human.get("given")
        parts = [human.get("text"), human.get("family"), *(given if isinstance(given, list) else ())]
        yield from (part for part in parts if isinstance(part, str))


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
