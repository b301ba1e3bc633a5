"""Windows' data protection (DPAPI): bytes that only this machine can turn back.

Secret: how `CryptProtectData` and `CryptUnprotectData` of crypt32.dll are called: blobs in, blobs out, whose memory is
given back with `LocalFree`.
Promise: importable everywhere; where there is no DPAPI, or where it refuses, `DpapiRefusal` says so in one sentence.
What is protected is bound to the machine and not to a user, since a service and the administrator who sets it up are
different users; who may read the file is the file's own business.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.errors import AgentError

_UI_FORBIDDEN = 0x1  # CRYPTPROTECT_UI_FORBIDDEN: a service has no desktop to ask on
_LOCAL_MACHINE = 0x4  # CRYPTPROTECT_LOCAL_MACHINE
_ELSEWHERE = "it is protected by Windows, and this is another system"


class DpapiRefusal(AgentError):
    """The bytes cannot be protected or turned back here."""


class Blob(ctypes.Structure):
    """DATA_BLOB of wincrypt.h: how many bytes, and where."""

    _fields_ = (("size", ctypes.c_uint32), ("data", ctypes.c_void_p))


@dataclass(frozen=True, slots=True)
class Crypt32:
    """The far end. `protect` and `unprotect` take the arguments of CryptProtectData and CryptUnprotectData, and return
    0 for a failure, of which `last_error` is the number; `free` is LocalFree."""

    protect: Callable[..., int]
    unprotect: Callable[..., int]
    free: Callable[[Any], object]
    last_error: Callable[[], int]


def of_this_system() -> Crypt32 | None:
    """None where there is no DPAPI."""
    if sys.platform == "win32":
        crypt32 = ctypes.WinDLL("crypt32", use_last_error=True)
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        for call in (crypt32.CryptProtectData, crypt32.CryptUnprotectData):
            blob, address = ctypes.POINTER(Blob), ctypes.c_void_p
            call.argtypes = (blob, address, address, address, address, ctypes.c_uint32, blob)
            call.restype = ctypes.c_int
        kernel32.LocalFree.argtypes = (ctypes.c_void_p,)
        kernel32.LocalFree.restype = ctypes.c_void_p
        return Crypt32(
            crypt32.CryptProtectData, crypt32.CryptUnprotectData, kernel32.LocalFree, lambda: ctypes.get_last_error()
        )
    else:  # noqa: RET505 - mypy takes what follows an early return for unreachable
        return None


def protect(plain: bytes, system: Crypt32 | None) -> bytes:
    """Bytes that `unprotect` turns back, on this machine. Raises DpapiRefusal."""
    if system is None:
        raise DpapiRefusal("this system has no DPAPI", hint="keep the secret in a file of mode 0600")
    return _through(system.protect, plain, _UI_FORBIDDEN | _LOCAL_MACHINE, system, "Windows did not protect it")


def unprotect(protected: bytes, system: Crypt32 | None) -> bytes:
    """What was protected on this machine. Raises DpapiRefusal."""
    if system is None:
        raise DpapiRefusal(_ELSEWHERE, hint="set the secret on this host with `agent config set-secret`")
    return _through(system.unprotect, protected, _UI_FORBIDDEN, system, "Windows did not turn it back")


def _through(call: Callable[..., int], given: bytes, flags: int, system: Crypt32, failed: str) -> bytes:
    buffer = ctypes.create_string_buffer(given, len(given))
    source = Blob(len(given), ctypes.cast(buffer, ctypes.c_void_p))
    result = Blob()
    try:
        if not call(ctypes.byref(source), None, None, None, None, flags, ctypes.byref(result)):
            raise DpapiRefusal(
                f"{failed} (error {system.last_error()})",
                hint="a secret that was set on another machine must be set here, with `agent config set-secret`",
            )
        try:
            return ctypes.string_at(result.data, result.size)
        finally:
            ctypes.memset(result.data, 0, result.size)
            system.free(result.data)
    finally:
        ctypes.memset(buffer, 0, len(given))  # neither the plain bytes nor a copy of them stay in memory
