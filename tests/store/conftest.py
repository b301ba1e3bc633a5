"""What the tests of the store room share: a disk that can be told to fail, and somebody whom the spool tells things."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_disk import Disk, Told


@pytest.fixture
def disk() -> Iterator[Disk]:
    it = Disk()
    yield it
    it.free()
    it.resume()
    for thread in threading.enumerate():  # what hung in this disk goes on with it, and ends before it does
        if thread.name.startswith("spool-"):
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the spool of this test lies."""
    return tmp_path / "spool.db"
