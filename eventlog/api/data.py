"""What a log gives to data people: ranges of events as tables and data frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING, TypedDict, Unpack

from eventlog.api.arguments import Bounds
from eventlog.api.extras import check_extra

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from eventlog.api.blocking_range import EventRange as BlockingEventRange
    from eventlog.api.event_stream import EventRange


class RangeOptions(TypedDict, total=False):
    """Arguments that `read` takes by name."""

    since: datetime | None
    until: datetime | None
    key: str | None


class LogOfData(ABC):
    """Its part of an `EventLog`."""

    @abstractmethod
    def _read(self, bounds: Bounds) -> EventRange:
        """See `EventLog._read`."""

    async def to_arrow(
        self, start: int | None = None, stop: int | None = None, **options: Unpack[RangeOptions]
    ) -> pyarrow.Table:
        """The events of a range as a table of pyarrow.

        The arguments are those of `read`: `start` and `stop`, or `since=` and `until=`, and `key=`;
        without any, it is all that is stored. Its columns are those that
        `eventlog.blocking.EventRange` has.

        Raises:
            NotSupported: pyarrow is not installed.
            InvalidArgument, InvalidArgumentType, EventsTruncated, CorruptLog: as `read`.
        """
        check_extra("arrow", "to_arrow needs")
        from eventlog.arrow.asynchronous import table_of

        return await table_of(self._read(_bounds(start, stop, **options))._decoded)

    async def to_pandas(
        self, start: int | None = None, stop: int | None = None, **options: Unpack[RangeOptions]
    ) -> pandas.DataFrame:
        """The events of a range as a DataFrame of pandas; see `to_arrow`."""
        check_extra("pandas", "to_pandas needs")
        from anyio import to_thread

        return await to_thread.run_sync(_pandas_of, await self.to_arrow(start, stop, **options))

    async def to_polars(
        self, start: int | None = None, stop: int | None = None, **options: Unpack[RangeOptions]
    ) -> polars.DataFrame:
        """The events of a range as a DataFrame of polars; see `to_arrow`."""
        check_extra("polars", "to_polars needs")
        return _polars_of(await self.to_arrow(start, stop, **options))


class BlockingLogOfData(ABC):
    """The same, for threads."""

    @abstractmethod
    def _read(self, bounds: Bounds) -> BlockingEventRange:
        """See `EventLog._read`."""

    def to_arrow(
        self, start: int | None = None, stop: int | None = None, **options: Unpack[RangeOptions]
    ) -> pyarrow.Table:
        """The events of a range as a table of pyarrow; see `eventlog.EventLog.to_arrow`."""
        check_extra("arrow", "to_arrow needs")
        from eventlog.arrow.tables import table_of

        return table_of(self._read(_bounds(start, stop, **options))._read)

    def to_pandas(
        self, start: int | None = None, stop: int | None = None, **options: Unpack[RangeOptions]
    ) -> pandas.DataFrame:
        """The events of a range as a DataFrame of pandas; see `eventlog.EventLog.to_arrow`."""
        check_extra("pandas", "to_pandas needs")
        return _pandas_of(self.to_arrow(start, stop, **options))

    def to_polars(
        self, start: int | None = None, stop: int | None = None, **options: Unpack[RangeOptions]
    ) -> polars.DataFrame:
        """The events of a range as a DataFrame of polars; see `eventlog.EventLog.to_arrow`."""
        check_extra("polars", "to_polars needs")
        return _polars_of(self.to_arrow(start, stop, **options))


def _bounds(
    start: int | None,
    stop: int | None,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    key: str | None = None,
) -> Bounds:
    """Those of a range that begins at the first event if nothing is asked for."""
    if (start, stop, since, until, key) == (None, None, None, None, None):
        start = 0
    return Bounds.of(start, stop, since, until, key)


def _pandas_of(table: pyarrow.Table) -> pandas.DataFrame:
    return table.to_pandas(maps_as_pydicts="strict")


def _polars_of(table: pyarrow.Table) -> polars.DataFrame:
    import polars

    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)
    return frame
