"""What DPAPI makes of a secret comes back as it was, on its machine; elsewhere a sentence says why not."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.settings.dpapi import Blob, Crypt32, DpapiRefusal, of_this_system, protect, unprotect
from agent.settings.safekeeping import unwrapped, wrapped

UI_FORBIDDEN, LOCAL_MACHINE = 1, 4


class Machine:
    """crypt32.dll and kernel32.dll of one machine, as far as they are called; its memory is counted."""

    def __init__(self, name: bytes = b"a") -> None:
        self.name = name
        self.memory: dict[int, Any] = {}
        self.flags: list[int] = []
        self.crypt32 = Crypt32(self.protect, self.unprotect, self.free, lambda: 13)

    def protect(self, source: Any, *rest: Any) -> int:
        return self._answer(source, rest, lambda plain: self.name + bytes(byte ^ 0x5A for byte in plain))

    def unprotect(self, source: Any, *rest: Any) -> int:
        def turn_back(protected: bytes) -> bytes | None:
            if not protected.startswith(self.name):
                return None
            return bytes(byte ^ 0x5A for byte in protected[len(self.name) :])

        return self._answer(source, rest, turn_back)

    def free(self, address: int) -> None:
        del self.memory[address]

    def _answer(self, source: Any, rest: Any, turn: Any) -> int:
        *nothing, flags, target = rest
        assert nothing == [None] * 4
        self.flags.append(flags)
        given = source._obj
        result = turn(ctypes.string_at(given.data, given.size))
        if result is None:
            return 0
        buffer = ctypes.create_string_buffer(result, max(len(result), 1))
        address = ctypes.addressof(buffer)
        self.memory[address] = buffer
        target._obj.size, target._obj.data = len(result), address
        return 1


@given(st.binary(max_size=200))
def test_any_bytes_come_back_and_all_memory_is_given_back(plain: bytes) -> None:
    machine = Machine()

    protected = protect(plain, machine.crypt32)

    assert unprotect(protected, machine.crypt32) == plain
    assert machine.memory == {}
    if plain:
        assert plain not in protected or len(plain) < 4


def test_what_one_user_protects_another_user_of_the_machine_can_use_and_nobody_is_asked() -> None:
    machine = Machine()

    unprotect(protect(b"x", machine.crypt32), machine.crypt32)

    assert machine.flags == [UI_FORBIDDEN | LOCAL_MACHINE, UI_FORBIDDEN]


def test_another_machine_refuses_with_the_error_number_and_a_remedy() -> None:
    protected = protect(b"s3cret", Machine(b"a").crypt32)
    other = Machine(b"b")

    with pytest.raises(DpapiRefusal, match="error 13") as refused:
        unprotect(protected, other.crypt32)

    assert "set-secret" in refused.value.hint
    assert other.memory == {}


def test_a_system_without_it_says_so() -> None:
    for call in (protect, unprotect):
        with pytest.raises(DpapiRefusal) as refused:
            call(b"s3cret", None)
        assert refused.value.hint
        assert "s3cret" not in str(refused.value)


@pytest.mark.skipif(sys.platform == "win32", reason="there it is")
def test_only_windows_has_it() -> None:
    assert of_this_system() is None


def test_the_file_of_a_protected_secret_is_text_that_does_not_show_it() -> None:
    machine = Machine()

    content = wrapped("s3crét", machine.crypt32)

    assert content.startswith(b"dpapi:")
    assert content.isascii()
    assert b"s3cr" not in content
    assert unwrapped(content, machine.crypt32).decode() == "s3crét"


@given(
    st.text(st.characters(exclude_categories=["C"]), min_size=1).filter(lambda secret: not secret.startswith("dpapi:"))
)
def test_the_file_of_a_bare_secret_is_the_secret(secret: str) -> None:
    assert unwrapped(wrapped(secret, None)) == secret.encode() + b"\n"


@pytest.mark.parametrize("content", [b"dpapi:%%%", b"dpapi:AAA"])
def test_a_damaged_file_is_refused_in_a_sentence(content: bytes) -> None:
    with pytest.raises(DpapiRefusal, match="damaged"):
        unwrapped(content, Machine().crypt32)


def test_the_structure_is_that_of_wincrypt() -> None:
    assert [name for name, _ in Blob._fields_] == ["size", "data"]
    assert Blob.data.offset == ctypes.sizeof(ctypes.c_void_p)
