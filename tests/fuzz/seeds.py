"""The bytes that fuzzing begins with: every message, and every file of the kept logs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from msgspec.structs import replace

from eventlog.event.payload import new_packer
from eventlog.local.storage.reading.ranges import read_range
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.wire.connection import frame
from eventlog.local.wire.messages import Append, Message
from eventlog.testing import batch_of
from eventlog.tools.transfer.json_lines import line_of
from eventlog.tools.transfer.packed import new_record_packer
from tests.fuzz.targets import GOLDEN, INDEX, SEGMENT, TARGETS, payloads_in
from tests.golden.make import ODD
from tests.messages import FROM_CLIENT, FROM_WRITER, HELLO, WELCOME

FILES: Final = {
    "segment": SEGMENT,
    "index": INDEX,
    **{name: name for name in ("control", "offsets", "producers", "members", "groups", "dead")},
}
LOGS: Final = ("groups", "killed", "orderly")


def seeds() -> dict[str, list[bytes]]:
    """The first inputs of every target."""
    found = {name: _files(*name.split("-")) for name in TARGETS if _is_file(name)}
    told = _conversation()
    found["pipe-to-writer"] = [b"".join(map(frame, [HELLO, *told]))]
    found["pipe-to-client"] = [b"".join(map(frame, [WELCOME, *FROM_WRITER]))]
    found["writer-pipe"] = [b"".join(map(frame, told))]
    found["writer-messages"] = [b"".join(frame(message)[4:] for message in told)]
    pack = new_packer()
    found["payload"] = [pack(value) for value in ODD]
    found["body"] = [bytes([count]) + data for count, data in payloads_in(str(GOLDEN / "killed"))]
    log = LogReader(str(GOLDEN / "killed"))
    envelopes = [one for batch in read_range(log, 0, None) for one in batch]
    found["imported-line"] = [line_of(one).encode() for one in envelopes]
    found["imported-records"] = [b"".join(map(new_record_packer(), envelopes))]
    log.close()
    return found


def _is_file(target: str) -> bool:
    return target.startswith(("file-", "sealed-"))


def _files(how: str, kind: str) -> list[bytes]:
    """Sealed ones may be of any log; else they are of that which they are put into."""
    places = [GOLDEN / log / FILES[kind] for log in (LOGS if how == "sealed" else LOGS[:1])]
    return [Path(place).read_bytes().rstrip(b"\0") for place in places if place.exists()]


def _conversation() -> list[Message]:
    """Everything that a client may say, with batches that can be read."""
    batch = batch_of("a", [1, 2], {"b": None})
    append = Append(1, 2, 1, batch.count, batch.flags, 0, batch.payload)
    return [append, replace(append, producer_seq=2), *FROM_CLIENT]
