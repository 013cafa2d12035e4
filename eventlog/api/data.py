"""What a log gives to data people: ranges of events as tables and data frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING, Any

from eventlog.errors import NotSupported

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from eventlog.api.blocking_range import EventRange as BlockingEventRange
    from eventlog.api.event_stream import EventRange


class LogOfData(ABC):
    """Its part of an `EventLog`."""

    @abstractmethod
    def read(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        key: str | None = None,
    ) -> EventRange:
        """See `EventLog.read`."""

    async def to_arrow(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        key: str | None = None,
    ) -> pyarrow.Table:
        """The events of a range as a table of pyarrow; the arguments of `read`, or none for all.

        Its columns are those that `eventlog.blocking.EventRange` has.

        Raises:
            NotSupported: pyarrow is not installed.
            InvalidArgument, InvalidArgumentType, EventsTruncated, CorruptLog: as `read`.
        """
        check_installed("pyarrow", "arrow")
        from eventlog.arrow.asynchronous import table_of

        start = _all_unless((start, stop, since, until, key))
        events = self.read(start, stop, since=since, until=until, key=key)
        return await table_of(events._decoded)

    async def to_pandas(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        key: str | None = None,
    ) -> pandas.DataFrame:
        """The events of a range as a DataFrame of pandas; see `to_arrow`."""
        check_installed("pandas", "pandas")
        from anyio import to_thread

        table = await self.to_arrow(start, stop, since=since, until=until, key=key)
        return await to_thread.run_sync(_pandas_of, table)

    async def to_polars(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        key: str | None = None,
    ) -> polars.DataFrame:
        """The events of a range as a DataFrame of polars; see `to_arrow`."""
        check_installed("polars", "polars")
        return _polars_of(await self.to_arrow(start, stop, since=since, until=until, key=key))


class BlockingLogOfData(ABC):
    """The same, for threads."""

    @abstractmethod
    def read(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        key: str | None = None,
    ) -> BlockingEventRange:
        """See `EventLog.read`."""

    def to_arrow(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        key: str | None = None,
    ) -> pyarrow.Table:
        """The events of a range as a table of pyarrow; see `eventlog.EventLog.to_arrow`."""
        check_installed("pyarrow", "arrow")
        from eventlog.arrow.tables import table_of

        start = _all_unless((start, stop, since, until, key))
        return table_of(self.read(start, stop, since=since, until=until, key=key)._read)

    def to_pandas(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        key: str | None = None,
    ) -> pandas.DataFrame:
        """The events of a range as a DataFrame of pandas; see `eventlog.EventLog.to_arrow`."""
        check_installed("pandas", "pandas")
        return _pandas_of(self.to_arrow(start, stop, since=since, until=until, key=key))

    def to_polars(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        key: str | None = None,
    ) -> polars.DataFrame:
        """The events of a range as a DataFrame of polars; see `eventlog.EventLog.to_arrow`."""
        check_installed("polars", "polars")
        return _polars_of(self.to_arrow(start, stop, since=since, until=until, key=key))


def _all_unless(bounds: tuple[Any, ...]) -> int | None:
    """Where to start: at the first event if there are no bounds."""
    start: int | None = bounds[0]
    return 0 if bounds.count(None) == len(bounds) else start


def _pandas_of(table: pyarrow.Table) -> pandas.DataFrame:
    return table.to_pandas(maps_as_pydicts="strict")


def _polars_of(table: pyarrow.Table) -> polars.DataFrame:
    import polars

    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)
    return frame


def check_installed(library: str, extra: str) -> None:
    """Import a library that an extra brings.

    Raises:
        NotSupported: it is not installed.
    """
    from importlib import import_module

    try:
        import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise NotSupported(
            f"this needs {library}: pip install 'eventlog[{extra}]'", option=extra
        ) from error
