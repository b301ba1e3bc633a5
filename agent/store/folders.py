"""Changes of a folder that survive power loss.

Secret: where a folder has to be synced for a new name in it to be on the platter, and where it cannot be.
Promise: once `sync_folder` returned, every file that was made, renamed or deleted in the folder before is so after a
power loss; on Windows the file system's own journal answers for that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path


def sync_folder(folder: Path, sync: Callable[[int], None] = os.fsync) -> None:
    """Have the names in a folder on the platter, where a folder can be opened. Raises OSError."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
