"""A system that refuses calls: seccomp, as containers use it."""

from __future__ import annotations

import ctypes
import struct

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
RETURN, LOAD, JUMP_IF_EQUAL = 0x06, 0x20, 0x15
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PIDFD_OPEN = 434
"""The same number on every architecture."""
STARTING = (56, 57, 58, 435)
"""clone, fork, vfork, clone3 of x86-64: what starts threads and processes."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse(call: int, errno: int) -> None:
    """From now on the call fails with that error, here and in processes that are started here."""
    lines = [
        (LOAD, 0, 0, 0),  # the number of the call
        (JUMP_IF_EQUAL, 0, 1, call),
        (RETURN, 0, 0, ERRNO | errno),
        (RETURN, 0, 0, ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *line) for line in lines)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(lines), code)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "this system does not let us refuse a call")
