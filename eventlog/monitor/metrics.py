"""Metrics of logs for Prometheus, read from them at each scrape; needs prometheus-client.

===========================================  ======================================================
`eventlog_up`                                1 if the log answered this scrape
`eventlog_first_seq_no`, `_last_seq_no`      the numbers of the first and last event
`eventlog_bytes`, `_segments`                what is stored
`eventlog_consumer_position`, `_lag`,        of each consumer, by name
`_lag_seconds`
`eventlog_group_position`, `_lag`,           of each group, by name; `_lag_seconds` is the age of
`_lag_seconds`, `_in_flight`, `_members`,    the oldest event that is not acknowledged
`_dead_letters`, `_redelivered_total`
`eventlog_member_handled_total`,             of each member of a group, by its process
`_failed_total`, `_in_flight`
`eventlog_writer_NAME`                       what the writer counts: the fields of
                                             `WriterStatistics`; `_total` if they only grow
`eventlog_writer_cpu_seconds_total`,         of the writer's process
`_resident_memory_bytes`
===========================================  ======================================================

All have the label `log`. The names of positions and lags are those of kafka_exporter, without its
prefix. What an engine does not know is left out.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import fields
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from eventlog.api.statistics import WriterStatistics
from eventlog.errors import EventLogError, InvalidArgument
from eventlog.monitor.history import History
from eventlog.monitor.sample import Sample, Sampler, opened_to_look
from eventlog.monitor.views import ReaderView

NOW: Final = {"uptime_s", "waiting", "parked", "unsynced", "in_flight", "postponed", "connections"}
"""The fields of `WriterStatistics` that also shrink."""
UNITS: Final = {"uptime_s": "uptime_seconds", "sync_s": "sync_seconds"}
NOT_SHOWN: Final = {"longest_sync_s"}
"""A maximum since the start tells nothing over time; the sum and the number of syncs do."""


class LogCollector(Collector):
    """Asks logs at each scrape; between two of them it holds nothing open."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = list(dict.fromkeys(addresses))

    def collect(self) -> Iterable[Metric]:
        """The metrics of this moment."""
        found: dict[str, Metric] = {}
        # One that does not answer takes a while, in which the others have.
        with ThreadPoolExecutor(len(self._addresses)) as threads:
            for address, sample in zip(
                self._addresses, threads.map(_sample_of, self._addresses), strict=True
            ):
                families = _Families(address, found)
                families.gauge("up", int(sample is not None))
                if sample is not None:
                    families.add_sample(sample)
        return found.values()


def _sample_of(address: str) -> Sample | None:
    """The log at this moment; `None` if it does not answer."""
    try:
        with opened_to_look(address) as log, closing(Sampler(log)) as sampler:
            return sampler.take()
    except EventLogError:
        return None


class _Families:
    """Metrics by their names, each with a value for each set of labels; adds those of a log."""

    def __init__(self, address: str, found: dict[str, Metric]) -> None:
        self.found = found
        self._address = address

    def gauge(self, name: str, value: float | None, **labels: str) -> None:
        self._add(GaugeMetricFamily, name, value, labels)

    def counter(self, name: str, value: float | None, **labels: str) -> None:
        self._add(CounterMetricFamily, name, value, labels)

    def _add(
        self,
        kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        value: float | None,
        labels: dict[str, str],
    ) -> None:
        if value is None:
            return
        full = f"eventlog_{name}"
        if full not in self.found:
            self.found[full] = kind(full, _help(name), labels=["log", *labels])
        self.found[full].add_metric([self._address, *labels.values()], value)  # type: ignore[attr-defined]  # both kinds have it

    def add_sample(self, sample: Sample) -> None:
        view = History().add(sample)
        for name in ("first_seq_no", "last_seq_no", "bytes", "segments"):
            self.gauge(name, getattr(view, name))
        for consumer in view.consumers:
            self._add_reader("consumer", consumer)
        for group in view.groups or ():
            self._add_reader("group", group)
            for name in ("in_flight", "members", "dead_letters"):
                self.gauge(f"group_{name}", getattr(group, name), group=group.name)
            self.counter("group_redelivered", group.redeliveries, group=group.name)
            for member in group.working or ():
                labels = {"group": group.name, "pid": str(member.pid)}
                self.counter("member_handled", member.handled, **labels)
                self.counter("member_failed", member.failed, **labels)
                self.gauge("member_in_flight", member.in_flight, **labels)
        if sample.writer is not None:
            self._add_writer(sample.writer)
        if sample.process is not None:
            self.counter("writer_cpu_seconds", sample.process.cpu_s)
            self.gauge("writer_resident_memory_bytes", sample.process.rss_bytes)

    def _add_reader(self, kind: str, reader: ReaderView) -> None:
        labels = {kind: reader.name}
        self.gauge(f"{kind}_position", reader.position, **labels)
        self.gauge(f"{kind}_lag", reader.lag, **labels)
        self.gauge(f"{kind}_lag_seconds", reader.lag_s, **labels)

    def _add_writer(self, writer: WriterStatistics) -> None:
        for field in fields(writer):
            if field.name not in NOT_SHOWN:
                add = self.gauge if field.name in NOW else self.counter
                name = UNITS.get(field.name, field.name)
                add(f"writer_{name}", getattr(writer, field.name))


def _help(name: str) -> str:
    return name.replace("_", " ")


def place_of(text: str) -> tuple[str, int]:
    """`HOST:PORT`, or `:PORT` for this machine alone.

    Raises:
        InvalidArgument: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or len(port) > 5 or int(port) > 65_535:
        raise InvalidArgument(
            f"{text!r} is no place for metrics: give HOST:PORT, as 0.0.0.0:9464, or :9464 for this"
            " machine alone"
        )
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


@contextmanager
def serving_metrics(addresses: Sequence[str], place: str) -> Iterator[int]:
    """Serve the metrics of logs there, at every path, in a thread; gives the port.

    Raises:
        InvalidArgument: the place is none, or something else is served there.
    """
    host, port = place_of(place)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LogCollector(addresses))
    # The threads of the server leave signals to the main one, which may be about to change what
    # they do (see `local.writer.__main__`).
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise InvalidArgument(f"no metrics can be served at {place}: {error.strerror}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
