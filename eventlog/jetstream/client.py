"""The client of the library, which sends no secret in clear, and says which file is wrong."""

from __future__ import annotations

import importlib.util
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats
import nats.errors

from eventlog.errors import InvalidConfig, NotSupported
from eventlog.jetstream.address import Address
from eventlog.jetstream.answers import AnswerParser, Take

if TYPE_CHECKING:
    Base = Any
else:
    Base = nats.NATS


class Client(Base):  # type: ignore[misc]  # the library has no types
    """One connection's client, for a log at that address."""

    def __init__(self, address: Address) -> None:
        super().__init__()
        self._address = address
        self._ps = AnswerParser(self)

    async def connect(self, *servers: Any, **options: Any) -> None:
        """Connect.

        Raises:
            NotSupported, InvalidConfig: a file that says who asks cannot be used.
            nats.errors.Error, OSError, TimeoutError: as the library says.
        """
        who = self._address.credentials
        named = {"NATS_CREDS": who.creds_file, "NATS_NKEY": who.nkey_file}
        files = {setting: file for setting, file in named.items() if file is not None}
        for setting, file in files.items():
            self._check_file(setting, file)
        try:
            await super().connect(*servers, **options)
        except (OSError, nats.errors.Error):
            raise
        except Exception as error:
            if not files:
                raise  # a fault of ours
            # For a file of other contents the library raises anything, also TypeError.
            raise InvalidConfig(
                f"the file that {' or '.join(files)} names for {self._address.path} holds no key"
                f" ({type(error).__name__}); give one that nsc or nk has made",
                path=self._address.path,
            ) from None

    def _check_file(self, setting: str, file: str) -> None:
        if importlib.util.find_spec("nkeys") is None:
            raise NotSupported(
                f"{setting} needs the package nkeys, which is not installed; install"
                " eventlog[jetstream]",
                path=self._address.path,
                engine="jetstream",
            )
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise InvalidConfig(
                f"the file that {setting} names for {self._address.path} cannot be read: {error};"
                f" check {setting} in the environment",
                path=self._address.path,
            ) from None

    async def take(self, subject: str, take: Take) -> Any:
        """Subscribe; each message is handed over as soon as it comes. `leave` ends it."""
        subscription = await self.subscribe(subject)
        self._ps.takers[_number_of(subscription)] = take
        return subscription

    async def leave(self, subscription: Any) -> None:
        """End what `take` has begun."""
        self._ps.takers.pop(_number_of(subscription), None)
        await subscription.unsubscribe()

    async def close(self) -> None:
        """Close it, whether it was ever connected or not."""
        if self._transport is not None:
            await super().close()

    def _connect_command(self) -> bytes:
        """What says who asks; the library sends it, also to a server that speaks no TLS."""
        if self._address.is_tls and not self._server_info.get("tls_required"):
            raise ssl.SSLError("the server speaks no TLS, and would get all of it in clear")
        command: bytes = super()._connect_command()
        return command


def _number_of(subscription: Any) -> bytes:
    """As it stands before each of its messages."""
    return b"%d" % subscription._id


def is_distrust(error: Exception) -> bool:
    """Whether the two sides could not agree, and not just lost their connection."""
    lost = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    return isinstance(error, ssl.SSLError) and not isinstance(error, lost)
