"""How a subscription reads: the options of `subscribe`, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from eventlog.errors import InvalidArgument, InvalidArgumentType
from eventlog.event.filters import EventFilter
from eventlog.event.record_batch import Decode, decoder_for

OnTruncated = Literal["error", "skip"]
SPIN_S_MAX: Final = 60.0
"""More is a mistake in the unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """What `subscribe` was asked for (see there).

    Raises:
        InvalidArgument, InvalidArgumentType: it makes no sense.
    """

    follow: bool = True
    on_truncated: OnTruncated = "error"
    type: Any = None
    spin: float = 0.0
    verify: bool = True
    durable_only: bool = False
    keys: Collection[str] | None = None
    key_prefix: str | None = None
    headers: Mapping[str, str] | None = None
    decode: Decode = field(init=False)
    """What turns the body of a batch into its columns."""
    filter: EventFilter | None = field(init=False)
    """Which events are wanted, by keys, prefix and headers; `None` if all are."""

    def __post_init__(self) -> None:
        """Check everything."""
        if self.on_truncated not in get_args(OnTruncated):
            raise InvalidArgument(f'on_truncated={self.on_truncated!r}; give "error" or "skip"')
        for name in ("follow", "verify", "durable_only"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise InvalidArgumentType(f"{name}={value!r}; give True or False")
        if isinstance(self.spin, bool) or not isinstance(self.spin, int | float):
            raise InvalidArgumentType(f"spin={self.spin!r}; give seconds")
        if not 0 <= self.spin <= SPIN_S_MAX:
            raise InvalidArgument(f"spin={self.spin}; give seconds, 0 to {SPIN_S_MAX:.0f}")
        object.__setattr__(self, "decode", decoder_for(self.type))
        wanted = EventFilter.of(self.keys, self.key_prefix, self.headers)
        object.__setattr__(self, "filter", wanted)
