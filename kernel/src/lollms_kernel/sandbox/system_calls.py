"""Forbids this process to start others, by a filter of system calls (Linux seccomp).

A limit on the number of processes would not do: it counts all processes of a user, and does not bind root. The filter
refuses fork, vfork, clone without a thread's flags, clone3 (with "not implemented", so that the C library falls back
to clone for threads), exec in every form, and signals to anybody else, all with "operation not permitted". It is
inherited and cannot be taken off.

Numbers: the tables `unistd_64.h` (x86-64) and `asm-generic/unistd.h` (AArch64) of Linux, `linux/filter.h`,
`linux/seccomp.h`, `linux/audit.h`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_MODE_FILTER = 2

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_EPERM = 1
_ENOSYS = 38
_CLONE_THREAD = 0x00010000
_X32_BIT = 0x40000000

_ARCHITECTURES = {
    "x86_64": (
        0xC000003E,
        {
            "clone": 56,
            "clone3": 435,
            "refused": (57, 58, 59, 322, 101, 310, 311),  # fork vfork execve execveat ptrace process_vm_*
            "signals": (62, 200, 129, 297, 234, 424),  # kill tkill sigqueueinfo tgsigqueueinfo tgkill pidfd
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "clone": 220,
            "clone3": 435,
            "refused": (221, 281, 117, 270, 271),  # execve execveat ptrace process_vm_*
            "signals": (129, 130, 138, 240, 131, 424),
        },
    ),
}

# Classes and modes of the filter's instructions.
_LOAD_WORD = 0x20
_JUMP_EQUAL = 0x15
_JUMP_AT_LEAST = 0x35
_JUMP_SET = 0x45
_RETURN = 0x06

_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in `struct seccomp_data`; of the 64-bit argument the low half, on little-endian machines."""

Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def forbid_processes() -> bool:
    """Put the filter into force for all threads that this one starts; False where this system has none."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES or sys.byteorder != "little":
        return False
    program = b"".join(struct.pack("=HBBI", *step) for step in _filter(platform.machine(), os.getpid()))
    buffer = ctypes.create_string_buffer(program, len(program))
    header = _Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(header), 0, 0) == 0)


def _filter(machine: str, pid: int) -> list[Instruction]:
    architecture, calls = _ARCHITECTURES[machine]
    clone, clone3 = calls["clone"], calls["clone3"]
    refused, signals = calls["refused"], calls["signals"]
    assert isinstance(clone, int) and isinstance(clone3, int)
    assert isinstance(refused, tuple) and isinstance(signals, tuple)
    steps: list[Instruction] = [
        (_LOAD_WORD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _ERRNO | _EPERM),  # another architecture's calls have other numbers
        (_LOAD_WORD, 0, 0, _NUMBER),
        (_JUMP_AT_LEAST, 0, 1, _X32_BIT),  # so have those of x32
        (_RETURN, 0, 0, _ERRNO | _EPERM),
    ]
    for number in refused:
        steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    steps += [(_JUMP_EQUAL, 0, 1, clone3), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    steps += [
        (_JUMP_EQUAL, 0, 4, clone),
        (_LOAD_WORD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_SET, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    for number in signals:
        steps += [
            (_JUMP_EQUAL, 0, 4, number),
            (_LOAD_WORD, 0, 0, _FIRST_ARGUMENT),
            (_JUMP_EQUAL, 1, 0, pid),
            (_RETURN, 0, 0, _ERRNO | _EPERM),
            (_RETURN, 0, 0, _ALLOW),
        ]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]
