"""The last configuration that worked, kept for the night when the server is away.

Secret: its form on disk and how it gets there whole.
Promise: a power cut leaves the old file or the new one, never half of one; a file that cannot be used is a finding,
never an exception. What a cut leaves of a new one is written over by the next.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from agent.errors import Finding, Severity, StoreError
from agent.protocol.fhir import Agent, Endpoint, UnreadableResource, read_agent, read_endpoint

VERSION = 1


@dataclass(frozen=True, slots=True)
class Version:
    """Which edition of a resource it is (FHIR R4 Resource.meta); empty where the resource does not say."""

    version_id: str = ""
    last_updated: str = ""


@dataclass(frozen=True, slots=True)
class LastGood:
    """`endpoints` by reference, as `build_plan` takes them. `saved_at` with its time zone. `versions`: of the Agent and
    of each Endpoint, by reference; `digest`: of everything in them."""

    agent: Agent
    endpoints: Mapping[str, Endpoint]
    saved_at: datetime
    versions: Mapping[str, Version] = field(default_factory=dict)
    digest: str = ""


class _File(msgspec.Struct, frozen=True, rename="camel"):
    version: int
    saved_at: datetime
    agent: dict[str, Any]
    endpoints: dict[str, dict[str, Any]]


def versions_of(agent_json: Mapping[str, Any], endpoints_json: Mapping[str, Mapping[str, Any]]) -> dict[str, Version]:
    """The editions of these resources, by reference."""
    agent = f"Agent/{agent_json.get('id') or ''}"
    return {agent: _version(agent_json), **{reference: _version(each) for reference, each in endpoints_json.items()}}


def _version(resource: Mapping[str, Any]) -> Version:
    meta = resource.get("meta")
    if not isinstance(meta, Mapping):
        return Version()
    version_id, last_updated = meta.get("versionId"), meta.get("lastUpdated")
    return Version(
        version_id if isinstance(version_id, str) else "", last_updated if isinstance(last_updated, str) else ""
    )


def digest_of(agent_json: Mapping[str, Any], endpoints_json: Mapping[str, Mapping[str, Any]]) -> str:
    """Twelve hexadecimal digits that tell one configuration from another: the resources' whole content, their versions
    included, in whichever order their fields stand."""
    content = json.dumps([agent_json, endpoints_json], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def save_last_good(
    path: Path, agent_json: Mapping[str, Any], endpoints_json: Mapping[str, Mapping[str, Any]], saved_at: datetime
) -> None:
    """Write the resources as the server sent them. Raises StoreError when the disk does not take them."""
    endpoints = {reference: dict(endpoint) for reference, endpoint in endpoints_json.items()}
    content = msgspec.json.format(msgspec.json.encode(_File(VERSION, saved_at, dict(agent_json), endpoints)))
    draft = path.with_name(f"{path.name}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        if sys.platform != "win32":  # a folder cannot be opened there, and NTFS journals the rename
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as failed:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        text = f"the last good configuration cannot be written to {path}: {failed.strerror}"
        raise StoreError(text, hint="free space or correct the permissions of the data folder") from failed


def load_last_good(path: Path) -> LastGood | Finding | None:
    """None where none was ever saved."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as failed:
        return _damaged(path, f"the last good configuration cannot be read: {failed.strerror}")
    try:
        version = msgspec.json.decode(content, type=_Version).version
        if version != VERSION:
            return _damaged(path, f"the last good configuration has form {version}, and this version reads {VERSION}")
        file = msgspec.json.decode(content, type=_File)
        endpoints = {reference: read_endpoint(endpoint) for reference, endpoint in file.endpoints.items()}
        return LastGood(
            read_agent(file.agent),
            endpoints,
            file.saved_at,
            versions_of(file.agent, file.endpoints),
            digest_of(file.agent, file.endpoints),
        )
    except (msgspec.DecodeError, UnicodeDecodeError, UnreadableResource):
        return _damaged(path, "the last good configuration is damaged")


class _Version(msgspec.Struct, frozen=True):
    version: int


def _damaged(path: Path, text: str) -> Finding:
    remedy = "nothing, if the server can be reached: it is written again then; else bring the server back"
    return Finding("plan.last-good-unusable", Severity.WARNING, text, remedy, str(path))
