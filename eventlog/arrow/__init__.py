"""Ranges of events as Arrow tables: what pandas, polars, DuckDB and pyarrow read without copying.

==============  =========================================================================
`rows`          events of many small batches together, and their fields in columns
`alike`         those columns of packed events that are alike, without an object of Python; pure
`decoding`      the payloads of all others, packed until they are decoded
`columns`       a column of either of them; pure
`beside`        what stands beside an event: number, times, key and headers; in columns
`types`         the type that all values of a column have; pure
`shape`         which columns there are, learned from the rows
`passes`        a first pass that learns, and mostly is all; else a second one
`files`         a range as CSV, Parquet or Arrow's own file
`tables`        what a caller gets: a stream, or a table
`asynchronous`  the same, for trio and asyncio
==============  =========================================================================

It needs pyarrow, and so is imported only by what uses it (see `eventlog.api.data`).
"""
