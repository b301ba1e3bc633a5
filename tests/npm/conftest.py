"""Medplum's CLI, and a hub for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from medplum_cli import Cli

from agent.hub import Hub


@pytest.fixture
def cli(node: str, node_modules: Path, tmp_path: Path) -> Cli:
    home = tmp_path / "home"
    home.mkdir()
    return Cli(node, node_modules / "@medplum" / "cli" / "dist" / "cjs" / "index.cjs", home)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0)) as hub:
        yield hub


@pytest.fixture
async def logged_in(cli: Cli, hub: Hub) -> Cli:
    """The CLI after `medplum login`."""
    await cli.log_in(hub)
    return cli
