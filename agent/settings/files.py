"""Files that people write by hand, as they are met.

Secret: what may be wrong with such a file before its content matters: not there, not ours to read, not UTF-8, open to
others.
Promise: nothing here raises for the state of a file; each trouble is a finding that names the file and the remedy.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

from agent.errors import Finding, Severity

_OTHERS_MAY_READ = 0o137  # what is wider than 0640


def is_there(path: Path, findings: list[Finding]) -> bool:
    """Whether to read it; a folder that may not be entered is a finding, since its file might say everything."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as failed:
        remedy = "check who may enter the folders above it"
        findings.append(error("settings.unreadable", str(path), f"it cannot be looked at: {failed.strerror}", remedy))
        return False


def read_text(path: Path, findings: list[Finding], *, fallback: str = "") -> str | None:
    try:
        content = path.read_bytes()
    except OSError as failed:
        findings.append(
            error(
                "settings.unreadable",
                str(path),
                f"the file cannot be read: {failed.strerror}",
                "check the path and who may read it",
            )
        )
        return None
    try:
        return content.decode("utf-8-sig")  # Notepad puts a byte order mark in front
    except UnicodeDecodeError as wrong:
        if fallback:
            return content.decode(fallback, errors="replace")
        findings.append(
            error("settings.not-utf8", str(path), f"the file is not UTF-8 at byte {wrong.start}", "save it as UTF-8")
        )
        return None


def check_mode(path: Path, findings: list[Finding], holds: str = "the client secret") -> None:
    """Windows keeps access in lists that its mode bits do not show, so only POSIX modes are judged."""
    if sys.platform == "win32":
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS_MAY_READ:
        text, remedy = f"the file holds {holds} and has mode {mode:04o}", "chmod 0600 (or 0640 with the agent's group)"
        findings.append(warning("settings.secret-readable", str(path), text, remedy))


def error(code: str, where: str, text: str, remedy: str) -> Finding:
    return Finding(code, Severity.ERROR, text, remedy, where)


def warning(code: str, where: str, text: str, remedy: str) -> Finding:
    return Finding(code, Severity.WARNING, text, remedy, where)
