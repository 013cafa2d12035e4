"""What the errors of the client library mean for a user; no credential is ever in the text."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from coredis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ReadOnlyError,
    ResponseError,
    WrongTypeError,
)

from eventlog.errors import (
    LogDeleted,
    LogFull,
    NotALog,
    NotSupported,
    PermissionDenied,
    StorageFailed,
)
from eventlog.redis.address import PASSWORD, USER
from eventlog.remote.driver import Unreachable

_TRY_AGAIN = ("BUSY", "LOADING", "MASTERDOWN", "NOREPLICAS", "TRYAGAIN", "UNKILLABLE", "READONLY")
"""How answers begin that say: not now."""


def refusal_of(error: Exception, path: str) -> Exception:
    """What to raise in place of the library's error."""
    text = str(error)
    if isinstance(error, AuthenticationError) or "WRONGPASS" in text:
        return PermissionDenied(
            f"the server of {path} refuses user and password; give them in the address or as"
            f" {USER} and {PASSWORD} in the environment",
            path=path,
        )
    if isinstance(error, AuthorizationError):
        return PermissionDenied(
            f"the user may not do what the log {path} needs: {text}; allow it (ACL SETUSER)",
            path=path,
        )
    if isinstance(error, WrongTypeError):
        return NotALog(f"a key of {path} holds something else; choose another stream", path=path)
    distrusts = list(filter(_is_distrust, _chain_of(error)))
    if distrusts:  # the first one is what the others came from
        return PermissionDenied(
            f"no secure connection to the server of {path}: {distrusts[-1]}; check ca, cert and key"
            " in the address, and whether the server speaks TLS",
            path=path,
        )
    if not isinstance(error, ResponseError) or isinstance(error, ReadOnlyError):
        return Unreachable(f"the server of {path} does not answer: {text or type(error).__name__}")
    return _of_answer(text, path)


def _chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it came from."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from _chain_of(one)
        error = error.__cause__ or error.__context__


def _is_distrust(error: BaseException) -> bool:
    """Whether the two sides could not agree, and not just lost their connection."""
    lost = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    others = (*lost, ssl.SSLWantReadError, ssl.SSLWantWriteError)
    if not isinstance(error, ssl.SSLError) or isinstance(error, others):
        return False
    return error.reason != "SHUTDOWN_WHILE_IN_INIT"  # what closing the rest of it says


def _of_answer(text: str, path: str) -> Exception:
    if text.startswith(_TRY_AGAIN):
        return Unreachable(f"the server of {path} cannot serve now: {text}")
    if "OOM" in text or "MISCONF" in text:
        return LogFull(
            f"the server of {path} takes no more: {text}; give it memory or disk (maxmemory), or"
            " the log a retention",
            path=path,
        )
    if "invalid DB index" in text or "DB index is out of range" in text:
        return NotSupported(f"the server of {path} has no such database: {text}", path=path)
    return StorageFailed(f"the server of {path} failed: {text}", path=path)


def deleted(path: str) -> LogDeleted:
    """The log that the handle had opened is gone, or another one is in its place."""
    return LogDeleted(
        f"the log {path} was deleted from its server, or replaced by another one, while it was in"
        " use; open it again",
        path=path,
    )
