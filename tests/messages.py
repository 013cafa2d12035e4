"""One example of each message of the protocol, made from its declaration."""

from __future__ import annotations

from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from msgspec import Meta

from eventlog.errors import LogFull
from eventlog.local.wire.connection import Connection, frame
from eventlog.local.wire.messages import (
    HELLO_MAGIC,
    PROTOCOL_VERSION,
    Failed,
    FromClient,
    FromWriter,
    Hello,
    Message,
    Welcome,
    failed,
)
from eventlog.local.wire.table import MESSAGES, Role

PLAIN: Final[dict[type, Any]] = {str: "name", bytes: b"bytes", memoryview: b"payload"}


def example(kind: type[Message]) -> Message:
    """A message of the kind: each field has its declared example, or else a value of its type."""
    if kind is Failed:
        return failed(1, LogFull("why", path="p"))
    hints = get_type_hints(kind, include_extras=True)
    fields = enumerate(kind.__struct_fields__, 1)
    return kind(*(_value(hints[name], place) for place, name in fields))


def _value(hint: Any, place: int) -> Any:
    if get_origin(hint) is Annotated:
        plain, *notes = get_args(hint)
        examples = [note.examples for note in notes if isinstance(note, Meta) and note.examples]
        return examples[-1][0] if examples else _value(plain, place)
    return place if hint is int else PLAIN[hint]


EXAMPLES: Final = {kind: example(kind) for kind in MESSAGES.values()}
HELLO: Final = Hello(HELLO_MAGIC, PROTOCOL_VERSION, 100)
WELCOME: Final = Welcome(PROTOCOL_VERSION, 200, 3, bytes(16))
FROM_CLIENT: Final = [
    one for one in EXAMPLES.values() if isinstance(one, FromClient) and not isinstance(one, Hello)
]
FROM_WRITER: Final = [
    one for one in EXAMPLES.values() if isinstance(one, FromWriter) and not isinstance(one, Welcome)
]


def speaker_of(message: Message) -> Role:
    """The side that says it."""
    return Role.CLIENT if isinstance(message, FromClient) else Role.WRITER


def heard(message: Message) -> Message:
    """What the other end makes of it."""
    return heard_bytes(
        frame(message), speaker_of(message), is_open=not isinstance(message, Hello | Welcome)
    )


def heard_bytes(data: bytes, speaker: Role, *, is_open: bool = True) -> Message:
    """What the other end makes of one frame.

    Raises:
        ProtocolError: nothing.
    """
    end = Connection(Role.WRITER if speaker is Role.CLIENT else Role.CLIENT, 1 << 24)
    if is_open:
        list(end.receive(frame(HELLO if speaker is Role.CLIENT else WELCOME)))
    (message,) = end.receive(data)
    return message
