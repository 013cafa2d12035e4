"""Deleting the oldest events of a log on a server, whose driver can."""

from __future__ import annotations

from typing import cast

from eventlog.api.operated import Trimmed
from eventlog.api.positions import SeekPosition
from eventlog.api.refusals import no_operation, not_acknowledged
from eventlog.remote.driver import DriverThatTrims
from eventlog.remote.handle import RemoteHandle


async def trim(handle: RemoteHandle, position: SeekPosition, *, force: bool) -> Trimmed:
    """Delete what is before the position.

    Raises:
        NotSupported: the engine cannot.
        NotAcknowledged: a consumer needs it; nothing is deleted.
    """
    if not hasattr(handle.driver, "trim"):
        raise no_operation("trim", handle.path)
    driver = cast("DriverThatTrims", handle.driver)
    wanted = await handle.resolve(position)
    state = await handle.state()
    before = min(wanted, state.last + 1)
    if before > state.first:
        if not force:
            await _check_acknowledged(handle, before)
        await handle.calls.repeated(lambda: driver.trim(before))
        first, state = state.first, await handle.state()
        return Trimmed(deleted=state.first - first, first_available=state.first)
    return Trimmed(deleted=0, first_available=state.first)


async def _check_acknowledged(handle: RemoteHandle, before: int) -> None:
    positions = await handle.calls.repeated(handle.driver.positions)
    behind = min(((one.position, name) for name, one in positions.items()), default=None)
    if behind is not None and behind[0] < before - 1:
        raise not_acknowledged(handle.path, behind[1], behind[0] + 1, before - 1)
