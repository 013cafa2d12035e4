"""`Pool(type=...)`: handlers that are given events of a type."""

from __future__ import annotations

import sys
from typing import Any, Final

import msgspec

from eventlog import EventEnvelope, EventTypeMismatch, InvalidArgumentType
from workers.handlers import Handler, wants_envelope

NOT_A_TYPE: Final = "give a type that msgspec can convert to: a Struct, a dataclass, dict[str, int]"


class Typed:
    """A handler behind the conversion of its event; given envelopes, whatever the handler takes."""

    def __init__(self, handler: Handler, kind: Any) -> None:
        self.func = handler
        """Named as in `functools.partial`: what tells whether calling it gives a coroutine."""
        self._kind = kind
        self._wants_envelope = wants_envelope(handler)

    def __call__(self, envelope: EventEnvelope) -> Any:
        """Convert, and call the handler.

        Raises:
            EventTypeMismatch: the event is not of the type.
        """
        event = self._converted(envelope)
        return self.func(envelope.__replace__(event=event) if self._wants_envelope else event)

    def _converted(self, envelope: EventEnvelope) -> Any:
        if envelope.is_deletion:
            return None
        try:
            if self._kind is memoryview:
                return memoryview(envelope.event)
            return msgspec.convert(envelope.event, self._kind, dec_hook=_array_of)
        except (msgspec.ValidationError, TypeError) as error:
            raise EventTypeMismatch(
                f"event {envelope.seq_no} is not of the type that the pool was given: {error}",
                seq_no=envelope.seq_no,
            ) from error


def _array_of(kind: Any, value: Any) -> Any:
    """A numpy array, which msgspec asks for, of the view that an event holds."""
    wanted = getattr(kind, "__origin__", kind)
    if (wanted.__module__, wanted.__name__) != ("numpy", "ndarray") or type(
        value
    ) is not memoryview:
        raise TypeError(f"Expected `{wanted.__name__}`, got `{type(value).__name__}`")
    return sys.modules["numpy"].asarray(value)


def check_type(kind: Any) -> None:
    """Pass if events can be converted to it; `None` leaves them as they are.

    Raises:
        InvalidArgumentType: they cannot.
    """
    if kind is None or kind is memoryview or isinstance(kind, str):  # a name, for the workers
        return
    if kind is msgspec.Raw:
        raise InvalidArgumentType("type=msgspec.Raw is for streams; leave it out, or give a type")
    try:
        # What it can be converted to is looked at when it is, so something is.
        msgspec.convert(None, kind, dec_hook=_array_of)
    except msgspec.ValidationError:
        return
    except (TypeError, NameError) as error:
        raise InvalidArgumentType(f"type={kind!r}; {NOT_A_TYPE} ({error})") from error
