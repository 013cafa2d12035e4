"""What a seek would change: "billing: 41,213 -> 40,000, 1,213 events again, first of 12:03:11"."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from eventlog import blocking
from eventlog.api.positions import SeekPosition, check_name
from eventlog.errors import EventsTruncated


@dataclass(frozen=True, slots=True, kw_only=True)
class SeekPreview:
    """A consumer's position now and after a seek: the numbers before its next events."""

    consumer: str
    before: int
    after: int
    first_stored_at: datetime | None
    """When the next event was stored, if it is there."""

    def __str__(self) -> str:
        """One line."""
        change = f"{self.consumer}: {self.before:,} -> {self.after:,}"
        moved = self.after - self.before
        if not moved:
            return f"{change}, nothing changes"
        events = f"{abs(moved):,} event{'' if abs(moved) == 1 else 's'}"
        what = f"{events} again" if moved < 0 else f"{events} passed over"
        if self.first_stored_at is None:
            return f"{change}, {what}, then it waits"
        return f"{change}, {what}, first of {self.first_stored_at.astimezone():%Y-%m-%d %H:%M:%S}"


def preview_seek(log: blocking.EventLog, consumer: str, position: SeekPosition) -> SeekPreview:
    """What `log.seek(consumer, position)` would change if it were called now.

    Raises:
        InvalidName, InvalidArgumentType: the consumer's name is none.
    """
    check_name(consumer)
    before = next((one.last_acked or 0 for one in log.consumers() if one.name == consumer), 0)
    first, next_seq_no = _bounds(log)
    stored_at = None
    if position.kind == "last_acknowledged":
        following = before + 1
    elif position.kind == "sequence":
        following = max(position.value, 1)
    elif position.kind == "beginning":
        following = first
    elif position.kind == "latest":
        following = next_seq_no
    else:
        with log.subscribe(consumer, position, follow=False, on_truncated="skip") as stream:
            following = next((one.seq_no or 0 for one in stream), next_seq_no)
    if first <= following < next_seq_no:
        try:
            stored_at = next((one.stored_at for one in log.read(following, following + 1)), None)
        except EventsTruncated:  # retention was faster
            stored_at = None
    return SeekPreview(
        consumer=consumer, before=before, after=following - 1, first_stored_at=stored_at
    )


def _bounds(log: blocking.EventLog) -> tuple[int, int]:
    status = log.status()
    next_seq_no = (status.last_seq_no or 0) + 1
    return status.first_seq_no or next_seq_no, next_seq_no
