"""Events as MessagePack: one map for each, one after the other, as any MessagePack library reads.

The fields are those of `records`, in that order; `id` is 16 bytes, as is the `log_id` of a `cause`,
and `timestamp` an integer, nanoseconds since 1970, as are `not_before` and `expires`. `event` is
the payload as the log stores it: times are MessagePack's timestamps, a UUID is extension type 1,
and type 3, without data, says that the event marks its key as deleted. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgpack

from eventlog.errors import InvalidArgument, InvalidArgumentType, InvalidEvent
from eventlog.event.cause import packed_cause
from eventlog.event.envelope import EventEnvelope
from eventlog.event.payload import DELETION, new_packer, unpack, with_packed_arrays
from eventlog.tools.transfer.records import TIMES, check_fields, envelope_from

RECORD_BYTES_MAX: Final = 1 << 30
"""More than any event of any log; a length beyond it is no MessagePack of ours."""


def new_record_packer() -> Callable[[EventEnvelope], bytes]:
    """A function that packs one envelope; not to be shared between threads."""
    pack = new_packer()

    def pack_record(envelope: EventEnvelope) -> bytes:
        fields: dict[str, Any] = {
            "seq_no": envelope.seq_no,
            "id": envelope.id.bytes,
            "timestamp": envelope.timestamp_ns,
        }
        if envelope.key is not None:
            fields["key"] = envelope.key
        if envelope.headers is not None:
            fields["headers"] = envelope.headers
        if (cause := envelope.cause) is not None:
            fields["cause"] = packed_cause(cause)
        if any(due := envelope.due):
            fields |= {name: ns for name, ns in zip(TIMES, due, strict=True) if ns}
        event = DELETION if envelope.is_deletion else with_packed_arrays(envelope.event)
        fields["event"] = event
        return pack(fields)

    return pack_record


class RecordReader:
    """Splits a stream of bytes, fed in pieces of any size, into records."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(max_buffer_size=RECORD_BYTES_MAX)
        self._rest = bytearray()
        self._start = 0
        """The offset in the stream of the first byte of `_rest`."""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self._unpacker.feed(data)
        self._rest += data

    def records(self) -> Iterator[bytes]:
        """The bytes of each record that is complete."""
        while True:
            try:
                self._unpacker.skip()
            except msgpack.OutOfData:
                return
            except (ValueError, msgpack.UnpackException):
                return  # what is left is no MessagePack, which whoever reads it will find
            end = self._unpacker.tell()
            yield bytes(self._rest[: end - self._start])
            del self._rest[: end - self._start]
            self._start = end

    def rest(self) -> list[bytes]:
        """What is left of a record that the stream ended in the middle of, if it did."""
        return [bytes(self._rest)] if self._rest else []


def envelope_of_record(data: bytes) -> EventEnvelope:
    """The event of a record.

    Raises:
        InvalidEvent: the bytes are not one; the message says why.
    """
    try:
        record = check_fields(unpack(data))
        identity, ns = record.get("id"), record.get("timestamp")
        if not isinstance(identity, bytes | None):
            raise InvalidEvent(f"its id is {identity!r:.60} instead of 16 bytes")
        if ns is not None and (not isinstance(ns, int) or isinstance(ns, bool)):
            raise InvalidEvent(f"its timestamp is {ns!r:.60} instead of nanoseconds")
        return envelope_from(record, identity, ns)
    except InvalidEvent:
        raise
    except (InvalidArgument, InvalidArgumentType) as error:
        raise InvalidEvent(str(error)) from error
    except (ValueError, TypeError) as error:
        raise InvalidEvent(f"it cannot be read: {error}") from error
