"""The last configuration that worked, kept for the night when the server is away.

Secret: its form on disk and how it gets there whole.
Promise: a power cut leaves the old file or the new one, never half of one; a file that cannot be used is a finding,
never an exception.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from agent.errors import Finding, Severity, StoreError
from agent.protocol.fhir import Agent, Endpoint, UnreadableResource, read_agent, read_endpoint

VERSION = 1


@dataclass(frozen=True, slots=True)
class LastGood:
    """`endpoints` by reference, as `build_plan` takes them. `saved_at` with its time zone."""

    agent: Agent
    endpoints: Mapping[str, Endpoint]
    saved_at: datetime


class _File(msgspec.Struct, frozen=True, rename="camel"):
    version: int
    saved_at: datetime
    agent: dict[str, Any]
    endpoints: dict[str, dict[str, Any]]


def save_last_good(
    path: Path, agent_json: Mapping[str, Any], endpoints_json: Mapping[str, Mapping[str, Any]], saved_at: datetime
) -> None:
    """Write the resources as the server sent them. Raises StoreError when the disk does not take them."""
    endpoints = {reference: dict(endpoint) for reference, endpoint in endpoints_json.items()}
    content = msgspec.json.format(msgspec.json.encode(_File(VERSION, saved_at, dict(agent_json), endpoints)))
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
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
        return LastGood(read_agent(file.agent), endpoints, file.saved_at)
    except (msgspec.DecodeError, UnicodeDecodeError, UnreadableResource):
        return _damaged(path, "the last good configuration is damaged")


class _Version(msgspec.Struct, frozen=True):
    version: int


def _damaged(path: Path, text: str) -> Finding:
    remedy = "nothing, if the server can be reached: it is written again then; else bring the server back"
    return Finding("plan.last-good-unusable", Severity.WARNING, text, remedy, str(path))
