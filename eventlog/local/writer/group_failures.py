"""What becomes of an event whose handler failed: the one place where that is decided."""

from __future__ import annotations

from eventlog.errors import ProtocolError
from eventlog.local.groups.state import GroupState
from eventlog.local.writer.group_store import GroupStore


def end_failed(
    store: GroupStore,
    state: GroupState,
    lease_id: int,
    seq_no: int,
    letter: bytes,
    due_ns: int,
    *,
    is_final: bool,
) -> bool:
    """Make the event a dead letter, or keep it until it is due; whether it waits for that.

    An event that used up its deliveries without a letter is condemned, and a pool rejects it.

    Raises:
        ProtocolError: a last failure without a letter.
    """
    if is_final and not letter:
        raise ProtocolError("a last failure without a dead letter")
    if letter and (is_final or state.is_last_delivery(seq_no)):
        store.bury(state, lease_id, seq_no, letter)
        return False
    store.commit(state, "failed", lease_id, seq_no)
    state.suspects.discard(seq_no)  # its worker has outlived it
    if seq_no in state.condemned:
        return False
    state.delay(seq_no, due_ns)
    return True
