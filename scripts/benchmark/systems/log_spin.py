"""This log, with a subscriber that asks again and again before it sleeps (`subscribe(spin=)`)."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from benchmark.systems.log import BlockingLog

SPIN_S: Final = 0.01
"""Longer than between two events of a thousand a second: it never sleeps."""


class SpinningLog(BlockingLog):
    """As `BlockingLog`, with `spin=`."""

    options: ClassVar[dict[str, Any]] = {"spin": SPIN_S}
