"""The screen of `eventlog top`; needs textual.

===========  =================================================================
`app`        the screen itself: logs, readers, workers, and its keys
`watching`   threads that look at the logs and carry actions out
`dialogs`    questions: a place to seek to, a filter, yes or no; the help
`letters`    the dead letters of a group
`events`     the events of a log, and one of them whole
===========  =================================================================
"""

from __future__ import annotations

from contextlib import ExitStack

from eventlog.monitor.screen.app import Top
from eventlog.monitor.screen.watching import Watched


def show(logs: list[str], interval_s: float) -> None:
    """Show logs until the user has seen enough.

    Raises:
        EventLogError: one of them cannot be opened.
    """
    with ExitStack() as stack:
        watched = []
        for address in logs:
            watched.append(Watched(address))
            stack.callback(watched[-1].close)
        Top(watched, interval_s).run()
