"""A log as the persistence of the `eventsourcing` package (9.5 and later).

::

    PERSISTENCE_MODULE=eventlog.eventsourcing
    EVENTLOG_PATH=/var/lib/orders          the log of an application's events; an address too

Snapshots lie in a second log, `PATH-snapshots`, and what a projection has processed in a third one,
`PATH-tracking`. Each stored event is an event of the log, so that any reader of the log has them:
its key is `aggregate:` and the id of the aggregate, its payload `[id, version, topic, state]`. What
an application has processed of another one is an event `{"notification_id": n}` of the key
`tracking:` and the other one's name, in the batch of the events that came of it. The id of a
notification is the number of its event.

Events are appended with `expect=`: a version that is stored already is an `IntegrityError`, whoever
else appends at the time, in this process and in others. So the engine has to have that; a directory
and `memory:` do.

=============  ========================================
`recorders`    what stores and finds events
=============  ========================================
"""

from __future__ import annotations

import threading
from typing import Final

from eventlog import blocking
from eventlog.api.extras import check_extra

check_extra("eventsourcing", "eventlog.eventsourcing needs")

# What is missing was told.
from eventsourcing.persistence import (  # noqa: E402
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    InfrastructureFactoryError,
    ProcessRecorder,
)
from eventsourcing.utils import Environment, resolve_topic  # noqa: E402

from eventlog.eventsourcing.recorders import (  # noqa: E402
    LogAggregateRecorder,
    LogApplicationRecorder,
    LogProcessRecorder,
    LogTrackingRecorder,
    translated,
)

__all__ = [
    "LogAggregateRecorder",
    "LogApplicationRecorder",
    "LogFactory",
    "LogProcessRecorder",
    "LogTrackingRecorder",
]

MEMORY: Final = "memory:"


class LogFactory(InfrastructureFactory[LogTrackingRecorder]):
    """Makes recorders whose logs are open until `close`."""

    PATH: Final = "EVENTLOG_PATH"

    def __init__(self, env: Environment | dict[str, str] | None) -> None:
        super().__init__(env)
        self._logs: dict[str, blocking.EventLog] = {}
        self._opening = threading.Lock()

    def _log(self, ending: str = "") -> blocking.EventLog:
        """The log of that purpose; several recorders have the same one."""
        path = self.env.get(self.PATH)
        if not path:
            raise InfrastructureFactoryError(f"{self.PATH} is not set; give the path of a log")
        if path != MEMORY:  # else each log that is opened is another one
            path = path.rstrip("/") + ending
        with self._opening, translated():
            if ending not in self._logs:
                self._logs[ending] = blocking.open(path)
            return self._logs[ending]

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """The recorder of snapshots, or of another purpose; each has a log of its own."""
        return LogAggregateRecorder(self._log("" if purpose == "events" else f"-{purpose}"))

    def application_recorder(self) -> ApplicationRecorder:
        """The recorder of an application's events."""
        return LogApplicationRecorder(self._log())

    def tracking_recorder(
        self, tracking_recorder_class: type[LogTrackingRecorder] | None = None
    ) -> LogTrackingRecorder:
        """The recorder of a projection."""
        topic = self.env.get(self.TRACKING_RECORDER_TOPIC)
        if tracking_recorder_class is None:
            tracking_recorder_class = resolve_topic(topic) if topic else LogTrackingRecorder
        assert tracking_recorder_class is not None
        return tracking_recorder_class(self._log("-tracking"))

    def process_recorder(self) -> ProcessRecorder:
        """The recorder of an application that follows others."""
        return LogProcessRecorder(self._log())

    def close(self) -> None:
        """Close the logs."""
        with self._opening:
            logs, self._logs = self._logs, {}
        for log in logs.values():
            log.close()
