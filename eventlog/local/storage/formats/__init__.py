"""What lies in a log's files, byte by byte: layouts and decisions, all of it pure.

=================  ========================================================================
`layout`           fixed binary layouts as data
`format`           segments, record batches and index entries: their bytes
`recovery`         what a segment holds, and what a crash left
`range_sums`       checksums of ranges that overlap
`producers`        which batches were stored already
`changed_options`  the options in the control page that were changed later
`offset_format`    the bytes of the offset table
`key_runs`         the entries of an index by key, in the making
`refusals`         the wording of what is refused
=================  ========================================================================
"""
