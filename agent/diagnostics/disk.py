"""The disk under the spool.

Secret: which file systems do not keep what they promised, what the reserve is, and who must be able to write where.
Promise: nothing is written to find out; what is told is what the agent would meet.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psutil

from agent.diagnostics.check import Looked
from agent.diagnostics.host import Host
from agent.errors import Finding, Severity
from agent.settings import SpoolSettings
from agent.store.sqlite import low_on_space

SOON_LOW: Final = 4  # times the reserve
_NETWORK: Final = frozenset(
    {
        *("9p", "afp", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"),
        *("smb2", "smb3", "smbfs", "virtiofs"),
        *("fuse.ceph", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    }
)
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_LAYER: Final = frozenset({"overlay", "aufs"})


async def look(host: Host) -> Looked:
    return await host.threads.run(lambda: _judge(host))


def _judge(host: Host) -> Looked:
    min_free_bytes = (host.settings.spool if host.settings is not None else SpoolSettings()).min_free_mb << 20
    folder = _existing(host.paths.spool.parent)
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        text = f"the disk of {folder} does not say how it is: {error.strerror or error}"
        return Looked("", (Finding("disk.unreadable", Severity.ERROR, text, "check the disk", str(folder)),))
    kind, options = file_system(folder)
    findings = [
        *_space(host.paths.spool, folder, usage.total, usage.free, min_free_bytes),
        *_kind(kind, options, folder),
        *(_mount(folder) or _folders(host)),
    ]
    named = f" on {kind}" if kind else ""
    text = f"{_amount(usage.free)} of {_amount(usage.total)} free{named}, {folder}{_owner(folder)}"
    return Looked(text, tuple(findings))


def _amount(size_bytes: int) -> str:
    mib = size_bytes / (1 << 20)
    return f"{mib:.0f} MiB" if mib < 10_000 else f"{mib / 1024:.0f} GiB"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there and that we may see."""
    return next((place for place in (folder, *folder.parents) if os.path.exists(place)), folder)


# ---- space


def _space(spool: Path, folder: Path, total: int, free: int, min_free_bytes: int) -> Iterable[Finding]:
    reserve = min(min_free_bytes, total // 10)
    trouble = low_on_space(spool, min_free_bytes, already=False) if os.path.exists(spool) else None
    remedy = f"free space on the disk that holds {folder}; messages are accepted again by themselves"
    if trouble is not None or free < reserve:
        text = f"only {free >> 20} MiB are free: no message is accepted below {reserve >> 20} MiB"
        yield Finding("disk.full", Severity.ERROR, text, remedy, str(folder))
    elif free < SOON_LOW * reserve:
        text = f"only {free >> 20} MiB are free; below {reserve >> 20} MiB no message is accepted any more"
        remedy = f"free space on the disk that holds {folder}, or give the spool another disk (spool.dir)"
        yield Finding("disk.low", Severity.WARNING, text, remedy, str(folder))
    if sys.platform != "win32":
        facts = os.statvfs(folder)
        if facts.f_files and not facts.f_favail:
            text = "no further file can be made: the file system has no free inode"
            yield Finding("disk.no-inodes", Severity.ERROR, text, "delete files on this disk", str(folder))


# ---- kind


def file_system(folder: Path) -> tuple[str, str]:
    """Its type and its mount options; empty where the operating system does not say."""
    try:
        partitions = psutil.disk_partitions(all=True)
        real = folder.resolve()
    except (psutil.Error, OSError):
        return "", ""
    holding = [entry for entry in partitions if entry.mountpoint and real.is_relative_to(entry.mountpoint)]
    if not holding:
        return "", ""
    # of mounts on one place the last one is what is seen
    _, found = max(enumerate(holding), key=lambda entry: (len(Path(entry[1].mountpoint).parts), entry[0]))
    return found.fstype, found.opts


def _kind(kind: str, options: str, folder: Path) -> Iterable[Finding]:
    where = str(folder)
    lowered = kind.lower()
    if lowered in _NETWORK or "remote" in options.split(","):
        text = (
            f"the spool lies on a network share ({kind}): its locks and its promise to have written cannot be relied on"
        )
        yield Finding("disk.network", Severity.WARNING, text, "name a folder on a local disk in spool.dir", where)
    elif lowered in _MEMORY:
        text = f"the spool lies in memory ({kind}): every message in it is lost when this host restarts"
        yield Finding("disk.memory", Severity.WARNING, text, "name a folder on a local disk in spool.dir", where)
    elif lowered in _LAYER:
        text = f"the spool lies inside a container's own layer ({kind}): it goes when the container is replaced"
        yield Finding("disk.container", Severity.WARNING, text, f"mount a volume at {folder}", where)


def _mount(folder: Path) -> tuple[Finding, ...]:
    if sys.platform == "win32" or not os.statvfs(folder).f_flag & os.ST_RDONLY:
        return ()
    text = "the disk is mounted read-only: no message can be accepted"
    remedy = "look into the system log for the reason, then remount it writable"
    return (Finding("disk.read-only", Severity.ERROR, text, remedy, str(folder)),)


# ---- who may write


def _folders(host: Host) -> Iterable[Finding]:
    paths = host.paths
    for folder in dict.fromkeys((paths.data_dir, paths.spool.parent, paths.logs_dir)):
        place = _existing(folder)
        if not os.access(place, os.W_OK | os.X_OK):
            what = "may not be written" if place == folder else f"cannot be seen or made in {place}"
            text = f"the folder {folder} {what} by this command's user"
            remedy = "give it to the agent's user; or run this command as that user, if it may write there"
            yield Finding("disk.not-writable", Severity.ERROR, text, remedy, str(folder))
    if sys.platform == "win32":
        return
    for folder in dict.fromkeys((paths.data_dir, paths.spool.parent)):
        try:
            facts = folder.stat()
        except OSError:
            continue  # not there yet, or told above
        if facts.st_mode & 0o007 and not facts.st_mode & stat.S_ISVTX:
            text = f"every user of this host may enter the folder of the messages (mode {facts.st_mode & 0o777:o})"
            yield Finding("disk.open-to-others", Severity.WARNING, text, f"chmod 750 {folder}", str(folder))
        yield from _strangers(folder, facts.st_uid, paths.spool)


def _strangers(folder: Path, owner: int, spool: Path) -> Iterable[Finding]:
    """Files that another user left, say by starting the agent once by hand: the service could not write them."""
    if spool.parent != folder:
        return
    for file in (spool, *(spool.with_name(spool.name + suffix) for suffix in ("-wal", "-shm"))):
        try:
            found = file.stat().st_uid
        except OSError:
            continue
        if found != owner:
            text = f"{file.name} belongs to {user_name(found)}, its folder to {user_name(owner)}"
            remedy = f"chown {user_name(owner)} {file}"
            yield Finding("disk.owner", Severity.WARNING, text, remedy, str(file))


def _owner(folder: Path) -> str:
    if sys.platform == "win32":
        return ""
    try:
        facts = folder.stat()
    except OSError:
        return ""
    return f" ({user_name(facts.st_uid)}, mode {facts.st_mode & 0o777:o})"


def user_name(uid: int) -> str:
    """The user's name, or the number where it has none."""
    if sys.platform == "win32":
        return str(uid)
    import pwd  # not on Windows

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
