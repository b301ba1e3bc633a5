"""A secret in a file of its own: as it is read, and as it is kept best on this system.

Secret: what such a file looks like: the bare text, or on Windows what DPAPI made of it, and the owner and mode it gets.
Promise: a secret goes from here into a `Reading` or into its file, and into no finding, error or other file. What is
written is whole or not there: a new file takes the place of the old one, private from its first byte.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from agent.errors import ConfigError, Finding
from agent.settings.dpapi import Crypt32, DpapiRefusal, of_this_system, protect, unprotect
from agent.settings.files import check_mode, error, read_text

_MARK = "dpapi:"  # what follows is base64


def read_secret(path: Path, findings: list[Finding], holds: str = "the client secret") -> str | None:
    """The secret from a file of its own, without the line end that editors add; None if a finding says why not."""
    content = read_text(path, findings)
    if content is None:
        return None
    if not content.strip():
        findings.append(error("settings.empty-secret", str(path), "the file is empty", f"write {holds} into it"))
        return None
    check_mode(path, findings, holds)
    try:
        return unwrapped(content.strip().encode()).decode()
    except (DpapiRefusal, UnicodeDecodeError) as refused:
        text = f"{holds} cannot be read: {refused}" if isinstance(refused, DpapiRefusal) else "this is no text"
        remedy = (refused.hint if isinstance(refused, DpapiRefusal) else "") or "set the secret anew"
        findings.append(error("settings.protected-secret", str(path), text, remedy))
        return None


def unwrapped(content: bytes, system: Crypt32 | None = None) -> bytes:
    """The content of a secret's file without the protection of DPAPI, if it has that. Raises DpapiRefusal."""
    mark = _MARK.encode()
    if not content.startswith(mark):
        return content
    try:
        protected = base64.b64decode(content[len(mark) :].strip(), validate=True)
    except binascii.Error:
        text = "it begins like a secret that Windows protects, and what follows is damaged"
        raise DpapiRefusal(text, hint="set the secret anew with `agent config set-secret`") from None
    return unprotect(protected, system or of_this_system())


def wrapped(secret: str, system: Crypt32 | None) -> bytes:
    """The content of the file that keeps this secret: behind DPAPI where there is one. Raises DpapiRefusal."""
    if system is None:
        return secret.encode() + b"\n"
    return _MARK.encode() + base64.b64encode(protect(secret.encode(), system)) + b"\n"


def keep_secret(path: Path, secret: str) -> None:
    """Put it into its file. Raises ConfigError, which does not quote it."""
    try:
        content = wrapped(secret, of_this_system())
    except DpapiRefusal as refused:
        raise ConfigError([error("settings.not-protected", str(path), str(refused), refused.hint)]) from None
    write_private(path, content)


def write_private(path: Path, content: bytes, *, most: int = 0o640) -> None:
    """Replace the file, or make it, in one step. Raises ConfigError.

    A new file has the mode 0600, an existing one keeps its owner, and of its mode what `most` has. Set up by root, a
    new file goes to the owner of the folder; in a folder of root's that a group shares, as /etc/onprem-agent of a
    service, that group may read it (0640).
    """
    made: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        handle, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600, whatever the umask
        with os.fdopen(handle, "wb") as file:
            _hand_over(file.fileno(), path, most)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(made, path)
        made = None
        _sync_folder(path.parent)
    except OSError as failed:
        text, remedy = f"the file cannot be written: {failed.strerror}", "give the command as who may write there"
        raise ConfigError([error("settings.not-written", str(path), text, remedy)]) from failed
    finally:
        if made is not None:
            with contextlib.suppress(OSError):
                os.unlink(made)


def _hand_over(handle: int, path: Path, most: int) -> None:
    """Give the new file, 0600 and ours, to whom it belongs; as far as this user may."""
    if sys.platform == "win32":
        return  # a file inherits its access list from the folder
    with contextlib.suppress(OSError):
        if path.exists():
            facts = path.stat()
            mode = stat.S_IMODE(facts.st_mode) & most | 0o600
        elif os.geteuid() == 0:
            facts = path.parent.stat()
            mode = 0o640 if facts.st_uid == 0 and facts.st_gid != 0 else 0o600
        else:
            return
        os.fchown(handle, facts.st_uid, facts.st_gid)
        os.fchmod(handle, mode)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return  # NTFS writes the names of files to its own log
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
