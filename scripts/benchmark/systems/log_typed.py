"""This log, with events decoded into a class of the user's (`subscribe(type=)`)."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import msgspec

from benchmark.systems.log import BlockingLog


class Order(msgspec.Struct):
    """The dict that is sent, as a class."""

    order: int
    customer: str
    items: list[str]
    total: float
    paid: bool
    currency: str
    note: str


class TypedLog(BlockingLog):
    """As `BlockingLog`; the consumer gets instances of `Order`."""

    options: ClassVar[dict[str, Any]] = {"type": Order}

    @staticmethod
    def plain(event: Any) -> Any:
        """The dict."""
        return msgspec.to_builtins(event)


typed_log_batched = partial(TypedLog, in_batches=True)
