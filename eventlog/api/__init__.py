"""What a log is, whichever engine stores it: the ground that engines and users stand on.

===================  ====================================================================
`log`                a log, for trio and asyncio
`event_stream`       what its readers hold: a stream, and a range of stored events
`log_of_groups`      its part that is about groups
`operated`           its part that is about options and what is kept
`publisher`          its publishers
`blocking_log`       the same without an event loop
`group`              groups, members, leases, dead letters and reports, in both colours
`status`             what a log tells of itself: `LogStatus`
`statistics`         what a log, its streams, publishers and writer have counted
`positions`          where a consumer is, and where a subscription starts
`stream_options`     how a subscription reads
`latest`             where the latest event of a key is looked for
`expectation`        what a conditional append expects; pure
`log_of_tables`      its part that is about tables, in both colours
`table`              a mapping that follows a log, for trio and asyncio
`blocking_table`     the same without an event loop
`table_rows`         what is in it, and in its snapshot; pure
`table_file`         the file of a snapshot
`arguments`          checks of arguments that several engines take
`refusals`           the wording of what every engine refuses
`opening`            `eventlog.open`: its options, checked together
`engines`            which engine an address means, and which options it takes
`over_async`         a blocking log over an engine that has only the asynchronous one
`over_async_groups`  groups of such a blocking log
`portal`             a thread with an event loop, for programs without one
`loops`              the event loop that an asynchronous handle belongs to
`times`              the clock for what is stored, which no jump misleads
`blocking_range`     what `read` gives without an event loop: an iterator, and a table
`data`               a log's part that is about tables of Arrow and data frames, in both colours
`extras`             what an extra brings, and what says how to install one that is missing
`streams`            streams and ranges over whatever gives the next batch
`batches`            batches on their way, those of one call, and handles of their events; pure
`publisher_block`    the end of a publisher's block, on trio and asyncio
`leaving`            how long a publisher's block is flushed at its end, and what is told then
`waiting`            what is said of appends that wait for room
`forks`              which side of a fork this process is on
===================  ====================================================================

Nothing here imports an engine but `engines`, and that only when an address asks for it.
"""
