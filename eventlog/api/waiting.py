"""What the program's own log says: of appends that wait for room, of options that differ."""

from __future__ import annotations

from typing import Final

SLOW_S: Final = 1.5
"""How long an append waits before it is said. A batch of a pipe that is unanswered at two looks in
a row has waited at least that long."""


def warn_of_options(differing: list[str]) -> None:
    """Log that a log has other options by now than the program asks for."""
    if differing:
        import logging  # a program that asks for none need not load it

        for sentence in differing:
            logging.getLogger("eventlog").warning("%s", sentence)


def warn_of_wait(path: str, consumer: tuple[str, int] | None) -> None:
    """Log that appends wait, and for whom."""
    import logging  # a program whose appends never wait need not load it

    reason = "its writer has not answered"
    if consumer is not None:
        reason = (
            f"retention keeps what the consumer {consumer[0]!r} has not acknowledged, from event"
            f" {consumer[1]} on; acknowledge, forget the consumer, or raise the limit"
        )
    logging.getLogger("eventlog").warning("appends to the log %s wait for room: %s", path, reason)
