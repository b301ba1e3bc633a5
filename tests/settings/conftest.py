from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from agent.settings import Reading, Settings, read

FOUR: dict[str, object] = {
    "base_url": "https://fhir.example.org",
    "client_id": "client-1",
    "client_secret": "s3cret",
    "agent_id": "agent-1",
}


@dataclass
class Host:
    """A host whose folders and environment belong to the test."""

    folder: Path
    four: ClassVar[Mapping[str, object]] = FOUR

    @property
    def config_dir(self) -> Path:
        return self.folder / "config"

    @property
    def cwd(self) -> Path:
        return self.folder / "cwd"

    def environ(self, extra: Mapping[str, str]) -> dict[str, str]:
        return {
            "AGENT_CONFIG_DIR": str(self.config_dir),
            "AGENT_DATA_DIR": str(self.folder / "data"),
            **extra,
        }

    def write(self, name: str, content: str | bytes, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    def load(self, argv: Mapping[str, object] = FOUR, **environ: str) -> Settings:
        return Settings.load(argv, self.environ(environ), self.cwd)

    def read(self, argv: Mapping[str, object] = FOUR, **environ: str) -> Reading:
        return read(argv, self.environ(environ), self.cwd)

    def codes(self, argv: Mapping[str, object] = FOUR, **environ: str) -> list[str]:
        return [finding.code for finding in self.read(argv, **environ).findings]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.config_dir.mkdir()
    made.cwd.mkdir()
    return made
